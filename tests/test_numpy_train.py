"""The NumPy network as an engine of experiments: choices, pictures and weights arrive where they should."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from helpers import numpy_cnn as cnn
from helpers.data import load
from helpers.numpy_cnn.choices import parts
from helpers.numpy_cnn.inputs import normaliser
from helpers.training import load_weights, normalise, pictures

CHOICES = {
    "model": "r3", "model_options": {}, "optimizer": "SGD", "optimizer_options": {}, "lr": 0.01,
    "schedule": "constant", "schedule_options": {}, "loss": "CrossEntropyLoss", "loss_options": {},
    "augmentation": "", "precision": "fp32", "patience": None, "averaging": 0.0, "mixup": 0.0,
    "class_weights": "", "initial": "", "seed": 0,
}  # fmt: skip


def choose(**changes):
    return SimpleNamespace(**CHOICES | changes)


def as_torch(network):
    """Return an untrained PyTorch network with the layers of a NumPy one, as a course model is written."""
    modules = []
    for layer in network.layers:
        match layer:
            case cnn.Conv2d():
                modules.append(nn.Conv2d(layer.inputs, layer.outputs, layer.kernel, layer.stride, layer.padding))
            case cnn.Linear():
                modules.append(nn.Linear(layer.inputs, layer.outputs))
            case cnn.BatchNorm():
                modules.append(nn.BatchNorm2d(layer.channels))
            case cnn.MaxPool2d():
                modules.append(nn.MaxPool2d(layer.kernel))
            case _:
                modules.append(getattr(nn, type(layer).__name__)())
    return nn.Sequential(*modules)


@pytest.mark.parametrize("name", list(cnn.NETWORKS))
def test_pytorch_says_the_same_with_the_weights_that_numpy_trained(name):
    data = load("digits")
    network, optimizer = cnn.NETWORKS[name](seed=1), cnn.Adam(1e-3)
    split, prepare = pictures(data.train), normaliser(data.mean.numpy(), data.std.numpy())
    few = cnn.Pictures(split.images[:96], split.labels[:96])
    cnn.fit(network, optimizer, few, epochs=1, batch_size=16, prepare=prepare, progress=False)
    model = as_torch(network)
    load_weights(model, network)
    ours = cnn.predict(network, split.images[:50], prepare)
    with torch.no_grad():
        theirs = model.eval()(normalise(data.train.images[:50], data.mean, data.std)).numpy()
    assert np.abs(ours - theirs).max() < 1e-4 * np.abs(theirs).max()


def test_weights_for_another_network_are_refused():
    network = cnn.NETWORKS["r3"]()
    with pytest.raises(ValueError, match="1 more layers with weights"):
        load_weights(as_torch(network).append(nn.Linear(10, 10)), network)


def test_pictures_and_their_normalisation_are_those_of_the_course():
    data = load("digits")
    ours = normaliser(data.mean.numpy(), data.std.numpy())(pictures(data.validation).images)
    theirs = normalise(data.validation.images, data.mean, data.std).permute(0, 2, 3, 1).numpy()
    assert ours.dtype == np.float32 and np.allclose(ours, theirs, atol=1e-5)


def test_choices_become_parts():
    options = {"schedule": "OneCycleLR", "schedule_options": {"cycle_momentum": False}, "lr": 0.05}
    found = parts(choose(optimizer_options={"momentum": 0.9}, augmentation="crop:3 hflip:1", seed=4, **options), 7)
    assert isinstance(found.optimizer, cnn.SGD) and (found.optimizer.lr, found.optimizer.momentum) == (0.05, 0.9)
    assert found.network.output_shape((32, 32, 3)) == (7,)
    same = cnn.NETWORKS["r3"](7, seed=4).parameters["conv1.weight"]
    assert np.array_equal(found.network.parameters["conv1.weight"], same)
    images = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), np.uint8)
    assert found.augment.__name__ == "crop:3 hflip:1"
    assert found.augment(images, np.random.default_rng(0)).shape == images.shape
    assert np.array_equal(
        parts(choose(augmentation="hflip:1")).augment(images, np.random.default_rng(0)), images[:, :, ::-1]
    )
    assert parts(choose()).augment is None


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"model": "r2"}, "has no model 'r2'; choose one of: r1, r3, r3-norm"),
        ({"optimizer": "AdamW"}, "has no optimizer 'AdamW'; choose one of: SGD, Adam, RMSprop, Adagrad"),
        ({"schedule": "StepLR"}, "has no schedule 'StepLR'; choose one of: constant, OneCycleLR"),
        ({"schedule": "OneCycleLR"}, "wants schedule_options={'cycle_momentum': False} here, got {}"),
        ({"augmentation": "rotate:30"}, "has no augmentation 'rotate'; choose one of: crop, hflip"),
        ({"precision": "bf16"}, "wants precision='fp32' here, got 'bf16'"),
        ({"loss": "KLDivLoss"}, "wants loss='CrossEntropyLoss' here, got 'KLDivLoss'"),
        ({"optimizer_options": {"nesterov": True}}, "SGD does not take these options: .*nesterov"),
    ],
)
def test_what_the_numpy_network_cannot_do_is_refused_with_what_it_can(changes, message):
    with pytest.raises(ValueError, match=message):
        parts(choose(**changes))
