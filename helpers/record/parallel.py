"""Many runs at once: each in a process of its own, on this machine's cores or GPU, or on a Dask cluster.

A run has its own process because then nothing that happens to it, not even a kill, can touch another. joblib hands
the runs out; a run whose process died is started once more and goes on from its checkpoint.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from joblib import Parallel, cpu_count, delayed, parallel_config
from tqdm import tqdm

from helpers.data import load as load_data
from helpers.record.recorder import train_run, write_run
from helpers.record.run import record_path
from helpers.settings import DATA, ROOT, runs_folder, smoke
from helpers.training import Experiment

ATTEMPTS = 2
# glibc otherwise gives every large tensor back to the system and asks for it again at each step, a page at a time.
KEEP_MEMORY = {
    "MALLOC_TRIM_THRESHOLD_": str(2**33),
    "MALLOC_MMAP_THRESHOLD_": str(2**33),
    "MALLOC_TOP_PAD_": str(2**26),
}
# A GPU is shared by this many of the course's small runs: one alone leaves most of it idle.
RUNS_PER_GPU = 8


@dataclass(frozen=True)
class Outcome:
    """What came of one run: its record, or in words why there is none."""

    experiment: Experiment
    record: dict[str, Any] | None
    error: str = ""


class RunsFailed(RuntimeError):
    """Some runs could not be trained; all others are recorded."""


def checkpoint_folder() -> Path:
    """Return where unfinished runs keep their state."""
    return runs_folder().parent / "checkpoints" if smoke() else DATA / "checkpoints"


def device_kind() -> str:
    """Return "cuda" where torch finds a GPU, else "cpu"."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def default_jobs(device: str) -> int:
    """Return how many runs go side by side: on a CPU one per core, each with one thread.

    Measured by ``make bench BENCH=parallel``: small layers keep one core busier than they keep two.
    """
    cores = cpu_count()
    return min(RUNS_PER_GPU, cores) if device == "cuda" else cores


def train_apart(choices: dict[str, Any], threads: int, checkpoints: str | None = None) -> dict[str, Any]:
    """Return the record of the experiment with ``choices``, trained in a process of its own with so many threads.

    This is what a joblib or Dask worker executes; it needs the package and a copy of the data set.

    Raises:
        RuntimeError: the process failed or was killed ``ATTEMPTS`` times; the message ends in its last words.
    """
    environment = os.environ | {name: str(threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
    environment |= {"TORCHINDUCTOR_COMPILE_THREADS": "1"} | KEEP_MEMORY
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    with tempfile.TemporaryDirectory(prefix="course-run-") as folder:
        out = Path(folder) / "record.json"
        task = {"experiment": choices, "out": str(out), "checkpoints": checkpoints, "threads": threads}
        for _ in range(ATTEMPTS):
            done = subprocess.run(
                [sys.executable, "-m", "helpers.record.parallel"],
                input=json.dumps(task),
                capture_output=True,
                text=True,
                env=environment,
            )
            if done.returncode == 0:
                return json.loads(out.read_text())
    how = f"killed by signal {-done.returncode}" if done.returncode < 0 else f"exit status {done.returncode}"
    last = done.stderr.strip().splitlines()[-1:] or ["it said nothing"]
    raise RuntimeError(f"{how}: {last[0]}")


def _attempt(experiment: Experiment, threads: int, checkpoints: str | None) -> Outcome:
    try:
        return Outcome(experiment, train_apart(experiment.choices(), threads, checkpoints))
    except RuntimeError as error:
        return Outcome(experiment, None, str(error))


def _outcomes(todo: Sequence[Experiment], device: str, jobs: int | None, scheduler: str | None) -> Iterable[Outcome]:
    """Yield the outcomes of all runs of ``todo`` as they come in, whatever happens to single ones."""
    if scheduler is None:
        jobs = jobs or default_jobs(device)
        threads = max(1, cpu_count() // jobs)
        workers = Parallel(n_jobs=jobs, backend="threading", return_as="generator_unordered", pre_dispatch=jobs)
        yield from workers(delayed(_attempt)(e, threads, str(checkpoint_folder())) for e in todo)
        return
    with _cluster(scheduler), parallel_config(backend="dask"):
        # A worker's checkpoints stay with the worker; if that dies, Dask gives its run to another.
        yield from Parallel(return_as="generator_unordered")(delayed(_attempt)(e, 1, None) for e in todo)


def _cluster(scheduler: str) -> Any:
    """Return a client of the Dask cluster at the address ``scheduler``."""
    try:
        from distributed import Client
    except ImportError as error:
        raise RuntimeError('a Dask cluster needs the extra "cluster": pip install -e ".[cluster]"') from error
    return Client(scheduler, timeout="30s")


def _kind_of(scheduler: str | None) -> str:
    """Return the kind of device that trains: this machine's, or that of the cluster's workers, which are alike."""
    if scheduler is None:
        return device_kind()
    with _cluster(scheduler) as client:
        return client.submit(device_kind).result()


def record(
    experiments: Iterable[Experiment],
    *,
    jobs: int | None = None,
    scheduler: str | None = None,
    title: str = "record",
) -> str:
    """Return the kind of device used, after training and recording those of ``experiments`` that it lacks.

    ``jobs=1`` without a ``scheduler`` trains in this process, one run after another, with a bar for each; otherwise
    every run has a process of its own, here or on the Dask cluster at the address ``scheduler``. Each run is written
    to the record as soon as it is finished, so stopping loses none.

    Raises:
        RunsFailed: names the runs that could not be trained and why; all others are recorded.
    """
    device = _kind_of(scheduler)
    unique = list(dict.fromkeys(experiments))
    todo = [e for e in unique if not record_path(e, device).is_file()]
    if not todo:
        return device
    if scheduler is None:
        for dataset in dict.fromkeys(e.dataset for e in todo):
            _ = load_data(dataset).train  # missing or broken data end it here, with one clear error, not once per run
    failures = []
    with tqdm(total=len(todo), desc=f"{title}: {len(todo)} runs on {device}", unit="run", disable=None) as bar:
        if jobs == 1 and scheduler is None:
            for experiment in todo:
                _keep(train_run(experiment, device=device, checkpoints=checkpoint_folder()), device)
                bar.update()
        else:
            for outcome in _outcomes(todo, device, jobs, scheduler):
                if outcome.record is None:
                    failures.append(f"{outcome.experiment.model} seed {outcome.experiment.seed}: {outcome.error}")
                else:
                    _keep(outcome.record, device)
                bar.update()
    if failures:
        raise RunsFailed(f"{len(failures)} of {len(todo)} runs failed:\n" + "\n".join(failures))
    return device


def _keep(finished: dict[str, Any], device: str) -> None:
    """Write a finished run; its checkpoint has then served."""
    write_run(finished)
    for kind in (device, finished["provenance"]["device"]):
        for suffix in (".pt", ".npz"):
            (checkpoint_folder() / f"{finished['key']}-{kind}{suffix}").unlink(missing_ok=True)


def main() -> None:
    """Train the one experiment described on standard input and write its record where told: the process of a run."""
    task = json.load(sys.stdin)
    torch.set_num_threads(task["threads"])
    checkpoints = Path(task["checkpoints"]) if task["checkpoints"] else None
    finished = train_run(Experiment(**task["experiment"]), checkpoints=checkpoints, progress=False)
    Path(task["out"]).write_text(json.dumps(finished))


if __name__ == "__main__":
    main()
