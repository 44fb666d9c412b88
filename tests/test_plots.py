"""Figures and tables of runs and images, against numbers taken by hand."""

from itertools import combinations

import matplotlib
import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats
from synthetic import CLASSES, broken_off, changed_run, synthetic_run, synthetic_runs
from taught import taught

from helpers import figures, style
from helpers.data import Split
from helpers.figures import images as pictures
from helpers.figures.curves import spread
from helpers.record import Difference, Run, Runs, Verdict, compare_values

PUBLISHED = {"R0 final": "R0/final", "R2": "R2/kernels/3-3-3", "R4": "R4"}
BASE = taught("03", "plot_metric", "plot_classwise", "plot_confusion")
RATES = (1e-4, 1e-3, 1e-2)
IMAGES = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (40, 3, 32, 32), dtype=np.uint8))
LABELS = torch.arange(40) % 10


def gallery() -> matplotlib.figure.Figure:
    guesses = LABELS.numpy().copy()
    guesses[:12] = 9 - guesses[:12]
    return pictures.right_wrong_gallery(IMAGES, LABELS, guesses, np.linspace(0.2, 1, 40), CLASSES, count=4)


def sweep(models=("r2",)) -> Runs:
    """Return three seeds of every rate and model, with accuracies that rise a point from run to run."""
    runs = synthetic_runs("R2")
    swept = [
        changed_run(run, f"{net} {lr}", {"validation_accuracy": 0.5 + 0.01 * (run.seed + i + 3 * j)}, lr=lr, model=net)
        for j, net in enumerate(models)
        for i, lr in enumerate(RATES)
        for run in runs
    ]
    return Runs(runs.study, swept)


def found() -> Verdict:
    rng = np.random.default_rng(0)
    table = pd.DataFrame(rng.normal([0.6, 0.61, 0.9, 0.5], 0.01, (3, 4)), columns=["base", "same", "better", "worse"])
    return compare_values(table, "validation_accuracy", against="base")


def marked(ax, marker):
    return [line for line in ax.lines if line.get_marker() == marker and len(line.get_xdata())]


def lines(ax, width):
    return [line for line in ax.lines if line.get_linewidth() == width]


def overlapping(figure, texts):
    figure.draw_without_rendering()
    boxes = [text.get_window_extent() for text in texts]
    return sum(a.overlaps(b) for a, b in combinations(boxes, 2))


FIGURES = {
    "curves of several arms": lambda: figures.plot_curves(synthetic_runs()),
    "curves of one arm": lambda: figures.plot_curves(synthetic_runs("R2")),
    "class-wise": lambda: BASE.plot_classwise(synthetic_runs()),
    "confusion": lambda: BASE.plot_confusion(synthetic_runs("R2")),
    "metric": lambda: BASE.plot_metric(synthetic_runs(), PUBLISHED),
    "forest": lambda: figures.plot_forest(found()),
    "sweep": lambda: figures.plot_sweep(sweep(), "lr"),
    "gap": lambda: figures.plot_gap(synthetic_runs()),
    "reliability": lambda: figures.plot_reliability(synthetic_runs()),
    "progress": lambda: figures.plot_progress(synthetic_runs()),
    "gallery": gallery,
    "grid": lambda: pictures.image_grid(IMAGES[:10], titles=CLASSES),
    "classes": lambda: pictures.class_grid(Split(IMAGES, LABELS, LABELS), CLASSES, per_class=3),
    "before and after": lambda: pictures.before_after(IMAGES[:4], {"hflip:0.5": IMAGES[:4].flip(-1)}),
}


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_has_the_same_bytes_each_time_and_leaves_no_settings_behind(name):
    before = dict(matplotlib.rcParams)
    first, second = FIGURES[name](), FIGURES[name]()
    assert first.get_figwidth() <= style.WIDTH + 1e-9
    for file in (style.png, style.pdf):
        content = file(first)
        assert content == file(second)
        assert not any(word in content for word in (b"CreationDate", b"Producer", b"Software", b"Matplotlib"))
    assert dict(matplotlib.rcParams) == before


def test_the_accuracy_curve_is_the_mean_over_seeds_in_percent():
    runs = synthetic_runs("R2", "R4")
    drawn = lines(figures.plot_curves(runs).axes[3], style.RC["lines.linewidth"])[0].get_ydata()
    expected = np.mean([run.history["validation_accuracy"] for run in runs.by_arm()["R2"]], axis=0)
    np.testing.assert_allclose(drawn, 100 * expected)
    # Where one seed stopped the mean ends, and the others go on alone.
    ax = figures.plot_curves(synthetic_runs("R2", "R4", epochs={1: 9})).axes[3]
    assert lines(ax, style.RC["lines.linewidth"])[0].get_xdata()[-1] == 9
    assert sorted(line.get_xdata()[-1] for line in lines(ax, 0.6)[:3]) == [9, 15, 15]


def test_a_run_that_diverged_at_once_leaves_the_other_seeds_drawn():
    runs = synthetic_runs("R2", "R4")
    mixed, none = (Runs(runs.study, [broken_off(run) for run in runs[:n]] + runs[n:]) for n in (1, len(runs)))
    assert len(lines(figures.plot_curves(mixed).axes[3], style.RC["lines.linewidth"])) == 2
    assert style.png(figures.plot_curves(none)) and style.png(figures.plot_progress(none))
    assert list(figures.accuracy_table(mixed, ["validation_loss"])["seeds"]) == ["3 (1 collapsed)", "3"]
    assert set(figures.accuracy_table(none, ["validation_loss"]).iloc[:, 1]) == {"–"}


def test_names_beside_lines_keep_their_order_and_their_distance():
    rng = np.random.default_rng(1)
    for _ in range(200):
        wanted = rng.choice([0.5, 0.51, *rng.random(4)], size=rng.integers(1, 9))
        placed = spread(wanted, 0.1, 0, 1)
        assert (np.diff(placed[np.argsort(wanted, kind="stable")]) > 0.1 - 1e-9).all()
        assert placed.min() > -1e-9 and placed.max() < 1 + 1e-9
    np.testing.assert_allclose(spread([0.2, 0.8], 0.1, 0, 1), [0.2, 0.8])


def test_progress_counts_steps_and_sums_seconds():
    runs = synthetic_runs("R2", "R4")
    assert figures.steps_per_epoch(runs[0]) == 4500 // 64
    assert figures.steps_per_epoch(changed_run(runs[0], "one", batch_size=100_000)) == 1
    figure = figures.plot_progress(runs)
    np.testing.assert_allclose([ax.lines[0].get_xdata()[-1] for ax in figure.axes], [15, 15 * 70, 15 * 22])
    assert [ax.get_xscale() for ax in figure.axes] == ["linear", "log", "log"]
    names = figure.axes[0].texts
    assert [name.get_text() for name in names] == ["R2", "R4"] and overlapping(figure, names) == 0


def test_a_level_is_reached_at_the_end_of_the_first_epoch_that_has_it():
    history = {"epoch": [1, 2, 3], "validation_accuracy": [0.5, 0.7, 0.6]}
    run = Run({**synthetic_runs("R2")[0].content, "history": history}, "R2")
    race = taught("10", "first_reached", "reached_table")
    assert [race.first_reached(run, level) for level in (0.7, 0.71)] == [(2, 140), None]
    with pytest.raises(ValueError, match="0.7 for 70 %"):
        race.first_reached(run, 70)
    assert list(race.reached_table(Runs("one", [run]), 0.6).loc["R2"]) == ["1 of 1", "2.0", "140"]
    assert list(race.reached_table(synthetic_runs("R4"), 0.9).loc["R4"]) == ["0 of 3", "–", "–"]


def test_a_forests_row_shows_a_comparison_with_its_interval():
    verdict = found()
    (ax,) = figures.plot_forest(verdict, published={"better": 12.0}).axes
    assert [label.get_text() for label in ax.get_yticklabels()] == ["same", "better", "worse"]
    spans = [line.get_xdata() for line in lines(ax, 1.6)]
    np.testing.assert_allclose(spans, [(100 * d.low, 100 * d.high) for d in verdict.differences])
    faces = [line.get_markerfacecolor() for line in marked(ax, "o")]
    assert [face == "white" for face in faces] == [not d.separable for d in verdict.differences]
    assert [list(line.get_data()) for line in marked(ax, "D")] == [[[12.0], [1]]]
    assert ax.get_xlabel() == "Difference of validation accuracy, against base (points)"
    assert any("3 comparisons" in text.get_text() for text in ax.texts)


@pytest.mark.parametrize("pairs", [["ab", "ca"], ["ab", "ac", "ad", "bc", "bd", "cd"]])
def test_where_no_arm_stands_in_most_rows_every_row_names_both_and_lost_runs_are_told(pairs):
    first, *others = [Difference(a, b, 0.1, 0.05, 0.15) for a, b in pairs[:-1]]
    lost = Difference(*pairs[-1], np.nan, -np.inf, np.inf)
    (ax,) = figures.plot_forest(Verdict("validation_loss", 3, (first, *others, lost), {"c": (3, 3)})).axes
    assert [label.get_text() for label in ax.get_yticklabels()] == [f"{a} − {b}" for a, b in pairs]
    assert "against" not in ax.get_xlabel()
    notes = [label.get_text() for label in ax.child_axes[0].get_yticklabels()]
    assert notes[-1] == "collapsed  3 of 3 collapsed"
    assert notes[0] == "+0.100 [0.050, 0.150]"  # a loss needs more decimals than points


def test_every_seed_is_marked_and_the_published_figure_with_its_interval():
    runs = synthetic_runs("R2", "R4")
    ax = BASE.plot_metric(runs, PUBLISHED).axes[0]
    for line, arm in zip(marked(ax, "o"), ("R2", "R4"), strict=True):
        np.testing.assert_allclose(line.get_xdata(), 100 * runs.values("test_accuracy")[arm])
    np.testing.assert_allclose([line.get_xdata() for line in marked(ax, "D")], [[83.0], [64.57]])
    with pytest.raises(KeyError, match="R2/kernels/9-9-9"):
        BASE.plot_metric(runs, {"R2": "R2/kernels/9-9-9"})
    # 404 of 626 pictures: Wilson's interval, by hand.
    share, n, z2 = 404 / 626, 626, 1.959964**2
    middle = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = (z2 * share * (1 - share) / n + z2**2 / (4 * n**2)) ** 0.5 / (1 + z2 / n)
    ends = [[100 * (middle - half), 100 * (middle + half)]]
    np.testing.assert_allclose([line.get_xdata() for line in lines(ax, 1)], ends, atol=1e-4)


def test_a_sweep_marks_every_seed_the_mean_and_its_interval_and_a_diverged_seed_by_a_cross():
    ax = figures.plot_sweep(sweep(), "lr").axes[0]
    assert ax.get_xscale() == "log" and list(ax.get_xticks()) == list(RATES)
    assert ax.get_xlim()[0] < RATES[0] and ax.get_xlim()[1] > RATES[-1]
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["0.0001", "0.001", "0.01"]
    seeds = [line.get_ydata() for line in marked(ax, "o")]
    np.testing.assert_allclose(seeds, [[50, 51, 52], [51, 52, 53], [52, 53, 54]])
    mean = next(line for line in ax.lines if line.get_marker() == "None" and len(line.get_xdata()) == 3)
    np.testing.assert_allclose([mean.get_xdata(), mean.get_ydata()], [RATES, [51, 52, 53]])
    half = stats.t.ppf(0.975, 2) / np.sqrt(3)  # three seeds a point apart: a standard deviation of one
    np.testing.assert_allclose(ax.containers[0].lines[2][0].get_segments()[0][:, 1], [51 - half, 51 + half])
    assert ax.get_ylabel() == "Validation accuracy (%)" and ax.get_xlabel() == "Learning rate"
    first, *others = sweep()
    figure = figures.plot_sweep(Runs("s", [Run({**first.content, "diverged": "epoch 2"}, first.arm), *others]), "lr")
    ax = figure.axes[0]
    np.testing.assert_allclose(marked(ax, "o")[0].get_ydata(), [51, 52])
    (cross,) = marked(ax, "x")
    assert cross.get_xdata() == [1e-4] and [text.get_text() for text in ax.texts] == ["1 of 3"]
    assert "runs that collapsed" in [text.get_text() for text in figure.legends[0].get_texts()]
    assert style.png(figures.plot_sweep(Runs("s", [broken_off(run) for run in sweep()]), "lr"))


def test_lines_are_named_at_their_ends_without_overlap_and_told_apart():
    figure = figures.plot_curves(synthetic_runs("R2", "R4"))
    for ax in figure.axes[1::2]:
        assert {text.get_text() for text in ax.texts} == {"R2", "R4"}
        assert len({text.get_color() for text in ax.texts}) == 2 and overlapping(figure, ax.texts) == 0
    with pytest.raises(ValueError, match="the same lr"):
        figures.plot_sweep(sweep(("r2", "r4")), "lr")
    assert style.class_colours(CLASSES)["cat"] == style.class_colours(CLASSES[:5])["cat"]
    for looks in (style.class_colours, style.arm_styles):
        assert len(set(looks([str(i) for i in range(20)]).values())) == 20


def test_the_gap_is_the_mean_difference_of_paired_seeds_in_points():
    runs = synthetic_runs("R2")
    gaps = [100 * (run.metrics["train_accuracy"] - run.metrics["validation_accuracy"]) for run in runs]
    half = stats.t.ppf(0.975, 2) * stats.sem(gaps)
    texts = [text.get_text() for text in figures.plot_gap(runs).axes[0].texts]
    assert f"{np.mean(gaps):.2f} ± {half:.2f} points" in texts


def test_reliability_pools_seeds_by_count():
    runs = synthetic_runs("R2", seeds=2)
    curves = [
        {"count": [0, 1, 3], "confidence": [0, 0.5, 0.8], "accuracy": [0, 0.0, 1.0]},
        {"count": [0, 3, 1], "confidence": [0, 0.6, 0.9], "accuracy": [0, 1.0, 0.0]},
    ]
    pooled = [Run({**r.content, "calibration": {"validation": c}}, r.arm) for r, c in zip(runs, curves, strict=True)]
    ax = figures.plot_reliability(Runs(runs.study, pooled)).axes[0]
    np.testing.assert_allclose(marked(ax, "o")[0].get_data(), [[57.5, 82.5], [75, 75]])
    np.testing.assert_allclose([bar.get_height() for bar in ax.patches], [0, 50, 50])
    with pytest.raises(ValueError, match="split='test'"):
        figures.plot_reliability(runs, "test")


def test_the_confusion_matrix_says_the_mean_share_of_each_class_and_takes_one_arm():
    runs = synthetic_runs("R2")
    bold = [text.get_text() for text in BASE.plot_confusion(runs).axes[0].texts if text.get_fontweight() == "bold"]
    assert bold == [f"{value:.0f}" for value in 100 * np.mean([run.classwise("test") for run in runs], axis=0)]
    with pytest.raises(ValueError, match="R2, R4"):
        BASE.plot_confusion(synthetic_runs("R2", "R4"))


def test_right_and_wrong_answers_are_told_apart_without_colour_and_what_is_no_image_refused():
    texts = [text.get_text() for text in gallery().axes[0].texts]
    assert [sum(text.startswith(word) for text in texts) for word in ("✓", "✗", "is ")] == [4, 8, 8]
    taken = [9 - CLASSES.index(text[2:]) for text in texts if text.startswith("✗")]
    assert taken == [CLASSES.index(text[3:]) for text in texts if text.startswith("is ")]
    sure = [text for text in texts if text.endswith("% sure")]
    assert sure[-4:] == sorted(sure[-4:], reverse=True)
    with pytest.raises(ValueError, match="uint8"):
        pictures.image_grid(IMAGES.float())
    with pytest.raises(ValueError, match=r"\(40, 32, 32\)"):
        pictures.image_grid(IMAGES[:, 0])
    with pytest.raises(ValueError, match="40 images and 39 predictions"):
        pictures.right_wrong_gallery(IMAGES, LABELS, LABELS[:39], np.ones(39), CLASSES)


def test_tables_give_means_with_half_widths():
    runs = synthetic_runs()
    table = figures.classwise_table(runs)
    assert list(table.columns) == [(arm, split) for arm in runs.arms for split in ("train", "validation")]
    assert list(table.index) == [*CLASSES, "all classes"]
    values = 100 * runs.values("test_accuracy")["R4"]
    seeds = values.std(ddof=1) / np.sqrt(3) * 4.302652729911275  # Student's t, 97.5 %, two degrees of freedom
    right = np.mean([run.right("test") for run in runs.by_arm()["R4"]], axis=0)
    half = np.hypot(seeds, 1.959964 * 100 * right.std(ddof=1) / np.sqrt(1_000))  # and the normal one, over pictures
    both = figures.comparison_table(runs, PUBLISHED)["Test accuracy (%)"]
    assert both.loc["R4", "ours"] == f"{values.mean():.2f} ± {half:.2f}"
    assert list(both.loc[["R2", "R4"], "published"]) == ["83.00", "64.57 [60.7, 68.2]"]
    assert set(figures.comparison_table(runs, {})["Test accuracy (%)", "published"]) == {"–"}
    assert figures.arms_table(runs).loc["R2", "parameters"] == "81,574"
    assert "±" not in "".join(figures.accuracy_table(synthetic_runs(seeds=1)).iloc[:, 1])  # a lone seed has no interval
    arms = {"R2": ("r2", 12), "R4": ("r4", 15)}
    runs = Runs("s", [synthetic_run(a, m, 0.7, s, epochs=e) for a, (m, e) in arms.items() for s in (0, 1)])
    told = ["r2, r4", "4,500", "64", "0.001", "12 to 15", "2"]
    assert list(figures.scales_table({"which net?": runs}).loc["which net?"]) == told
