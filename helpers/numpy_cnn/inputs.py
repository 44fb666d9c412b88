"""From stored pictures, uint8 (N, H, W, C), to what a network takes, batch by batch."""

from collections.abc import Callable

import numpy as np

Prepare = Callable[[np.ndarray], np.ndarray]
Augment = Callable[[np.ndarray, np.random.Generator], np.ndarray]


def normaliser(mean: np.ndarray, std: np.ndarray, dtype: np.dtype = np.float32) -> Prepare:
    """Return the function that makes uint8 pictures (n, H, W, C) into numbers of mean 0 and deviation 1.

    ``mean`` and ``std`` are per channel (C,), on the scale 0 to 1, of the training images.
    """
    scale = (1 / (255 * np.asarray(std, np.float64))).astype(dtype)
    shift = (np.asarray(mean, np.float64) / np.asarray(std, np.float64)).astype(dtype)

    def prepare(images: np.ndarray) -> np.ndarray:
        numbers = images.astype(dtype)
        numbers *= scale
        numbers -= shift
        return numbers

    return prepare


def mirror(images: np.ndarray, generator: np.random.Generator, p: float = 0.5) -> np.ndarray:
    """Return the pictures (n, H, W, C), each seen in a mirror with probability p."""
    mirrored = generator.random(len(images)) < p
    return np.where(mirrored[:, None, None, None], images[:, :, ::-1], images)


def shift(images: np.ndarray, generator: np.random.Generator, pixels: int = 4) -> np.ndarray:
    """Return the pictures (n, H, W, C), each moved by up to ``pixels`` up or down and left or right, black behind."""
    n, height, width, _ = images.shape
    padded = np.pad(images, ((0, 0), (pixels, pixels), (pixels, pixels), (0, 0)))
    top, left = generator.integers(0, 2 * pixels + 1, (2, n))
    rows = top[:, None] + np.arange(height)  # (n, H)
    columns = left[:, None] + np.arange(width)  # (n, W)
    return padded[np.arange(n)[:, None, None], rows[:, :, None], columns[:, None, :]]  # (n, H, W, C)
