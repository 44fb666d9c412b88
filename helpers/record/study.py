"""A study: one question, asked of several arms with paired seeds, and answered from the record."""

import itertools
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from helpers.models import build, layer_table
from helpers.record.parallel import record
from helpers.record.run import DEVICES, Run, kind_for, read_run, record_path
from helpers.settings import smoke
from helpers.training import Experiment, rehearsal

# Fewer paired runs than this say too little for an interval.
LEAST_SEEDS = 3
REHEARSAL_SEEDS = 2
# Training images where an experiment takes them all; only the order of training depends on it.
WHOLE = 45_000


class Runs(Sequence[Run]):
    """The runs of one study, arm by arm, seed by seed, all from one kind of device."""

    def __init__(self, study: "Study", runs: Sequence[Run]) -> None:
        """Keep ``runs``, which must be of one kind of device: across kinds nothing is compared."""
        self.study, self._runs = study, list(runs)
        if len({run.device for run in runs}) > 1:
            raise ValueError(f"study {study.name}: runs of a CPU and of a GPU do not belong in one comparison")

    def __getitem__(self, index: Any) -> Any:
        """Return one run, or a list of runs."""
        return self._runs[index]

    def __len__(self) -> int:
        """Return the number of runs."""
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
        """Return the runs of some arms alone, in the order given.

        Raises:
            ValueError: there is no such arm.
        """
        for arm in arms:
            if arm not in self.arms:
                raise ValueError(f"study {self.study.name} has no arm {arm!r}; it has: {', '.join(self.arms)}")
        by_arm = self.by_arm()
        return Runs(self.study, [run for arm in arms for run in by_arm[arm]])

    def values(self, metric: str) -> pd.DataFrame:
        """Return one final figure of all runs: a row per seed, a column per arm.

        Raises:
            ValueError: the runs have no such figure.
        """
        if any(metric not in run.metrics for run in self._runs):
            known = sorted(set.intersection(*(set(run.metrics) for run in self._runs)))
            raise ValueError(f"no figure {metric!r} in every run of {self.study.name}; there are: {', '.join(known)}")
        columns = {arm: [run.metrics[metric] for run in runs] for arm, runs in self.by_arm().items()}
        return pd.DataFrame(columns, index=pd.Index(self.seeds, name="seed"), dtype=float)

    def __str__(self) -> str:
        """Return the evidence in one line: what ran, how often, where."""
        machine = self._runs[0].provenance["device_name"]
        declared = len(self.study.seeds)
        seeds = f"{len(self.seeds)} seeds" + (f" of {declared} declared" if len(self.seeds) < declared else "")
        return f"{self.study.name}: {len(self.arms)} arms x {seeds}, recorded on {self._runs[0].device} ({machine})"


class Study:
    """A question: a base experiment, what is varied about it, and the seeds.

    Args:
        name: the study's name in the record and the report, in lower case with hyphens.
        base: the choices that all arms share.
        vary: choices and their values; every combination is an arm, labelled by its values.
        arms: or each arm by its label, with the choices that differ from the base.
        seeds: how many; seed s of every arm shares order, augmentation and, where shapes allow, initial weights.
    """

    def __init__(
        self,
        name: str,
        base: Experiment,
        vary: Mapping[str, Sequence[Any]] | None = None,
        arms: Mapping[str, Mapping[str, Any]] | None = None,
        seeds: int = 6,
    ) -> None:
        """Lay out the arms; every experiment is validated here, before anything is trained."""
        if (vary is None) == (arms is None):
            raise ValueError(f"study {name}: give either vary={{choice: values}} or arms={{label: choices}}")
        if not isinstance(seeds, int) or seeds < 1:
            raise ValueError(f"study {name}: seeds={seeds!r}; give a positive whole number")
        if arms is None:
            combinations = [dict(zip(vary, values, strict=True)) for values in itertools.product(*vary.values())]
            arms = {", ".join(str(value) for value in changes.values()): changes for changes in combinations}
        self.name, self.seeds = name, range(min(seeds, REHEARSAL_SEEDS) if smoke() else seeds)
        self.arms = {label: base.but(**changes) for label, changes in arms.items()}
        if smoke():
            self.arms = {label: rehearsal(experiment) for label, experiment in self.arms.items()}

    def experiments(self) -> Iterator[tuple[str, Experiment]]:
        """Yield (arm, experiment) for all declared runs, one seed of every arm before the next seed of any."""
        for seed in self.seeds:
            for arm, experiment in self.arms.items():
                yield arm, experiment.but(seed=seed)

    def recorded_seeds(self, device: str) -> list[int]:
        """Return the seeds for which every arm has its run on that kind of device ("cpu", "cuda")."""
        return [s for s in self.seeds if all(record_path(e.but(seed=s), device).is_file() for e in self.arms.values())]

    def best_device(self) -> str:
        """Return the kind of device with the most recorded seeds, a GPU among equals."""
        return max(DEVICES, key=lambda kind: len(self.recorded_seeds(kind)))

    def is_recorded(self) -> bool:
        """Return whether enough seeds are recorded to read the study: three, or all that it has."""
        return len(self.recorded_seeds(self.best_device())) >= self.least_seeds

    @property
    def least_seeds(self) -> int:
        """Return how many seeds the study needs at least."""
        return min(len(self.seeds), LEAST_SEEDS)

    def missing(self, device: str) -> list[Experiment]:
        """Return the declared experiments without a record on that kind of device, the most telling first."""
        return [e for _, e in self.experiments() if not record_path(e, device).is_file()]

    def runs(self, jobs: int = 1) -> Runs:
        """Return the runs, read from the record; what is missing is trained first, with a progress bar.

        All runs come from one kind of device: the one with the most recorded seeds, a GPU among equals. At least
        three seeds are made sure of; those declared beyond them are left to ``make record``, and the printed evidence
        says how many there are.
        """
        device = self.best_device()
        seeds = self.recorded_seeds(device)
        if len(seeds) < self.least_seeds:
            seeds = list(self.seeds)[: self.least_seeds]
            device = record([e.but(seed=s) for s in seeds for e in self.arms.values()], jobs=jobs, title=self.name)
        found = [read_run(e.but(seed=s), device, arm) for arm, e in self.arms.items() for s in seeds]
        runs = Runs(self, [run for run in found if run is not None])
        for run in runs:
            if run.diverged:
                print(f"{self.name}: {run.arm}, seed {run.seed} diverged: {run.diverged}", file=sys.stderr)
        return runs


def status(studies: Mapping[str, Sequence[Study]]) -> list[dict[str, Any]]:
    """Return one row per study of ``studies`` (notebook -> its studies), and per kind of device that has runs of it.

    Each row has study, notebook, declared and recorded (numbers of runs), seeds (complete in every arm), device
    (None where nothing is recorded) and stale (runs whose model has changed since).
    """
    rows = []
    for notebook, several in studies.items():
        for study in several:
            at_home = [(kind_for(e, k), record_path(e, k)) for k in DEVICES for _, e in study.experiments()]
            kinds = [k for k in DEVICES if any(home == k and path.is_file() for home, path in at_home)]
            for device in kinds or [None]:
                runs = [read_run(e, device) for _, e in study.experiments()] if device else []
                runs = [run for run in runs if run is not None]
                row = {
                    "study": study.name,
                    "notebook": notebook,
                    "declared": len(study.seeds) * len(study.arms),
                    "recorded": len(runs),
                    "seeds": len(study.recorded_seeds(device)) if device else 0,
                    "device": device,
                    "stale": sum(run.is_stale() for run in runs),
                }
                rows.append(row)
    return rows


def seconds_recorded(runs: Sequence[Run]) -> float:
    """Return the training time of ``runs`` together, in seconds."""
    return float(np.sum([run.metrics["training_seconds"] for run in runs]))


def most_telling_first(experiments: Iterable[Experiment]) -> list[Experiment]:
    """Return the experiments, each once, in the order in which they answer most per hour.

    First the seeds that every arm needs, then those beyond; within each, from the fewest multiply-adds to the most. So
    a record that is stopped at any time holds many small studies rather than a part of one large one.
    """
    costs: dict[str, int] = {}

    def cost(e: Experiment) -> int:  # about, and at most: the multiply-adds of all forward passes
        name = f"{e.model} {e.model_options}"
        if name not in costs:
            costs[name] = sum(row["multiply_adds"] for row in layer_table(build(e.model, **e.model_options)))
        return costs[name] * e.epochs * (e.train_size or WHOLE)

    return sorted(dict.fromkeys(experiments), key=lambda e: (e.seed >= LEAST_SEEDS, cost(e), e.seed))


def first_recorded(*studies: Study, jobs: int = 1) -> Runs:
    """Return the runs of the first study that is recorded with enough seeds, or else of the last, trained if need be.

    For one question at several scales, the largest first: a reader sees the best evidence that there is.
    """
    return next((study for study in studies if study.is_recorded()), studies[-1]).runs(jobs)
