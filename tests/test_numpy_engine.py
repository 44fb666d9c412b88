"""The NumPy network as an engine of experiments: choices, pictures and weights arrive where they should."""

from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from helpers import numpy_cnn as cnn
from helpers.data import load
from helpers.models import build
from helpers.numpy_cnn.training import predict
from helpers.training import Experiment, normalise
from helpers.training.kept import load_weights, pictures

choose = partial(Experiment, engine="numpy", model="r3", optimizer="SGD", lr=0.01)


@pytest.mark.parametrize("name", list(cnn.NETWORKS))
def test_the_course_s_network_says_the_same_with_the_weights_that_numpy_trained(name):
    data = load("digits")
    network, optimizer, model = cnn.NETWORKS[name](seed=1), cnn.Adam(1e-3), build(name)
    assert [layer["type"] for layer in network.table()] == [
        type(module).__name__.replace("BatchNorm2d", "BatchNorm") for module in model
    ]
    split, prepare = pictures(data.train), cnn.normaliser(data.mean.numpy(), data.std.numpy())
    few = cnn.Pictures(split.images[:96], split.labels[:96])
    cnn.fit(network, optimizer, few, few, epochs=1, batch_size=16, prepare=prepare, progress=False)
    load_weights(model, network)
    ours = predict(network, split.images[:50], prepare)
    with torch.no_grad():
        theirs = model.eval()(normalise(data.train.images[:50], data.mean, data.std)).numpy()
    assert np.abs(ours - theirs).max() < 1e-4 * np.abs(theirs).max()
    with pytest.raises(ValueError, match="longer"):
        load_weights(model.append(nn.Linear(10, 10)), network)


def test_choices_become_parts():
    options = {"schedule": "OneCycleLR", "schedule_options": {"cycle_momentum": False}, "lr": 0.05}
    chosen = choose(optimizer_options={"momentum": 0.9}, augmentation="hflip:1", seed=4, **options)
    network, optimizer, schedule, augment = cnn.parts(chosen, 7)
    assert isinstance(optimizer, cnn.SGD) and (optimizer.lr, optimizer.momentum) == (0.05, 0.9)
    assert network.table()[-1]["output"] == (7,) and schedule is not cnn.parts(choose())[2]
    same = cnn.NETWORKS["r3"](7, seed=4).parameters["conv1.weight"]
    assert np.array_equal(network.parameters["conv1.weight"], same)
    images = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), np.uint8)
    assert np.array_equal(augment(images, np.random.default_rng(0)), images[:, :, ::-1])
    assert cnn.parts(choose())[3] is None


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"model": "r2"}, "has no model 'r2'; choose one of: r1, r3, r3-norm"),
        ({"optimizer": "AdamW"}, "has no optimizer 'AdamW'; choose one of: SGD, Adam"),
        ({"schedule": "StepLR"}, "has no schedule 'StepLR'; choose one of: constant, OneCycleLR"),
        ({"schedule": "OneCycleLR"}, "wants schedule_options={'cycle_momentum': False} here, got {}"),
        ({"augmentation": "crop:4 hflip:0.5"}, "has no augmentation 'crop:4 hflip:0.5'; choose"),
        ({"precision": "bf16"}, "wants precision='fp32' here, got 'bf16'"),
        ({"loss": "KLDivLoss"}, "wants loss='CrossEntropyLoss' here, got 'KLDivLoss'"),
        ({"optimizer_options": {"nesterov": True}}, "SGD does not take these options: .*nesterov"),
    ],
)
def test_what_the_numpy_network_cannot_do_is_refused_with_what_it_can(changes, message):
    with pytest.raises(ValueError, match=message):
        choose(**changes)


def test_pictures_and_their_normalisation_are_those_of_the_course():
    data = load("digits")
    ours = cnn.normaliser(data.mean.numpy(), data.std.numpy())(pictures(data.validation).images)
    theirs = normalise(data.validation.images, data.mean, data.std).permute(0, 2, 3, 1).numpy()
    assert ours.dtype == np.float32 and np.allclose(ours, theirs, atol=1e-5)
