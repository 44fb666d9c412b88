"""Verdicts in pairs, along a path of changes, and on figures worked out from the runs, against SciPy."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from helpers.evidence import compare, compare_values, verdict
from helpers.quantities import metric_label, scale_and_digits
from helpers.study import Runs


def values(columns: int = 3, seeds: int = 5) -> pd.DataFrame:
    rng = np.random.default_rng(1)
    shared = rng.normal(0.7, 0.05, (seeds, 1))  # what the seeds of all arms have in common
    arms = shared + rng.normal(0, 0.002, (seeds, columns)) + 0.01 * np.arange(columns)
    return pd.DataFrame(arms, columns=list("abc")[:columns])


def test_derived_figures_are_compared_in_pairs_of_seeds():
    table = values()
    found = compare_values(table, "validation_accuracy", against="a")
    level = 1 - 0.05 / 2  # two pairs that hold together
    for difference, arm in zip(found.differences, "bc", strict=True):
        expected = stats.ttest_rel(table[arm], table["a"]).confidence_interval(level)
        assert (difference.low, difference.high) == pytest.approx((expected.low, expected.high))
    assert found.differences[1].separable and str(found).splitlines()[1].startswith("c above a by ")


def test_a_calibration_error_is_told_in_points_and_less_is_better():
    table = pd.DataFrame({"boasts": [0.10, 0.11, 0.12], "knows": [0.02, 0.031, 0.039]})
    found = compare_values(table, "validation_calibration_error")
    assert str(found).startswith("boasts above knows by 8.00 points")
    assert found.differences[0].a == "knows"  # the better arm comes first
    assert scale_and_digits("validation_calibration_error") == (100, 2)
    assert metric_label("validation_calibration_error") == "Validation calibration error (%)"


@pytest.mark.parametrize(
    ("table", "against", "words"),
    [
        (values(1), None, "two arms and two seeds, got 1 and 5"),
        (values(2, 1), None, "two arms and two seeds, got 2 and 1"),
        (values(), "z", "against='z' is no arm; the arms are: a, b, c"),
    ],
)
def test_too_little_is_refused(table, against, words):
    with pytest.raises(ValueError, match=words):
        compare_values(table, "validation_accuracy", against)


def test_arms_that_are_equal_in_every_seed_are_called_so():
    table = values(2)
    table["b"] = table["a"]
    assert str(compare_values(table, "validation_accuracy")) == "a and b: equal in each of 5 seeds"


NOISE = np.random.default_rng(7).normal(0.6, 0.05, (4, 5))


@pytest.fixture
def runs():
    """Return four arms of five seeds, with accuracies of which SciPy knows the intervals."""
    found = [
        SimpleNamespace(arm=arm, seed=seed, device="cpu", metrics={"validation_accuracy": NOISE[i, seed]})
        for i, arm in enumerate("abcd")
        for seed in range(5)
    ]
    return Runs(SimpleNamespace(name="fake"), found)


def test_each_arm_against_its_own_other(runs):
    steps = {"b": "a", "c": "b", "d": "b"}
    found = verdict(runs, against=steps).differences
    assert [(d.a, d.b) for d in found] == list(steps.items())
    for difference in found:
        a, b = (NOISE["abcd".index(arm)] for arm in (difference.a, difference.b))
        oracle = stats.ttest_rel(a, b).confidence_interval(1 - 0.05 / 3)  # three pairs share the level
        assert (difference.low, difference.high) == pytest.approx((oracle.low, oracle.high))
        assert difference.mean == pytest.approx((a - b).mean())


def test_one_arm_for_all_is_the_mapping_written_out(runs):
    written_out = {"b": "a", "c": "a", "d": "a"}
    assert verdict(runs, against="a") == verdict(runs, against=written_out)


def test_a_single_pair_has_the_whole_level(runs):
    alone = compare(runs, "validation_accuracy", {"c": "d"}).differences[0]
    oracle = stats.ttest_rel(NOISE[2], NOISE[3]).confidence_interval(0.95)
    assert (alone.low, alone.high) == pytest.approx((oracle.low, oracle.high))


@pytest.mark.parametrize(
    ("against", "complaint"),
    [
        ({"b": "z"}, "'z' is no arm"),
        ({"z": "a"}, "'z' is no arm"),
        ({"b": "b"}, "two different arms"),
        ({}, "at least one pair"),
    ],
)
def test_senseless_pairs_are_refused(runs, against, complaint):
    with pytest.raises(ValueError, match=complaint):
        verdict(runs, against=against)
