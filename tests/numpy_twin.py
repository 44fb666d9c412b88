"""PyTorch twins of the NumPy layers, with the same weights: an independent judge. Images differ in layout only."""

import numpy as np
import torch
from torch import nn

from helpers import numpy_cnn as cnn


class ChannelsLast(nn.Module):
    """(N, C, H, W) -> (N, H, W, C), so that PyTorch flattens in the order of the NumPy network."""

    def forward(self, x):
        return x.permute(0, 2, 3, 1)


def to_torch(array: np.ndarray) -> torch.Tensor:
    """Return a copy of an array as a tensor, images (N, H, W, C) as (N, C, H, W)."""
    tensor = torch.from_numpy(array.copy())
    return tensor.permute(0, 3, 1, 2).contiguous() if tensor.ndim == 4 else tensor


def to_numpy(tensor: torch.Tensor) -> np.ndarray:
    """Return a tensor as an array, images (N, C, H, W) as (N, H, W, C)."""
    tensor = tensor.detach()
    return (tensor.permute(0, 2, 3, 1) if tensor.ndim == 4 else tensor).numpy()


def weight_to_torch(array: np.ndarray) -> torch.Tensor:
    """Return a weight, or its gradient, in PyTorch's layout: outputs first, (out, in, kh, kw) or (out, in)."""
    tensor = torch.from_numpy(array.copy())
    return tensor.permute(3, 2, 0, 1) if tensor.ndim == 4 else tensor.T if tensor.ndim == 2 else tensor


def twin(layer: cnn.Layer, images: bool = True) -> nn.Module:
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
        case cnn.BatchNorm():
            kind = nn.BatchNorm2d if images else nn.BatchNorm1d
            module = kind(layer.channels, eps=layer.epsilon, momentum=layer.momentum)
        case cnn.MaxPool2d():
            module = nn.MaxPool2d(layer.kernel, layer.stride, layer.padding)
        case cnn.AvgPool2d():
            module = nn.AvgPool2d(layer.kernel, layer.stride, layer.padding)
        case cnn.LeakyReLU():
            module = nn.LeakyReLU(layer.slope)
        case cnn.ReLU():
            module = nn.ReLU()
        case cnn.Flatten():
            module = nn.Sequential(ChannelsLast(), nn.Flatten())
        case _:
            raise TypeError(f"no twin for {layer!r}")
    with torch.no_grad():
        for name, array in layer.parameters.items():
            getattr(module, name).data = weight_to_torch(array).contiguous()
    if isinstance(layer, cnn.BatchNorm):
        module.running_mean = torch.from_numpy(layer.state["mean"].copy())
        module.running_var = torch.from_numpy(layer.state["variance"].copy())
    return module
