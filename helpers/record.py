"""A run: what became of an experiment, as one JSON file with its provenance, read instead of trained again."""

import base64
import json
import os
import platform
import subprocess
import time
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision
from safetensors.torch import load_file, save
from sklearn.metrics import confusion_matrix
from torch.nn import functional as F

from helpers import numpy_train
from helpers.calibration import expected_calibration_error, reliability
from helpers.data import Dataset, Split
from helpers.data import load as load_data
from helpers.experiment import Experiment
from helpers.files import atomic_write
from helpers.layers import layer_table, structure_hash
from helpers.models import build
from helpers.settings import DATA, ROOT, runs_folder, smoke
from helpers.train import Fit, criterion, fit, pick_device, predict, training_split

FORMAT = 1
POINTS_PER_RUN = 400
DEVICES = ("cuda", "cpu")


@dataclass(frozen=True)
class Run:
    """An experiment's record. Accuracies are fractions, losses means over images, times seconds.

    ``history`` holds one value per epoch, ``iterations`` the loss per step as means over blocks, ``metrics`` the
    figures of the final weights without augmentation, ``confusion`` a (K, K) array per split (rows: true class).
    """

    content: Mapping[str, Any]
    arm: str = ""

    @property
    def experiment(self) -> Experiment:
        """Return the choices that this run followed."""
        return Experiment(**self.content["experiment"])

    @property
    def seed(self) -> int:
        """Return the seed of order, augmentation and initialisation."""
        return self.content["experiment"]["seed"]

    @property
    def history(self) -> dict[str, list[float]]:
        """Return the values per epoch."""
        return self.content["history"]

    @property
    def iterations(self) -> dict[str, list[float]]:
        """Return ``step`` and ``loss``: the training loss per step, as means over equal blocks."""
        return self.content["iterations"]

    @property
    def metrics(self) -> dict[str, float]:
        """Return the final figures."""
        return self.content["metrics"]

    @property
    def classes(self) -> tuple[str, ...]:
        """Return the names of the classes, in the order of their numbers."""
        return tuple(self.content["classes"])

    @property
    def device(self) -> str:
        """Return "cpu" or "cuda": runs of different kinds are never compared."""
        return self.content["provenance"]["device"]

    @property
    def provenance(self) -> dict[str, Any]:
        """Return where the run comes from: data, machine, versions, commit, date."""
        return self.content["provenance"]

    @property
    def structure(self) -> list[dict[str, Any]]:
        """Return the layers of the trained network, as :func:`helpers.models.layer_table` saw them."""
        return self.content["structure"]

    @property
    def diverged(self) -> str | None:
        """Return where and why training broke down, or None."""
        return self.content["diverged"]

    @property
    def confusion(self) -> dict[str, np.ndarray]:
        """Return a (K, K) array of counts per split, rows: true class, columns: prediction."""
        return {split: np.array(matrix) for split, matrix in self.content["confusion"].items()}

    @property
    def calibration(self) -> dict[str, dict[str, list[Any]]]:
        """Return a :func:`helpers.calibration.reliability` curve per split.

        Raises:
            ValueError: the run was recorded before these curves were kept.
        """
        if "calibration" not in self.content:
            name, what = f"{self.content['key']}.json", f"{self.arm or self.experiment.model}, seed {self.seed}"
            raise ValueError(
                f"the record {name} ({what}) is older than reliability curves: move it away, and it is trained again"
            )
        return self.content["calibration"]

    @property
    def predictions(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Return, per split that was kept, the predicted classes (N,) uint8 and their probabilities (N,) 0..1."""
        return {
            split: (_unpack(kept["labels"]), _unpack(kept["confidence"]) / 255)
            for split, kept in self.content.get("predictions", {}).items()
        }

    def classwise(self, split: str) -> np.ndarray:
        """Return the accuracy of each class (K,) on "train", "validation" or, for flagship runs, "test"."""
        matrix = self.confusion[split]
        return matrix.diagonal() / matrix.sum(axis=1)

    def is_stale(self) -> bool:
        """Return whether the model of that name and options has another structure today than when it was trained."""
        experiment = self.experiment
        model = build(experiment.model, classes=len(self.classes), **experiment.model_options)
        return structure_hash(model) != self.content["structure_hash"]


def _pack(values: np.ndarray) -> str:
    return base64.b64encode(zlib.compress(values.astype(np.uint8).tobytes(), 9)).decode()


def _unpack(text: str) -> np.ndarray:
    return np.frombuffer(zlib.decompress(base64.b64decode(text)), np.uint8)


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


def _judge(fitted: Fit, data: Dataset, split: Split, loss: Any) -> dict[str, Any]:
    """Return figures, confusion matrix, calibration and packed predictions of the final weights on ``split``."""
    logits = predict(fitted.model, split, data.mean, data.std)
    labels, guesses = split.labels.cpu(), logits.argmax(1)
    confidence = F.softmax(logits, dim=1).amax(1).nan_to_num()
    curve = reliability(confidence.clamp(0, 1).numpy(), (guesses == labels).numpy())
    figures = {
        "loss": loss(logits, labels).item(),
        "accuracy": (guesses == labels).float().mean().item(),
        "calibration_error": expected_calibration_error(curve),
    }
    return {
        "figures": figures,
        "confusion": confusion_matrix(labels, guesses, labels=range(len(data.classes))).tolist(),
        "calibration": curve,
        "predictions": {"labels": _pack(guesses.numpy()), "confidence": _pack((confidence * 255).round().numpy())},
    }


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
        fitted = fit(experiment, data, device=place, checkpoint_path=path, progress=progress)
    loss = criterion(experiment, len(data.classes))
    splits = {"train": training_split(experiment, data), "validation": data.validation}
    if experiment.flagship:
        splits["test"] = data.test
    judged = {name: _judge(fitted, data, split, loss) for name, split in splits.items()}
    metrics = {f"{name}_{what}": value for name, judge in judged.items() for what, value in judge["figures"].items()}
    if experiment.flagship:
        weights = {name: tensor.detach().cpu().contiguous() for name, tensor in fitted.model.state_dict().items()}
        atomic_write(weights_path(experiment.key, place.type), save(weights))
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
    return _rounded(record)


def kind_for(experiment: Experiment, device: str | None) -> str | None:
    """Return the kind of device that ``experiment`` trains on where ``device`` is at hand: NumPy knows CPUs alone."""
    return "cpu" if experiment.engine == "numpy" else device


def weights_path(key: str, device: str) -> Path:
    """Return where the weights of a flagship run are kept: beside the data sets, not in git."""
    return runs_folder().parent / "weights" / f"{key}-{device}.safetensors"


def load_weights(run: Run) -> dict[str, torch.Tensor]:
    """Return the final weights of a flagship run by name.

    Raises:
        FileNotFoundError: they were trained on another machine, or the run is no flagship.
    """
    path = weights_path(run.content["key"], run.device)
    if not path.is_file():
        raise FileNotFoundError(f"the weights {path} are not here: move the run's record away, and it is trained again")
    return load_file(path)


def record_path(experiment: Experiment, device: str, folder: Path | None = None) -> Path:
    """Return where the run of ``experiment`` on a kind of device ("cpu" or "cuda") is or would be recorded."""
    return (folder or runs_folder()) / kind_for(experiment, device) / f"{experiment.key}.json"


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


def read_run(experiment: Experiment, device: str, arm: str = "", folder: Path | None = None) -> Run | None:
    """Return the recorded run of ``experiment`` on that kind of device, or None.

    Raises:
        ValueError: the file is damaged or belongs to other choices; it is named and left as it is.
    """
    path = record_path(experiment, device, folder)
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text())
        same = Experiment(**content["experiment"]).key == experiment.key and content["format"] == FORMAT
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"the record {path} is damaged ({error}); restore it with git, or move it away") from error
    if not same:
        raise ValueError(f"the record {path} belongs to another experiment; restore it with git, or move it away")
    return Run(content, arm)
