"""A verdict as a figure, what a reader takes home from it, and how often the rule errs on the record."""

import numpy as np
import pandas as pd
import pytest
from synthetic import synthetic_runs

from course.error_rate import error_rates, family_error
from helpers.figures import plot_forest
from helpers.record import Difference, Verdict, compare_values
from helpers.settings import generated_folder
from helpers.show import takeaway


def found() -> Verdict:
    rng = np.random.default_rng(0)
    table = pd.DataFrame(rng.normal([0.6, 0.61, 0.9, 0.5], 0.01, (3, 4)), columns=["base", "same", "better", "worse"])
    return compare_values(table, "validation_accuracy", against="base")


def test_a_row_shows_each_comparison_with_its_interval():
    verdict = found()
    (ax,) = plot_forest(verdict, published={"better": 12.0}).axes
    assert [label.get_text() for label in ax.get_yticklabels()] == ["same", "better", "worse"]
    spans = {
        round(line.get_ydata()[0]): line.get_xdata()
        for line in ax.lines
        if len(line.get_xdata()) == 2 and line.get_linewidth() > 1
    }
    for row, d in enumerate(verdict.differences):
        assert spans[row] == pytest.approx([100 * d.low, 100 * d.high])
    faces = [line.get_markerfacecolor() for line in ax.lines if line.get_marker() == "o" and len(line.get_xdata()) == 1]
    assert [face == "white" for face in faces] == [not d.separable for d in verdict.differences]
    assert ax.get_xlabel() == "Difference of validation accuracy, against base (points)"
    assert any("3 comparisons" in text.get_text() for text in ax.texts)


def test_rows_of_several_bases_name_both_and_lost_runs_are_told():
    differences = (Difference("a", "b", 0.1, 0.05, 0.15), Difference("c", "a", np.nan, -np.inf, np.inf))
    verdict = Verdict("validation_loss", 3, differences, {"c": (3, 3)})
    (ax,) = plot_forest(verdict).axes
    assert [label.get_text() for label in ax.get_yticklabels()] == ["a − b", "c − a"]
    (beside,) = ax.child_axes
    assert [label.get_text() for label in beside.get_yticklabels()][1] == "collapsed  3 of 3 collapsed"
    assert beside.get_yticklabels()[0].get_text() == "+0.100 [0.050, 0.150]"  # a loss needs more decimals than points


def test_where_no_arm_stands_in_most_rows_every_row_names_both():
    pairs = [("a", "b"), ("a", "c"), ("a", "d"), ("b", "c"), ("b", "d"), ("c", "d")]
    verdict = Verdict("validation_loss", 3, tuple(Difference(a, b, 0.1, 0.05, 0.15) for a, b in pairs))
    (ax,) = plot_forest(verdict).axes
    assert [label.get_text() for label in ax.get_yticklabels()] == [f"{a} − {b}" for a, b in pairs]
    assert "against" not in ax.get_xlabel()


def test_what_is_taken_home_names_its_facts_and_says_when_one_fails(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr("helpers.show.generated_folder", lambda: tmp_path)
    takeaway("04-home", "Better is better.", rests_on={"better above base": found()["better"].above})
    assert capsys.readouterr().out == "Better is better.\n"
    text = (tmp_path / "texts" / "04-home.tex").read_text()
    assert "% holds: better above base\n" in text and "Better is better.%" in text
    takeaway("04-home", "Same is better.", rests_on={"same above base": found()["same"].above})
    assert capsys.readouterr().out.startswith("The record does not bear this out: same above base.\n")
    assert "% DOES NOT HOLD: same above base\n" in (tmp_path / "texts" / "04-home.tex").read_text()
    with pytest.raises(ValueError, match="name the facts"):
        takeaway("04-home", "Trust me.", rests_on={})
    assert generated_folder() != tmp_path


def test_the_rule_is_measured_on_the_studies_of_several_arms(monkeypatch):
    monkeypatch.setattr("course.error_rate.measured", lambda name, compute, of: compute())
    runs = synthetic_runs()
    rates = error_rates({"base": runs, "alone": synthetic_runs("R2")})
    assert rates["contrasts"] == 2 and 0 <= rates["separable-in-pairs"] <= 2
    variances = runs.values("validation_accuracy").var(ddof=1)
    assert rates["error-3-seeds"] == pytest.approx(100 * family_error(variances, 3), abs=2.5)
