"""Stratified splits that are the same on every machine and every day."""

import numpy as np
from sklearn.model_selection import train_test_split
from sklearn.utils.class_weight import compute_class_weight

from helpers.data.images import DataError

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


def grouped_split(
    labels: np.ndarray, groups: np.ndarray, held_out: int, seed: int = SPLIT_SEED
) -> tuple[np.ndarray, np.ndarray]:
    """Return two sorted index arrays (kept, held out), stratified, with no group in both.

    labels, groups: (N,) integers; held_out: about how many to hold out. Exactly :func:`stratified_split` where
    every group has one member. Raises DataError where a class is too small, or would be missing from one part.
    """
    _, first, group = np.unique(groups, return_index=True, return_inverse=True)
    if len(first) == len(labels):
        return stratified_split(labels, held_out, seed)
    classes = np.unique(labels)
    fraction = held_out / len(labels)
    _, held_groups = stratified_split(labels[first], share(len(first), fraction, len(classes)), seed)
    held = np.isin(group, held_groups)
    for part in (labels[held], labels[~held]):
        if len(absent := np.setdiff1d(classes, part)):
            raise DataError(
                f"{len(labels)} images in {len(first)} groups of duplicates cannot be split with every class in both "
                f"parts: class {absent[0]} has too few different pictures. Add pictures."
            )
    return np.flatnonzero(~held), np.flatnonzero(held)


def balanced(labels: np.ndarray, index: np.ndarray, seed: int = SPLIT_SEED) -> np.ndarray:
    """Return a sorted part of ``index`` with as many images of each class as the smallest has there.

    labels: (N,) integers; index: positions in ``labels``. The same part for the same input and seed.
    """
    rng = np.random.default_rng(seed)
    classes, counts = np.unique(labels[index], return_counts=True)
    parts = [rng.choice(index[labels[index] == label], counts.min(), replace=False) for label in classes]
    return np.sort(np.concatenate(parts))


def class_weights(labels: np.ndarray) -> list[float]:
    """Return a weight per class, inverse to its number of images, with mean 1 over the images: "balanced" in sklearn.

    labels: (N,) integers, each of 0..K-1 at least once. A loss with these weights counts every class alike.
    """
    return compute_class_weight("balanced", classes=np.unique(labels), y=labels).tolist()


def share(count: int, fraction: float, classes: int) -> int:
    """Return how many of ``count`` images a ``fraction`` is, at least one a class."""
    return max(round(count * fraction), classes)
