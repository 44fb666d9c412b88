"""Figures as they are printed: those of runs, with unit, digits and interval, and those that others published."""

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import cache

import numpy as np

from helpers.record.evidence import arm_interval, interval, percent, share_interval, uncollapsed
from helpers.record.run import Run
from helpers.settings import DATA

MISSING = "–"


def scale_and_digits(metric: str) -> tuple[int, int]:
    """Return by what a figure of the record is multiplied when it is shown, and its decimals."""
    if percent(metric):
        return 100, 2  # one image in CIFAR-10's test set: finer than any difference worth a word
    whole = metric.endswith(("epoch", "epochs", "parameters", "multiply_adds"))
    return 1, 0 if whole else 1 if metric.endswith("seconds") else 3


def metric_label(metric: str) -> str:
    """Return a figure's name with its unit, as it stands on an axis or above a column."""
    unit = " (%)" if percent(metric) else " (s)" if metric.endswith("seconds") else ""
    return metric.replace("train_", "training_").replace("_", " ").capitalize() + unit


def mean_and_half(values: Sequence[float]) -> tuple[float, float]:
    """Return the mean of ``values`` and half the width of its 95 % interval, NaN below two values."""
    mean, low, high = interval(values) if len(values) > 1 else (float(np.mean(values)), math.nan, math.nan)
    return mean, (high - low) / 2


def plus_minus(values: Sequence[float], digits: int) -> str:
    """Return "mean ± half-width" of the 95 % interval over independent values; below two, the mean."""
    return _plus_minus(*mean_and_half(values), digits)


def _plus_minus(mean: float, half: float, digits: int) -> str:
    if not math.isfinite(mean):
        return MISSING
    return f"{mean:,.{digits}f}" + (f" ± {half:,.{digits}f}" if math.isfinite(half) else "")


def arm_mean_and_half(runs: Sequence[Run], metric: str) -> tuple[float, float]:
    """Return mean and half-width of a final figure in the unit in which it is shown, over runs that did not collapse.

    NaN where nothing is left, or one run alone, which has no half-width. See :func:`arm_interval`.
    """
    kept, scale = uncollapsed(runs), scale_and_digits(metric)[0]
    if len(kept) < 2:
        return (scale * kept[0].metrics[metric] if kept else math.nan), math.nan
    mean, low, high = arm_interval(kept, metric)
    return scale * mean, scale * (high - low) / 2


def arm_plus_minus(runs: Sequence[Run], metric: str) -> str:
    """Return :func:`arm_mean_and_half` as "mean ± half-width"."""
    return _plus_minus(*arm_mean_and_half(runs, metric), scale_and_digits(metric)[1])


def seeds_text(runs: Sequence[Run]) -> str:
    """Return how many runs an arm has, and how many of them collapsed: "3", or "3 (1 collapsed)"."""
    lost = len(runs) - len(uncollapsed(runs))
    return f"{len(runs)}" + (f" ({lost} collapsed)" if lost else "")


def span(values: Iterable[float]) -> str:
    """Return the least and the largest of ``values`` as "3 to 12", or the one value that they all have."""
    ends = sorted({min(numbers := list(values)), max(numbers)})
    return " to ".join(f"{end:,}" if isinstance(end, int) else f"{end:g}" for end in ends)


# --- What others published, of the reports that the course starts from and beyond: data/published.json. ---


@dataclass(frozen=True)
class Published:
    """One published figure, as printed and as a number; ``pictures`` are those that an accuracy stands on, if known."""

    key: str
    text: str
    value: float
    unit: str
    note: str = ""
    pictures: int | None = None

    report = property(lambda self: self.key.split("/", 1)[0])  # its key in the bibliography, too

    def interval(self) -> tuple[float, float] | None:
        """Return the ends of an accuracy's :func:`share_interval`, in percent, or None if its pictures are unknown."""
        if self.pictures is None:
            return None
        low, high = share_interval(round(self.value / 100 * self.pictures), self.pictures)
        return 100 * low, 100 * high

    @property
    def with_interval(self) -> str:
        """Return the figure as printed, with its interval where that is known: "64.57 [60.7, 68.2]"."""
        ends = self.interval()
        return f"{self.text} [{ends[0]:.1f}, {ends[1]:.1f}]" if ends else self.text


@cache
def published_figures() -> dict[str, Published]:
    """Return every published figure under its key, such as "R4/test-accuracy"."""
    # A Decimal keeps the digits as they were printed: 83.00 stays 83.00.
    reports, figures = json.loads((DATA / "published.json").read_text(), parse_float=Decimal), {}
    for report, content in reports.items():
        for quantity, entry in content["figures"].items():
            key, value, unit = f"{report}/{quantity}", entry["value"], entry["unit"]
            figures[key] = Published(key, str(value), float(value), unit, entry.get("note", ""), entry.get("pictures"))
    return figures


def published(key: str) -> Published:
    """Return the published figure ``key``, such as "R4/test-accuracy"."""
    figures = published_figures()
    if key not in figures:
        near = [name for name in figures if name.startswith(key.split("/", 1)[0] + "/")] or sorted(figures)
        raise KeyError(f"data/published.json has no {key!r}; there are: {', '.join(near)}")
    return figures[key]


def published_for(prefix: str, metric: str) -> Published | None:
    """Return the figure published for a run's ``metric`` under ``prefix``, a setting such as "R0/final", or None."""
    if not any(key.startswith(f"{prefix}/") for key in published_figures()):
        published(prefix)  # says what there is
    return published_figures().get(f"{prefix}/{metric.replace('_', '-')}")
