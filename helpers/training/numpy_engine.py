"""Experiments with ``engine="numpy"``: trained by the NumPy network, recorded and judged like all others."""

from pathlib import Path

import numpy as np
import torch
from torch import nn

from helpers import numpy_cnn as cnn
from helpers.data import Dataset, Split
from helpers.models import build
from helpers.training.experiment import Experiment
from helpers.training.loop import HISTORY, Fit, training_split


def pictures(split: Split) -> cnn.Pictures:
    """Return a split as arrays, the images channels last: uint8 (N, 3, H, W) -> (N, H, W, 3)."""
    return cnn.Pictures(np.ascontiguousarray(split.images.numpy().transpose(0, 2, 3, 1)), split.labels.numpy())


def fit(experiment: Experiment, data: Dataset, *, checkpoint_path: Path | None = None, progress: bool = True) -> Fit:
    """Return what :func:`helpers.training.loop.fit` returns, from a training in which PyTorch took no part.

    ``Fit.model`` is the PyTorch network of the same name with the weights that NumPy found, so that everything that
    judges, draws or looks into a network works on it too.
    """
    network, optimizer, schedule, augment = cnn.parts(experiment, len(data.classes))
    result = cnn.fit(
        network,
        optimizer,
        pictures(training_split(experiment, data)),
        pictures(data.validation),
        epochs=experiment.epochs,
        batch_size=experiment.batch_size,
        seed=experiment.seed,
        prepare=cnn.normaliser(data.mean.numpy(), data.std.numpy()),
        schedule=schedule,
        augment=augment,
        checkpoint=checkpoint_path and checkpoint_path.with_suffix(".npz"),
        progress=progress,
    )
    history = {name: result["history"].get(name, []) for name in HISTORY}
    model = build(experiment.model, classes=len(data.classes))
    load_weights(model, network)
    return Fit(model, history, result["losses"], len(history["epoch"]), result["diverged"])


@torch.no_grad()
def load_weights(model: nn.Sequential, network: cnn.Sequential) -> None:
    """Copy the weights of a NumPy network, for images of 32x32, into the PyTorch network with the same layers.

    PyTorch keeps outputs first, and flattens images channel by channel. ValueError if one has more layers.
    """
    shape = images = (32, 32, 3)  # what a layer gets, and the last of these shapes that is an image's
    before = None
    for layer, module in zip(network.layers, model, strict=True):
        if layer.parameters:
            weight = torch.from_numpy(layer.parameters["weight"])
            if isinstance(layer, cnn.Conv2d):
                weight = weight.permute(3, 2, 0, 1)  # (k, k, in, out) -> (out, in, k, k)
            elif isinstance(before, cnn.Flatten):
                weight = weight.reshape(*images, -1).permute(3, 2, 0, 1).flatten(1)  # (H·W·C, out) -> (out, C·H·W)
            elif isinstance(layer, cnn.Linear):
                weight = weight.T
            module.weight.copy_(weight)
            module.bias.copy_(torch.from_numpy(layer.parameters["bias"]))
        if isinstance(layer, cnn.BatchNorm):
            module.running_mean.copy_(torch.from_numpy(layer.state["mean"]))
            module.running_var.copy_(torch.from_numpy(layer.state["variance"]))
        shape, before = layer.output_shape(shape), layer
        images = shape if len(shape) == 3 else images
