"""R3's network, one training step: NumPy against PyTorch's eager mode, plain loops and the machine's matrix product.

All sides do the same work, in this process, on the same number of threads: forward, loss, backward and one SGD step
on 64 images of 32x32, float32. They take turns of a few steps, so that whatever else the machine does hits all
alike, and the fastest step of each counts: it is the one that was disturbed least. ``ratio`` is ours / baseline.
"""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from threadpoolctl import threadpool_limits
from torch import nn
from torch.nn import functional as F

from course.bench import comparison
from helpers import numpy_cnn as cnn
from helpers.models import build, layer_table

BATCH = 64
SECONDS = 10  # for each number of threads, all sides together
TURN = 3  # steps; a step before them brings a side's data back into the cache
LOOP_IMAGES = 2
SIDE = 2048
SQUARE = 2 * SIDE**3  # operations of a product of two square matrices


def batch(images: int = BATCH) -> tuple[np.ndarray, np.ndarray]:
    """Return random images (N, 32, 32, 3) and labels (N,)."""
    draw = np.random.default_rng(0)
    return draw.standard_normal((images, 32, 32, 3), np.float32), draw.integers(0, 10, images)


def numpy_step(network: cnn.Sequential, images: np.ndarray, labels: np.ndarray) -> Callable[[], None]:
    """Return one training step of a NumPy network."""
    optimizer = cnn.SGD(0.01)

    def step() -> None:
        _, dlogits = cnn.softmax_cross_entropy(network.train().forward(images), labels)
        network.backward(dlogits)
        optimizer.step(network)

    return step


def torch_step(images: np.ndarray, labels: np.ndarray) -> Callable[[], None]:
    """Return one training step of R3's network in PyTorch, eager, as one writes it."""
    network = nn.Sequential(
        *(nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), nn.Conv2d(64, 128, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(8 * 8 * 128, 10)),
    )
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01)
    x, y = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous(), torch.from_numpy(labels)

    def step() -> None:
        optimizer.zero_grad()
        F.cross_entropy(network(x), y).backward()
        optimizer.step()

    return step


class LoopConv2d(cnn.Conv2d):
    """A convolution as one first writes it (notebook 02): loops over windows, forward and backward."""

    def forward(self, x: np.ndarray) -> np.ndarray:
        y, k, p = np.empty((len(x), *self.output_shape(x.shape[1:])), x.dtype), self.kernel, self.padding
        self.padded = np.pad(x, ((0, 0), (p, p), (p, p), (0, 0)))
        weight, bias = self.parameters.values()
        for n, i, j, o in np.ndindex(y.shape):
            y[n, i, j, o] = np.sum(self.padded[n, i : i + k, j : j + k] * weight[..., o]) + bias[o]
        return y

    def backward(self, dy: np.ndarray) -> np.ndarray:
        k, p, weight = self.kernel, self.padding, self.parameters["weight"]
        dpadded, dweight = np.zeros_like(self.padded), np.zeros_like(weight)
        for n, i, j, o in np.ndindex(dy.shape):
            dweight[..., o] += dy[n, i, j, o] * self.padded[n, i : i + k, j : j + k]
            dpadded[n, i : i + k, j : j + k] += dy[n, i, j, o] * weight[..., o]
        self.gradients = {"weight": dweight, "bias": dy.sum(axis=(0, 1, 2))}
        return dpadded[:, p : dpadded.shape[1] - p, p : dpadded.shape[2] - p]


def loop_step() -> Callable[[], None]:
    """Return one training step on ``LOOP_IMAGES`` images with convolutions written as loops over their windows."""
    network = cnn.NETWORKS["r3"]()
    for layer in network.layers:
        if isinstance(layer, cnn.Conv2d):
            layer.__class__ = LoopConv2d
    return numpy_step(network, *batch(LOOP_IMAGES))


def matrix_product(size: int = SIDE) -> Callable[[], None]:
    """Return the product of two square float32 matrices."""
    a, out = np.ones((size, size), np.float32), np.empty((size, size), np.float32)
    return lambda: np.matmul(a, a, out=out)


def operations() -> int:
    """Return the floating point operations of one image's training step in R3's network, biases aside.

    Forward, weight gradient and input gradient cost the same; the first layer has no input gradient.
    """
    costs = [row["multiply_adds"] for row in layer_table(build("r3"))]
    return 2 * (3 * sum(costs) - costs[0])


def fastest(sides: list[Callable[[], None]], seconds: float) -> list[float]:
    """Return the time of each side's fastest run, in seconds; they take turns of ``TURN`` until the time is up."""
    best = [float("inf")] * len(sides)
    for side in sides:
        side()
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or float("inf") in best:
        for number, side in enumerate(sides):
            for _ in range(TURN):
                began = time.perf_counter()
                side()
                best[number] = min(best[number], time.perf_counter() - began)
    return best


def measure() -> list[dict[str, Any]]:
    """Return the rows of this benchmark, on one thread and on all."""
    rows = []
    gigaflop = BATCH * operations() / 1e9
    available = cnn.threads()
    for count in sorted({1, available}):
        torch.set_num_threads(count)
        with cnn.use_threads(count), threadpool_limits(count, user_api="blas"):
            sides = [numpy_step(cnn.NETWORKS["r3"](), *batch()), torch_step(*batch()), matrix_product()]
            ours, pytorch, product = fastest(sides, SECONDS)
        rows += [
            comparison("numpy step / torch step", 1e3 * ours, 1e3 * pytorch, "ms", "cpu", threads=count),
            comparison("numpy / torch", BATCH / ours, BATCH / pytorch, "images/s", "cpu", threads=count),
            comparison(
                "numpy / matrix product", gigaflop / ours, SQUARE / 1e9 / product, "GFLOP/s", "cpu", threads=count
            ),
        ]
    with cnn.use_threads(available):
        (loops,) = fastest([loop_step()], 0)
    rows.append(comparison("numpy / loops", BATCH / ours, LOOP_IMAGES / loops, "images/s", "cpu", threads=available))
    return rows
