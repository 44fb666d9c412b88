"""Is a gradient right? Finite differences say so without any calculus."""

from collections.abc import Callable

import numpy as np


def numeric_gradient(function: Callable[[], float], array: np.ndarray, step: float = 1e-6) -> np.ndarray:
    """Return d function() / d array, by (f(a + h) - f(a - h)) / 2h for each number a of ``array`` in turn.

    ``function`` reads ``array``, which is changed in place and restored. Use float64: the error is about h²
    from the formula and 1e-16 / h from rounding, so near 1e-10 for h = 1e-6 and values near 1.
    """
    gradient = np.empty_like(array)
    for index in np.ndindex(array.shape):
        value = array[index]
        array[index] = value + step
        above = function()
        array[index] = value - step
        below = function()
        array[index] = value
        gradient[index] = (above - below) / (2 * step)
    return gradient


def relative_error(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Return the largest difference between two arrays, as a share of the largest number in the second."""
    if ours.shape != theirs.shape:
        raise ValueError(f"cannot compare shapes {ours.shape} and {theirs.shape}")
    return float(np.abs(ours - theirs).max() / max(np.abs(theirs).max(), np.finfo(theirs.dtype).tiny))
