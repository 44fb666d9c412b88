"""All that waits for a GPU, in one go: its tests, its benchmarks, what the record lacks; without one, a plan."""

import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import pandas as pd
import torch

from course import bench
from course.notebooks import most_telling_first, studies_by_notebook
from helpers.latent import available_backends
from helpers.record import recorder
from helpers.settings import ROOT

NO_GPU = "torch sees no CUDA GPU"


@dataclass(frozen=True)
class Step:
    """One thing to do: what it is, what does it and returns in words what came of it, and why it cannot be, or None."""

    name: str
    does: str
    run: Callable[[], str]
    obstacle: Callable[[], str | None] = lambda: None


def _test() -> str:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "gpu"]
    if status := subprocess.call(command, cwd=ROOT):
        raise RuntimeError(f"pytest ended with status {status}; what failed stands above")
    return "passed"


def _measure(name: str) -> str:
    rows = bench.run(name)
    return "; ".join(f"{row.name}: {row.ours:g} {row.unit}, ratio {row.ratio:g}" for row in rows.itertuples())


def _record() -> str:
    experiments = [e for studies in studies_by_notebook().values() for study in studies for _, e in study.experiments()]
    return f"all {len(set(experiments))} runs are recorded ({recorder.record(most_telling_first(experiments))})"


STEPS = (
    Step("tests", "the tests that are skipped without a GPU", _test),
    Step("bench loop", "the training loop against the one of tutorials", lambda: _measure("loop")),
    Step("bench fast94", "seconds to 94 %, and R2's net per epoch", lambda: _measure("fast94")),
    Step(
        *("bench tsne", "t-SNE of 40,000 points by each library", lambda: _measure("tsne")),
        obstacle=lambda: available_backends()["tsnecuda"],
    ),
    Step("record", "the runs that the notebooks declare and the record lacks; stopped, it goes on later", _record),
)


def run(steps: tuple[Step, ...] = STEPS) -> pd.DataFrame:
    """Return a row per step: what it does, whether it was "done", "skipped" or "failed", seconds, and what it found.

    A step that fails does not keep the others from running. Without a GPU nothing runs.
    """
    rows = []
    for step in steps:
        began, reason = time.perf_counter(), step.obstacle() if torch.cuda.is_available() else NO_GPU
        outcome, found = "skipped", reason
        if reason is None:
            print(f"{step.name} ...", flush=True)
            try:
                outcome, found = "done", step.run()
            except Exception as error:  # whatever it was, it is told in the table
                outcome, found = "failed", f"{type(error).__name__}: {error}"
        rows.append([step.name, step.does, outcome, round(time.perf_counter() - began), found])
    return pd.DataFrame(rows, columns=["step", "does", "outcome", "seconds", "found"])
