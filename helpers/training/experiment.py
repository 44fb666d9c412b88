"""An experiment: one frozen, validated set of choices, and the key under which its run is recorded."""

import hashlib
import inspect
import json
import math
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from functools import cache, cached_property
from typing import Any

import torch
from torch import nn

from helpers.data import parse
from helpers.models import build
from helpers.numpy_cnn import parts
from helpers.training.augment import augmentation
from helpers.training.parts import LOSSES, OPTIMIZERS, SCHEDULES

CHOICES = {"precision": ("fp32", "bf16"), "engine": ("torch", "numpy"), "class_weights": ("", "balanced")}
CHOICES |= {"flagship": (True, False), "snapshots": (True, False)}
# Networks that are known to build: the runs of an arm, and its record, ask again for the same one.
_BUILT: set[tuple[str, str]] = set()
_signature = cache(inspect.signature)


def _number(what: str, value: Any, kind: type, low: float, high: float = math.inf) -> None:
    right = isinstance(value, (int, kind)) and not isinstance(value, bool)
    if not right or not low <= value < high:
        limits = f"of at least {low}" + (f" and below {high}" if high < math.inf else "")
        raise ValueError(f"{what}={value!r}: give a {'whole ' if kind is int else ''}number {limits}")


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """All choices that decide how one network is trained; two experiments with equal choices are the same run.

    Names are torch's own (``optimizer="SGD"``, ``schedule="StepLR"``, ``loss="CrossEntropyLoss"``; case and
    underscores do not matter), each with a dictionary of that class's options. ``augmentation`` is a spec such as
    ``"crop:4 hflip:0.5"``. ``patience=n`` stops after n epochs without a better validation accuracy and keeps the best
    weights; without it the last weights count. ``train_size`` trains on a stratified part of the training split. Only a
    ``flagship`` run reads the test set, once, after training.
    ``averaging=d`` makes the weights' exponential moving average over the steps, with decay d, the result; training
    itself stays as it is. ``snapshots=True`` keeps the weights before training and after every epoch.
    ``mixup=a`` trains on mixtures of two pictures and of their labels, their shares drawn from Beta(a, a); 0 is off.
    ``engine="numpy"`` trains without PyTorch (:mod:`helpers.numpy_cnn`), with fewer choices.
    ``class_weights="balanced"`` weighs each class in the loss by the inverse of its number of training images.
    ``initial="NAME"`` starts from a network that is kept under that name (:mod:`helpers.training.kept`), all but its
    last layer; model and options must be that network's. ValueError lists the choices where a value is none.
    """

    dataset: str = "cifar10"
    model: str = "r2"
    model_options: Mapping[str, Any] = field(default_factory=dict)
    optimizer: str = "Adam"
    optimizer_options: Mapping[str, Any] = field(default_factory=dict)
    lr: float = 1e-3
    schedule: str = "constant"
    schedule_options: Mapping[str, Any] = field(default_factory=dict)
    batch_size: int = 64
    loss: str = "CrossEntropyLoss"
    loss_options: Mapping[str, Any] = field(default_factory=dict)
    augmentation: str = ""
    epochs: int = 10
    patience: int | None = None
    precision: str = "fp32"
    train_size: int | None = None
    seed: int = 0
    flagship: bool = False
    engine: str = "torch"
    averaging: float = 0.0
    snapshots: bool = False
    mixup: float = 0.0
    class_weights: str = ""
    initial: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "dataset", str(parse(self.dataset)))
        network = (self.model, repr(sorted(self.model_options.items())))
        if network not in _BUILT:
            with torch.device("meta"):  # shapes without memory: a wrong model or option is refused at once
                self.network()
            _BUILT.add(network)
        augmentation(self.augmentation)
        self._settle("optimizer", OPTIMIZERS, reserved=("params", "lr"))
        self._settle("loss", LOSSES, suffix="loss", reserved=("size_average", "reduce"))
        if self.schedule != "constant":
            self._settle("schedule", SCHEDULES, reserved=("optimizer", "last_epoch", "max_lr", "total_steps"))
        elif self.schedule_options:
            raise ValueError(f"schedule='constant' takes no options, got {dict(self.schedule_options)}")
        for name in ("batch_size", "epochs", "patience", "train_size"):
            if (value := getattr(self, name)) is not None or name in ("batch_size", "epochs"):
                _number(name, value, int, 1)
        _number("seed", self.seed, int, 0)
        _number("lr", self.lr, float, sys.float_info.min)
        object.__setattr__(self, "lr", float(self.lr))
        _number("averaging", self.averaging, float, 0, 1)
        _number("mixup", self.mixup, float, 0)
        for name, choices in CHOICES.items():
            if (value := getattr(self, name)) not in choices or not isinstance(value, type(choices[0])):  # 1 == True
                raise ValueError(f"{name}={value!r}: choose {' or '.join(map(repr, choices))}")
        if self.class_weights and (self.loss == "KLDivLoss" or "weight" in self.loss_options):
            raise ValueError(f"class_weights={self.class_weights!r} needs CrossEntropyLoss without weights of its own")
        if not isinstance(self.initial, str) or not re.fullmatch(r"([a-z0-9]+(-[a-z0-9]+)*)?", self.initial):
            raise ValueError(f'initial={self.initial!r}: give a kept network\'s name ("three-convolutions"), or ""')
        if self.engine == "numpy":
            parts(self)

    def _settle(self, what: str, choices: Mapping[str, type], reserved: tuple[str, ...], suffix: str = "") -> None:
        """Set a choice to its one spelling, upper or lower case and underscores aside, and refuse unknown options."""
        plain = {name.lower(): name for name in choices}
        wanted = str(getattr(self, what)).lower().replace("_", "")
        name = plain.get(wanted) or plain.get(wanted + suffix)
        if name is None:
            raise ValueError(f"{what}={getattr(self, what)!r} is unknown; choose one of: {', '.join(choices)}")
        object.__setattr__(self, what, name)
        known = [p for p in _signature(choices[name]).parameters if p not in reserved]
        if unknown := [option for option in getattr(self, f"{what}_options") if option not in known]:
            raise ValueError(f"{what} {name} takes no option {unknown[0]!r}; it takes: {', '.join(known)}")

    def __hash__(self) -> int:
        return hash(self.key)

    def choices(self) -> dict[str, Any]:
        """Return every choice as plain JSON values, options in alphabetical order."""
        return {f.name: json.loads(json.dumps(getattr(self, f.name), sort_keys=True)) for f in fields(self)}

    @cached_property
    def key(self) -> str:
        """Return the 16 hexadecimal digits that name this experiment's record.

        Only choices that differ from the defaults count: a field added later leaves old keys as they are, and a default
        never changes.
        """
        default = {f.name: {} if f.name.endswith("_options") else f.default for f in fields(self)}
        changed = {name: value for name, value in self.choices().items() if value != default[name]}
        return hashlib.sha256(json.dumps(changed, sort_keys=True).encode()).hexdigest()[:16]

    def network(self, classes: int = 10) -> nn.Module:
        """Return the network that is trained, with new weights, for so many classes."""
        return build(self.model, classes=classes, **self.model_options)

    def but(self, **changes: Any) -> "Experiment":
        """Return the same experiment with some choices changed, validated again."""
        names = [f.name for f in fields(self)]
        if unknown := set(changes) - set(names):
            raise ValueError(f"an experiment has no choice {', '.join(sorted(unknown))}; it has: {', '.join(names)}")
        return replace(self, **changes)


def rehearsal(experiment: Experiment, epochs: int = 2) -> Experiment:
    """Return the same experiment, tiny and on the embedded digits: what ``COURSE_SMOKE=1`` trains instead."""
    return experiment.but(
        dataset="digits",
        train_size=100 if experiment.snapshots else 64,  # t-SNE of a perplexity of 30 takes 91
        epochs=min(experiment.epochs, epochs),
        batch_size=min(experiment.batch_size, 64),
    )
