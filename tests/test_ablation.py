"""Gains alone and among all are the course's verdicts on the same numbers, and words follow from both."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from helpers.lessons.ablation import ablation_table, added_alone, judged, left_out, plot_waterfall
from helpers.record import Difference, Runs, compare_values

IDEAS = ("padding", "larger batch")
VALUES = np.random.default_rng(5).normal(0.5, 0.02, (7, 4))
ARMS = ("base", *IDEAS, "all", *(f"without {idea}" for idea in IDEAS))


def runs(*arms, lost=()):
    metrics = {arm: [{"validation_accuracy": value} for value in VALUES[ARMS.index(arm)]] for arm in arms}
    found = [
        SimpleNamespace(arm=a, seed=s, device="cpu", metrics=m, collapsed=(a, s) in lost)
        for a in arms
        for s, m in enumerate(metrics[a])
    ]
    return Runs(SimpleNamespace(name="fake"), found)


ADDED, WITHOUT = runs(*ARMS[:4]), runs(*ARMS[3:])


def frame(*arms):
    return pd.DataFrame({arm: VALUES[ARMS.index(arm)] for arm in arms})


def test_gains_alone_and_of_all_together_are_one_family_against_the_base():
    expected = compare_values(frame(*ARMS[:4]), "validation_accuracy", "base").differences
    assert added_alone(ADDED).differences == expected
    assert [d.a for d in expected] == [*IDEAS, "all"]


def test_what_an_idea_adds_to_the_others_is_what_leaving_it_out_loses():
    lost = compare_values(frame("all", *ARMS[4:]), "validation_accuracy", "all").differences
    for d, loss, idea in zip(left_out(WITHOUT).differences, lost, IDEAS, strict=True):
        assert (d.a, d.b) == (idea, "the others alone")
        assert (d.mean, d.low, d.high) == (-loss.mean, -loss.high, -loss.low)
        assert d.mean == pytest.approx((VALUES[3] - VALUES[ARMS.index(f"without {idea}")]).mean())


def test_a_collapsed_run_is_counted_under_the_idea_that_it_lacks():
    found = left_out(runs(*ARMS[3:], lost=[("without padding", 2)]))
    assert found.collapsed == {"padding": (1, 4)}
    kept = np.delete(VALUES[ARMS.index("without padding")], 2)
    assert found["padding"].mean == pytest.approx(VALUES[3].mean() - kept.mean())


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
    d = added_alone(ADDED)["padding"]
    assert table.loc["padding", "alone"] == f"{100 * d.mean:+.2f} [{100 * d.low:+.2f}, {100 * d.high:+.2f}]"


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
