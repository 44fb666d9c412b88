"""How should many runs share a machine? Side by side with one thread each, or one after another with all threads.

The throughput of R2's net, as it is trained here, in all processes together. On a GPU: several processes at once
against one alone.
"""

import multiprocessing
import time

import torch
from joblib import cpu_count

from helpers.data import load
from helpers.record import default_jobs, device_kind
from helpers.training import Experiment, Trainer, pick_device

BATCH, SECONDS, ROUNDS = 128, 12.0, 3


def work(threads: int, barrier, rates) -> None:
    """Train for a while after all others are ready, and report images per second of every round."""
    torch.set_num_threads(threads)
    device = pick_device()
    experiment = Experiment(model="r2", batch_size=BATCH, precision="bf16", augmentation="crop:4 hflip:0.5")
    trainer = Trainer(experiment, load("cifar10"), device, compiled=True)
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


def throughput(processes: int, threads: int) -> float:
    """Return images per second of so many processes together, the mean over rounds."""
    context = multiprocessing.get_context("spawn")
    barrier, rates = context.Barrier(processes), context.Queue()
    workers = [context.Process(target=work, args=(threads, barrier, rates)) for _ in range(processes)]
    for worker in workers:
        worker.start()
    values = [rates.get(timeout=600) for _ in range(processes * ROUNDS)]
    for worker in workers:
        worker.join()
    return sum(values) / ROUNDS


def measure() -> list[dict]:
    """Return the throughput side by side ("ours"), one after another ("baseline"), and their ratio."""
    device, cores = device_kind(), cpu_count()
    jobs = default_jobs(device)
    alone, together = throughput(1, cores), throughput(jobs, max(1, cores // jobs))
    return [
        {
            "name": f"parallel {jobs} runs side by side",
            "ours": round(together, 1),
            "baseline": round(alone, 1),
            "ratio": round(together / alone, 3),
            "unit": "images/s",
            "device": device,
            "threads": cores,
        }
    ]
