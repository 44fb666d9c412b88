"""Stratified splits that are the same on every machine and every day."""

import numpy as np
from sklearn.model_selection import train_test_split

from helpers.images import DataError

# One seed for every split of the course: what is compared must be compared on the same images.
SPLIT_SEED = 0


def stratified_split(labels: np.ndarray, held_out: int, seed: int = SPLIT_SEED) -> tuple[np.ndarray, np.ndarray]:
    """Return two sorted index arrays (kept, held out), each with the classes in the proportion of all.

    labels: (N,) integers; held_out: how many to hold out. Raises DataError where a class is too small.
    """
    counts = np.unique(labels, return_counts=True)[1]
    if counts.min() < 2 or not len(counts) <= held_out <= len(labels) - len(counts):
        raise DataError(
            f"{len(labels)} images in {len(counts)} classes, the smallest of {counts.min()}, cannot be split "
            f"into {len(labels) - held_out} and {held_out} with every class in both. Add images."
        )
    kept, held = train_test_split(np.arange(len(labels)), test_size=int(held_out), stratify=labels, random_state=seed)
    return np.sort(kept), np.sort(held)


def share(count: int, fraction: float, classes: int) -> int:
    """Return how many of ``count`` images a ``fraction`` is, at least one a class."""
    return max(round(count * fraction), classes)
