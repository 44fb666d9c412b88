"""The benchmarks, each of which measures both sides: run, tabled and kept; and in one go, all that waits for a GPU."""

import importlib.util
import json
import multiprocessing
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import torch
from torch.utils.benchmark import Timer

from course.notebooks import train_missing
from helpers.settings import DATA, ROOT, atomic_write

FOLDER, RESULTS = ROOT / "benchmarks", DATA / "bench.json"


def comparison(
    name: str, ours: float, baseline: float, unit: str, device: str, *, less_is_better: bool = False, threads: int = 0
) -> dict[str, Any]:
    """Return the row of one comparison; its ratio is ours / baseline, or baseline / ours where ``less_is_better``."""
    figures = {"ours": float(f"{ours:.5g}"), "baseline": float(f"{baseline:.5g}")}
    figures["ratio"] = round(baseline / ours if less_is_better else ours / baseline, 4)
    return {"name": name, **figures, "unit": unit, "device": device, "threads": threads or torch.get_num_threads()}


def training(experiment: Any, device: torch.device, compiled: bool | None) -> Iterator[None]:
    """Yield after each step of the course's loop on CIFAR-10, augmentation and shuffling included."""
    from helpers.data import load  # where it is wanted: each benchmark has a process of its own
    from helpers.training import Trainer

    trainer = Trainer(experiment, load("cifar10"), device, compiled)
    draws = torch.Generator(device).manual_seed(0)
    trainer.model.train()
    while True:
        for batch in torch.randperm(len(trainer.train), device=device).split(trainer.batch)[: trainer.steps]:
            trainer._step(trainer.augment(trainer.train.images[batch], draws), trainer.train.labels[batch])
            yield


def duration(step: Callable[[], object], seconds: float) -> float:
    """Return the mean seconds that ``step`` takes, a GPU's work included, over at least so many ``seconds``."""
    for _ in range(10):  # the first of them compile
        step()
    timer = Timer("step()", globals={"step": step}, num_threads=torch.get_num_threads())
    return timer.blocked_autorange(min_run_time=seconds).mean


def alone(function: Callable, *arguments: Any) -> Any:
    """Return what ``function`` returns in a fresh process, whose threads, caches and memory nothing has touched."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
        return process.submit(function, *arguments).result()


class BenchmarkFailed(RuntimeError):
    """There is no such benchmark."""


def measure(path: Path) -> list[dict[str, Any]]:
    """Return what ``measure()`` of a benchmark script returns: a :func:`comparison` each."""
    # Python knows a compiled script by time, in whole seconds, and size: one edited since may have both.
    Path(importlib.util.cache_from_source(path)).unlink(missing_ok=True)
    sys.path.insert(0, str(path.parent))  # by name, so that the script can start processes of its own
    return importlib.import_module(path.stem).measure()


def run(name: str | None = None, folder: Path = FOLDER, results: Path = RESULTS) -> pd.DataFrame:
    """Return a table of the comparisons just measured, after adding them to ``results``.

    Each script's are kept as soon as it ends, in place of old ones of the same name, device and threads.
    """
    scripts = {path.stem: path for path in sorted(folder.glob("*.py"))}
    if name not in (None, *scripts):
        raise BenchmarkFailed(f"no benchmark {name!r}; there are: {', '.join(scripts) or 'none'}")
    measured: list[dict[str, Any]] = []
    for path in scripts.values() if name is None else [scripts[name]]:
        print(f"{path.stem} ...", flush=True)
        rows = alone(measure, path)
        measured += rows
        old = json.loads(results.read_text()) if results.is_file() else []
        kept = {(row["name"], row["device"], row["threads"]): row for row in (*old, *rows)}
        atomic_write(results, json.dumps([kept[key] for key in sorted(kept, key=str)], indent=1) + "\n")
    return pd.DataFrame(measured)


# --- What waits for a GPU: its tests, its benchmarks, what the record lacks. ---


class Step(NamedTuple):
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
    rows = run(name)
    return "; ".join(f"{row.name}: {row.ours:g} {row.unit}, ratio {row.ratio:g}" for row in rows.itertuples())


def _no_tsnecuda() -> str | None:
    from helpers.latent import available_backends

    return available_backends()["tsnecuda"]


GPU_STEPS = (
    Step("tests", "the tests that are skipped without a GPU", _test),
    Step("bench loop", "the loop against that of tutorials; seconds to 94 %, and per epoch", lambda: _measure("loop")),
    Step("bench tsne", "t-SNE by each library", lambda: _measure("tsne"), _no_tsnecuda),
    Step("record", "the runs that notebooks declare and the record lacks; stopped, it goes on later", train_missing),
)


def run_steps(steps: tuple[Step, ...] = GPU_STEPS) -> pd.DataFrame:
    """Return a row per step: what it does, whether it was "done", "skipped" or "failed", seconds, and what it found.

    A step that fails does not keep the others from running. Without a GPU nothing runs.
    """
    rows = []
    for step in steps:
        began = time.perf_counter()
        outcome, found = "skipped", step.obstacle() if torch.cuda.is_available() else "torch sees no CUDA GPU"
        if found is None:
            print(f"{step.name} ...", flush=True)
            try:
                outcome, found = "done", step.run()
            except Exception as error:  # whatever it was, it is told in the table
                outcome, found = "failed", f"{type(error).__name__}: {error}"
        rows.append([step.name, step.does, outcome, round(time.perf_counter() - began), found])
    return pd.DataFrame(rows, columns=["step", "does", "outcome", "seconds", "found"])
