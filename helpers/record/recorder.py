"""Training that leaves a record: one run, written once as JSON with its provenance, and many of them side by side.

Each of many has a process of its own, because then nothing that happens to it, not even a kill, can touch another.
joblib hands them out, on this machine's cores or GPU or on a Dask cluster; a run whose process died is started once
more and goes on from its checkpoint.
"""

import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from joblib import Parallel, cpu_count, delayed, parallel_config
from safetensors.torch import save
from torch import nn
from torch.nn import functional as F
from tqdm import tqdm

from helpers.data import Dataset, Split
from helpers.data import load as load_data
from helpers.models import layer_table, structure_hash
from helpers.record.run import FORMAT, kind_for, pack, record_path, weights_path
from helpers.settings import DATA, KEEP_MEMORY, ROOT, atomic_write, runs_folder, smoke
from helpers.training import Experiment, Fit, criterion, fingerprint, pick_device, predict, training_split
from helpers.training.loop import fit

BINS = 15
POINTS_PER_RUN = 400
ATTEMPTS = 2
# A GPU is shared by this many of the course's small runs: one alone leaves most of it idle.
RUNS_PER_GPU = 8


def reliability(confidence: np.ndarray, right: np.ndarray, bins: int = BINS) -> dict[str, list[Any]]:
    """Return, for ``bins`` equal ranges of confidence from 0 to 1: count, mean confidence, share of right answers.

    confidence: (N,) probabilities of the predicted class; right: (N,) whether it is true. A range without predictions
    has zeros. Source: Guo et al., On Calibration of Modern Neural Networks (2017).
    """
    confidence = np.asarray(confidence, dtype=float)
    place = np.minimum((confidence * bins).astype(int), bins - 1)
    count = np.bincount(place, minlength=bins)
    sums = {"confidence": np.bincount(place, confidence, bins), "accuracy": np.bincount(place, right, bins)}
    return {"count": count.tolist()} | {name: (of / np.maximum(count, 1)).tolist() for name, of in sums.items()}


def expected_calibration_error(curve: dict[str, list[Any]]) -> float:
    """Return the mean distance between confidence and accuracy over all predictions of a :func:`reliability` curve."""
    gaps = np.abs(np.subtract(curve["confidence"], curve["accuracy"]))
    return float(np.average(gaps, weights=curve["count"]))


def thin(losses: list[float], points: int = POINTS_PER_RUN) -> dict[str, list[float]]:
    """Return at most ``points`` means over equal blocks of ``losses``, with the step in the middle of each block."""
    size = max(1, -(-len(losses) // points))
    blocks = {start: losses[start : start + size] for start in range(0, len(losses), size)}
    middles = [start + (len(block) + 1) / 2 for start, block in blocks.items()]
    return {"step": middles, "loss": [sum(block) / len(block) for block in blocks.values()]}


def _commit() -> str:
    """Return the commit of the sources, with ``+`` where they were changed since, or "unknown" outside git."""
    ask = partial(subprocess.check_output, cwd=ROOT, text=True, stderr=subprocess.DEVNULL)
    try:
        changed = ask(["git", "status", "--porcelain", "--", "helpers"])
        return ask(["git", "rev-parse", "HEAD"]).strip() + ("+" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _processor() -> str:
    told = Path("/proc/cpuinfo")
    names = [line for line in told.read_text().splitlines() if line.startswith("model name")] if told.is_file() else []
    return names[0].split(":", 1)[1].strip() if names else platform.processor() or platform.machine()


def provenance(data: Dataset, device: torch.device) -> dict[str, Any]:
    """Return what tells later where a result comes from."""
    import torchvision  # not before it is wanted: it takes two seconds

    return {
        "device": device.type,
        "device_name": torch.cuda.get_device_name(device) if device.type == "cuda" else _processor(),
        "cores": os.cpu_count(),
        "instructions": torch.backends.cpu.get_cpu_capability(),  # processors of one name may differ in these
        "threads": torch.get_num_threads(),
        "data_source": data.source,
        "data_hashes": dict(data.hashes),
        "versions": {"python": platform.python_version()}
        | {module.__name__: module.__version__ for module in (torch, torchvision, np)},
        "commit": _commit(),
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
    }


def _judge(fitted: Fit, data: Dataset, split: Split, loss: Any, mirrored: bool = False) -> dict[str, Any]:
    """Return figures, confusion matrix, calibration and packed predictions of the final weights on ``split``."""
    from sklearn.metrics import confusion_matrix  # late, as it takes seconds

    logits = predict(fitted.model, split, data.mean, data.std)
    labels, guesses = split.labels.cpu(), logits.argmax(1)
    confidence = F.softmax(logits, dim=1).amax(1).nan_to_num()
    curve = reliability(confidence.clamp(0, 1).numpy(), (guesses == labels).numpy())
    figures = {
        "loss": loss(logits, labels).item(),
        "accuracy": (guesses == labels).float().mean().item(),
        "calibration_error": expected_calibration_error(curve),
    }
    if mirrored:  # test-time augmentation: the mean of an image's logits and its mirror image's
        both = logits + predict(fitted.model, replace(split, images=split.images.flip(3)), data.mean, data.std)
        figures["accuracy_tta"] = (both.argmax(1) == labels).float().mean().item()
    return {
        "figures": figures,
        "confusion": confusion_matrix(labels, guesses, labels=range(len(data.classes))).tolist(),
        "calibration": curve,
        "predictions": {"labels": pack(guesses.numpy()), "confidence": pack((confidence * 255).round().numpy())},
    }


def _save(path: Path, model: nn.Module) -> None:
    atomic_write(path, save({name: t.detach().cpu().contiguous() for name, t in model.state_dict().items()}))


def train_run(
    experiment: Experiment, *, device: str | None = None, checkpoints: Path | None = None, progress: bool = True
) -> dict[str, Any]:
    """Return the record of ``experiment`` as JSON values, after training it now.

    With a folder for ``checkpoints``, a run that was killed goes on where its last epoch ended. The test set is read
    here and nowhere else: once, for a flagship run, after training.
    """
    data, place = load_data(experiment.dataset), pick_device(kind_for(experiment, device))
    began = time.perf_counter()
    path = checkpoints and checkpoints / f"{experiment.key}-{place.type}.pt"

    def keep(epoch: int, model: nn.Module) -> None:
        _save(weights_path(experiment.key, place.type, epoch), model)

    after = keep if experiment.snapshots else None
    fitted = fit(experiment, data, device=place, checkpoint_path=path, progress=progress, after_epoch=after)
    splits = {"train": training_split(experiment, data), "validation": data.validation}
    if experiment.flagship:
        splits["test"] = data.test
        _save(weights_path(experiment.key, place.type), fitted.model)
    loss = criterion(experiment, len(data.classes), splits["train"])
    judged = {name: _judge(fitted, data, split, loss, experiment.flagship) for name, split in splits.items()}
    metrics = {f"{name}_{what}": value for name, judge in judged.items() for what, value in judge["figures"].items()}
    metrics |= {
        "epochs": len(fitted.history["epoch"]),
        "best_epoch": fitted.best_epoch,
        "parameters": sum(p.numel() for p in fitted.model.parameters()),
        "training_seconds": sum(fitted.history["seconds"]),
        "total_seconds": time.perf_counter() - began,
    }
    record = {
        "format": FORMAT,
        "experiment": experiment.choices(),
        "key": experiment.key,
        "classes": list(data.classes),
        "metrics": metrics,
        "history": fitted.history,
        "iterations": thin(fitted.losses),
        **{what: {name: judge[what] for name, judge in judged.items()} for what in ("confusion", "calibration")},
        "predictions": {name: judge["predictions"] for name, judge in judged.items() if name == "test"},
        "diverged": fitted.diverged,
        "structure": layer_table(fitted.model.to("cpu"), tuple(data.train.images.shape[1:])),
        "structure_hash": structure_hash(fitted.model),
        "provenance": provenance(data, place) | {"compiled": fitted.compiled},
    }
    if experiment.initial:  # its name stands among the choices, and may come to stand for other weights
        record["provenance"]["initial"] = fingerprint(experiment.initial)
    # Six significant digits: finer ones are noise, and only cost space.
    return json.loads(json.dumps(record), parse_float=lambda digits: float(f"{float(digits):.6g}"))


def write_run(record: Mapping[str, Any], folder: Path | None = None) -> Path:
    """Return the path under which ``record`` was written, in one step; a rehearsal's is refused among the results."""
    path = record_path(Experiment(**record["experiment"]), record["provenance"]["device"], folder)
    if smoke() and path.is_relative_to(DATA / "runs"):
        raise ValueError(f"COURSE_SMOKE=1 is set, so nothing is written to {path}: a rehearsal is no result")
    atomic_write(path, json.dumps(record, separators=(",", ":")) + "\n")
    return path


class RunsFailed(RuntimeError):
    """Some runs could not be trained; all others are recorded."""


def checkpoint_folder() -> Path:
    """Return where unfinished runs keep their state."""
    return runs_folder().parent / "checkpoints" if smoke() else DATA / "checkpoints"


def device_kind() -> str:
    """Return "cuda" where torch finds a GPU, else "cpu"."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def default_jobs(device: str) -> int:
    """Return how many runs go side by side: on a CPU one per core, as small layers keep one busier than two."""
    return min(RUNS_PER_GPU, cpu_count()) if device == "cuda" else cpu_count()


def train_apart(choices: dict[str, Any], threads: int, checkpoints: str | None = None) -> dict[str, Any] | str:
    """Return the record of the experiment with ``choices``, trained in a process of its own, or why there is none.

    A joblib or Dask worker executes this, with the package and a copy of the data set; it is tried ``ATTEMPTS`` times.
    """
    environment = os.environ | {name: str(threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
    environment |= {"TORCHINDUCTOR_COMPILE_THREADS": "1"} | KEEP_MEMORY
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    with tempfile.TemporaryDirectory(prefix="course-run-") as folder:
        out = Path(folder) / "record.json"
        task = {"experiment": choices, "out": str(out), "checkpoints": checkpoints, "threads": threads}
        for _ in range(ATTEMPTS):
            command = [sys.executable, "-m", "helpers.record.recorder"]
            done = subprocess.run(command, input=json.dumps(task), capture_output=True, text=True, env=environment)
            if done.returncode == 0:
                return json.loads(out.read_text())
    how = f"killed by signal {-done.returncode}" if done.returncode < 0 else f"exit status {done.returncode}"
    last = done.stderr.strip().splitlines()[-1:] or ["it said nothing"]
    return f"{choices['model']} seed {choices['seed']}: {how}: {last[0]}"


def _outcomes(todo: Sequence[Experiment], device: str, jobs: int | None, scheduler: str | None) -> Iterable[dict | str]:
    """Yield the record of every experiment, or why there is none, as they come in."""
    if scheduler is None and jobs == 1:
        for experiment in todo:
            yield train_run(experiment, device=device, checkpoints=checkpoint_folder())
    elif scheduler is None:
        jobs = jobs or default_jobs(device)
        threads = max(1, cpu_count() // jobs)
        workers = Parallel(n_jobs=jobs, backend="threading", return_as="generator_unordered", pre_dispatch=jobs)
        yield from workers(delayed(train_apart)(e.choices(), threads, str(checkpoint_folder())) for e in todo)
    else:
        with _cluster(scheduler), parallel_config(backend="dask"):
            # A worker's checkpoints stay with the worker; if that dies, Dask gives its run to another.
            yield from Parallel(return_as="generator_unordered")(delayed(train_apart)(e.choices(), 1) for e in todo)


def _cluster(scheduler: str) -> Any:
    try:
        from distributed import Client
    except ImportError as error:
        raise RuntimeError('a Dask cluster needs the extra "cluster": pip install -e ".[cluster]"') from error
    return Client(scheduler, timeout="30s")


def record(
    experiments: Iterable[Experiment], *, jobs: int | None = None, scheduler: str | None = None, title: str = "record"
) -> str:
    """Return the kind of device used, after training and recording those of ``experiments`` that it lacks.

    ``jobs=1`` without a ``scheduler`` trains in this process, one run after another, with a bar for each; otherwise
    every run has a process of its own, here or on the Dask cluster at the address ``scheduler``. Each run is written
    to the record as soon as it is finished, so stopping loses none. RunsFailed names those that could not be trained.
    """
    if scheduler is None:
        device = device_kind()
    else:
        with _cluster(scheduler) as client:
            device = client.submit(device_kind).result()  # the cluster's workers are alike
    todo = [e for e in dict.fromkeys(experiments) if not record_path(e, device).is_file()]
    if not todo:
        return device
    if scheduler is None:
        for dataset in dict.fromkeys(e.dataset for e in todo):
            _ = load_data(dataset).train  # missing or broken data end it here, with one clear error, not once per run
    failures = []
    with tqdm(total=len(todo), desc=f"{title}: {len(todo)} runs on {device}", unit="run", disable=None) as bar:
        for finished in _outcomes(todo, device, jobs, scheduler):
            if isinstance(finished, str):
                failures.append(finished)
            else:
                write_run(finished)
                for suffix in (".pt", ".npz"):  # its checkpoint has served
                    path = checkpoint_folder() / f"{finished['key']}-{finished['provenance']['device']}{suffix}"
                    path.unlink(missing_ok=True)
            bar.update()
    if failures:
        raise RunsFailed(f"{len(failures)} of {len(todo)} runs failed:\n" + "\n".join(failures))
    return device


if __name__ == "__main__":  # the process of a run: its task comes on standard input
    task = json.load(sys.stdin)
    torch.set_num_threads(task["threads"])
    folder = Path(task["checkpoints"]) if task["checkpoints"] else None
    finished = train_run(Experiment(**task["experiment"]), checkpoints=folder, progress=False)
    Path(task["out"]).write_text(json.dumps(finished))
