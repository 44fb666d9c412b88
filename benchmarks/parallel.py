"""How fast does `make record` train R2's published setting, and against what? All processes' images per second.

"runs side by side": with one thread each, against one run after another with all threads. "as recorded": the same,
compiled where that pays, against runs side by side in PyTorch's own bfloat16, uncompiled, which is what a processor
without bfloat16 instructions would do without helpers. On a GPU: several processes at once against one alone.
"""

import contextlib
import multiprocessing
import time

import torch
from joblib import cpu_count

from course.bench import comparison
from helpers.data import load
from helpers.record import default_jobs, device_kind
from helpers.training import Experiment, Trainer, loop, pick_device

BATCH, SECONDS, ROUNDS = 64, 12.0, 3
R2 = {"model": "r2", "model_options": {"dropout": 0.0}, "batch_size": BATCH, "precision": "bf16", "epochs": 100}


def work(threads: int, plain: bool, barrier, rates) -> None:
    """Train for a while after all others are ready, and report images per second of every round."""
    torch.set_num_threads(threads)
    if plain:
        loop.products = lambda *_: contextlib.nullcontext()
    device = pick_device()
    experiment = Experiment(**R2, augmentation="crop:4 hflip:0.5")
    trainer = Trainer(experiment, load("cifar10"), device, compiled=False if plain else None)
    trainer.model.train()
    draws, count = torch.Generator(device).manual_seed(0), 0
    batch = torch.arange(BATCH, device=device)

    def step() -> None:
        trainer._step(trainer.augment(trainer.train.images[batch], draws), trainer.train.labels[batch])

    for _ in range(10):
        step()
    for _ in range(ROUNDS):
        barrier.wait()
        began, count = time.perf_counter(), 0
        while time.perf_counter() - began < SECONDS:
            step()
            count += 1
            if device.type == "cuda" and count % 50 == 0:
                torch.cuda.synchronize()
        if device.type == "cuda":
            torch.cuda.synchronize()
        rates.put(BATCH * count / (time.perf_counter() - began))


def throughput(processes: int, threads: int, plain: bool = False) -> float:
    """Return images per second of so many processes together, the mean over rounds."""
    context = multiprocessing.get_context("spawn")
    barrier, rates = context.Barrier(processes), context.Queue()
    workers = [context.Process(target=work, args=(threads, plain, barrier, rates)) for _ in range(processes)]
    for worker in workers:
        worker.start()
    values = [rates.get(timeout=600) for _ in range(processes * ROUNDS)]
    for worker in workers:
        worker.join()
    return sum(values) / ROUNDS


def measure() -> list[dict]:
    """Return what runs side by side gain, and what is gained over PyTorch's own bfloat16."""
    device, cores = device_kind(), cpu_count()
    jobs = default_jobs(device)
    together = throughput(jobs, max(1, cores // jobs))
    others = {
        f"parallel {jobs} runs side by side": throughput(1, cores),
        "parallel as recorded, against plain bfloat16": throughput(jobs, max(1, cores // jobs), plain=True),
    }
    return [comparison(name, together, other, "images/s", device, threads=cores) for name, other in others.items()]
