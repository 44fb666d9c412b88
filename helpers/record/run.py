"""A run: what became of an experiment, read from its record; and the runs of a study, arm by arm."""

import base64
import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from safetensors.torch import load_file
from torch import nn

from helpers.models import structure_hash
from helpers.settings import runs_folder
from helpers.training import Experiment

FORMAT = 1
DEVICES = ("cuda", "cpu")


@dataclass(frozen=True)
class Run:
    """An experiment's record. Accuracies are fractions, losses means over images, times seconds.

    ``history`` holds one value per epoch, ``iterations`` the loss per ``step`` as means over blocks, ``metrics`` the
    figures of the final weights without augmentation, ``classes`` the names of the classes in the order of their
    numbers, ``confusion`` counts per split (K, K), rows: true class, columns: prediction, ``provenance`` data, machine,
    versions, commit and date, ``structure`` the layers as :func:`helpers.models.layer_table` saw them, ``diverged``
    where and why training broke down, or None.
    """

    content: Mapping[str, Any]
    arm: str = ""

    # What stands in the record.
    experiment = property(lambda self: Experiment(**self.content["experiment"]))
    seed = property(lambda self: self.content["experiment"]["seed"])
    history = property(lambda self: self.content["history"])
    iterations = property(lambda self: self.content["iterations"])
    metrics = property(lambda self: self.content["metrics"])
    classes = property(lambda self: tuple(self.content["classes"]))
    device = property(lambda self: self.content["provenance"]["device"])  # "cpu" or "cuda"
    provenance = property(lambda self: self.content["provenance"])
    structure = property(lambda self: self.content["structure"])
    diverged = property(lambda self: self.content["diverged"])
    confusion = property(lambda self: {split: np.array(m) for split, m in self.content["confusion"].items()})

    @property
    def calibration(self) -> dict[str, dict[str, list[Any]]]:
        """Return a :func:`helpers.record.recorder.reliability` curve per split; early records have none."""
        if "calibration" not in self.content:
            name = f"{self.content['key']}.json ({self.arm or self.experiment.model}, seed {self.seed})"
            old = "older than reliability curves: move it away, and it is trained again"
            raise ValueError(f"the record {name} is {old}")
        return self.content["calibration"]

    @property
    def predictions(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Return, per split that was kept, the predicted classes (N,) uint8 and their probabilities (N,) 0..1."""
        kept = self.content["predictions"].items()
        return {split: (unpack(found["labels"]), unpack(found["confidence"]) / 255) for split, found in kept}

    @property
    def collapsed(self) -> bool:
        """Return whether training ended in no finite loss, or in one class for 999 of 1000 training pictures."""
        named = self.confusion["train"].sum(axis=0)
        return bool(self.diverged) or bool(named.max() >= 0.999 * named.sum())

    def right(self, split: str) -> np.ndarray:
        """Return which pictures of a split whose predictions were kept, (N,) bool, the network recognises."""
        if split not in self.predictions:
            raise ValueError(f"run {self.content['key']} kept no predictions of {split!r}, only a flagship's test ones")
        guesses, matrix = self.predictions[split][0], self.confusion[split]
        labels = np.repeat(np.arange(len(matrix)), matrix.sum(axis=1))  # data sets lie class by class
        pairs = np.bincount(len(matrix) * labels + guesses, minlength=matrix.size)
        if not np.array_equal(pairs, matrix.ravel()):
            raise ValueError(f"run {self.content['key']}: the pictures of {split!r} do not lie class by class")
        return labels == guesses

    def classwise(self, split: str) -> np.ndarray:
        """Return the accuracy of each class (K,) on "train", "validation" or, for flagship runs, "test"."""
        matrix = self.confusion[split]
        return matrix.diagonal() / matrix.sum(axis=1)

    def is_stale(self) -> bool:
        """Return whether the model of that name and options has another structure today than when it was trained."""
        return structure_hash(self.experiment.network(len(self.classes))) != self.content["structure_hash"]


class Runs(Sequence[Run]):
    """The runs of the study of that name, arm by arm, all from one kind of device; it ``declared`` so many seeds."""

    def __init__(self, study: str, runs: Sequence[Run], declared: int = 0) -> None:
        self.study, self.declared, self._runs = study, declared, list(runs)
        if len({run.device for run in runs}) > 1:
            raise ValueError(f"study {study}: runs of a CPU and of a GPU do not belong in one comparison")

    def __getitem__(self, index: Any) -> Any:
        return self._runs[index]

    def __len__(self) -> int:
        return len(self._runs)

    @property
    def arms(self) -> list[str]:
        """Return the labels of the arms, in the order of the study."""
        return list(dict.fromkeys(run.arm for run in self._runs))

    @property
    def seeds(self) -> list[int]:
        """Return the seeds that every arm was run with."""
        return sorted({run.seed for run in self._runs})

    def by_arm(self) -> dict[str, list[Run]]:
        """Return the runs of each arm, in the order of the seeds."""
        return {arm: sorted((r for r in self._runs if r.arm == arm), key=lambda r: r.seed) for arm in self.arms}

    def only(self, *arms: str) -> "Runs":
        """Return the runs of some arms alone, in the order given."""
        by_arm = self.by_arm()
        if unknown := [arm for arm in arms if arm not in by_arm]:
            raise ValueError(f"study {self.study} has no arm {unknown[0]!r}; it has: {', '.join(by_arm)}")
        return Runs(self.study, [run for arm in arms for run in by_arm[arm]], self.declared)

    def values(self, metric: str) -> pd.DataFrame:
        """Return one final figure of all runs: a row per seed, a column per arm."""
        if any(metric not in run.metrics for run in self._runs):
            known = sorted(set.intersection(*(set(run.metrics) for run in self._runs)))
            raise ValueError(f"no figure {metric!r} in every run of {self.study}; there are: {', '.join(known)}")
        columns = {arm: [run.metrics[metric] for run in runs] for arm, runs in self.by_arm().items()}
        return pd.DataFrame(columns, index=pd.Index(self.seeds, name="seed"), dtype=float)

    def __str__(self) -> str:
        machine = self._runs[0].provenance["device_name"]
        of = f" of {self.declared} declared" if len(self.seeds) < self.declared else ""
        seeds, device = f"{len(self.seeds)} seeds{of}", self._runs[0].device
        return f"{self.study}: {len(self.arms)} arms x {seeds}, recorded on {device} ({machine})"


def pack(values: np.ndarray) -> str:
    """Return whole numbers 0..255, (N,), as compressed text, for :func:`unpack`."""
    return base64.b64encode(zlib.compress(values.astype(np.uint8).tobytes(), 9)).decode()


def unpack(text: str) -> np.ndarray:
    """Return the numbers, uint8 (N,), that :func:`pack` made text of."""
    return np.frombuffer(zlib.decompress(base64.b64decode(text)), np.uint8)


def kind_for(experiment: Experiment, device: str | None) -> str | None:
    """Return the kind of device that ``experiment`` trains on where ``device`` is at hand: NumPy knows CPUs alone."""
    return "cpu" if experiment.engine == "numpy" else device


def weights_path(key: str, device: str, epoch: int | None = None) -> Path:
    """Return where a run's final weights are kept, or those after ``epoch`` epochs (0: before training); not in git."""
    path = runs_folder().parent / "weights" / f"{key}-{device}.safetensors"
    return path if epoch is None else path.with_suffix("") / f"{epoch:03}.safetensors"


def load_weights(run: Run, epoch: int | None = None) -> dict[str, torch.Tensor]:
    """Return the final weights, by name, of a flagship run that was trained on this machine, or a snapshot's."""
    path = weights_path(run.content["key"], run.device, epoch)
    if not path.is_file():
        raise FileNotFoundError(f"the weights {path} are not here: move the run's record away, and it is trained again")
    return load_file(path)


def load_snapshot(run: Run, epoch: int) -> nn.Module:
    """Return the network after ``epoch`` epochs of a run with snapshots that was trained here; 0: before training."""
    model = run.experiment.network(len(run.classes))
    model.load_state_dict(load_weights(run, epoch))
    return model.eval()


def record_path(experiment: Experiment, device: str, folder: Path | None = None) -> Path:
    """Return where the run of ``experiment`` on a kind of device ("cpu" or "cuda") is or would be recorded."""
    return (folder or runs_folder()) / kind_for(experiment, device) / f"{experiment.key}.json"


def read_run(experiment: Experiment, device: str, arm: str = "", folder: Path | None = None) -> Run | None:
    """Return the recorded run of ``experiment`` on that kind of device, or None; a damaged or foreign file is named."""
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
