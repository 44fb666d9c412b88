"""Figures and tables of swept choices, cost, gap, reliability and progress, against numbers taken by hand."""

from itertools import combinations

import numpy as np
import pytest
from scipy import stats
from synthetic import broken_off, changed_run, synthetic_runs

from helpers import style
from helpers.figures import (
    first_reached,
    plot_gap,
    plot_progress,
    plot_reliability,
    plot_sweep,
    plot_tradeoff,
    reached_table,
    steps_per_epoch,
)
from helpers.record import Run, Runs

RATES = (1e-4, 1e-3, 1e-2)


def sweep(models=("r2",), rates=RATES) -> Runs:
    """Return three seeds of every rate and model, with accuracies that rise a point from run to run."""
    runs = synthetic_runs("R2")
    swept = [
        changed_run(run, f"{net} {lr}", {"validation_accuracy": 0.5 + 0.01 * (run.seed + i + 3 * j)}, lr=lr, model=net)
        for j, net in enumerate(models)
        for i, lr in enumerate(rates)
        for run in runs
    ]
    return Runs(runs.study, swept)


def nine_arms() -> Runs:
    """Return nine arms, several of them at almost one place."""
    runs = synthetic_runs("R2")
    several = []
    for i in range(9):
        for run in runs:
            metrics = {"validation_accuracy": 0.75 + 0.001 * i + 0.002 * run.seed, "parameters": 80_000 * (1 + i // 4)}
            changed = changed_run(run, f"network number {i}", metrics)
            several.append(Run({**changed.content, "structure": [{"multiply_adds": 10**6 + i}] * 2}, changed.arm))
    return Runs(runs.study, several)


def marked(ax, marker):
    return [line for line in ax.lines if line.get_marker() == marker and len(line.get_xdata())]


def overlapping(figure, texts):
    figure.draw_without_rendering()
    boxes = [text.get_window_extent() for text in texts]
    return sum(a.overlaps(b) for a, b in combinations(boxes, 2))


FIGURES = {
    "sweep": lambda: plot_sweep(sweep(), "lr"),
    "trade-off": lambda: plot_tradeoff(nine_arms()),
    "gap": lambda: plot_gap(synthetic_runs()),
    "reliability": lambda: plot_reliability(synthetic_runs()),
    "progress": lambda: plot_progress(synthetic_runs()),
}


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_fits_the_line_and_has_the_same_bytes_each_time(name):
    first = FIGURES[name]()
    assert first.get_figwidth() == style.WIDTH
    assert style.png(first) == style.png(FIGURES[name]())


def test_a_sweep_marks_every_seed_the_mean_and_its_interval():
    ax = plot_sweep(sweep(), "lr").axes[0]
    assert ax.get_xscale() == "log" and list(ax.get_xticks()) == list(RATES)
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["0.0001", "0.001", "0.01"]
    np.testing.assert_allclose(
        [line.get_ydata() for line in marked(ax, "o")], [[50, 51, 52], [51, 52, 53], [52, 53, 54]]
    )
    mean = next(line for line in ax.lines if line.get_marker() == "None" and len(line.get_xdata()) == 3)
    np.testing.assert_allclose([mean.get_xdata(), mean.get_ydata()], [RATES, [51, 52, 53]])
    half = stats.t.ppf(0.975, 2) / np.sqrt(3)  # three seeds a point apart: a standard deviation of one
    bar = ax.containers[0].lines[2][0].get_segments()[0]
    np.testing.assert_allclose(bar[:, 1], [51 - half, 51 + half])
    assert ax.get_ylabel() == "Validation accuracy (%)" and ax.get_xlabel() == "Learning rate"


def test_a_diverged_seed_is_a_cross_and_in_no_mean():
    first, *others = sweep()
    figure = plot_sweep(Runs(sweep().study, [Run({**first.content, "diverged": "epoch 2"}, first.arm), *others]), "lr")
    ax = figure.axes[0]
    np.testing.assert_allclose(marked(ax, "o")[0].get_ydata(), [51, 52])
    (cross,) = marked(ax, "x")
    assert cross.get_xdata() == [1e-4] and [text.get_text() for text in ax.texts] == ["1 of 3"]
    assert "runs that collapsed" in [text.get_text() for text in figure.legends[0].get_texts()]


def test_a_sweep_in_which_all_diverged_still_draws():
    runs = sweep()
    assert style.png(plot_sweep(Runs(runs.study, [broken_off(run) for run in runs]), "lr"))


def test_lines_are_named_at_their_ends_without_overlap():
    figure = plot_sweep(sweep(("r2", "r4", "r0-final")), "lr", lines=lambda e: e.model)
    texts = figure.axes[0].texts
    assert {text.get_text() for text in texts} == {"r2", "r4", "r0-final"}
    assert len({text.get_color() for text in texts}) == 3
    assert overlapping(figure, texts) == 0


def test_two_arms_at_one_place_are_refused():
    with pytest.raises(ValueError, match="both stand at 0.0001"):
        plot_sweep(sweep(("r2", "r4")), "lr")


def test_names_of_nine_networks_do_not_overlap_though_their_points_do():
    figure = plot_tradeoff(nine_arms())
    for ax in figure.axes:
        texts = [text for text in ax.texts if text.get_text()]
        assert len(texts) == 9 and overlapping(figure, texts) == 0
        assert ax.get_xscale() == "log"
    costs = figure.axes[1].containers[3].lines[0].get_xdata()
    assert costs[0] == 2 * (10**6 + 3)


def test_the_gap_is_the_mean_difference_of_paired_seeds_in_points():
    runs = synthetic_runs("R2")
    gaps = [100 * (run.metrics["train_accuracy"] - run.metrics["validation_accuracy"]) for run in runs]
    half = stats.t.ppf(0.975, 2) * stats.sem(gaps)
    texts = [text.get_text() for text in plot_gap(runs).axes[0].texts]
    assert f"{np.mean(gaps):.2f} ± {half:.2f} points" in texts


def test_reliability_pools_seeds_by_count():
    runs = synthetic_runs("R2", seeds=2)
    curves = [
        {"count": [0, 1, 3], "confidence": [0, 0.5, 0.8], "accuracy": [0, 0.0, 1.0]},
        {"count": [0, 3, 1], "confidence": [0, 0.6, 0.9], "accuracy": [0, 1.0, 0.0]},
    ]
    pooled = [
        Run({**run.content, "calibration": {"validation": c}}, run.arm) for run, c in zip(runs, curves, strict=True)
    ]
    ax = plot_reliability(Runs(runs.study, pooled)).axes[0]
    (curve,) = marked(ax, "o")
    np.testing.assert_allclose(curve.get_xdata(), [57.5, 82.5])
    np.testing.assert_allclose(curve.get_ydata(), [75, 75])
    np.testing.assert_allclose([bar.get_height() for bar in ax.patches], [0, 50, 50])
    with pytest.raises(ValueError, match="split='test'"):
        plot_reliability(runs, "test")


def test_progress_counts_steps_and_sums_seconds():
    runs = synthetic_runs("R2", "R4")
    assert steps_per_epoch(runs[0]) == 4500 // 64
    figure = plot_progress(runs)
    ends = [ax.lines[0].get_xdata()[-1] for ax in figure.axes]
    np.testing.assert_allclose(ends, [15, 15 * 70, 15 * 22])
    assert [ax.get_xscale() for ax in figure.axes] == ["linear", "log", "log"]
    assert overlapping(figure, figure.axes[2].texts) == 0
    one = changed_run(runs[0], "one", batch_size=100_000)
    assert steps_per_epoch(one) == 1
    with pytest.raises(ValueError, match="'hours' is unknown"):
        plot_progress(runs, against=("hours",))
    assert style.png(plot_progress(Runs(runs.study, [broken_off(run) for run in runs])))


def test_a_level_is_reached_at_the_end_of_the_first_epoch_that_has_it():
    run = synthetic_runs("R2")[0]
    history = {"epoch": [1, 2, 3], "validation_accuracy": [0.5, 0.7, 0.6], "seconds": [10.0, 11.0, 12.0]}
    run = Run({**run.content, "history": history}, "R2")
    assert first_reached(run, 0.7) == (2, 140, 21.0)
    assert first_reached(run, 0.71) is None
    with pytest.raises(ValueError, match="0.7 for 70 %"):
        first_reached(run, 70)
    table = reached_table(Runs(synthetic_runs("R2").study, [run]), 0.6)
    assert list(table.loc["R2"]) == ["1 of 1", "2.0", "140", "21.0"]
    assert list(reached_table(synthetic_runs("R4"), 0.9).loc["R4"]) == ["0 of 3", "–", "–", "–"]
