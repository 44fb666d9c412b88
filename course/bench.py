"""The benchmarks, each of which measures both sides: run, tabled and kept; and in one go, all that waits for a GPU."""

import importlib.util
import json
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from helpers.settings import DATA, ROOT, atomic_write

FOLDER, RESULTS = ROOT / "benchmarks", DATA / "bench.json"


def comparison(
    name: str, ours: float, baseline: float, unit: str, device: str, less_is_better: bool = False, threads: int = 0
) -> dict[str, Any]:
    """Return the row of one comparison; its ratio is ours / baseline, or baseline / ours where ``less_is_better``."""
    if not threads:
        from torch import get_num_threads  # where it is wanted: it takes seconds, and so does what else comes late

        threads = get_num_threads()
    figures = {"ours": float(f"{ours:.5g}"), "baseline": float(f"{baseline:.5g}")}
    figures["ratio"] = round(baseline / ours if less_is_better else ours / baseline, 4)
    return {"name": name, **figures, "unit": unit, "device": device, "threads": threads}


class BenchmarkFailed(RuntimeError):
    """There is no such benchmark."""


def measure(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a benchmark script, whose ``measure()`` returns the arguments of a :func:`comparison` each."""
    # Python knows a compiled script by time, in whole seconds, and size: one edited since may have both.
    Path(importlib.util.cache_from_source(path)).unlink(missing_ok=True)
    sys.path.insert(0, str(path.parent))  # by name, so that the script can start processes of its own
    return [comparison(*figures) for figures in importlib.import_module(path.stem).measure()]


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
        with ProcessPoolExecutor(1, get_context("spawn")) as fresh:  # no other has touched its threads and memory
            rows = fresh.submit(measure, path).result()
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


def _record() -> str:
    from course.notebooks import train_missing

    return train_missing()


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
    Step("record", "the runs that notebooks declare and the record lacks; stopped, it goes on later", _record),
)


def run_steps(steps: tuple[Step, ...] = GPU_STEPS) -> pd.DataFrame:
    """Return a row per step: what it does, whether it was "done", "skipped" or "failed", seconds, and what it found.

    A step that fails does not keep the others from running. Without a GPU nothing runs.
    """
    from torch.cuda import is_available

    rows = []
    for step in steps:
        began = time.perf_counter()
        outcome, found = "skipped", step.obstacle() if is_available() else "torch sees no CUDA GPU"
        if found is None:
            print(f"{step.name} ...", flush=True)
            try:
                outcome, found = "done", step.run()
            except Exception as error:  # whatever it was, it is told in the table
                outcome, found = "failed", f"{type(error).__name__}: {error}"
        rows.append([step.name, step.does, outcome, round(time.perf_counter() - began), found])
    return pd.DataFrame(rows, columns=["step", "does", "outcome", "seconds", "found"])
