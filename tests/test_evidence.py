"""The rule of evidence against SciPy: its variances, its critical values, its errors, and what it says in words."""

from functools import partial
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from synthetic import synthetic_runs

from course.report import error_rates, family_error
from helpers.record import Runs, arm_interval, compare_values, compare_within, evidence, interval, verdict
from helpers.record.evidence import critical_value, moderate, moderated
from helpers.record.printed import metric_label, scale_and_digits

# So many prior degrees of freedom that all arms have one variance, and so many runs that it is known.
ALIKE, KNOWN = 1e7, 20_000


def values(columns: int = 3, seeds: int = 5) -> pd.DataFrame:
    rng = np.random.default_rng(1)
    shared = rng.normal(0.7, 0.05, (seeds, 1))  # what the seeds of all readings have in common
    arms = shared + rng.normal(0, 0.002, (seeds, columns)) + 0.01 * np.arange(columns)
    return pd.DataFrame(arms, columns=list("abc")[:columns])


def test_the_common_variance_is_the_one_that_the_arms_were_drawn_with():
    rng, free = np.random.default_rng(0), np.full(20_000, 2)
    scatter = 0.04 * evidence.PRIOR_DF / rng.chisquare(evidence.PRIOR_DF, (1, free.size))
    found = moderate(scatter * rng.chisquare(2, scatter.shape) / 2, free)
    # A variance of nought is drawn all the way to what the common one and its weight make of it.
    prior = evidence.PRIOR_DF
    assert found.min() * (prior + 2) / prior == pytest.approx(0.04, rel=0.05)


def test_many_seeds_leave_an_arm_its_own_variance_and_few_draw_it_to_the_others():
    many = pd.DataFrame(np.random.default_rng(3).normal(0, [1, 1, 1, 5], (4_000, 4)))
    assert moderated(many) == pytest.approx(many.var(ddof=1).to_numpy(), rel=0.01)
    own, drawn = many.head(3).var(ddof=1), moderated(many.head(3))
    assert (np.ptp(np.log(drawn)) < np.ptp(np.log(own))) and np.argmax(drawn) == np.argmax(own)
    assert moderated(pd.DataFrame(np.ones((3, 2)))).tolist() == [0, 0]


@pytest.mark.parametrize("others", [1, 8])
def test_with_a_known_variance_the_critical_value_is_dunnetts(others, monkeypatch):
    monkeypatch.setattr(evidence, "PRIOR_DF", ALIKE)
    found = critical_value.__wrapped__((KNOWN,) * (others + 1), tuple((arm, 0) for arm in range(1, others + 1)))
    alike = np.full((others, others), 0.5) + 0.5 * np.eye(others)  # all share the first arm
    ends = np.full(others, found)
    inside = stats.multivariate_normal(cov=alike).cdf(ends, lower_limit=-ends, rng=np.random.default_rng(0))
    assert inside == pytest.approx(0.95, abs=0.004)


def test_with_many_runs_an_interval_is_welchs():
    rng = np.random.default_rng(2)
    table = pd.DataFrame({"a": rng.normal(0, 1, KNOWN), "b": rng.normal(0.1, 3, KNOWN)})
    (found,) = compare_values(table, "validation_loss", against="a").differences
    oracle = stats.ttest_ind(table["b"], table["a"], equal_var=False).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((oracle.low, oracle.high), abs=0.001)


@pytest.mark.parametrize("seeds", [3, 6])
def test_families_without_a_difference_are_called_different_in_five_of_a_hundred(seeds, monkeypatch):
    prior = evidence.PRIOR_DF
    scatter = prior / np.random.default_rng(5).chisquare(prior, (60, 7))
    rates = [family_error(variances, seeds, start, 200) for start, variances in enumerate(scatter)]
    assert np.mean(rates) == pytest.approx(0.05, abs=3 * np.sqrt(0.05 * 0.95 / (60 * 200)) + 0.005)
    # A rule that trusts each arm's own variance would be caught.
    monkeypatch.setattr("helpers.record.evidence.critical_value", lambda runs, pairs: stats.norm.ppf(0.975))
    assert family_error(np.ones(7), 3) > 0.1


def test_the_rule_is_measured_on_the_studies_of_several_arms(monkeypatch):
    monkeypatch.setattr("course.report.measured", lambda name, compute, of: compute())
    runs = synthetic_runs()
    rates = error_rates({"base": runs, "alone": synthetic_runs("R2")})
    assert rates["contrasts"] == 2 and 0 <= rates["separable-in-pairs"] <= 2
    variances = runs.values("validation_accuracy").var(ddof=1)
    assert rates["error-3-seeds"] == pytest.approx(100 * family_error(variances, 3), abs=2.5)


def fake(arm, seed, collapsed=False, right=None, **metrics) -> SimpleNamespace:
    return SimpleNamespace(arm=arm, seed=seed, device="cpu", metrics=metrics, collapsed=collapsed, right=right)


def runs_of(table: pd.DataFrame, collapsed: tuple = ()) -> Runs:
    cells = [(arm, seed, value) for arm, column in table.items() for seed, value in column.items()]
    return Runs("fake", [fake(arm, s, (arm, s) in collapsed, validation_accuracy=value) for arm, s, value in cells])


NOISE = pd.DataFrame(np.random.default_rng(7).normal(0.6, 0.05, (5, 4)), columns=list("abcd"))


def test_each_arm_against_its_own_other():
    steps = {"b": "a", "c": "b", "d": "b"}
    found = verdict(runs_of(NOISE), against=steps)
    assert [(d.a, d.b) for d in found.differences] == list(steps.items())
    limit, own = critical_value((5,) * 4, ((1, 0), (2, 1), (3, 1))), moderated(NOISE)
    for d in found.differences:
        assert d.mean == pytest.approx((NOISE[d.a] - NOISE[d.b]).mean())
        half = limit * np.sqrt(sum(own["abcd".index(arm)] for arm in (d.a, d.b)) / 5)
        assert (d.high - d.low) / 2 == pytest.approx(half)
    assert found["c"] == found.differences[1]
    with pytest.raises(KeyError, match="0 comparisons begin with 'a'"):
        found["a"]


def test_collapsed_runs_are_counted_and_not_averaged():
    table = NOISE.copy()
    table.loc[2, "b"] = table.loc[:, "c"] = 0.1
    lost = (("b", 2), *(("c", seed) for seed in range(5)))
    found = verdict(runs_of(table, lost), against="a")
    assert found["b"].mean == pytest.approx(NOISE["b"].drop(2).mean() - NOISE["a"].mean())
    assert found.collapsed == {"b": (1, 5), "c": (5, 5)}
    assert not found["c"].separable and "all runs of an arm collapsed" in found.sentence(found["c"])
    assert "b: 1 of 5 runs collapsed and are left out" in str(found)
    # The lost arm is no part of the family.
    alone = verdict(runs_of(table.drop(columns="c"), lost[:1]), against="a")
    assert (alone["b"].low, alone["d"].high) == pytest.approx((found["b"].low, found["d"].high))
    lost = tuple((arm, seed) for arm in "abcd" for seed in range(5))
    assert not any(d.separable for d in verdict(runs_of(NOISE, lost), against="a").differences)


def test_readings_of_the_same_runs_are_compared_in_pairs():
    table = values()
    found = compare_within(table, "validation_accuracy", against="a")
    for difference, arm in zip(found.differences, "bc", strict=True):
        expected = stats.ttest_rel(table[arm], table["a"]).confidence_interval(1 - 0.05 / 2)  # two hold together
        assert (difference.low, difference.high) == pytest.approx((expected.low, expected.high))
    assert found.differences[1].separable and str(found).splitlines()[1].startswith("c above a by ")
    assert str(found).splitlines()[-1] == "2 comparisons, 5 seeds an arm; the intervals hold together"


def test_a_calibration_error_is_told_in_points_and_less_is_better():
    table = pd.DataFrame({"boasts": [0.10, 0.11, 0.12], "knows": [0.02, 0.031, 0.039]})
    found = compare_values(table, "validation_calibration_error")
    assert str(found).startswith("boasts above knows by 8.00 points")
    assert found.differences[0].a == "knows"  # the better arm comes first
    assert found.amount(found.differences[0]).startswith("-8.0 points [-")
    assert scale_and_digits("validation_calibration_error") == (100, 2)
    assert metric_label("validation_calibration_error") == "Validation calibration error (%)"


REFUSED = [
    *((partial(ask, values(1), ""), "two arms and two seeds, got 1 and 5") for ask in (compare_values, compare_within)),
    (lambda: compare_values(values(2, 1), ""), "two arms and two seeds, got 2 and 1"),
    (lambda: compare_values(values(), "", "z"), "against='z' is no arm; the arms are: a, b, c"),
    (lambda: compare_values(values(), "", {"z": "a"}), "'z' is no arm"),
    (lambda: compare_within(values(), "", {"b": "b"}), "two different arms"),
    (lambda: compare_within(values(), "", {}), "at least one pair"),
    (lambda: interval([1.0]), "two values"),
    (lambda: runs_of(NOISE).only("z"), "no arm 'z'; it has: a, b, c, d"),
    (lambda: verdict(runs_of(NOISE), "f1"), "no figure 'f1' .* there are: validation_accuracy"),
]


@pytest.mark.parametrize(("ask", "words"), REFUSED)
def test_senseless_questions_are_refused(ask, words):
    with pytest.raises(ValueError, match=words):
        ask()


def test_every_pair_counts_unless_one_arm_is_named():
    every, means = verdict(runs_of(NOISE)).differences, NOISE.mean()
    assert len(every) == 6 and len(verdict(runs_of(NOISE), against="c").differences) == 3
    assert verdict(runs_of(NOISE), against="a") == verdict(runs_of(NOISE), against=dict.fromkeys("bcd", "a"))
    assert means[every[0].a] == means.max() and every[0].mean == pytest.approx(means[every[0].a] - means[every[0].b])


def test_the_words_follow_the_numbers_whichever_way_they_are_asked():
    table = pd.DataFrame({arm: mean + NOISE[arm] / 10 for arm, mean in (("a", 0.7), ("b", 0.5))})
    for against in (None, "a", "b"):
        assert str(compare_values(table, "validation_accuracy", against)).startswith("a above b by ")
    lower = compare_values(table, "validation_loss")
    assert lower.differences[0].a == "b" and "points" not in str(lower)
    noise = pd.DataFrame({"a": NOISE["a"], "b": NOISE["a"].to_numpy()[::-1] + 0.01})
    assert "not separable with 5 seeds" in str(compare_values(noise, "validation_accuracy"))
    equal = NOISE[["a"]].assign(b=NOISE["a"])
    assert str(compare_values(equal, "validation_accuracy")) == "a and b: equal in each of 5 seeds"


def runs_tested(arm: str, right: np.ndarray) -> list[SimpleNamespace]:
    """Return runs that recognise the pictures of a row each of ``right`` (seeds, pictures)."""
    return [fake(arm, s, right=lambda _, row=row: row, test_accuracy=row.mean()) for s, row in enumerate(right)]


def answers(rng: np.random.Generator, ease: np.ndarray, seeds: int) -> np.ndarray:
    return rng.random((seeds, ease.size)) < ease


def test_a_test_accuracys_interval_covers_seeds_and_pictures():
    rng = np.random.default_rng(0)
    right = answers(rng, rng.beta(4, 1, 2_000), 3)
    mean, low, high = arm_interval(runs_tested("a", right), "test_accuracy")
    _, _, seeds = interval(right.mean(axis=1))
    chosen = [right[:, rng.integers(0, 2_000, 2_000)].mean() for _ in range(4_000)]  # other pictures
    assert mean == pytest.approx(right.mean())
    assert high - mean == pytest.approx(np.hypot(seeds - mean, 1.96 * np.std(chosen)), rel=0.03)
    assert mean - low == pytest.approx(high - mean)


def test_two_networks_that_fail_on_the_same_pictures_are_told_apart_better():
    rng = np.random.default_rng(1)
    ease = rng.beta(0.4, 0.1, 3_000)  # most pictures are easy, or hard, for everyone
    a, b = answers(rng, ease, 3), answers(rng, ease, 3)
    seeds_alone = compare_values(pd.DataFrame({"a": a.mean(axis=1), "b": b.mean(axis=1)}), "test_accuracy", "a")
    together, apart = (
        verdict(Runs("fake", runs_tested("a", a) + runs_tested("b", other)), "test_accuracy", "a")
        for other in (b, b[:, rng.permutation(3_000)])
    )
    widths = [found["b"].high - found["b"].low for found in (seeds_alone, together, apart)]
    assert widths == sorted(widths) and len(set(widths)) == 3
