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
    checkpoint = checkpoint_path and checkpoint_path.with_suffix(".npz")
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
        checkpoint=checkpoint,
        progress=progress,
    )
    history = {name: result["history"].get(name, []) for name in HISTORY}
    model = build(experiment.model, classes=len(data.classes))
    load_weights(model, network, tuple(data.train.images.shape[2:]))
    return Fit(model, history, result["losses"], len(history["epoch"]), result["diverged"])


@torch.no_grad()
def load_weights(model: nn.Module, network: cnn.Sequential, size: tuple[int, int] = (32, 32)) -> None:
    """Copy the weights of a NumPy network into the PyTorch network with the same layers, for images of ``size``."""
    theirs = [module for module in model.modules() if list(module.parameters(recurse=False))]
    shape, flattened = (*size, 3), None
    for layer in network.layers:
        if isinstance(layer, cnn.Flatten):
            flattened = shape
        elif layer.parameters:
            module = theirs.pop(0)
            module.weight.copy_(_weight(layer, flattened))
            module.bias.copy_(torch.from_numpy(layer.parameters["bias"]))
            flattened = None if isinstance(layer, cnn.Linear) else flattened
        if isinstance(layer, cnn.BatchNorm):
            module.running_mean.copy_(torch.from_numpy(layer.state["mean"]))
            module.running_var.copy_(torch.from_numpy(layer.state["variance"]))
        shape = layer.output_shape(shape)
    if theirs:
        raise ValueError(f"the PyTorch network has {len(theirs)} more layers with weights than the NumPy network")


def _weight(layer: cnn.Layer, flattened: tuple[int, ...] | None) -> torch.Tensor:
    """Return a layer's weight as PyTorch keeps it: outputs first, and images flattened channel by channel."""
    weight = torch.from_numpy(layer.parameters["weight"].copy())
    if isinstance(layer, cnn.Conv2d):
        return weight.permute(3, 2, 0, 1)  # (kh, kw, in, out) -> (out, in, kh, kw)
    if isinstance(layer, cnn.Linear) and flattened:
        return weight.reshape(*flattened, -1).permute(3, 2, 0, 1).flatten(1)  # (H·W·C, out) -> (out, C·H·W)
    return weight.T if isinstance(layer, cnn.Linear) else weight
