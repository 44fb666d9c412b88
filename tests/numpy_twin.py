"""PyTorch twins of the NumPy layers, with the same weights: an independent judge. Images differ in layout only."""

import numpy as np
import torch
from taught import taught
from torch import nn

from helpers import numpy_cnn as cnn
from helpers.numpy_cnn.layers import BatchNorm


def rng(seed=0):
    return np.random.default_rng(seed)


def to_torch(array):
    """Return a copy of an array as a tensor, images (N, H, W, C) as (N, C, H, W)."""
    tensor = torch.from_numpy(array.copy())
    return tensor.permute(0, 3, 1, 2).contiguous() if tensor.ndim == 4 else tensor


def to_numpy(tensor):
    """Return a tensor as an array, images (N, C, H, W) as (N, H, W, C)."""
    tensor = tensor.detach()
    return (tensor.permute(0, 2, 3, 1) if tensor.ndim == 4 else tensor).numpy()


def weight_to_torch(array):
    """Return a weight, or its gradient, in PyTorch's layout: outputs first, (out, in, kh, kw) or (out, in)."""
    tensor = torch.from_numpy(array.copy())
    return tensor.permute(3, 2, 0, 1) if tensor.ndim == 4 else tensor.T if tensor.ndim == 2 else tensor


class ChannelsLastFlatten(nn.Flatten):
    """Flattens in the order of the NumPy network, channels last."""

    def forward(self, x):
        return super().forward(x.permute(0, 2, 3, 1))


def twin(layer, images=True):
    """Return the PyTorch module that should do the same as ``layer``, whose input is images or rows."""
    match layer:
        case cnn.Sequential():
            modules = []
            for part in layer.layers:
                modules.append(twin(part, images))
                images = images and not isinstance(part, cnn.Flatten)
            return nn.Sequential(*modules)
        case cnn.Conv2d():
            module = nn.Conv2d(layer.inputs, layer.outputs, layer.kernel, layer.stride, layer.padding)
        case cnn.Linear():
            module = nn.Linear(layer.inputs, layer.outputs)
        case BatchNorm():
            module = (nn.BatchNorm2d if images else nn.BatchNorm1d)(layer.channels)
            module.running_mean = torch.from_numpy(layer.state["mean"].copy())
            module.running_var = torch.from_numpy(layer.state["variance"].copy())
        case cnn.MaxPool2d():
            module = nn.MaxPool2d(layer.kernel)
        case cnn.ReLU():
            module = nn.ReLU()
        case cnn.Flatten():
            module = ChannelsLastFlatten()
    with torch.no_grad():
        for name, array in layer.parameters.items():
            getattr(module, name).data = weight_to_torch(array).contiguous()
    return module


def relative_error(ours, theirs):
    """Return the largest difference between two arrays, as a share of the largest number in the second."""
    assert ours.shape == theirs.shape
    return float(np.abs(ours - theirs).max() / max(np.abs(theirs).max(), np.finfo(theirs.dtype).tiny))


LESSON = vars(taught("02"))
numeric_gradient = LESSON["numeric_gradient"]
