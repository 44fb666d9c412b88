"""What the runs allow one to say: intervals and verdicts, computed, never asserted."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

from helpers.study import Runs

LEVEL = 0.95
# Figures where less is better.
LESS_IS_BETTER = ("loss", "calibration_error", "seconds", "parameters", "epochs")
# Shares of images, which are told in percent, and their differences in points.
SHARES = ("accuracy", "accuracy_tta", "calibration_error")


def interval(values: Sequence[float], level: float = LEVEL) -> tuple[float, float, float]:
    """Return mean, lower and upper end of Student's t interval of the mean of independent ``values`` (n,).

    Raises:
        ValueError: fewer than two values, from which no interval follows.
    """
    values = np.asarray(values, dtype=float)
    if values.size < 2:
        raise ValueError(f"an interval needs at least two values, got {values.size}")
    mean, error = values.mean(), stats.sem(values)
    if error == 0:
        return mean, mean, mean
    low, high = stats.t.interval(level, df=values.size - 1, loc=mean, scale=error)
    return float(mean), float(low), float(high)


@dataclass(frozen=True)
class Difference:
    """Arm ``a`` against arm ``b``: the mean of the paired differences a - b, and its interval."""

    a: str
    b: str
    mean: float
    low: float
    high: float

    @property
    def separable(self) -> bool:
        """Return whether the interval leaves out zero."""
        return self.low > 0 or self.high < 0


@dataclass(frozen=True)
class Verdict:
    """All differences that a study set out to judge, with intervals that hold together at ``level``."""

    metric: str
    seeds: int
    level: float
    differences: tuple[Difference, ...]

    def __str__(self) -> str:
        """Return the verdict in words, one line per pair of arms."""
        return "\n".join(self.sentence(difference) for difference in self.differences)

    def sentence(self, d: Difference) -> str:
        """Return one difference in words; accuracies and calibration errors in percentage points."""
        points = self.metric.endswith(SHARES)
        scale, unit = (100, " points") if points else (1, "")
        low, high, size = scale * d.low, scale * d.high, scale * abs(d.mean)
        if d.low == d.high == 0:
            return f"{d.a} and {d.b}: equal in each of {self.seeds} seeds"
        if not d.separable:
            return (
                f"{d.a} and {d.b}: not separable with {self.seeds} seeds "
                f"(difference {scale * d.mean:+.2f}{unit}, {self.level:.0%} interval [{low:+.2f}, {high:+.2f}])"
            )
        first, second = (d.a, d.b) if d.mean > 0 else (d.b, d.a)
        if d.mean < 0:
            low, high = -high, -low
        return f"{first} above {second} by {size:.2f}{unit}, {self.level:.0%} interval [{low:.2f}, {high:.2f}]"


def compare(runs: Runs, metric: str, against: str | Mapping[str, str] | None = None, level: float = LEVEL) -> Verdict:
    """Return the paired differences of ``metric`` between arms, with simultaneous intervals.

    Runs with the same seed share split, order and, where shapes allow, initial weights, so the differences of each
    pair of arms are taken seed by seed, and Student's t interval is put on their mean. With m pairs the level of
    each is 1 - (1 - level) / m (Bonferroni), so that all of them hold together at ``level``. ``against`` names an
    arm to which the others are compared, or for each of several arms the one that it is compared to, as along a path
    of changes; either is fixed before the results are seen. Without it every pair counts.

    Raises:
        ValueError: an unknown arm or figure, fewer than two arms or seeds, an arm against itself.
    """
    return compare_values(runs.values(metric), metric, against, level)


def compare_values(
    values: pd.DataFrame, metric: str, against: str | Mapping[str, str] | None = None, level: float = LEVEL
) -> Verdict:
    """Return :func:`compare` for figures worked out from the runs: ``values`` has a row per seed, a column per arm."""
    named = [] if against is None else [against] if isinstance(against, str) else [*against, *against.values()]
    if unknown := [arm for arm in named if arm not in values.columns]:
        raise ValueError(f"against={unknown[0]!r} is no arm; the arms are: {', '.join(values.columns)}")
    if len(values.columns) < 2 or len(values) < 2:
        raise ValueError(f"a verdict needs two arms and two seeds, got {len(values.columns)} and {len(values)}")
    if against is None:
        ordered = values.mean().sort_values(ascending=metric.endswith(LESS_IS_BETTER), kind="stable").index
        pairs = list(itertools.combinations(ordered, 2))
    elif isinstance(against, str):
        pairs = [(arm, against) for arm in values.columns if arm != against]
    else:
        pairs = list(against.items())
        if not pairs or any(a == b for a, b in pairs):
            raise ValueError(f"against={dict(against)!r}: give at least one pair of two different arms")
    each = 1 - (1 - level) / len(pairs)
    differences = [Difference(a, b, *interval((values[a] - values[b]).to_numpy(), each)) for a, b in pairs]
    return Verdict(metric, len(values), level, tuple(differences))


def verdict(runs: Runs, metric: str = "validation_accuracy", against: str | Mapping[str, str] | None = None) -> Verdict:
    """Return :func:`compare` at the course's level; printed, it is the verdict in words."""
    return compare(runs, metric, against)
