"""Training and evaluation: batches in, numbers about the network out, and able to be killed at any moment."""

import math
import time
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from helpers.numpy_cnn import checkpoint as checkpoints
from helpers.numpy_cnn.inputs import Augment, Prepare
from helpers.numpy_cnn.loss import softmax, softmax_cross_entropy
from helpers.numpy_cnn.network import Sequential
from helpers.numpy_cnn.optimizers import Optimizer

HISTORY = ("epoch", "lr", "train_loss", "train_accuracy", "validation_loss", "validation_accuracy", "seconds")

# The learning rate as a multiple of the optimizer's own, at a step (from 0) of so many.
Schedule = Callable[[int, int], float]


class Pictures(NamedTuple):
    """Images (N, H, W, C), as stored, usually uint8, and their labels (N,), whole numbers from 0."""

    images: np.ndarray
    labels: np.ndarray


class Evaluation(NamedTuple):
    """How a network does on some pictures: mean loss, accuracy 0..1, and what it said about each picture."""

    loss: float
    accuracy: float
    predictions: np.ndarray  # (N,), class numbers
    confidence: np.ndarray  # (N,), the probability given to the predicted class, 0..1
    confusion: np.ndarray  # (K, K) counts: rows true classes, columns predicted ones


def as_they_are(images: np.ndarray) -> np.ndarray:
    """Return the images: for data that are normalised already."""
    return images


def constant(step: int, steps: int) -> float:
    """Return 1: a learning rate that stays."""
    return 1.0


def one_cycle(step: int, steps: int) -> float:
    """Return a factor that climbs from 1/25 to 1 in the first three tenths, and falls to nearly 0, both as cosines.

    It is PyTorch's OneCycleLR with its defaults, momentum aside (Smith and Topin, 2018).
    """
    peak, last = 0.3 * steps - 1, steps - 1
    if step <= peak:
        start, end, way = 1 / 25, 1.0, step / max(peak, 1)
    else:
        start, end, way = 1.0, 1 / (25 * 1e4), (step - peak) / max(last - peak, 1)
    return end + (start - end) * (1 + math.cos(math.pi * way)) / 2


def predict(
    network: Sequential, images: np.ndarray, prepare: Prepare = as_they_are, batch_size: int = 64
) -> np.ndarray:
    """Return the logits (N, K) of all images, in evaluation mode."""
    network.train(False)
    batches = range(0, len(images), batch_size)
    return np.concatenate([network.forward(prepare(images[start : start + batch_size])) for start in batches])


def evaluate(
    network: Sequential, pictures: Pictures, prepare: Prepare = as_they_are, batch_size: int = 64
) -> Evaluation:
    """Return how the network does on ``pictures``, in evaluation mode."""
    logits = predict(network, pictures.images, prepare, batch_size)
    loss, _ = softmax_cross_entropy(logits.astype(np.float64), pictures.labels)
    predictions = logits.argmax(axis=1)
    confusion = np.zeros((logits.shape[1], logits.shape[1]), np.int64)
    np.add.at(confusion, (pictures.labels, predictions), 1)
    accuracy = float(np.mean(predictions == pictures.labels))
    return Evaluation(loss, accuracy, predictions, softmax(logits).max(axis=1), confusion)


def classwise_accuracy(confusion: np.ndarray) -> np.ndarray:
    """Return the share of each class's pictures that is recognised, (K,), from counts (K, K) with rows of true ones."""
    return confusion.diagonal() / confusion.sum(axis=1)


def fit(
    network: Sequential,
    optimizer: Optimizer,
    train: Pictures,
    validation: Pictures | None = None,
    *,
    epochs: int,
    batch_size: int = 64,
    seed: int = 0,
    prepare: Prepare = as_they_are,
    augment: Augment | None = None,
    schedule: Schedule = constant,
    metrics_every: int = 50,
    checkpoint: Path | None = None,
    checkpoint_every: int = 200,
    progress: bool = True,
) -> dict[str, Any]:
    """Return the history of a training, after which ``network`` is trained.

    ``history`` has a value per epoch under "epoch", "lr", "train_loss", "train_accuracy" (running, of the
    pictures as they were learned from), "validation_loss", "validation_accuracy" (if there is a validation
    part) and "seconds"; ``losses`` a value per step; ``metrics`` loss and accuracy over every
    ``metrics_every`` batches; ``diverged`` is None, or says where the loss stopped being a number, which ends
    the training.

    With a ``checkpoint`` path the state is saved there every ``checkpoint_every`` steps and after every
    epoch, and a training that finds the file goes on from it, to the same numbers as one that was never
    stopped.
    """
    training = _Training(network, optimizer, train, validation, epochs, batch_size, seed, prepare, augment, schedule)
    if checkpoint is not None and Path(checkpoint).is_file():
        training.restore(checkpoints.load(checkpoint, network, optimizer, training.settings()))
    total, done = training.steps * epochs, len(training.losses)
    with tqdm(total=total, initial=done, unit="batch", disable=not progress, leave=False) as bar:
        for step in range(done + 1, total + 1):
            if training.diverged:
                break
            began = time.perf_counter()
            training.step()
            if step % training.steps == 0 and not training.diverged:
                training.end_epoch(time.perf_counter() - began)
            else:
                training.seconds += time.perf_counter() - began
            if step % metrics_every == 0:
                loss, accuracy = training.recent(metrics_every)
                bar.set_postfix(epoch=-(-step // training.steps), loss=f"{loss:.3f}", accuracy=f"{accuracy:.1%}")
            if checkpoint is not None and (step % checkpoint_every == 0 or step % training.steps == 0):
                checkpoints.save(checkpoint, network, optimizer, training.settings(), training.progress())
            bar.update()
    optimizer.lr = training.base_lr
    return training.result(metrics_every)


@lru_cache(maxsize=1)
def order(seed: int, epoch: int, images: int) -> np.ndarray:
    """Return the order, a permutation of ``range(images)``, in which an epoch goes through the pictures."""
    return np.random.default_rng([seed, 0, epoch]).permutation(images)


class _Training:
    """What :func:`fit` was given, and how far it has come."""

    def __init__(
        self,
        network: Sequential,
        optimizer: Optimizer,
        train: Pictures,
        validation: Pictures | None,
        epochs: int,
        batch_size: int,
        seed: int,
        prepare: Prepare,
        augment: Augment | None,
        schedule: Schedule,
    ) -> None:
        """Check what can be checked before the first step."""
        if len(train.images) != len(train.labels) or not len(train.labels):
            raise ValueError(f"got {len(train.images)} images and {len(train.labels)} labels to train on")
        if epochs < 1 or batch_size < 1:
            raise ValueError(f"epochs and batch_size must be at least 1, got {epochs} and {batch_size}")
        self.network, self.optimizer, self.base_lr = network, optimizer, optimizer.lr
        self.train, self.validation, self.epochs, self.seed = train, validation, epochs, seed
        self.prepare, self.augment, self.schedule = prepare, augment, schedule
        self.batch = min(batch_size, len(train.labels))
        self.steps = len(train.labels) // self.batch  # in an epoch; a last, smaller batch is left out
        self.history: dict[str, list[float]] = {name: [] for name in HISTORY}
        self.losses: list[float] = []  # a value per step
        self.right: list[int] = []  # pictures recognised, per step
        self.seconds = 0.0  # of this epoch so far
        self.diverged: str | None = None

    def step(self) -> None:
        """Take the next step: forward, loss, backward, and the optimizer's move.

        The order of the pictures is a function of seed and epoch, and what is random in a step a function of
        seed and step, so that a training can start again anywhere.
        """
        epoch, position = divmod(len(self.losses), self.steps)
        generator = np.random.default_rng([self.seed, 1, len(self.losses)])
        batch = order(self.seed, epoch, len(self.train.labels))[position * self.batch : (position + 1) * self.batch]
        images, labels = self.train.images[batch], self.train.labels[batch]
        if self.augment is not None:
            images = self.augment(images, generator)

        logits = self.network.train(True, generator).forward(self.prepare(images))
        loss, dlogits = softmax_cross_entropy(logits, labels)
        if not math.isfinite(loss):
            self.diverged = f"the loss was {loss} at step {position + 1} of epoch {epoch + 1}"
            return
        self.network.backward(dlogits)
        self.optimizer.lr = self.base_lr * self.schedule(len(self.losses), self.steps * self.epochs)
        self.optimizer.step(self.network)
        self.losses.append(loss)
        self.right.append(int(np.sum(logits.argmax(axis=1) == labels)))

    def end_epoch(self, seconds: float) -> None:
        """Append the epoch that has just ended to the history, with the validation part's figures."""
        began = time.perf_counter()
        loss, accuracy = self.recent(self.steps)
        row = {"epoch": len(self.losses) // self.steps, "lr": self.optimizer.lr}
        row |= {"train_loss": loss, "train_accuracy": accuracy}
        if self.validation is not None:
            seen = evaluate(self.network, self.validation, self.prepare, self.batch)
            row |= {"validation_loss": seen.loss, "validation_accuracy": seen.accuracy}
        row["seconds"] = self.seconds + seconds + time.perf_counter() - began
        self.seconds = 0.0
        for name, value in row.items():
            self.history[name].append(value)

    def recent(self, steps: int) -> tuple[float, float]:
        """Return the mean loss and the accuracy of the last ``steps`` batches."""
        losses, right = self.losses[-steps:], self.right[-steps:]
        return float(np.mean(losses)), sum(right) / (len(right) * self.batch)

    def settings(self) -> dict[str, Any]:
        """Return what a training must share with the one that left a checkpoint."""
        chosen = {name: value for name, value in vars(self.optimizer).items() if name not in ("memory", "steps", "lr")}
        return {
            "network": repr(self.network),
            "optimizer": {"type": type(self.optimizer).__name__, "lr": self.base_lr, **chosen},
            "schedule": self.schedule.__name__,
            "augment": self.augment and self.augment.__name__,
            "images": len(self.train.labels),
            "batch_size": self.batch,
            "epochs": self.epochs,
            "seed": self.seed,
        }

    def progress(self) -> dict[str, Any]:
        """Return how far it has come."""
        return {"history": self.history, "losses": self.losses, "right": self.right, "seconds": self.seconds}

    def restore(self, progress: dict[str, Any]) -> None:
        """Go back to where ``progress`` was taken."""
        self.history, self.losses = progress["history"], progress["losses"]
        self.right, self.seconds = progress["right"], progress["seconds"]

    def result(self, every: int) -> dict[str, Any]:
        """Return what :func:`fit` returns."""
        ends = range(every, len(self.losses) + 1, every)
        metrics = {
            "step": list(ends),
            "loss": [float(np.mean(self.losses[end - every : end])) for end in ends],
            "accuracy": [sum(self.right[end - every : end]) / (every * self.batch) for end in ends],
        }
        history = {name: values for name, values in self.history.items() if values}
        return {"history": history, "losses": self.losses, "metrics": metrics, "diverged": self.diverged}
