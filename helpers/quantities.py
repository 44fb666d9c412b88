"""How a measured quantity is named, scaled and printed, the same in figures, tables and the report."""

import math
from collections.abc import Iterable, Sequence

import numpy as np

from helpers.evidence import SHARES, interval

MISSING = "–"


def percent(metric: str) -> bool:
    """Return whether ``metric`` is shown in percent: an accuracy, or a calibration error."""
    return metric.endswith(SHARES)


def scale_and_digits(metric: str) -> tuple[int, int]:
    """Return by what a figure of the record is multiplied when it is shown, and its decimals.

    Two decimals of an accuracy are one image in CIFAR-10's test set: finer than any difference worth a word.
    """
    if percent(metric):
        return 100, 2
    whole = metric.endswith(("epoch", "epochs", "parameters", "multiply_adds"))
    return 1, 0 if whole else 1 if metric.endswith("seconds") else 3


def metric_label(metric: str) -> str:
    """Return a figure's name with its unit, as it stands on an axis or above a column."""
    unit = " (%)" if percent(metric) else " (s)" if metric.endswith("seconds") else ""
    return metric.replace("_", " ").capitalize() + unit


def mean_and_half(values: Sequence[float]) -> tuple[float, float]:
    """Return the mean of ``values`` and half the width of its 95 % interval, NaN below two values."""
    if len(values) < 2:
        return float(np.mean(values)), math.nan
    mean, low, high = interval(values)
    return mean, (high - low) / 2


def plus_minus(values: Sequence[float], digits: int) -> str:
    """Return "mean ± half-width" of the 95 % interval over independent values; below two, the mean."""
    mean, half = mean_and_half(values)
    if not math.isfinite(mean):
        return MISSING
    return f"{mean:,.{digits}f}" + (f" ± {half:,.{digits}f}" if math.isfinite(half) else "")


def span(values: Iterable[float]) -> str:
    """Return the least and the largest of ``values`` as "3 to 12", or the one value that they all have."""
    ends = sorted({min(numbers := list(values)), max(numbers)})
    return " to ".join(f"{end:,}" if isinstance(end, int) else f"{end:g}" for end in ends)
