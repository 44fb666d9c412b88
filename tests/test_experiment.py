"""An experiment refuses nonsense by name, and its key means its choices and nothing else."""

import pytest
import torch

from helpers.training import Experiment
from helpers.training.parts import OPTIMIZERS


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model": "alexnet"}, "r2"),
        ({"model": "r2", "model_options": {"depth": 3}}, "batch_norm"),
        ({"optimizer": "SGD", "optimizer_options": {"momentun": 0.9}}, "momentum"),
        ({"optimizer": "Muon", "optimizer_options": {"betas": (0.9, 0.9)}}, "no option 'betas'.*weight_decay"),
        ({"schedule": "staircase"}, "StepLR"),
        ({"schedule": "StepLR", "schedule_options": {"factor": 0.7}}, "gamma"),
        ({"schedule_options": {"gamma": 0.7}}, "constant"),
        ({"loss": "hinge"}, "CrossEntropyLoss"),
        ({"augmentation": "flop:0.5"}, "hflip"),
        ({"dataset": "mnist"}, "digits"),
        ({"precision": "fp8"}, "bf16"),
        ({"lr": 0.0}, "lr=0.0: give a number of at least"),
        ({"epochs": 2.5}, "whole number of at least 1"),
        ({"batch_size": True}, "batch_size=True"),
        ({"patience": -1}, "patience=-1"),
        ({"seed": -1}, "seed"),
        ({"averaging": 1.0}, r"averaging=1.0.*at least 0 and below 1"),
        ({"snapshots": "no"}, "snapshots='no'.*True or False"),
        ({"class_weights": "inverse"}, "balanced"),
        ({"class_weights": "balanced", "loss": "kl_div"}, "needs CrossEntropyLoss"),
        ({"class_weights": "balanced", "loss_options": {"weight": [1.0]}}, "weights of its own"),
        ({"initial": "../weights"}, r"initial='../weights'.*three-convolutions"),
        ({"initial": None}, "initial=None"),
        ({"engine": "jax"}, "numpy"),
        ({"engine": "numpy", "model": "r1", "initial": "abc"}, "initial=''"),
    ],
)
def test_nonsense_is_refused_with_the_choices(changes, words):
    with pytest.raises(ValueError, match=words):
        Experiment(**changes)


def test_spelling_and_order_do_not_matter_and_choices_do():
    assert Experiment().but(lr=0.5).lr == 0.5
    with pytest.raises(ValueError, match="batch_size"):
        Experiment().but(batchsize=3)
    assert Experiment(optimizer="sgd", loss="cross_entropy").key == Experiment(optimizer="SGD").key
    assert Experiment(lr=1).key == Experiment(lr=1.0).key
    assert Experiment(loss="kl_div").loss == "KLDivLoss"
    keys = [Experiment(**c).key for c in ({}, {"lr": 2e-3}, {"seed": 1}, {"model_options": {"dropout": 0.0}})]
    assert len(set(keys)) == len(keys)
    one, two = {"momentum": 0.9, "nesterov": True}, {"nesterov": True, "momentum": 0.9}
    one, two = (Experiment(optimizer="SGD", optimizer_options=options) for options in (one, two))
    assert one.key == two.key and hash(one) == hash(two) and str(one.choices()) == str(two.choices())
    assert Experiment(model_options={"kernels": (5, 3, 3)}).key == Experiment(model_options={"kernels": [5, 3, 3]}).key
    for name, make in OPTIMIZERS.items():
        assert Experiment(optimizer=name.lower()).optimizer == name
        make([torch.nn.Parameter(torch.ones(2, 2))], lr=0.1)


def test_keys_are_pinned():
    """A key that changes orphans every recorded run: never change these two, nor a default."""
    assert Experiment().key == "44136fa355b3678a"
    changed = Experiment(model="r4", optimizer="SGD", optimizer_options={"momentum": 0.9}, batch_size=32, seed=2)
    assert changed.key == "ea0c496df429e90c"
    assert Experiment(averaging=0).key == Experiment().key  # a record from before there was an average
    assert Experiment(class_weights="", initial="").key == Experiment().key
    assert len({Experiment(**c).key for c in ({}, {"class_weights": "balanced"}, {"initial": "abc"})}) == 3
    assert len({Experiment(averaging=decay).key for decay in (0, 0.9, 0.99)}) == 3
