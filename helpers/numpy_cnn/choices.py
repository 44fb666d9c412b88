"""An experiment's choices, by PyTorch's names, as parts of a NumPy training; what cannot be had is refused in words."""

from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

from helpers.numpy_cnn.inputs import Augment, mirror, shift
from helpers.numpy_cnn.network import Sequential
from helpers.numpy_cnn.networks import NETWORKS
from helpers.numpy_cnn.optimizers import OPTIMIZERS, Optimizer
from helpers.numpy_cnn.training import Schedule, constant, one_cycle

SCHEDULES = {"constant": constant, "OneCycleLR": one_cycle}
CHANGES = {"crop": ("pixels", int, shift), "hflip": ("p", float, mirror)}


class Parts(NamedTuple):
    """What :func:`helpers.numpy_cnn.fit` takes besides data and numbers."""

    network: Sequential
    optimizer: Optimizer
    schedule: Schedule
    augment: Augment | None


def parts(experiment: Any, classes: int = 10) -> Parts:
    """Return the parts of the training that ``experiment`` describes, freshly initialised from its seed.

    ``experiment`` is a ``helpers.training.experiment.Experiment``, or has the same attributes.

    Raises:
        ValueError: the NumPy network has no such part; the message lists those it has.
    """
    _one_of("model", experiment.model, NETWORKS)
    _one_of("optimizer", experiment.optimizer, OPTIMIZERS)
    _one_of("schedule", experiment.schedule, SCHEDULES)
    cycle = {"cycle_momentum": False} if experiment.schedule == "OneCycleLR" else {}
    fixed = {"model_options": {}, "schedule_options": cycle, "loss": "CrossEntropyLoss", "loss_options": {}}
    fixed |= {"precision": "fp32", "patience": None, "averaging": 0.0, "mixup": 0.0, "class_weights": "", "initial": ""}
    for name, wanted in fixed.items():
        if (got := getattr(experiment, name)) != wanted:
            raise ValueError(f"the NumPy network wants {name}={wanted!r} here, got {got!r}")
    try:
        optimizer = OPTIMIZERS[experiment.optimizer](experiment.lr, **experiment.optimizer_options)
    except TypeError as error:
        raise ValueError(f"the NumPy network's {experiment.optimizer} does not take these options: {error}") from error
    network = NETWORKS[experiment.model](classes, seed=experiment.seed)
    return Parts(network, optimizer, SCHEDULES[experiment.schedule], _augment(experiment.augmentation))


def _one_of(what: str, value: str, choices: Mapping[str, Any]) -> None:
    if value not in choices:
        raise ValueError(f"the NumPy network has no {what} {value!r}; choose one of: {', '.join(choices)}")


def _augment(spec: str) -> Augment | None:
    """Return the changes that a spec such as "crop:4 hflip:0.5" names, one after another, or None for none."""
    steps = []
    for word in spec.split():
        name, _, strength = word.partition(":")
        _one_of("augmentation", name, CHANGES)
        option, kind, change = CHANGES[name]
        steps.append(partial(change, **({option: kind(strength)} if strength else {})))

    def augment(images, generator):
        for step in steps:
            images = step(images, generator)
        return images

    augment.__name__ = spec
    return augment if steps else None
