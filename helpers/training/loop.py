"""One ``fit`` for every experiment of the course: any optimizer, schedule and loss of torch, resumable exactly.

All randomness of an epoch (order, augmentation, dropout) is a function of the seed and the epoch alone. So a run that
was killed and resumed at its last finished epoch takes exactly the steps of one that never stopped, and runs with the
same seed see the same images in the same order whatever else differs: their results can be compared in pairs.
"""

import io
import math
import shutil
import sys
import sysconfig
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from helpers.data import Dataset, Split
from helpers.files import atomic_write
from helpers.models import ENOUGH_PICTURES, layer_table, structure_hash, whiten
from helpers.training.augment import augmentation
from helpers.training.experiment import Experiment
from helpers.training.kept import start
from helpers.training.parts import (
    criterion,
    mixture,
    moving_average,
    normalise,
    optimizer,
    products,
    schedule,
    training_split,
)

EVALUATION_BATCH = 500
# Compiling takes half a minute. It is worth that from so many multiply-adds in a whole run on a CPU, where it saves an
# eighth of the time of the larger nets, and from so many images on a GPU, where it saves most launches of any net.
WORTH_COMPILING = {"cpu": 4e12, "cuda": 150_000}
# What comes out slower on a CPU: R2's net, twice as wide, takes 109 s an epoch with max pools, and 77 s uncompiled.
SLOWED_BY_COMPILING = nn.MaxPool2d
# How often the loss is looked at for divergence: each look waits for a GPU to catch up.
STEPS_BETWEEN_LOOKS = 100

HISTORY = ("epoch", "lr", "train_loss", "train_accuracy", "validation_loss", "validation_accuracy", "seconds")


@dataclass
class Fit:
    """A trained network and how it came about.

    ``history`` has one value per epoch under each name of ``HISTORY``; losses are means over images, accuracies
    fractions, the training figures those of the augmented images as they were learned from. Where weights are averaged,
    the average's figures stand beside them under ``averaged_...``. ``losses`` has one value per step. ``diverged`` says
    where and why training stopped, if it had to.
    """

    model: nn.Module
    history: dict[str, list[float]] = field(default_factory=lambda: {name: [] for name in HISTORY})
    losses: list[float] = field(default_factory=list)
    best_epoch: int = 0
    diverged: str | None = None
    compiled: bool = False


class Diverged(ArithmeticError):
    """The loss is no longer a finite number."""


def pick_device(name: str | None = None) -> torch.device:
    """Return the device called ``name``, or the GPU where there is one, or the CPU."""
    return torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))


@torch.inference_mode()
def predict(model: nn.Module, split: Split, mean: Tensor, std: Tensor) -> Tensor:
    """Return the logits (N, K), float32 on the CPU, of all images of ``split``, in order and in evaluation mode."""
    was_training = model.training
    model.eval()
    device = next(model.parameters()).device
    batches = [
        model(normalise(images.to(device), mean.to(device), std.to(device))).float()
        for images in split.images.split(EVALUATION_BATCH)
    ]
    model.train(was_training)
    return torch.cat(batches).cpu()


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write ``state`` (tensors, numbers, text, lists, dictionaries) to ``path``, whole or not at all."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    atomic_write(path, buffer.getvalue())


def load_checkpoint(path: Path, device: torch.device, structure: str) -> dict[str, Any] | None:
    """Return the state saved at ``path``, on ``device``, or None where there is none that can be used.

    A file that cannot be read, or that belongs to another structure of the model, is set aside under a new name,
    never deleted, and training starts from the beginning; one line on stderr says so. Nothing is unpickled but
    tensors and plain values (``weights_only=True``).
    """
    if not path.is_file():
        return None
    try:
        state = torch.load(path, map_location=device, weights_only=True)
        if state["structure"] == structure:
            return state
        reason = "it was saved by a model of another structure"
    except Exception as error:  # torch.load raises a dozen kinds for a damaged file
        reason = f"it cannot be read ({type(error).__name__})"
    aside = path.with_suffix(f".aside-{path.stat().st_mtime_ns}.pt")
    path.rename(aside)
    print(f"checkpoint {path.name}: {reason}; kept as {aside.name}, training starts anew", file=sys.stderr)
    return None


def _can_compile(device: torch.device) -> bool:
    """Return whether torch.compile has what it needs here; say so in one line where it has not."""
    if device.type != "cpu":
        return True
    has_compiler = shutil.which("g++") or shutil.which("clang++")
    if has_compiler and Path(sysconfig.get_path("include"), "Python.h").is_file():
        return True
    print("torch.compile needs g++ and Python's headers: training without it, more slowly", file=sys.stderr)
    return False


class Trainer:
    """The state of one run between two steps; :func:`fit` drives it."""

    def __init__(self, experiment: Experiment, data: Dataset, device: torch.device, compiled: bool | None) -> None:
        self.experiment, self.device = experiment, device
        self.train, self.validation = training_split(experiment, data).to(device), data.validation.to(device)
        self.mean, self.std = data.mean.to(device), data.std.to(device)
        self.batch = min(experiment.batch_size, len(self.train))
        self.steps = len(self.train) // self.batch

        torch.manual_seed(experiment.seed)
        self.model = start(experiment, data)
        self.structure = structure_hash(self.model)
        self.model.to(device, memory_format=torch.channels_last)
        some = self.train.images[:: -(-len(self.train) // ENOUGH_PICTURES)]
        whiten(self.model, normalise(some, self.mean, self.std))
        # Which images are mirrored in the odd epochs, and not in the even ones, by an augmentation that alternates.
        coins = torch.Generator().manual_seed(int(np.random.SeedSequence([experiment.seed, 0]).generate_state(1)[0]))
        self.sides = (torch.rand(len(self.train), generator=coins) < 0.5).to(device)
        self.optimizer = optimizer(experiment, self.model)
        self.schedule = schedule(experiment, self.optimizer, self.steps)
        self.augment = augmentation(experiment.augmentation)
        self.loss = criterion(experiment, len(data.classes), self.train)
        self.average = moving_average(experiment, self.model)

        compiled = (self._pays_to_compile() if compiled is None else compiled) and _can_compile(device)
        # On a GPU, "reduce-overhead" replays the step as one CUDA graph: these nets are launch-bound there.
        mode = "reduce-overhead" if device.type == "cuda" else "default"
        self.forward = torch.compile(self._forward, mode=mode) if compiled else self._forward
        self.fit = Fit(self.model, compiled=compiled)
        self.best: dict[str, Tensor] | None = None

    def _pays_to_compile(self) -> bool:
        """Return whether the run is long enough for torch.compile, and on a CPU of layers that it makes faster."""
        images = self.experiment.epochs * len(self.train)
        if self.device.type != "cpu":
            return images >= WORTH_COMPILING[self.device.type]
        cost = sum(row["multiply_adds"] for row in layer_table(self.model, self.train.images.shape[1:]))
        slowed = any(isinstance(layer, SLOWED_BY_COMPILING) for layer in self.model.modules())
        return images * cost >= WORTH_COMPILING["cpu"] and not slowed

    def _forward(self, images: Tensor, labels: Tensor, others: Tensor, share: Tensor) -> tuple[Tensor, Tensor]:
        """Return the mean loss of images (N, 3, H, W), 0 to 255, and how many of them are classified right.

        Where images are mixtures, ``others`` are the labels that the rest of each, beyond its ``share``, has.
        """
        precision, kind = self.experiment.precision, self.device.type
        with torch.autocast(kind, torch.bfloat16, enabled=precision == "bf16"), products(precision, self.device):
            logits = self.model(normalise(images, self.mean, self.std))
        logits = logits.float()
        loss = self.loss(logits, labels)
        if self.experiment.mixup:
            loss = share * loss + (1 - share) * self.loss(logits, others)
        return loss, (logits.argmax(1) == labels).sum()

    def _step(self, images: Tensor, labels: Tensor, share: float = 1.0) -> tuple[Tensor, Tensor]:
        """Take one step of the optimizer; return the loss before it and the number of right answers."""
        others = labels
        if self.experiment.mixup:
            images, others = mixture(images, labels, share)
        loss, right = self.forward(images, labels, others, torch.full((), share, device=self.device))
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        if self.experiment.schedule == "OneCycleLR":
            self.schedule.step()
        if self.average is not None:
            self.average.update_parameters(self.model)
        return loss.detach(), right

    def epoch(self, number: int, bar: Any) -> None:
        """Go once through the training images in the order that seed and epoch give, and append to the history.

        The last, incomplete batch is left out: the order changes every epoch, so no image misses more than its share,
        and every step has the same shape, which compiled code and CUDA graphs need.

        Raises:
            Diverged: the loss became infinite or not a number.
        """
        began = time.perf_counter()
        sequence = np.random.SeedSequence([self.experiment.seed, number])
        for_order, for_changes, for_dropout, for_shares = map(int, sequence.generate_state(4))
        order = torch.randperm(len(self.train), generator=torch.Generator().manual_seed(for_order)).to(self.device)
        draws = torch.Generator(self.device).manual_seed(for_changes)
        torch.manual_seed(for_dropout)
        mixup, shares = self.experiment.mixup, [1.0] * self.steps
        if mixup:
            shares = np.random.default_rng(for_shares).beta(mixup, mixup, self.steps).tolist()
        turns = self.sides if number % 2 else ~self.sides
        lr = self.optimizer.param_groups[0]["lr"]
        losses, right = torch.zeros(self.steps, device=self.device), torch.zeros((), device=self.device)
        self.model.train()
        for step in range(self.steps):
            batch = order[step * self.batch : (step + 1) * self.batch]
            images = self.augment(self.train.images[batch], draws, turns[batch])
            loss, hits = self._step(images, self.train.labels[batch], shares[step])
            losses[step] = loss
            right += hits
            if step % STEPS_BETWEEN_LOOKS == 0 or step == self.steps - 1:
                finite = losses[: step + 1].isfinite()
                if not finite.all():
                    first = int((~finite).nonzero()[0])
                    raise Diverged(f"the loss was {losses[first].item()} at step {first + 1} of epoch {number}")
            bar.update()
        self.fit.losses += losses.tolist()
        row = {
            "epoch": number,
            "lr": lr,
            "train_loss": losses.mean().item(),
            "train_accuracy": right.item() / (self.steps * self.batch),
            **self._validate(self.model, ""),
            **(self._validate(self.average.module, "averaged_") if self.average is not None else {}),
            "seconds": time.perf_counter() - began,
        }
        for name, value in row.items():
            self.fit.history.setdefault(name, []).append(value)
        if self.schedule is not None and self.experiment.schedule != "OneCycleLR":
            plateau = self.experiment.schedule == "ReduceLROnPlateau"
            self.schedule.step(row["validation_loss"]) if plateau else self.schedule.step()

    def _validate(self, model: nn.Module, prefix: str) -> dict[str, float]:
        logits = predict(model, self.validation, self.mean, self.std)
        labels = self.validation.labels.cpu()
        return {
            f"{prefix}validation_loss": self.loss(logits, labels).item(),
            f"{prefix}validation_accuracy": (logits.argmax(1) == labels).float().mean().item(),
        }

    def remember_best(self) -> bool:
        """Keep the weights if this epoch's validation accuracy is the best yet; return whether patience has run out."""
        judged = self.model if self.average is None else self.average.module
        name = "validation_accuracy" if self.average is None else "averaged_validation_accuracy"
        accuracies, patience = self.fit.history[name], self.experiment.patience
        best = max(range(len(accuracies)), key=accuracies.__getitem__) + 1  # the first of equals
        if patience is None:
            self.fit.best_epoch = len(accuracies)
            return False
        if best == len(accuracies):
            self.best = {name: value.clone() for name, value in judged.state_dict().items()}
        self.fit.best_epoch = best
        return len(accuracies) - best >= patience

    def state(self) -> dict[str, Any]:
        """Return all that a checkpoint must hold."""
        return {
            "structure": self.structure,
            "model": self.model.state_dict(),
            "average": self.average and self.average.state_dict(),
            "best": self.best,
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule and self.schedule.state_dict(),
            "history": self.fit.history,
            "losses": self.fit.losses,
            "best_epoch": self.fit.best_epoch,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go back to where ``state`` was taken."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.schedule is not None:
            self.schedule.load_state_dict(state["schedule"])
        if self.average is not None:
            self.average.load_state_dict(state["average"])
        self.best, self.fit.best_epoch = state["best"], state["best_epoch"]
        self.fit.history, self.fit.losses = state["history"], state["losses"]


def fit(
    experiment: Experiment,
    data: Dataset,
    *,
    device: torch.device | str | None = None,
    checkpoint_path: Path | None = None,
    compiled: bool | None = None,
    progress: bool = True,
    after_epoch: Callable[[int, nn.Module], None] | None = None,
) -> Fit:
    """Return the network that ``experiment`` describes, trained on ``data``.

    With ``checkpoint_path``, the state is saved there after every epoch, and a run that finds such a file goes on from
    it, to the same history and weights as an uninterrupted one (on the same machine, with as many threads).
    ``after_epoch(n, network)`` is called before training with 0, and after every epoch with its number.
    ``compiled`` says whether to use torch.compile; left out, it is used where it pays. A diverging loss ends the run
    early, with the reason in ``Fit.diverged``.
    """
    trainer = Trainer(experiment, data, pick_device(str(device) if device else None), compiled)
    fitted, history = trainer.fit, trainer.fit.history
    state = checkpoint_path and load_checkpoint(checkpoint_path, trainer.device, trainer.structure)
    if state:
        trainer.restore(state)
        history = fitted.history
    done = len(history["epoch"])
    stop = bool(done) and trainer.remember_best()
    if after_epoch and not done:
        after_epoch(0, trainer.model)
    total = experiment.epochs * trainer.steps
    with tqdm(total=total, initial=done * trainer.steps, disable=not progress, leave=False) as bar:
        for number in range(done + 1, experiment.epochs + 1):
            if stop:
                break
            bar.set_description(f"{experiment.model} seed {experiment.seed}, epoch {number}/{experiment.epochs}")
            try:
                trainer.epoch(number, bar)
            except Diverged as error:
                fitted.diverged = str(error)
                break
            if not math.isfinite(history["validation_loss"][-1]):
                fitted.diverged = f"the validation loss was not finite after epoch {number}"
            stop = trainer.remember_best() or fitted.diverged is not None
            bar.set_postfix(val=f"{history['validation_accuracy'][-1]:.1%}")
            if after_epoch:
                after_epoch(number, trainer.model)
            if checkpoint_path:
                save_checkpoint(checkpoint_path, trainer.state())
    if trainer.best is not None:
        trainer.model.load_state_dict(trainer.best)
    elif trainer.average is not None:
        trainer.model.load_state_dict(trainer.average.module.state_dict())
    return fitted
