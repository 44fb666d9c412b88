"""Verdicts on figures that were worked out from the runs, against SciPy; calibration errors told in points."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from helpers.evidence import compare_values
from helpers.quantities import metric_label, scale_and_digits


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
