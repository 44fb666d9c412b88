"""How a measured quantity is named, scaled and printed, the same in figures, tables and the report."""

import math
from collections.abc import Iterable, Sequence

import numpy as np

from helpers.record.evidence import SHARES, arm_interval, interval
from helpers.record.run import Run

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
    return _plus_minus(*mean_and_half(values), digits)


def _plus_minus(mean: float, half: float, digits: int) -> str:
    if not math.isfinite(mean):
        return MISSING
    return f"{mean:,.{digits}f}" + (f" ± {half:,.{digits}f}" if math.isfinite(half) else "")


def arm_mean_and_half(runs: Sequence[Run], metric: str) -> tuple[float, float]:
    """Return mean and half-width of a final figure over the runs of one arm, in the unit in which it is shown.

    Runs that collapsed are left out; NaN where nothing is left, or one run alone, which has no half-width. The interval
    of a test accuracy covers seeds and pictures.
    """
    kept, scale = [run for run in runs if not run.collapsed], scale_and_digits(metric)[0]
    if len(kept) < 2:
        return (scale * kept[0].metrics[metric] if kept else math.nan), math.nan
    mean, low, high = arm_interval(kept, metric)
    return scale * mean, scale * (high - low) / 2


def arm_plus_minus(runs: Sequence[Run], metric: str) -> str:
    """Return :func:`arm_mean_and_half` as "mean ± half-width"."""
    return _plus_minus(*arm_mean_and_half(runs, metric), scale_and_digits(metric)[1])


def seeds_text(runs: Sequence[Run]) -> str:
    """Return how many runs an arm has, and how many of them collapsed: "3", or "3 (1 collapsed)"."""
    lost = sum(run.collapsed for run in runs)
    return f"{len(runs)}" + (f" ({lost} collapsed)" if lost else "")


def span(values: Iterable[float]) -> str:
    """Return the least and the largest of ``values`` as "3 to 12", or the one value that they all have."""
    ends = sorted({min(numbers := list(values)), max(numbers)})
    return " to ".join(f"{end:,}" if isinstance(end, int) else f"{end:g}" for end in ends)
