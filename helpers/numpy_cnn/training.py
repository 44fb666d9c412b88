"""Networks, optimizers, and training: batches in, numbers about the network out, able to be killed at any moment."""

import io
import json
import math
import re
import time
import zipfile
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from helpers.numpy_cnn.layers import NETWORKS, Sequential, softmax_cross_entropy
from helpers.settings import atomic_write

HISTORY = ("epoch", "lr", "train_loss", "train_accuracy", "validation_loss", "validation_accuracy", "seconds")
CHECKPOINT_EVERY = 200  # steps

Prepare = Callable[[np.ndarray], np.ndarray]  # uint8 pictures -> a network's input
Augment = Callable[[np.ndarray, np.random.Generator], np.ndarray]  # uint8 pictures -> others
Schedule = Callable[[int, int], float]  # at a step (from 0) of so many -> a multiple of the optimizer's own rate


class Optimizer:
    """How a gradient g becomes a step of a weight w, with PyTorch's formulas and defaults.

    ``update`` moves one parameter w in place. ``memory["conv1.weight"]["velocity"]`` and the like start at zero, and
    are saved with a checkpoint.
    """

    def __init__(self, lr: float) -> None:
        self.lr, self.steps = lr, 0
        self.memory: dict[str, dict[str, np.ndarray]] = {}

    def step(self, network: Sequential) -> None:
        """Move every parameter of the network, in place, by its gradient of the last ``backward``."""
        self.steps += 1
        for name, w in network.parameters.items():
            self.update(w, network.gradients[name], self.memory.setdefault(name, {}))


class SGD(Optimizer):
    """v ← μ v + g, w ← w - lr v: stochastic gradient descent, with a momentum μ of 0 unless asked for."""

    def __init__(self, lr: float, *, momentum: float = 0.0) -> None:
        super().__init__(lr)
        self.momentum = momentum

    def update(self, w: np.ndarray, g: np.ndarray, memory: dict[str, np.ndarray]) -> None:
        """Move ``w`` by the velocity v, or by g itself without momentum."""
        if self.momentum:
            velocity = memory.setdefault("velocity", np.zeros_like(w))
            velocity *= self.momentum
            velocity += g
            g = velocity
        w -= self.lr * g


class Adam(Optimizer):
    """m ← β₁ m + (1 - β₁) g, v ← β₂ v + (1 - β₂) g², w ← w - lr m̂ / (√v̂ + ε) (Kingma and Ba, 2015).

    m̂ = m / (1 - β₁ᵗ) and v̂ = v / (1 - β₂ᵗ) undo the start from zero, at step t; β₁ is 0.9, β₂ 0.999 and ε 1e-8.
    """

    def update(self, w: np.ndarray, g: np.ndarray, memory: dict[str, np.ndarray]) -> None:
        """Move ``w`` by the mean gradient over the root of the mean squared gradient."""
        beta1, beta2 = 0.9, 0.999
        mean, square = (memory.setdefault(key, np.zeros_like(w)) for key in ("mean", "square"))
        mean += (1 - beta1) * (g - mean)
        square *= beta2
        square += (1 - beta2) * g * g
        root = np.sqrt(square / (1 - beta2**self.steps)) + 1e-8
        w -= self.lr / (1 - beta1**self.steps) * mean / root


def constant(step: int, steps: int) -> float:
    """Return 1: a learning rate that stays."""
    return 1.0


def one_cycle(step: int, steps: int) -> float:
    """Return the factor of PyTorch's OneCycleLR, momentum aside: from 1/25 up to 1 and, from three tenths on, to 0."""
    peak, last = 0.3 * steps - 1, steps - 1
    if step <= peak:
        start, end, way = 1 / 25, 1.0, step / max(peak, 1)
    else:
        start, end, way = 1.0, 1 / (25 * 1e4), (step - peak) / max(last - peak, 1)
    return end + (start - end) * (1 + math.cos(math.pi * way)) / 2


class Pictures(NamedTuple):
    """Images (N, H, W, C), uint8, and their labels (N,), whole numbers from 0."""

    images: np.ndarray
    labels: np.ndarray


def normaliser(mean: np.ndarray, std: np.ndarray) -> Prepare:
    """Return the function that normalises uint8 pictures (n, H, W, C) by ``mean`` and ``std`` (C,), 0 to 1."""
    mean, std = np.float64(mean), np.float64(std)
    scale, shift = (1 / (255 * std)).astype(np.float32), (mean / std).astype(np.float32)
    return lambda images: images.astype(np.float32) * scale - shift


def mirror(p: float) -> Augment:
    """Return the function that shows each of some pictures (n, H, W, C) in a mirror with probability p."""

    def augment(images: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        mirrored = generator.random(len(images)) < p
        return np.where(mirrored[:, None, None, None], images[:, :, ::-1], images)

    return augment


OPTIMIZERS: dict[str, type[Optimizer]] = {"SGD": SGD, "Adam": Adam}
SCHEDULES: dict[str, Schedule] = {"constant": constant, "OneCycleLR": one_cycle}


def parts(experiment: Any, classes: int = 10) -> tuple[Sequential, Optimizer, Schedule, Augment | None]:
    """Return the parts of an experiment's training, initialised from its seed; ValueError lists those there are."""
    for name, choices in (("model", NETWORKS), ("optimizer", OPTIMIZERS), ("schedule", SCHEDULES)):
        if (got := getattr(experiment, name)) not in choices:
            raise ValueError(f"the NumPy network has no {name} {got!r}; choose one of: {', '.join(choices)}")
    cycle = {"cycle_momentum": False} if experiment.schedule == "OneCycleLR" else {}
    fixed = {"model_options": {}, "schedule_options": cycle, "loss": "CrossEntropyLoss", "loss_options": {}}
    fixed |= {"precision": "fp32", "patience": None, "averaging": 0.0, "mixup": 0.0, "class_weights": "", "initial": ""}
    for name, wanted in fixed.items():
        if (got := getattr(experiment, name)) != wanted:
            raise ValueError(f"the NumPy network wants {name}={wanted!r} here, got {got!r}")
    if not (flip := re.fullmatch(r"(?:hflip(?::(\S+))?)?", experiment.augmentation)):
        raise ValueError(f'the NumPy network has no augmentation {experiment.augmentation!r}; choose "" or "hflip:0.5"')
    try:
        optimizer = OPTIMIZERS[experiment.optimizer](experiment.lr, **experiment.optimizer_options)
    except TypeError as error:
        raise ValueError(f"the NumPy network's {experiment.optimizer} does not take these options: {error}") from error
    network = NETWORKS[experiment.model](classes, seed=experiment.seed)
    augment = mirror(float(flip[1] or 0.5)) if experiment.augmentation else None
    return network, optimizer, SCHEDULES[experiment.schedule], augment


def predict(network: Sequential, images: np.ndarray, prepare: Prepare, batch_size: int = 64) -> np.ndarray:
    """Return the logits (N, K) of all images, in evaluation mode."""
    network.train(False)
    batches = range(0, len(images), batch_size)
    return np.concatenate([network.forward(prepare(images[start : start + batch_size])) for start in batches])


@lru_cache(maxsize=1)
def order(seed: int, epoch: int, images: int) -> np.ndarray:
    """Return the order, a permutation of ``range(images)``, in which an epoch goes through the pictures."""
    return np.random.default_rng([seed, 0, epoch]).permutation(images)


def fit(
    network: Sequential,
    optimizer: Optimizer,
    train: Pictures,
    validation: Pictures,
    *,
    epochs: int,
    prepare: Prepare,
    batch_size: int = 64,
    seed: int = 0,
    augment: Augment | None = None,
    schedule: Schedule = constant,
    checkpoint: Path | None = None,
    progress: bool = True,
) -> tuple[dict[str, list[float]], list[float], str | None]:
    """Train ``network``; return its history, the loss of every step, and None or where the loss was no number.

    The history has a value per epoch under each name of ``HISTORY``; the training figures are those of the pictures as
    they were learned from. A loss that is no number ends the training.

    With a ``checkpoint`` path the state is saved there every few hundred steps and after every epoch, and a
    training that finds the file goes on from it, to the same numbers as one that was never stopped: all that is random
    is a function of the seed and the epoch or the step.
    """
    base_lr, batch_size = optimizer.lr, min(batch_size, len(train.labels))
    per_epoch = len(train.labels) // batch_size  # a last, smaller batch is left out
    steps, diverged = per_epoch * epochs, None
    settings = {"optimizer": type(optimizer).__name__, "lr": base_lr, "images": len(train.labels), "seed": seed}
    settings |= {"batch_size": batch_size, "epochs": epochs, "schedule": schedule.__name__}
    state = {"history": {name: [] for name in HISTORY}, "losses": [], "right": [], "seconds": 0.0}
    if checkpoint is not None and checkpoint.is_file():
        state = _load(checkpoint, network, optimizer, settings)
    history, losses, right = state["history"], state["losses"], state["right"]  # right: pictures recognised, per step
    with tqdm(total=steps, initial=len(losses), unit="batch", disable=not progress, leave=False) as bar:
        for step in range(len(losses), steps):
            began = time.perf_counter()
            epoch, position = divmod(step, per_epoch)
            batch = order(seed, epoch, len(train.labels))[position * batch_size : (position + 1) * batch_size]
            images, labels = train.images[batch], train.labels[batch]
            if augment is not None:
                images = augment(images, np.random.default_rng([seed, 1, step]))
            logits = network.train().forward(prepare(images))
            loss, dlogits = softmax_cross_entropy(logits, labels)
            if not math.isfinite(loss):
                diverged = f"the loss was {loss} at step {position + 1} of epoch {epoch + 1}"
                break
            network.backward(dlogits)
            optimizer.lr = base_lr * schedule(step, steps)
            optimizer.step(network)
            losses.append(loss)
            right.append(int(np.sum(logits.argmax(axis=1) == labels)))
            if position == per_epoch - 1:
                row = {"epoch": epoch + 1, "lr": optimizer.lr, "train_loss": float(np.mean(losses[-per_epoch:]))}
                row["train_accuracy"] = sum(right[-per_epoch:]) / (per_epoch * batch_size)
                logits = predict(network, validation.images, prepare, batch_size)
                row["validation_loss"], _ = softmax_cross_entropy(logits.astype(np.float64), validation.labels)
                row["validation_accuracy"] = float(np.mean(logits.argmax(axis=1) == validation.labels))
                row["seconds"] = state["seconds"] + time.perf_counter() - began
                for name, value in row.items():
                    history[name].append(value)
                state["seconds"] = 0.0
            else:
                state["seconds"] += time.perf_counter() - began  # of this epoch so far
            if (step + 1) % 50 == 0:
                accuracy = sum(right[-50:]) / (50 * batch_size)
                bar.set_postfix(epoch=epoch + 1, loss=f"{np.mean(losses[-50:]):.3f}", accuracy=f"{accuracy:.1%}")
            if checkpoint is not None and ((step + 1) % CHECKPOINT_EVERY == 0 or position == per_epoch - 1):
                _save(checkpoint, network, optimizer, settings, state)
            bar.update()
    optimizer.lr = base_lr
    return history, losses, diverged


def _save(path: Path, network: Sequential, optimizer: Optimizer, settings: dict[str, Any], state: dict) -> None:
    arrays = {f"network/{name}": array for name, array in {**network.parameters, **network.state}.items()}
    for name, memory in optimizer.memory.items():
        arrays |= {f"optimizer/{name}/{key}": array for key, array in memory.items()}
    about = json.dumps({"settings": settings, "state": state, "optimizer_steps": optimizer.steps})
    file = io.BytesIO()
    np.savez(file, about=np.array(about), **arrays)
    atomic_write(path, file.getvalue())


def _load(path: Path, network: Sequential, optimizer: Optimizer, settings: dict[str, Any]) -> dict[str, Any]:
    """Return the state saved at ``path``, after putting network and optimizer where they were then.

    ValueError names a file that is damaged or another training's, and leaves it as it is.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = dict(file)
        about = json.loads(str(arrays.pop("about")))
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"the checkpoint {path} cannot be read ({error}); move it away to start anew") from error
    for name, here in settings.items():
        if (there := about["settings"].get(name)) != here:
            change = f"its {name} was {there}, now it is {here}; set it back to go on"
            raise ValueError(f"the checkpoint {path} is another training's: {change}, or move the file away")
    for name, array in {**network.parameters, **network.state}.items():
        array[...] = arrays[f"network/{name}"]
    optimizer.steps, optimizer.memory = about["optimizer_steps"], {}
    for name, array in arrays.items():
        if name.startswith("optimizer/"):
            _, parameter, key = name.split("/")
            optimizer.memory.setdefault(parameter, {})[key] = array
    return about["state"]
