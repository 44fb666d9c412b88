"""How fast does `make record` train R2's published setting, and against what? All processes' images per second.

"runs side by side": with one thread each, against one run after another with all threads. "as recorded": the same,
compiled where that pays, against runs side by side in PyTorch's own bfloat16, uncompiled, which is what a processor
without bfloat16 instructions would do without helpers. On a GPU: several processes at once against one alone.
"""

import contextlib
import multiprocessing
from functools import partial

import torch
from joblib import cpu_count
from loop import duration, training

from helpers.record import default_jobs, device_kind
from helpers.training import Experiment, loop, pick_device

SECONDS = 36.0
CHOICES = {"model": "r2", "model_options": {"dropout": 0.0}, "batch_size": 64, "epochs": 100}
R2 = Experiment(**CHOICES, precision="bf16", augmentation="crop:4 hflip:0.5")


def work(threads: int, plain: bool, barrier, rates) -> None:
    """Train for a while once all others are ready, too, and report images per second."""
    torch.set_num_threads(threads)
    if plain:
        loop.products = lambda *_: contextlib.nullcontext()
    step = partial(next, training(R2, pick_device(), compiled=False if plain else None))
    step()  # compiles
    barrier.wait()
    rates.put(R2.batch_size / duration(step, SECONDS))


def throughput(processes: int, threads: int, plain: bool = False) -> float:
    """Return images per second of so many processes together."""
    context = multiprocessing.get_context("spawn")
    barrier, rates = context.Barrier(processes), context.Queue()
    workers = [context.Process(target=work, args=(threads, plain, barrier, rates)) for _ in range(processes)]
    for worker in workers:
        worker.start()
    together = sum(rates.get(timeout=600) for _ in workers)
    for worker in workers:
        worker.join()
    return together


def measure() -> list[tuple]:
    """Return what runs side by side gain, and what is gained over PyTorch's own bfloat16."""
    device, cores = device_kind(), cpu_count()
    jobs = default_jobs(device)
    together = throughput(jobs, max(1, cores // jobs))
    others = {
        f"parallel {jobs} runs side by side": throughput(1, cores),
        "parallel as recorded, against plain bfloat16": throughput(jobs, max(1, cores // jobs), plain=True),
    }
    return [(name, together, other, "images/s", device, False, cores) for name, other in others.items()]
