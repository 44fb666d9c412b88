"""How fast, and how good, is t-SNE by each library that works here? All on the same latents of R2's net, N x 2048.

Every figure has scikit-learn's, of the same latents with the same parameters, as its baseline: seconds, memory (the
peak above what was in use before, in MiB; on a GPU, that of the GPU), KL divergence, trustworthiness and recall.

`make bench BENCH=tsne` measures 40,000 points; `python benchmarks/tsne.py 2000` prints the rows for 2,000.
"""

import multiprocessing
import sys
import tempfile
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import torch

from course.bench import comparison
from helpers.data import load, subset
from helpers.latent import (
    BACKENDS,
    available_backends,
    embed,
    kl_divergence,
    principal,
    recall,
    split_latents,
    trustworthiness,
)
from helpers.training import Experiment
from helpers.training.loop import fit

POINTS, LAYER, REFERENCE = 40_000, "flatten", "sklearn"
MEBIBYTE = 2**20
UNITS = {"seconds": "s", "memory": "MiB", "kl": "nats", "trustworthiness": "", "recall": ""}
LESS_IS_BETTER = ("seconds", "memory", "kl")


def latents_of(n: int) -> np.ndarray:
    """Return the convolutional features of ``n`` training images after one epoch: float32 (n, 2048)."""
    data = load("cifar10")
    model = fit(Experiment(model="r2", batch_size=64, epochs=1, precision="bf16"), data, progress=False).model
    return split_latents(model, subset(data.train, n), data.mean, data.std, LAYER)[LAYER]


class GpuPeak(threading.Thread):
    """Watches how much of the GPU is in use, by whichever library, while it runs."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.done, self.before, self.peak = threading.Event(), self.used(), 0

    @staticmethod
    def used() -> int:
        free, total = torch.cuda.mem_get_info()
        return total - free

    def run(self) -> None:
        while not self.done.wait(0.01):
            self.peak = max(self.peak, self.used() - self.before)


def resident(what: str) -> int:
    """Return this process's memory in use ("VmRSS") or its peak ("VmHWM"), in bytes, as Linux has it."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(what))
    return int(line.split()[1]) * 1024


def one(backend: str, path: str) -> dict[str, float]:
    """Return the figures of one embedding of the latents in ``path``, made in this process alone."""
    X = np.load(path)
    on_gpu = BACKENDS[backend].gpu
    # A first, small embedding loads and compiles what the library needs; nobody embeds only once.
    embed(X[:500], backend, iterations=250)
    watch = GpuPeak() if on_gpu else None
    Path("/proc/self/clear_refs").write_text("5")  # Linux: the peak begins anew
    before = resident("VmRSS")
    if watch:
        watch.start()
    began = time.perf_counter()
    made = embed(X, backend)
    seconds = time.perf_counter() - began
    peak = resident("VmHWM") - before
    if watch:
        watch.done.set()
        watch.join()
        peak = watch.peak
    Y = made.coordinates
    return {
        "seconds": seconds,
        "memory": max(peak, 1) / MEBIBYTE,
        "kl": kl_divergence(principal(X), Y),
        "trustworthiness": trustworthiness(X, Y),
        "recall": recall(X, Y),
    }


def alone(backend: str, path: str) -> dict[str, float]:
    """Return :func:`one` from a fresh process, whose memory no other backend has touched."""
    print(f"  {backend} ...", flush=True)
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
        return process.submit(one, backend, path).result()


def rows(n: int, found: dict[str, dict[str, float]]) -> list[dict]:
    """Return the comparisons of all backends in ``found`` with the reference; a ratio above 1 speaks for them."""
    result = []
    for backend in (name for name in found if name != REFERENCE):
        for figure, unit in UNITS.items():
            ours, baseline = found[backend][figure], found[REFERENCE][figure]
            better = baseline / ours if figure in LESS_IS_BETTER else ours / baseline
            device = "cuda" if BACKENDS[backend].gpu else "cpu"
            result.append(comparison(f"tsne {backend} {n} {figure}", ours, baseline, unit, device, ratio=better))
    return result


def measure(n: int = POINTS) -> list[dict]:
    """Return the comparisons at ``n`` points."""
    obstacles = available_backends()
    for name, reason in obstacles.items():
        print(f"  {name}: {reason or 'works here'}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder, "latents.npy"))
        np.save(path, latents_of(n))
        return rows(n, {name: alone(name, path) for name, reason in obstacles.items() if reason is None})


if __name__ == "__main__":
    for row in measure(*map(int, sys.argv[1:])):
        print(row)
