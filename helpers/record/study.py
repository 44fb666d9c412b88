"""A study: one question, asked of several arms with paired seeds, and answered from the record."""

import itertools
import sys
from collections.abc import Iterator, Mapping
from functools import cached_property

from helpers.record.recorder import record
from helpers.record.run import DEVICES, Runs, read_run, record_path
from helpers.settings import smoke
from helpers.training import Experiment, rehearsal

# Fewer paired runs than this say too little for an interval.
LEAST_SEEDS = 3


class Study:
    """A question: a base experiment, what is varied about it, and the seeds.

    ``name`` stands for it in the report, in lower case with hyphens. Arms differ from ``base`` in what they vary:
    ``vary`` has choices and their values, every combination an arm, labelled by its values; or ``arms`` has each arm's
    own choices by its label. Seed s of every arm shares order, augmentation and, where shapes allow, initial weights.
    """

    def __init__(
        self, name: str, base: Experiment, vary: Mapping | None = None, arms: Mapping | None = None, seeds: int = 6
    ) -> None:
        if (vary is None) == (arms is None):
            raise ValueError(f"study {name}: give either vary={{choice: values}} or arms={{label: choices}}")
        if arms is None:
            every = itertools.product(*vary.values())
            arms = {", ".join(map(str, values)): dict(zip(vary, values, strict=True)) for values in every}
        self.name, self.seeds = name, range(min(seeds, 2) if smoke() else seeds)
        self.arms = {label: base.but(**changes) for label, changes in arms.items()}
        if smoke():
            epochs = 2 if len(self.arms) <= 2 else 1
            self.arms = {label: rehearsal(experiment, epochs) for label, experiment in self.arms.items()}

    @cached_property
    def _declared(self) -> dict[int, dict[str, Experiment]]:
        return {seed: {arm: e.but(seed=seed) for arm, e in self.arms.items()} for seed in self.seeds}

    def experiments(self) -> Iterator[tuple[str, Experiment]]:
        """Yield (arm, experiment) for all declared runs, one seed of every arm before the next seed of any."""
        for arms in self._declared.values():
            yield from arms.items()

    def recorded_seeds(self, device: str) -> list[int]:
        """Return the seeds for which every arm has its run on that kind of device ("cpu", "cuda")."""
        declared = self._declared.items()
        return [seed for seed, arms in declared if all(record_path(e, device).is_file() for e in arms.values())]

    def best_device(self) -> str:
        """Return the kind of device with the most recorded seeds, a GPU among equals."""
        return max(DEVICES, key=lambda kind: len(self.recorded_seeds(kind)))

    def is_recorded(self) -> bool:
        """Return whether enough seeds are recorded to read the study: three, or all that it has."""
        return len(self.recorded_seeds(self.best_device())) >= min(len(self.seeds), LEAST_SEEDS)

    def runs(self) -> Runs:
        """Return the runs, read from the record; what is missing is trained first, with a progress bar.

        All come from one kind of device, :meth:`best_device`. At least three seeds are made sure of; those declared
        beyond them are left to ``make record``, and the printed evidence says how many there are.
        """
        device = self.best_device()
        seeds = self.recorded_seeds(device)
        if not self.is_recorded():
            seeds = self.seeds[:LEAST_SEEDS]
            device = record([e for s in seeds for e in self._declared[s].values()], jobs=1, title=self.name)
        runs = [read_run(self._declared[s][arm], device, arm) for arm in self.arms for s in seeds]
        for run in (run for run in runs if run.diverged):
            print(f"{self.name}: {run.arm}, seed {run.seed} diverged: {run.diverged}", file=sys.stderr)
        return Runs(self.name, runs, len(self.seeds))
