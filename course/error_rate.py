"""How often the rule of evidence errs, and how much it sees: simulated and counted on the course's own record."""

import zlib
from collections.abc import Mapping, Sequence

import numpy as np

from helpers.record import LEVEL, Runs, critical_value, interval, kept_values, largest_t, verdict
from helpers.show import measured

METRIC = "validation_accuracy"
# Numbers of seeds for which the error is simulated, and in how many families for each study.
SEEDS, FAMILIES = (3, 6), 2_000


def error_rates(runs: Mapping[str, Runs]) -> dict[str, float]:
    """Return what the report says of the rule, from the studies of several arms among ``runs``, by name.

    Every study asks of each arm whether it differs from the first one. Counted: these contrasts, and how many are
    separable by the course's rule and by its predecessor, paired t intervals with Bonferroni's correction. Simulated,
    for 3 and 6 seeds: in what share of families without any difference the rule finds one. There, the true variances
    are those that the record shows, sampling error and all, which scatter more than the true ones can.
    """
    several = {name: found for name, found in runs.items() if len(found.arms) > 1}
    spread = {name: kept_values(found, METRIC).var(ddof=1).tolist() for name, found in several.items()}
    depends = {name: [f"{variance:.3e}" for variance in variances] for name, variances in spread.items()}
    return measured("00-error-rate", lambda: _counts(several) | _simulated(spread), of=depends)


def _counts(several: Mapping[str, Runs]) -> dict[str, float]:
    contrasts = separable = paired = 0
    for found in several.values():
        first, values = found.arms[0], kept_values(found, METRIC)
        differences = verdict(found, METRIC, first).differences
        each = 1 - (1 - LEVEL) / len(differences)
        contrasts += len(differences)
        separable += sum(d.separable for d in differences)
        for d in differences:
            _, low, high = interval((values[d.a] - values[d.b]).dropna(), each)
            paired += low > 0 or high < 0
    return _together(several) | {"contrasts": contrasts, "separable": separable, "separable-in-pairs": paired}


def _together(several: Mapping[str, Runs]) -> dict[str, float]:
    """Return the mean correlation, over the seeds, of two arms of one study: what pairing by seed could gain from."""
    found = []
    for runs in several.values():
        table = kept_values(runs, METRIC).corr().to_numpy()
        found.append(table[np.triu_indices(len(table), 1)])
    return {"correlation": round(float(np.nanmean(np.concatenate(found))), 2)}


def _simulated(spread: Mapping[str, Sequence[float]]) -> dict[str, float]:
    rates = {}
    for seeds in SEEDS:
        errors = {name: family_error(variances, seeds, zlib.crc32(name.encode())) for name, variances in spread.items()}
        worst = max(errors, key=errors.get)
        rates |= {f"error-{seeds}-seeds": np.mean(list(errors.values())), f"worst-{seeds}-seeds": errors[worst]}
    return {name: round(100 * float(rate), 2) for name, rate in rates.items()}


def family_error(variances: Sequence[float], seeds: int, start: int = 0, families: int = FAMILIES) -> float:
    """Return in what share of families of equal arms with these true ``variances`` the rule finds a difference."""
    arms = len(variances)
    runs, pairs = (seeds,) * arms, tuple((arm, 0) for arm in range(1, arms))
    scatter = np.broadcast_to(np.maximum(variances, 1e-12), (families, arms))
    largest = largest_t(np.random.default_rng(start), scatter, runs, pairs)
    return float((largest > critical_value(runs, pairs)).mean())
