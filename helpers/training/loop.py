"""One ``fit`` for every experiment of the course: any optimizer, schedule and loss of torch, resumable exactly.

All randomness of an epoch (order, augmentation, dropout) is a function of the seed and the epoch alone. So a run that
was killed takes exactly the steps of one that never stopped, and runs with the same seed see the same images in the
same order whatever else differs: their results can be compared in pairs.
"""

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

from helpers import numpy_cnn as cnn
from helpers.data import Dataset, Split, subset
from helpers.models import ENOUGH_PICTURES, layer_table, structure_hash, whiten
from helpers.training.augment import augmentation
from helpers.training.experiment import Experiment
from helpers.training.kept import load_checkpoint, load_weights, pictures, save_checkpoint, start
from helpers.training.parts import criterion, mixture, moving_average, normalise, optimizer, products, schedule

EVALUATION_BATCH = 500
# Compiling takes half a minute. It is worth that from so many multiply-adds in a whole run on a CPU, where it saves an
# eighth of the time of the larger nets, and from so many images on a GPU, where it saves most launches of any net.
WORTH_COMPILING = {"cpu": 4e12, "cuda": 150_000}
# How often the loss is looked at for divergence: each look waits for a GPU to catch up.
STEPS_BETWEEN_LOOKS = 100


@dataclass
class Fit:
    """A trained network and how it came about.

    ``history`` has one value per epoch under each name of ``cnn.HISTORY``: mean losses and accuracies as fractions, in
    training those of the augmented images as they were learned from, and those of averaged weights as ``averaged_...``.
    ``losses`` has one value per step. ``diverged`` says where and why training stopped, if it had to.
    """

    model: nn.Module
    history: dict[str, list[float]] = field(default_factory=lambda: {name: [] for name in cnn.HISTORY})
    losses: list[float] = field(default_factory=list)
    best_epoch: int = 0
    diverged: str | None = None
    compiled: bool = False


def training_split(experiment: Experiment, data: Dataset) -> Split:
    """Return the images that ``experiment`` learns from: the training split, or a stratified part of it."""
    return data.train if experiment.train_size is None else subset(data.train, experiment.train_size, seed=0)


def pick_device(name: torch.device | str | None = None) -> torch.device:
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
        compiled = self._pays_to_compile() if compiled is None else compiled
        compiler = shutil.which("g++") or shutil.which("clang++")
        headers = Path(sysconfig.get_path("include"), "Python.h").is_file()
        if compiled and device.type == "cpu" and not (compiler and headers):
            print("torch.compile needs g++ and Python's headers: training without it, more slowly", file=sys.stderr)
            compiled = False
        # On a GPU, "reduce-overhead" replays the step as one CUDA graph: these nets are launch-bound there.
        mode = "reduce-overhead" if device.type == "cuda" else "default"
        self.forward = torch.compile(self._forward, mode=mode) if compiled else self._forward
        self.fit = Fit(self.model, compiled=compiled)
        self.best: dict[str, Tensor] | None = None

    def _pays_to_compile(self) -> bool:
        images = self.experiment.epochs * len(self.train)
        if self.device.type != "cpu":
            return images >= WORTH_COMPILING[self.device.type]
        cost = sum(row["multiply_adds"] for row in layer_table(self.model, self.train.images.shape[1:]))
        # R2's net, twice as wide, takes 109 s an epoch with max pools, and 77 s uncompiled.
        slowed = any(isinstance(layer, nn.MaxPool2d) for layer in self.model.modules())
        return images * cost >= WORTH_COMPILING["cpu"] and not slowed

    def _forward(self, images: Tensor, labels: Tensor, others: Tensor, share: Tensor) -> tuple[Tensor, Tensor]:
        # The mean loss of images (N, 3, H, W), 0 to 255, and how many of them are classified right. In mixtures,
        # ``others`` are the labels of what is beyond each image's ``share``.
        precision, kind = self.experiment.precision, self.device.type
        with torch.autocast(kind, torch.bfloat16, enabled=precision == "bf16"), products(precision, self.device):
            logits = self.model(normalise(images, self.mean, self.std))
        logits = logits.float()
        loss = self.loss(logits, labels)
        if self.experiment.mixup:
            loss = share * loss + (1 - share) * self.loss(logits, others)
        return loss, (logits.argmax(1) == labels).sum()

    def _step(self, images: Tensor, labels: Tensor, share: float = 1.0) -> tuple[Tensor, Tensor]:
        others = labels
        if self.experiment.mixup:
            images, others = mixture(images, labels, share)
        loss, right = self.forward(images, labels, others, torch.full((), share, device=self.device))
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        if self.experiment.schedule == "OneCycleLR":
            self.schedule.step()
        if self.average:
            self.average.update_parameters(self.model)
        return loss.detach(), right

    def epoch(self, number: int, bar: Any) -> None:
        """Go once through the training images in the order that seed and epoch give, and append to the history.

        The last, incomplete batch is left out: every step has the same shape, which compiled code and CUDA graphs need.
        A loss that is infinite or not a number ends it, and ``fit.diverged`` says where.
        """
        began = time.perf_counter()
        sequence = np.random.SeedSequence([self.experiment.seed, number])
        for_order, for_changes, for_dropout, for_shares = map(int, sequence.generate_state(4))
        order = torch.randperm(len(self.train), generator=torch.Generator().manual_seed(for_order)).to(self.device)
        draws = torch.Generator(self.device).manual_seed(for_changes)
        torch.manual_seed(for_dropout)
        mixup, draw = self.experiment.mixup, np.random.default_rng(for_shares)
        shares = draw.beta(mixup, mixup, self.steps).tolist() if mixup else [1.0] * self.steps
        turns = self.sides if number % 2 else ~self.sides
        lr = self.optimizer.param_groups[0]["lr"]
        losses, right = torch.zeros(self.steps, device=self.device), torch.zeros((), device=self.device)
        self.model.train()
        for step, batch in enumerate(order[: self.steps * self.batch].split(self.batch)):
            images = self.augment(self.train.images[batch], draws, turns[batch])
            loss, hits = self._step(images, self.train.labels[batch], shares[step])
            losses[step] = loss
            right += hits
            looks = step % STEPS_BETWEEN_LOOKS == 0 or step == self.steps - 1
            if looks and not (finite := losses[: step + 1].isfinite()).all():
                first = int((~finite).nonzero()[0])
                self.fit.diverged = f"the loss was {losses[first].item()} at step {first + 1} of epoch {number}"
                return
            bar.update()
        self.fit.losses += losses.tolist()
        row = {
            "epoch": number,
            "lr": lr,
            "train_loss": losses.mean().item(),
            "train_accuracy": right.item() / (self.steps * self.batch),
            **self._validate(self.model, ""),
            **(self._validate(self.average.module, "averaged_") if self.average else {}),
            "seconds": time.perf_counter() - began,
        }
        for name, value in row.items():
            self.fit.history.setdefault(name, []).append(value)
        if self.experiment.schedule not in ("constant", "OneCycleLR"):
            self.schedule.step()

    def _validate(self, model: nn.Module, prefix: str) -> dict[str, float]:
        logits = predict(model, self.validation, self.mean, self.std)
        labels = self.validation.labels.cpu()
        accuracy = (logits.argmax(1) == labels).float().mean().item()
        return {f"{prefix}validation_loss": self.loss(logits, labels).item(), f"{prefix}validation_accuracy": accuracy}

    def remember_best(self) -> bool:
        """Keep the weights if this epoch's validation accuracy is the best yet; return whether patience has run out."""
        judged, prefix = (self.average.module, "averaged_") if self.average else (self.model, "")
        accuracies, patience = self.fit.history[f"{prefix}validation_accuracy"], self.experiment.patience
        best = accuracies.index(max(accuracies)) + 1  # the first of equals
        self.fit.best_epoch = len(accuracies) if patience is None else best
        if patience is not None and best == len(accuracies):
            self.best = {name: value.clone() for name, value in judged.state_dict().items()}
        return patience is not None and len(accuracies) - best >= patience

    def _kept(self) -> dict[str, Any]:
        kept = {"model": self.model, "average": self.average, "optimizer": self.optimizer, "schedule": self.schedule}
        return {name: part for name, part in kept.items() if part is not None}

    def state(self) -> dict[str, Any]:
        """Return all that a checkpoint must hold."""
        state = {"structure": self.structure, "best": self.best, "history": self.fit.history, "losses": self.fit.losses}
        return state | {name: part.state_dict() for name, part in self._kept().items()}

    def restore(self, state: dict[str, Any]) -> None:
        """Go back to where ``state`` was taken."""
        for name, part in self._kept().items():
            part.load_state_dict(state[name])
        self.best, self.fit.history, self.fit.losses = state["best"], state["history"], state["losses"]


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
    it, to the same history and weights as an uninterrupted one (on the same machine, with as many threads). PyTorch's
    engine calls ``after_epoch(n, network)`` before training with 0, and after every epoch with its number, and compiles
    where it pays unless ``compiled`` says so. A diverging loss ends the run early, as ``Fit.diverged`` says.
    """
    if experiment.engine == "numpy":
        return _fit_numpy(experiment, data, checkpoint_path, progress)
    trainer = Trainer(experiment, data, pick_device(device), compiled)
    if checkpoint_path and (state := load_checkpoint(checkpoint_path, trainer.device, trainer.structure)):
        trainer.restore(state)
    fitted, history = trainer.fit, trainer.fit.history
    done = len(history["epoch"])
    stop = bool(done) and trainer.remember_best()
    if after_epoch and not done:
        after_epoch(0, trainer.model)
    steps = {"total": experiment.epochs * trainer.steps, "initial": done * trainer.steps}
    with tqdm(**steps, disable=not progress, leave=False) as bar:
        for number in range(done + 1, experiment.epochs + 1):
            if stop:
                break
            bar.set_description(f"{experiment.model} seed {experiment.seed}, epoch {number}/{experiment.epochs}")
            trainer.epoch(number, bar)
            if fitted.diverged:
                break
            if not math.isfinite(history["validation_loss"][-1]):
                fitted.diverged = f"the validation loss was not finite after epoch {number}"
            stop = trainer.remember_best() or fitted.diverged is not None
            bar.set_postfix(val=f"{history['validation_accuracy'][-1]:.1%}")
            if after_epoch:
                after_epoch(number, trainer.model)
            if checkpoint_path:
                save_checkpoint(checkpoint_path, trainer.state())
    if trainer.best:
        trainer.model.load_state_dict(trainer.best)
    elif trainer.average:
        trainer.model.load_state_dict(trainer.average.module.state_dict())
    return fitted


def _fit_numpy(experiment: Experiment, data: Dataset, checkpoint_path: Path | None, progress: bool) -> Fit:
    """Return the PyTorch network with the weights that NumPy found, as all that judges or draws a network takes it."""
    network, optimizer, schedule, augment = cnn.parts(experiment, len(data.classes))
    chosen = {"epochs": experiment.epochs, "batch_size": experiment.batch_size, "seed": experiment.seed}
    chosen |= {"schedule": schedule, "augment": augment, "progress": progress}
    chosen["prepare"] = cnn.normaliser(data.mean.numpy(), data.std.numpy())
    chosen["checkpoint"] = checkpoint_path and checkpoint_path.with_suffix(".npz")
    train, validation = pictures(training_split(experiment, data)), pictures(data.validation)
    history, losses, diverged = cnn.fit(network, optimizer, train, validation, **chosen)
    model = experiment.network(len(data.classes))
    load_weights(model, network)
    return Fit(model, history, losses, len(history["epoch"]), diverged)
