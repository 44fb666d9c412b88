"""A run: what became of an experiment, as one JSON file with its provenance, written once."""

import json
import os
import platform
import subprocess
import time
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision
from safetensors.torch import save
from sklearn.metrics import confusion_matrix
from torch import nn
from torch.nn import functional as F

from helpers.data import Dataset, Split
from helpers.data import load as load_data
from helpers.files import atomic_write
from helpers.models import layer_table, structure_hash
from helpers.record.run import FORMAT, kind_for, pack, record_path, snapshot_path, weights_path
from helpers.settings import DATA, ROOT, smoke
from helpers.training import Experiment, Fit, criterion, fingerprint, pick_device, predict, training_split
from helpers.training import numpy_engine as numpy_train
from helpers.training.loop import fit

BINS = 15


def reliability(confidence: np.ndarray, right: np.ndarray, bins: int = BINS) -> dict[str, list[Any]]:
    """Return, for ``bins`` equal ranges of confidence from 0 to 1: count, mean confidence, share of right answers.

    confidence: (N,) probabilities of the predicted class; right: (N,) whether the prediction is true. A range
    without predictions has zeros. Source: Guo et al., On Calibration of Modern Neural Networks (2017).

    Raises:
        ValueError: the arrays differ in length, a confidence is no probability, or ``right`` is not true or false.
    """
    confidence, right = np.asarray(confidence, dtype=float), np.asarray(right, dtype=float)
    if confidence.shape != right.shape or confidence.ndim != 1:
        raise ValueError(f"confidence {confidence.shape} and right {right.shape} must be rows of one length")
    if not ((confidence >= 0) & (confidence <= 1)).all():
        raise ValueError("a confidence lies outside 0 to 1; give probabilities, not logits")
    if not ((right == 0) | (right == 1)).all():
        raise ValueError("right has other values than true and false; give prediction == label, not the labels")
    if type(bins) is not int or bins < 1:
        raise ValueError(f"bins={bins!r}: give a positive whole number")
    place = np.minimum((confidence * bins).astype(int), bins - 1)
    count = np.bincount(place, minlength=bins)
    each = np.maximum(count, 1)
    return {
        "count": count.tolist(),
        "confidence": (np.bincount(place, confidence, bins) / each).tolist(),
        "accuracy": (np.bincount(place, right, bins) / each).tolist(),
    }


def expected_calibration_error(curve: dict[str, list[Any]]) -> float:
    """Return the mean distance between confidence and accuracy over all predictions of a :func:`reliability` curve."""
    count = np.array(curve["count"], dtype=float)
    gaps = np.abs(np.subtract(curve["confidence"], curve["accuracy"]))
    return float((count * gaps).sum() / max(count.sum(), 1))


POINTS_PER_RUN = 400


def _rounded(value: Any) -> Any:
    """Return ``value`` with every float at six significant digits: finer ones are noise, and only cost space."""
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, Mapping):
        return {key: _rounded(item) for key, item in value.items()}
    return [_rounded(item) for item in value] if isinstance(value, list | tuple) else value


def thin(losses: list[float], points: int = POINTS_PER_RUN) -> dict[str, list[float]]:
    """Return at most ``points`` means over equal blocks of ``losses``, with the step in the middle of each block."""
    if not losses:
        return {"step": [], "loss": []}
    size = -(-len(losses) // points)
    blocks = [losses[start : start + size] for start in range(0, len(losses), size)]
    middles = [start + (len(block) + 1) / 2 for start, block in zip(range(0, len(losses), size), blocks, strict=True)]
    return {"step": middles, "loss": [sum(block) / len(block) for block in blocks]}


def _commit() -> str:
    """Return the commit of the sources, with ``+`` where they were changed since, or "unknown" outside git."""

    def git(*words: str) -> str:
        return subprocess.run(["git", "-C", ROOT, *words], capture_output=True, text=True, check=True).stdout.strip()

    try:
        return git("rev-parse", "HEAD") + ("+" if git("status", "--porcelain", "--", "helpers") else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _processor() -> str:
    """Return the processor's name as the system gives it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def provenance(data: Dataset, device: torch.device) -> dict[str, Any]:
    """Return what tells later where a result comes from."""
    gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else None
    return {
        "device": device.type,
        "device_name": gpu or _processor(),
        "cores": os.cpu_count(),
        "instructions": torch.backends.cpu.get_cpu_capability(),  # processors of one name may differ in these
        "threads": torch.get_num_threads(),
        "data_source": data.source,
        "data_hashes": dict(data.hashes),
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "torchvision": torchvision.__version__,
            "numpy": np.__version__,
        },
        "commit": _commit(),
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
    }


def _judge(fitted: Fit, data: Dataset, split: Split, loss: Any, mirrored: bool = False) -> dict[str, Any]:
    """Return figures, confusion matrix, calibration and packed predictions of the final weights on ``split``.

    With ``mirrored``, the accuracy of test-time augmentation stands beside them: of the mean of an image's logits and
    those of its mirror image.
    """
    logits = predict(fitted.model, split, data.mean, data.std)
    labels, guesses = split.labels.cpu(), logits.argmax(1)
    confidence = F.softmax(logits, dim=1).amax(1).nan_to_num()
    curve = reliability(confidence.clamp(0, 1).numpy(), (guesses == labels).numpy())
    figures = {
        "loss": loss(logits, labels).item(),
        "accuracy": (guesses == labels).float().mean().item(),
        "calibration_error": expected_calibration_error(curve),
    }
    if mirrored:
        both = logits + predict(fitted.model, replace(split, images=split.images.flip(3)), data.mean, data.std)
        figures["accuracy_tta"] = (both.argmax(1) == labels).float().mean().item()
    return {
        "figures": figures,
        "confusion": confusion_matrix(labels, guesses, labels=range(len(data.classes))).tolist(),
        "calibration": curve,
        "predictions": {"labels": pack(guesses.numpy()), "confidence": pack((confidence * 255).round().numpy())},
    }


def _saved(model: nn.Module) -> bytes:
    return save({name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()})


def _keep(key: str, device: str, epoch: int, model: nn.Module) -> None:
    atomic_write(snapshot_path(key, device, epoch), _saved(model))


def train_run(
    experiment: Experiment,
    *,
    device: str | None = None,
    checkpoints: Path | None = None,
    progress: bool = True,
    data: Dataset | None = None,
) -> dict[str, Any]:
    """Return the record of ``experiment`` as JSON values, after training it now.

    With a folder for ``checkpoints``, a run that was killed goes on where its last epoch ended. The test set is read
    here and nowhere else: once, for a flagship run, after training.
    """
    data = data or load_data(experiment.dataset)
    place = pick_device(kind_for(experiment, device))
    began = time.perf_counter()
    path = checkpoints and checkpoints / f"{experiment.key}-{place.type}.pt"
    if experiment.engine == "numpy":
        fitted = numpy_train.fit(experiment, data, checkpoint_path=path, progress=progress)
    else:
        keep = partial(_keep, experiment.key, place.type) if experiment.snapshots else None
        fitted = fit(experiment, data, device=place, checkpoint_path=path, progress=progress, after_epoch=keep)
    splits = {"train": training_split(experiment, data), "validation": data.validation}
    loss = criterion(experiment, len(data.classes), splits["train"])
    if experiment.flagship:
        splits["test"] = data.test
    judged = {name: _judge(fitted, data, split, loss, experiment.flagship) for name, split in splits.items()}
    metrics = {f"{name}_{what}": value for name, judge in judged.items() for what, value in judge["figures"].items()}
    if experiment.flagship:
        atomic_write(weights_path(experiment.key, place.type), _saved(fitted.model))
    epochs = len(fitted.history["epoch"])
    metrics |= {
        "epochs": epochs,
        "best_epoch": fitted.best_epoch,
        "parameters": sum(p.numel() for p in fitted.model.parameters()),
        "training_seconds": sum(fitted.history["seconds"]),
        "total_seconds": time.perf_counter() - began,
    }
    shape = tuple(data.train.images.shape[1:])
    record = {
        "format": FORMAT,
        "experiment": experiment.choices(),
        "key": experiment.key,
        "classes": list(data.classes),
        "metrics": metrics,
        "history": fitted.history,
        "iterations": thin(fitted.losses),
        "confusion": {name: judge["confusion"] for name, judge in judged.items()},
        "calibration": {name: judge["calibration"] for name, judge in judged.items()},
        "predictions": {name: judge["predictions"] for name, judge in judged.items() if name == "test"},
        "diverged": fitted.diverged,
        "structure": layer_table(fitted.model.to("cpu"), shape),
        "structure_hash": structure_hash(fitted.model),
        "provenance": provenance(data, place) | {"compiled": fitted.compiled},
    }
    if experiment.initial:  # its name stands among the choices, and may come to stand for other weights
        record["provenance"]["initial"] = fingerprint(experiment.initial)
    return _rounded(record)


def write_run(record: Mapping[str, Any], folder: Path | None = None) -> Path:
    """Return the path under which ``record`` was written, in one step.

    Raises:
        ValueError: a rehearsal's record was about to land among the results.
    """
    experiment = Experiment(**record["experiment"])
    path = record_path(experiment, record["provenance"]["device"], folder)
    if smoke() and path.is_relative_to(DATA / "runs"):
        raise ValueError(f"COURSE_SMOKE=1 is set, so nothing is written to {path}: a rehearsal is no result")
    atomic_write(path, json.dumps(record, indent=None, separators=(",", ":"), allow_nan=True) + "\n")
    return path
