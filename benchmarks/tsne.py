"""How fast, and how good, is t-SNE by each library that works here? All on the same latents of R2's net, N x 2048.

Every figure has scikit-learn's, of the same latents with the same parameters, as its baseline: seconds, memory (the
peak above what was in use before, in MiB; on a GPU, that of the GPU), KL divergence, trustworthiness and recall.

`make bench BENCH=tsne` measures 40,000 points; `python benchmarks/tsne.py 2000` prints the rows for 2,000.
"""

import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor, wait
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch

from helpers import latent
from helpers.data import load, subset
from helpers.training import Experiment, fit

POINTS, LAYER, REFERENCE = 40_000, "flatten", "sklearn"
UNITS = {"seconds": "s", "memory": "MiB", "kl": "nats", "trustworthiness": "", "recall": ""}
LESS_IS_BETTER = ("seconds", "memory", "kl")


def latents_of(n: int) -> np.ndarray:
    """Return the convolutional features of ``n`` training images after one epoch: float32 (n, 2048)."""
    data = load("cifar10")
    model = fit(Experiment(model="r2", batch_size=64, epochs=1, precision="bf16"), data, progress=False).model
    return latent.split_latents(model, subset(data.train, n), data.mean, data.std, LAYER)[LAYER]


def memory(gpu: bool, what: str = "VmRSS") -> float:
    """Return the MiB in use: of the GPU, by whichever library; or by this process, or at its peak ("VmHWM")."""
    if gpu:
        free, total = torch.cuda.mem_get_info()
        return (total - free) / 2**20
    lines = Path("/proc/self/status").read_text().splitlines()  # Linux
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(what))


def one(backend: str, path: str) -> dict[str, float]:
    """Return the figures of one embedding of the latents in ``path``, made in this process, which has made no other."""
    X, gpu = np.load(path), latent.BACKENDS[backend].gpu
    # A first, small embedding loads and compiles what the library needs; nobody embeds only once.
    latent.embed(X[:500], backend, iterations=250)
    Path("/proc/self/clear_refs").write_text("5")  # Linux: the peak begins anew
    before = peak = memory(gpu)
    with ThreadPoolExecutor(1) as thread:
        making = thread.submit(latent.embed, X, backend)
        while gpu and not wait([making], timeout=0.01).done:  # a GPU keeps no peak
            peak = max(peak, memory(gpu))
    made, peak = making.result(), peak if gpu else memory(gpu, "VmHWM")
    return {
        "seconds": made.about["seconds"],
        "memory": max(peak - before, 2**-20),
        "kl": latent.kl_divergence(latent.principal(X), made.coordinates),
        "trustworthiness": latent.trustworthiness(X, made.coordinates),
        "recall": latent.recall(X, made.coordinates),
    }


def measure(n: int = POINTS) -> list[tuple]:
    """Return the comparisons of all backends with the reference at ``n`` points; a ratio above 1 speaks for them."""
    found, rows = {}, []
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder, "latents.npy"))
        np.save(path, latents_of(n))
        for name, reason in latent.available_backends().items():
            print(f"  {name}: {reason or 'works here'}", flush=True)
            if reason is None:
                with ProcessPoolExecutor(1, get_context("spawn")) as fresh:  # another's memory would count
                    found[name] = fresh.submit(one, name, path).result()
    theirs = found.pop(REFERENCE)
    for backend, ours in found.items():
        device = "cuda" if latent.BACKENDS[backend].gpu else "cpu"
        for figure, unit in UNITS.items():
            name, better = f"tsne {backend} {n} {figure}", figure in LESS_IS_BETTER
            rows.append((name, ours[figure], theirs[figure], unit, device, better))
    return rows


if __name__ == "__main__":
    for row in measure(*map(int, sys.argv[1:])):
        print(row)
