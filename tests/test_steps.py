"""Verdicts along a path of changes: each arm against the one that it was made from."""

from types import SimpleNamespace

import numpy as np
import pytest
from scipy import stats

from helpers.evidence import compare, verdict
from helpers.study import Runs

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
