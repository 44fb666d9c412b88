"""Gains alone and among all, against SciPy, and words that follow from both."""

from types import SimpleNamespace

import numpy as np
import pytest
from scipy import stats

from helpers.ablation import ablation_table, added_alone, judged, left_out, plot_waterfall
from helpers.evidence import Difference
from helpers.study import Runs

IDEAS = ("padding", "larger batch")
VALUES = np.random.default_rng(5).normal(0.5, 0.02, (7, 4))
ARMS = ("base", *IDEAS, "all", *(f"without {idea}" for idea in IDEAS))


def runs(*arms):
    metrics = {arm: [{"validation_accuracy": value} for value in VALUES[ARMS.index(arm)]] for arm in arms}
    found = [SimpleNamespace(arm=a, seed=s, device="cpu", metrics=m) for a in arms for s, m in enumerate(metrics[a])]
    return Runs(SimpleNamespace(name="fake"), found)


ADDED, WITHOUT = runs(*ARMS[:4]), runs(*ARMS[3:])


def oracle(a, b):
    found = stats.ttest_rel(VALUES[ARMS.index(a)], VALUES[ARMS.index(b)]).confidence_interval(1 - 0.05 / 2)
    return found.low, found.high


def test_gains_are_paired_differences_with_simultaneous_intervals():
    for d, idea in zip(added_alone(ADDED).differences, IDEAS, strict=True):
        assert (d.a, d.b) == (idea, "base") and (d.low, d.high) == pytest.approx(oracle(idea, "base"))
    for d, idea in zip(left_out(WITHOUT).differences, IDEAS, strict=True):
        assert (d.a, d.b) == ("all", f"without {idea}")
        assert (d.low, d.high) == pytest.approx(oracle("all", f"without {idea}"))
        assert d.mean == pytest.approx((VALUES[3] - VALUES[ARMS.index(f"without {idea}")]).mean())


def difference(low, high):
    return Difference("a", "b", (low + high) / 2, low, high)


@pytest.mark.parametrize(
    ("alone", "among", "words"),
    [
        ((1, 2), (1, 2), "helps both ways"),
        ((1, 2), (-1, 2), "helps alone"),
        ((-1, 2), (1, 2), "helps among all"),
        ((-2, -1), (-3, -2), "hurts both ways"),
        ((-2, -1), (-1, 1), "hurts alone"),
        ((1, 2), (-2, -1), "depends on the others"),
        ((-1, 1), (-1, 1), "not separable"),
    ],
)
def test_words_follow_from_both_intervals(alone, among, words):
    assert judged(difference(*alone), difference(*among)) == words


def test_the_table_has_a_row_per_idea():
    table = ablation_table(ADDED, WITHOUT)
    assert list(table.index) == list(IDEAS)
    low, high = oracle("padding", "base")
    assert f"[{100 * low:+.2f}, {100 * high:+.2f}]" in table.loc["padding", "alone"]


def test_the_waterfall_ends_at_the_sum_of_the_gains():
    left, right = plot_waterfall(ADDED, WITHOUT).axes
    means = 100 * VALUES.mean(axis=1)
    ends = [patch.get_x() + patch.get_width() for patch in left.patches]
    assert ends[-1] == pytest.approx(means[0] + (means[1] - means[0]) + (means[2] - means[0]))
    assert left.patches[0].get_x() == pytest.approx(means[0])
    dots = [line.get_xdata()[0] for line in right.get_lines() if line.get_marker() == "o"]
    assert dots == pytest.approx([means[3] - means[4], means[3] - means[5]])


def test_arms_that_leave_nothing_out_are_refused():
    with pytest.raises(ValueError, match="call it 'without padding'"):
        left_out(runs("all", "padding"))
