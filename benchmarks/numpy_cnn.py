"""R3's network, one training step: NumPy against PyTorch's eager mode and the machine's matrix product.

All sides do the same work, in this process, on the same number of threads: forward, loss, backward and one SGD step
on 64 images of 32x32, float32. They take turns of a few steps, so that whatever else the machine does hits all
alike, and the fastest step of each counts: it is the one that was disturbed least. ``ratio`` is ours / baseline.
"""

import time
import timeit
from collections.abc import Callable

import numpy as np
import torch
from threadpoolctl import threadpool_limits
from torch.nn import functional as F

from helpers import numpy_cnn as cnn
from helpers.models import build, layer_table

BATCH = 64
SECONDS = 10  # for each number of threads, all sides together
TURN = 3  # steps, the first of which brings a side's data back into the cache
SIDE = 2048  # of square matrices


def numpy_step(images: np.ndarray, labels: np.ndarray) -> Callable[[], None]:
    """Return one training step of R3's network in NumPy."""
    network, optimizer = cnn.NETWORKS["r3"](), cnn.SGD(0.01)

    def step() -> None:
        _, dlogits = cnn.softmax_cross_entropy(network.train().forward(images), labels)
        network.backward(dlogits)
        optimizer.step(network)

    return step


def torch_step(images: np.ndarray, labels: np.ndarray) -> Callable[[], None]:
    """Return one training step of R3's network in PyTorch, eager, as one writes it."""
    network = build("r3")
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01)
    x, y = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous(), torch.from_numpy(labels)

    def step() -> None:
        optimizer.zero_grad()
        F.cross_entropy(network(x), y).backward()
        optimizer.step()

    return step


def fastest(sides: list[Callable[[], None]], seconds: float) -> list[float]:
    """Return the time of each side's fastest run, in seconds; they take turns of ``TURN`` until the time is up."""
    best, end = [float("inf")] * len(sides), time.perf_counter() + seconds
    while time.perf_counter() < end:
        for number, side in enumerate(sides):
            best[number] = min(best[number], *timeit.repeat(side, number=1, repeat=TURN))
    return best


def measure() -> list[tuple]:
    """Return the rows of this benchmark, on one thread and on all."""
    # Forward, weight gradient and input gradient cost the same; the first layer has no input gradient. Biases aside.
    costs = [row["multiply_adds"] for row in layer_table(build("r3"))]
    gigaflop = 2e-9 * BATCH * (3 * sum(costs) - costs[0])
    square, product = np.ones((SIDE, SIDE), np.float32), np.empty((SIDE, SIDE), np.float32)
    draw, rows = np.random.default_rng(0), []
    batch = draw.standard_normal((BATCH, 32, 32, 3), np.float32), draw.integers(0, 10, BATCH)
    for count in sorted({1, cnn.threads()}):
        torch.set_num_threads(count)
        with cnn.use_threads(count), threadpool_limits(count, user_api="blas"):
            steps = [numpy_step(*batch), torch_step(*batch)]
            ours, pytorch, matmul = fastest([*steps, lambda: np.matmul(square, square, out=product)], SECONDS)
        here = ("cpu", False, count)
        rows += [
            ("numpy step / torch step", 1e3 * ours, 1e3 * pytorch, "ms", *here),
            ("numpy / torch", BATCH / ours, BATCH / pytorch, "images/s", *here),
            ("numpy / matrix product", gigaflop / ours, 2e-9 * SIDE**3 / matmul, "GFLOP/s", *here),
        ]
    return rows
