"""An experiment: one frozen, validated set of choices, and the key under which its run is recorded."""

import hashlib
import inspect
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

import torch
from torch import nn

from helpers.data import parse
from helpers.models import build
from helpers.numpy_cnn import parts
from helpers.training.augment import augmentation
from helpers.training.muon import Muon

# Optimizers and schedules that one generic training step cannot drive: closures, sparse gradients, functions as
# arguments, or (torch's Muon, for which ours stands in) matrices alone.
_OPTIMIZERS_LEFT_OUT = {"Optimizer", "LBFGS", "SparseAdam", "Muon"}
_SCHEDULES_LEFT_OUT = {"LRScheduler", "LambdaLR", "MultiplicativeLR", "SequentialLR", "ChainedScheduler"}

# A loss of torch.nn by name: what is done to the logits first, and whether its targets are class numbers or one-hot
# rows. Losses outside this table have no meaning for a classifier.
LOSSES: dict[str, tuple[str, str]] = {
    "CrossEntropyLoss": ("logits", "index"),
    "NLLLoss": ("log_softmax", "index"),
    "MultiMarginLoss": ("logits", "index"),
    "KLDivLoss": ("log_softmax", "one_hot"),
    "BCEWithLogitsLoss": ("logits", "one_hot"),
    "MultiLabelSoftMarginLoss": ("logits", "one_hot"),
    "MSELoss": ("softmax", "one_hot"),
    "L1Loss": ("softmax", "one_hot"),
    "SmoothL1Loss": ("softmax", "one_hot"),
    "HuberLoss": ("softmax", "one_hot"),
}
# Those that take a weight per class as torch defines it for class numbers.
WEIGHTED_LOSSES = ("CrossEntropyLoss", "NLLLoss", "MultiMarginLoss")
CLASS_WEIGHTS = ("", "balanced")
PRECISIONS = ("fp32", "bf16")
ENGINES = ("torch", "numpy")


def _subclasses(module: Any, base: type, left_out: set[str]) -> dict[str, type]:
    """Return the public classes of ``module`` that derive from ``base``, by name."""
    found = {n: c for n, c in vars(module).items() if inspect.isclass(c) and issubclass(c, base)}
    return {n: c for n, c in sorted(found.items()) if n not in left_out and not n.startswith("_")}


OPTIMIZERS = _subclasses(torch.optim, torch.optim.Optimizer, _OPTIMIZERS_LEFT_OUT) | {"Muon": Muon}
SCHEDULES = _subclasses(torch.optim.lr_scheduler, torch.optim.lr_scheduler.LRScheduler, _SCHEDULES_LEFT_OUT)


def _canonical(what: str, value: str, choices: Mapping[str, Any], suffix: str = "") -> str:
    """Return the name among ``choices`` that ``value`` means, upper or lower case and underscores aside."""
    plain = {name.lower(): name for name in choices}
    wanted = str(value).lower().replace("_", "")
    for candidate in (wanted, wanted + suffix):
        if candidate in plain:
            return plain[candidate]
    raise ValueError(f"{what}={value!r} is unknown; choose one of: {', '.join(choices)}")


def _check_options(what: str, cls: type, options: Mapping[str, Any], reserved: tuple[str, ...]) -> None:
    """Refuse options that ``cls`` does not take, or that the experiment sets itself."""
    known = [p for p in inspect.signature(cls).parameters if p not in ("self", *reserved)]
    for name in options:
        if name not in known:
            raise ValueError(f"{what} {cls.__name__} takes no option {name!r}; it takes: {', '.join(known)}")


def _positive(what: str, value: Any, kind: type = int) -> None:
    """Refuse anything but a positive, finite number (a whole one where ``kind`` is int)."""
    right = isinstance(value, int) if kind is int else isinstance(value, int | float)
    if not right or isinstance(value, bool) or not math.isfinite(value) or value <= 0:
        raise ValueError(f"{what}={value!r}: give a positive {'whole number' if kind is int else 'number'}")


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """All choices that decide how one network is trained; two experiments with equal choices are the same run.

    Names are torch's own (``optimizer="SGD"``, ``schedule="StepLR"``, ``loss="CrossEntropyLoss"``; case and
    underscores do not matter), each with a dictionary of that class's options. ``augmentation`` is a spec such as
    ``"crop:4 hflip:0.5"`` (:mod:`helpers.training.augment`). ``patience=n`` stops after n epochs without a better
    validation accuracy and keeps the best weights; without it the last weights count. ``train_size`` trains on a
    stratified part of the training split. Only a ``flagship`` run reads the test set, once, after training.
    ``averaging=d`` keeps, beside the trained weights, their exponential moving average over the steps with decay d, and
    that average is the result; training itself stays as it is.
    ``snapshots=True`` keeps the weights before training and after every epoch, to look at what was learned when.
    ``mixup=a`` trains on mixtures of two pictures and of their labels, their shares drawn from Beta(a, a); 0 is off.
    ``engine="numpy"`` trains without PyTorch (:mod:`helpers.numpy_cnn`), with fewer choices.
    ``class_weights="balanced"`` weighs each class in the loss by the inverse of its number of training images.
    ``initial="NAME"`` starts from a network that is kept under that name (:mod:`helpers.training.kept`), all but its
    last layer; model and options must be that network's.

    Raises:
        ValueError: a value is unknown or makes no sense; the message lists the choices.
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
        """Settle every name on its one spelling and refuse what makes no sense."""
        object.__setattr__(self, "dataset", str(parse(self.dataset)))
        with torch.device("meta"):  # shapes without memory: a wrong model or option is refused at once
            build(self.model, **self.model_options)
        augmentation(self.augmentation)
        self._settle("optimizer", OPTIMIZERS, reserved=("params", "lr"))
        self._settle("loss", LOSSES, suffix="loss", reserved=("size_average", "reduce"))
        if self.schedule != "constant":
            self._settle("schedule", SCHEDULES, reserved=("optimizer", "last_epoch", "max_lr", "total_steps"))
        elif self.schedule_options:
            raise ValueError(f"schedule='constant' takes no options, got {dict(self.schedule_options)}")
        for name in ("batch_size", "epochs"):
            _positive(name, getattr(self, name))
        for name in ("patience", "train_size"):
            if getattr(self, name) is not None:
                _positive(name, getattr(self, name))
        _positive("lr", self.lr, float)
        object.__setattr__(self, "lr", float(self.lr))
        if self.precision not in PRECISIONS:
            raise ValueError(f"precision={self.precision!r} is unknown; choose one of: {', '.join(PRECISIONS)}")
        if not isinstance(self.seed, int) or self.seed < 0:
            raise ValueError(f"seed={self.seed!r}: give 0 or a positive whole number")
        decay = self.averaging
        if isinstance(decay, bool) or not isinstance(decay, int | float) or not 0 <= decay < 1:
            raise ValueError(
                f"averaging={self.averaging!r}: give a decay of at least 0 (off) and below 1, such as 0.999"
            )
        if not isinstance(self.snapshots, bool):
            raise ValueError(f"snapshots={self.snapshots!r}: choose True or False")
        if isinstance(self.mixup, bool) or not isinstance(self.mixup, int | float) or not 0 <= self.mixup < math.inf:
            raise ValueError(f"mixup={self.mixup!r}: give a parameter of at least 0 (off), such as 0.2")
        self._check_class_weights()
        if not isinstance(self.initial, str) or not re.fullmatch(r"([a-z0-9]+(-[a-z0-9]+)*)?", self.initial):
            raise ValueError(
                f'initial={self.initial!r}: give the name of a kept network, such as "three-convolutions", or ""'
            )
        if self.engine not in ENGINES:
            raise ValueError(f"engine={self.engine!r} is unknown; choose one of: {', '.join(ENGINES)}")
        if self.engine == "numpy":
            parts(self)

    def _check_class_weights(self) -> None:
        if self.class_weights not in CLASS_WEIGHTS:
            raise ValueError(f'class_weights={self.class_weights!r} is unknown; choose "" (none) or "balanced"')
        if self.class_weights and self.loss not in WEIGHTED_LOSSES:
            raise ValueError(
                f"class_weights={self.class_weights!r}: {self.loss} takes no weight per class; "
                f"choose one of: {', '.join(WEIGHTED_LOSSES)}"
            )
        if self.class_weights and "weight" in self.loss_options:
            raise ValueError(f"class_weights={self.class_weights!r} and loss_options['weight']: give one of the two")

    def _settle(self, what: str, choices: Mapping[str, Any], reserved: tuple[str, ...], suffix: str = "") -> None:
        name = _canonical(what, getattr(self, what), choices, suffix)
        object.__setattr__(self, what, name)
        cls = getattr(nn, name) if what == "loss" else choices[name]
        _check_options(what, cls, getattr(self, f"{what}_options"), reserved)

    def __hash__(self) -> int:
        """Return a hash of the choices, so that experiments can be keys."""
        return hash(self.key)

    def choices(self) -> dict[str, Any]:
        """Return every choice as plain JSON values."""
        return {f.name: _plain(getattr(self, f.name)) for f in fields(self)}

    @property
    def key(self) -> str:
        """Return the 16 hexadecimal digits that name this experiment's record.

        Only choices that differ from the defaults count, so a field added later leaves old keys as they are. For
        the same reason a default, once recorded with, never changes.
        """
        default = {f.name: {} if f.name.endswith("_options") else f.default for f in fields(self)}
        changed = {name: value for name, value in self.choices().items() if value != default[name]}
        return hashlib.sha256(json.dumps(changed, sort_keys=True).encode()).hexdigest()[:16]

    def but(self, **changes: Any) -> "Experiment":
        """Return the same experiment with some choices changed, validated again."""
        unknown = set(changes) - {f.name for f in fields(self)}
        if unknown:
            names = ", ".join(f.name for f in fields(self))
            raise ValueError(f"an experiment has no choice {', '.join(sorted(unknown))}; it has: {names}")
        return replace(self, **changes)


def _plain(value: Any) -> Any:
    """Return ``value`` with mappings as dictionaries and tuples as lists, as JSON would give them back."""
    if isinstance(value, Mapping):
        return {key: _plain(value[key]) for key in sorted(value)}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


def rehearsal(experiment: Experiment) -> Experiment:
    """Return the same experiment, tiny and on the embedded digits: what ``COURSE_SMOKE=1`` trains instead."""
    return experiment.but(
        dataset="digits",
        train_size=128,
        epochs=min(experiment.epochs, 2),
        batch_size=min(experiment.batch_size, 64),
    )
