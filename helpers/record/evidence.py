"""What the runs allow one to say: one rule for every comparison of the course, fixed before the results are seen.

Arms are compared by the means of their seeds. With three seeds an arm's own variance is a poor guide, so it is
moderated: drawn towards what the arms of its study have in common, as limma does for genes (Smyth, 2004). All
comparisons of a question are one family. Its critical value is that of the largest of its t statistics where nothing
differs, simulated with variances that scatter as those of the record do; so the intervals of a family hold together.
Arms share their seeds, but are not compared in pairs: over the record, seeds hardly move arms up and down together.

Readings of the *same* runs, such as two epochs of one training, do go together: :func:`compare_within`. A run that
gives nearly every training picture one class has collapsed: it is counted, and not averaged.
"""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, lru_cache

import numpy as np
import pandas as pd
from scipy import stats
from scipy.special import digamma

from helpers.record.run import Run, Runs

LEVEL = 0.95
# How alike the variances of a study's arms are: log variances scatter as if each were known from so many degrees of
# freedom. Fewer than the record's scatter would allow, which errs less often: :mod:`course.report` says how often.
PRIOR_DF = 3
# How many families in which nothing differs are simulated for a critical value, and from which random numbers.
FAMILIES, SIMULATION_SEED = 50_000, 1
_student = cache(stats.t.ppf)  # asked for the same few quantiles thousands of times
# The arm that all others are compared with, or for each arm its own; or else every pair.
Against = str | Mapping[str, str] | None


def interval(values: Sequence[float], level: float = LEVEL) -> tuple[float, float, float]:
    """Return mean, lower and upper end of Student's t interval of the mean of two or more independent ``values``."""
    values = np.asarray(values, dtype=float)
    if values.size < 2:
        raise ValueError(f"an interval needs at least two values, got {values.size}")
    mean, error = float(values.mean()), float(values.std(ddof=1)) / values.size**0.5
    half = error * float(_student((1 + level) / 2, values.size - 1))
    return mean, mean - half, mean + half


def share_interval(right: int, pictures: int, level: float = LEVEL) -> tuple[float, float]:
    """Return the ends of Wilson's interval of a share of pictures: it covers which they are, and not the seed."""
    ends = stats.binomtest(right, pictures).proportion_ci(level, method="wilson")
    return float(ends.low), float(ends.high)


def arm_interval(runs: Sequence[Run], metric: str, level: float = LEVEL) -> tuple[float, float, float]:
    """Return mean, lower and upper end of the interval of ``metric`` over the runs of one arm, one a seed.

    A test accuracy's interval also covers which pictures happen to be in the test set: both half-widths are added as
    lengths at a right angle. It is about networks and pictures like these, not about these pictures alone.
    """
    mean, low, high = interval([run.metrics[metric] for run in runs], level)
    if metric != "test_accuracy":
        return mean, low, high
    half = float(np.hypot(high - mean, stats.norm.ppf((1 + level) / 2) * np.sqrt(_picture_variance(runs))))
    return mean, mean - half, mean + half


def _picture_variance(runs: Sequence[Run], others: Sequence[Run] = ()) -> float:
    """Return the variance that the choice of test pictures gives the mean accuracy, or its difference from others'."""
    share = np.mean([run.right("test") for run in runs], axis=0)  # (pictures,): by how many seeds each is recognised
    if others:  # they see the same pictures, and tend to fail on the same ones
        share = share - np.mean([run.right("test") for run in others], axis=0)
    return float(share.var(ddof=1) / share.size)


@dataclass(frozen=True)
class Difference:
    """Arm ``a`` against arm ``b``: the difference of their means, a - b, and its interval; NaN without a run left."""

    a: str
    b: str
    mean: float
    low: float
    high: float

    # Whether the interval leaves out zero: a is above b, or below.
    above = property(lambda self: self.low > 0)
    below = property(lambda self: self.high < 0)
    separable = property(lambda self: self.above or self.below)


@dataclass(frozen=True)
class Verdict:
    """One family: all differences that answer a question, and by arm, how many of how many runs ``collapsed``."""

    metric: str
    seeds: int
    differences: tuple[Difference, ...]
    collapsed: Mapping[str, tuple[int, int]] = field(default_factory=dict)

    def __str__(self) -> str:
        lines = [self.sentence(d) for d in self.differences]
        lines += [f"{arm}: {n} of {of} runs collapsed and are left out" for arm, (n, of) in self.collapsed.items()]
        return "\n".join(lines + ([self.family] if len(self.differences) > 1 else []))

    def __getitem__(self, arm: str) -> Difference:
        found = [d for d in self.differences if d.a == arm]
        if len(found) != 1:
            names = ", ".join(f"{d.a} against {d.b}" for d in self.differences)
            raise KeyError(f"{len(found)} comparisons begin with {arm!r}; they are: {names}")
        return found[0]

    @property
    def family(self) -> str:
        """Return in words what holds together."""
        return f"{len(self.differences)} comparisons, {self.seeds} seeds an arm; the intervals hold together"

    @property
    def scale_and_unit(self) -> tuple[float, str]:
        """Return by what a difference is multiplied when it is shown, and its unit: points for shares."""
        return (100, " points") if percent(self.metric) else (1, "")

    def amount(self, d: Difference, digits: int = 1) -> str:
        """Return a difference with its interval, as a text quotes it: "+5.7 points [3.1, 8.3]"."""
        scale, unit = self.scale_and_unit
        return f"{scale * d.mean:+z.{digits}f}{unit} [{scale * d.low:z.{digits}f}, {scale * d.high:z.{digits}f}]"

    def sentence(self, d: Difference) -> str:
        """Return one difference in words; accuracies and calibration errors in percentage points."""
        scale, unit = self.scale_and_unit
        low, high = scale * d.low, scale * d.high
        if np.isnan(d.mean):
            return f"{d.a} and {d.b}: no comparison, since all runs of an arm collapsed"
        if d.low == d.high == 0:
            return f"{d.a} and {d.b}: equal in each of {self.seeds} seeds"
        if not d.separable:
            return (
                f"{d.a} and {d.b}: not separable with {self.seeds} seeds "
                f"(difference {scale * d.mean:+.2f}{unit}, {LEVEL:.0%} interval [{low:+.2f}, {high:+.2f}])"
            )
        if d.mean < 0:
            return self.sentence(Difference(d.b, d.a, -d.mean, -d.high, -d.low))
        return f"{d.a} above {d.b} by {scale * d.mean:.2f}{unit}, {LEVEL:.0%} interval [{low:.2f}, {high:.2f}]"


def verdict(runs: Runs, metric: str = "validation_accuracy", against: Against = None) -> Verdict:
    """Return the differences of ``metric`` between arms as one family, by the rule of this module; print it for words.

    ``against`` names an arm to which the others are compared, or for each of several arms the one that it is compared
    to, as along a path of changes; either is fixed before the results are seen. Without it every pair counts. Intervals
    of a test accuracy also cover which pictures are in the test set.
    """
    values, pictures = kept_values(runs, metric), {}
    if metric == "test_accuracy":
        kept = {arm: uncollapsed(several) for arm, several in runs.by_arm().items()}
        pairs = [(a, b) for a, b in _pairs(values, metric, against) if kept[a] and kept[b]]
        pictures = {(a, b): _picture_variance(kept[a], kept[b]) for a, b in pairs}
    collapsed = {arm: (int(n), len(values)) for arm, n in values.isna().sum().items() if n}
    return replace(compare_values(values, metric, against, pictures), collapsed=collapsed)


def uncollapsed(runs: Iterable[Run]) -> list[Run]:
    """Return the runs that did not end in giving every picture one class."""
    return [run for run in runs if not run.collapsed]


def kept_values(runs: Runs, metric: str) -> pd.DataFrame:
    """Return a final figure of all runs, a row per seed, a column per arm, NaN where a run collapsed."""
    lost = {arm: [run.collapsed for run in several] for arm, several in runs.by_arm().items()}
    return runs.values(metric).mask(pd.DataFrame(lost, index=runs.seeds))


def compare_values(
    values: pd.DataFrame, metric: str, against: Against = None, pictures: Mapping[tuple[str, str], float] | None = None
) -> Verdict:
    """Return :func:`verdict` for figures worked out from runs: a row per seed, a column per arm, NaN for one left out.

    ``pictures`` may give, for a pair of arms, a known variance of its difference that comes on top of the seeds'.
    """
    pairs, pictures = _pairs(values, metric, against), pictures or {}
    known = values.dropna(axis=1, how="all")  # an arm without a run is no part of the family
    told, arms = [(a, b) for a, b in pairs if a in known and b in known], list(known)
    counts, means = known.count(), known.mean()
    errors = moderated(known) / counts
    limit = critical_value(tuple(map(int, counts)), tuple((arms.index(a), arms.index(b)) for a, b in told))
    normal = stats.norm.ppf(1 - (1 - LEVEL) / (2 * len(told))) if told else 0.0
    differences = []
    for a, b in pairs:
        if (a, b) not in told:
            differences.append(Difference(a, b, np.nan, -np.inf, np.inf))
            continue
        mean, pictured = float(means[a] - means[b]), pictures.get((a, b), 0.0)
        half = float(np.hypot(limit * np.sqrt(errors[a] + errors[b]), normal * np.sqrt(pictured)))
        half = 0.0 if values[a].equals(values[b]) else half  # one and the same outcome, seed for seed
        differences.append(Difference(a, b, mean, mean - half, mean + half))
    return Verdict(metric, len(values), tuple(differences))


def compare_within(values: pd.DataFrame, metric: str, against: Against = None) -> Verdict:
    """Return the differences between several readings (columns) of the same runs (rows), such as of two epochs.

    What a run is better at in one reading, it mostly is in the other, so differences are taken run by run, each with
    Student's t interval, with m of them each at the level 1 - (1 - 0.95) / m (Bonferroni), so that all hold together.
    """
    pairs = _pairs(values, metric, against)
    each = 1 - (1 - LEVEL) / len(pairs)
    differences = [Difference(a, b, *interval((values[a] - values[b]).to_numpy(), each)) for a, b in pairs]
    return Verdict(metric, len(values), tuple(differences))


def _pairs(values: pd.DataFrame, metric: str, against: Against) -> list[tuple[str, str]]:
    """Return which columns are compared with which, or say what is wrong with the question."""
    named = [] if against is None else [against] if isinstance(against, str) else [*against, *against.values()]
    if unknown := [arm for arm in named if arm not in values.columns]:
        raise ValueError(f"against={unknown[0]!r} is no arm; the arms are: {', '.join(values.columns)}")
    if len(values.columns) < 2 or len(values) < 2:
        raise ValueError(f"a verdict needs two arms and two seeds, got {len(values.columns)} and {len(values)}")
    if against is None:
        less_is_better = metric.endswith(("loss", "calibration_error", "seconds", "parameters", "epochs"))
        ordered = values.mean().sort_values(ascending=less_is_better, kind="stable").index
        return list(itertools.combinations(ordered, 2))
    if isinstance(against, str):
        return [(arm, against) for arm in values.columns if arm != against]
    if not against or any(a == b for a, b in against.items()):
        raise ValueError(f"against={dict(against)!r}: give at least one pair of two different arms")
    return list(against.items())


def moderated(values: pd.DataFrame) -> np.ndarray:
    """Return the moderated variance of each column of ``values`` (seeds, arms): one value or more, NaN left out."""
    free = values.notna().sum().to_numpy() - 1
    return moderate(values.var(ddof=1).fillna(0).to_numpy()[None], free)[0]


def moderate(variances: np.ndarray, free: np.ndarray) -> np.ndarray:
    """Return ``variances`` (families, arms), each drawn towards its family's common one, (families, arms).

    ``free`` (arms,) are their degrees of freedom. The common variance comes from the mean of the logarithms, freed of
    their bias; the weights are ``free`` and ``PRIOR_DF`` (Smyth, 2004, eq. 3 and section 6.2, with a fixed prior).
    """
    with np.errstate(divide="ignore"):
        logs = np.log(variances)
    told, halves = np.isfinite(logs) & (free > 0), np.maximum(free, 1) / 2  # one run, or equal ones, tell no scatter
    unbiased = np.where(told, logs - digamma(halves) + np.log(halves), 0).sum(1) / np.maximum(told.sum(1), 1)
    common = np.exp(unbiased + digamma(PRIOR_DF / 2) - np.log(PRIOR_DF / 2)) * told.any(1)
    return (PRIOR_DF * common[:, None] + free * variances) / (PRIOR_DF + free)


@lru_cache
def critical_value(runs: tuple[int, ...], pairs: tuple[tuple[int, int], ...]) -> float:
    """Return how large the largest |t| of a family gets by chance, in all but 5 % of all families.

    Arms with so many ``runs``, compared in ``pairs``, are simulated: equal means, variances that scatter about a common
    one as chi-squared with ``PRIOR_DF`` degrees of freedom lets them.
    """
    if not pairs:
        return 0.0
    rng, size = np.random.default_rng(SIMULATION_SEED), (FAMILIES, len(runs))
    return float(np.quantile(largest_t(rng, PRIOR_DF / rng.chisquare(PRIOR_DF, size), runs, pairs), LEVEL))


def largest_t(rng: np.random.Generator, scatter: np.ndarray, runs: Sequence[int], pairs: Sequence) -> np.ndarray:
    """Return the largest |t| of each of many families in which no arm differs, (families,).

    ``scatter`` (families, arms) are the true variances, ``runs`` and ``pairs`` as in :func:`critical_value`.
    """
    counts, free = np.asarray(runs), np.asarray(runs) - 1
    seen = scatter * np.where(free > 0, rng.chisquare(np.maximum(free, 1), scatter.shape) / np.maximum(free, 1), 0)
    means = rng.standard_normal(scatter.shape) * np.sqrt(scatter / counts)
    errors = moderate(seen, free) / counts
    largest = np.zeros(len(scatter))
    for a, b in pairs:
        np.maximum(largest, np.abs(means[:, a] - means[:, b]) / np.sqrt(errors[:, a] + errors[:, b]), out=largest)
    return largest


def percent(metric: str) -> bool:
    """Return whether ``metric`` is a share, shown in percent: an accuracy, or a calibration error."""
    return metric.endswith(("accuracy", "accuracy_tta", "calibration_error"))
