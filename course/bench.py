"""The benchmarks: each script measures both sides in one run; here they are run, tabled and kept."""

import importlib.util
import json
import multiprocessing
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from helpers.settings import DATA, ROOT, atomic_write

FOLDER = ROOT / "benchmarks"
RESULTS = DATA / "bench.json"


def comparison(
    name: str, ours: float, baseline: float, unit: str, device: str, *, ratio: float | None = None, threads: int = 0
) -> dict[str, Any]:
    """Return the row of one comparison; ``ratio``, ours / baseline unless given, is above 1 where ours is better."""
    figures = {"ours": float(f"{ours:.5g}"), "baseline": float(f"{baseline:.5g}")}
    figures["ratio"] = round(ours / baseline if ratio is None else ratio, 4)
    return {"name": name, **figures, "unit": unit, "device": device, "threads": threads or torch.get_num_threads()}


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

    Each script has a fresh process, so the threads and caches of one cannot colour the next, and its results
    are kept as soon as it ends: new rows in place of old ones of the same name, device and threads.
    """
    scripts = {path.stem: path for path in sorted(folder.glob("*.py"))}
    if name not in (None, *scripts):
        raise BenchmarkFailed(f"no benchmark {name!r}; there are: {', '.join(scripts) or 'none'}")
    measured: list[dict[str, Any]] = []
    for path in scripts.values() if name is None else [scripts[name]]:
        print(f"{path.stem} ...", flush=True)
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
            rows = process.submit(measure, path).result()
        measured += rows
        old = json.loads(results.read_text()) if results.is_file() else []
        kept = {(row["name"], row["device"], row["threads"]): row for row in (*old, *rows)}
        atomic_write(results, json.dumps([kept[key] for key in sorted(kept, key=str)], indent=1) + "\n")
    return pd.DataFrame(measured)
