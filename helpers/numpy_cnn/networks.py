"""The networks that the NumPy lesson trains, ready built. Images are (N, 32, 32, 3), outputs logits (N, classes)."""

from collections.abc import Callable

import numpy as np

from helpers.numpy_cnn.conv import Conv2d
from helpers.numpy_cnn.layers import Flatten, Linear, ReLU
from helpers.numpy_cnn.network import Sequential
from helpers.numpy_cnn.norm import BatchNorm
from helpers.numpy_cnn.pooling import MaxPool2d

IMAGE = (32, 32, 3)


def r3(classes: int = 10, *, seed: int = 0, dtype: np.dtype = np.float32) -> Sequential:
    """Return R3's network as published, with a padding that keeps the size, which the report does not mention."""
    return Sequential(
        Conv2d(3, 16, 3, padding=1),  # (N, 32, 32, 3) -> (N, 32, 32, 16)
        ReLU(),
        Conv2d(16, 32, 3, padding=1),  # -> (N, 32, 32, 32)
        ReLU(),
        MaxPool2d(2),  # -> (N, 16, 16, 32)
        Conv2d(32, 64, 3, padding=1),  # -> (N, 16, 16, 64)
        ReLU(),
        Conv2d(64, 128, 3, padding=1),  # -> (N, 16, 16, 128)
        ReLU(),
        MaxPool2d(2),  # -> (N, 8, 8, 128)
        Flatten(),  # -> (N, 8192)
        Linear(8 * 8 * 128, classes, init="xavier"),  # no ReLU follows
        input_shape=IMAGE,
        seed=seed,
        dtype=dtype,
    )


def r1(classes: int = 10, *, seed: int = 0, dtype: np.dtype = np.float32) -> Sequential:
    """Return a net of the size of R1's, 126,059 parameters; the reading is that of ``helpers.models``' r1."""
    return Sequential(
        Conv2d(3, 16, 3, padding=1),  # (N, 32, 32, 3) -> (N, 32, 32, 16)
        ReLU(),
        MaxPool2d(2),  # -> (N, 16, 16, 16)
        Conv2d(16, 32, 3, padding=1),  # -> (N, 16, 16, 32)
        ReLU(),
        MaxPool2d(2),  # -> (N, 8, 8, 32)
        Conv2d(32, 64, 3, padding=1),  # -> (N, 8, 8, 64)
        ReLU(),
        MaxPool2d(2),  # -> (N, 4, 4, 64)
        Flatten(),  # -> (N, 1024)
        Linear(4 * 4 * 64, 99),  # -> (N, 99)
        ReLU(),
        Linear(99, classes, init="xavier"),
        input_shape=IMAGE,
        seed=seed,
        dtype=dtype,
    )


def r3_norm(classes: int = 10, *, seed: int = 0, dtype: np.dtype = np.float32) -> Sequential:
    """Return R3's network with batch norm before each ReLU and a third pool: what passes 70 % soonest."""
    layers = []
    for inputs, outputs, pool in ((3, 16, False), (16, 32, True), (32, 64, True), (64, 128, True)):
        layers += [Conv2d(inputs, outputs, 3, padding=1), BatchNorm(outputs), ReLU()]
        layers += [MaxPool2d(2)] if pool else []
    # (N, 4, 4, 128) -> (N, 2048) -> (N, classes)
    layers += [Flatten(), Linear(4 * 4 * 128, classes, init="xavier")]
    return Sequential(*layers, input_shape=IMAGE, seed=seed, dtype=dtype)


NETWORKS: dict[str, Callable[..., Sequential]] = {"r1": r1, "r3": r3, "r3-norm": r3_norm}
