import matplotlib
import numpy as np
import pytest
import torch
from synthetic import CLASSES, broken_off, synthetic_run, synthetic_runs

from helpers import style
from helpers.data import Split
from helpers.figures import (
    accuracy_table,
    arms_table,
    classwise_table,
    comparison_table,
    plot_classwise,
    plot_confusion,
    plot_curves,
    plot_metric,
    scales_table,
)
from helpers.figures import images as pictures
from helpers.figures.curves import spread
from helpers.record import Runs

PUBLISHED = {"R0 final": "R0/final", "R2": "R2/kernels/3-3-3", "R4": "R4"}


def images(n: int = 40) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (n, 3, 32, 32), dtype=np.uint8))


def labels(n: int = 40) -> torch.Tensor:
    return torch.arange(n) % 10


def gallery() -> matplotlib.figure.Figure:
    guesses = labels().numpy().copy()
    guesses[:12] = 9 - guesses[:12]
    return pictures.right_wrong_gallery(images(), labels(), guesses, np.linspace(0.2, 1, 40), CLASSES, count=4)


FIGURES = {
    "curves of several arms": lambda: plot_curves(synthetic_runs()),
    "curves of one arm": lambda: plot_curves(synthetic_runs("R2")),
    "curves of seeds that stopped early": lambda: plot_curves(synthetic_runs(epochs={1: 9})),
    "class-wise": lambda: plot_classwise(synthetic_runs()),
    "confusion": lambda: plot_confusion(synthetic_runs("R2")),
    "metric": lambda: plot_metric(synthetic_runs(), "test_accuracy", PUBLISHED),
    "gallery": gallery,
    "grid": lambda: pictures.image_grid(images(10), titles=CLASSES),
    "classes": lambda: pictures.class_grid(Split(images(), labels(), labels()), CLASSES, per_class=3),
    "before and after": lambda: pictures.before_after(images(4), {"hflip:0.5": images(4).flip(-1)}),
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


def lines(ax, width):
    return [line for line in ax.lines if line.get_linewidth() == width]


def test_the_accuracy_curve_is_the_mean_over_seeds_in_percent():
    runs = synthetic_runs("R2", "R4")
    ax = plot_curves(runs).axes[3]
    drawn = lines(ax, style.RC["lines.linewidth"])[0].get_ydata()
    expected = np.mean([run.history["validation_accuracy"] for run in runs.by_arm()["R2"]], axis=0)
    np.testing.assert_allclose(drawn, 100 * expected)


def test_where_one_seed_stopped_the_mean_ends_and_the_others_go_on_alone():
    ax = plot_curves(synthetic_runs("R2", "R4", epochs={1: 9})).axes[3]
    mean, *_ = lines(ax, style.RC["lines.linewidth"])
    assert mean.get_xdata()[-1] == 9
    assert sorted(line.get_xdata()[-1] for line in lines(ax, 0.6)[:3]) == [9, 15, 15]


def test_a_run_that_diverged_at_once_leaves_the_other_seeds_drawn():
    runs = synthetic_runs("R2", "R4")
    mixed = Runs(runs.study, [broken_off(runs[0]), *runs[1:]])
    assert len(lines(plot_curves(mixed).axes[3], style.RC["lines.linewidth"])) == 2
    none = Runs(runs.study, [broken_off(run) for run in runs])
    assert style.png(plot_curves(none))
    assert list(accuracy_table(mixed, ["validation_loss"])["seeds"]) == ["3 (1 collapsed)", "3"]
    assert set(accuracy_table(none, ["validation_loss"]).iloc[:, 1]) == {"–"}


def test_names_beside_lines_keep_their_order_and_their_distance():
    rng = np.random.default_rng(1)
    for _ in range(200):
        wanted = rng.choice([0.5, 0.51, *rng.random(4)], size=rng.integers(1, 9))
        placed = spread(wanted, 0.1, 0, 1)
        order = np.argsort(wanted, kind="stable")
        assert (np.diff(placed[order]) > 0.1 - 1e-9).all()
        assert placed.min() > -1e-9 and placed.max() < 1 + 1e-9
    np.testing.assert_allclose(spread([0.2, 0.8], 0.1, 0, 1), [0.2, 0.8])


def test_every_seed_and_the_published_figure_are_marked_where_they_are():
    runs = synthetic_runs("R2")
    ax = plot_metric(runs, "test_accuracy", PUBLISHED).axes[0]
    seeds = next(line for line in ax.lines if line.get_marker() == "o")
    np.testing.assert_allclose(seeds.get_xdata(), 100 * runs.values("test_accuracy")["R2"])
    diamonds = [line.get_xdata() for line in ax.lines if line.get_marker() == "D" and len(line.get_xdata())]
    np.testing.assert_allclose(diamonds, [[83.0]])
    with pytest.raises(KeyError, match="R2/kernels/9-9-9"):
        plot_metric(runs, "test_accuracy", {"R2": "R2/kernels/9-9-9"})


def test_a_published_figure_of_a_sample_carries_its_interval():
    runs = synthetic_runs("R2", "R4")
    with_r4, without = (
        [list(line.get_xdata()) for line in plot_metric(runs, "test_accuracy", marked).axes[0].lines]
        for marked in (PUBLISHED, {"R2": PUBLISHED["R2"]})
    )
    # 404 of 626 pictures: Wilson's interval, by hand.
    share, n, z2 = 404 / 626, 626, 1.959964**2
    middle = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = (z2 * share * (1 - share) / n + z2**2 / (4 * n**2)) ** 0.5 / (1 + z2 / n)
    expected = [100 * (middle - half), 100 * (middle + half)]
    assert any(ends == pytest.approx(expected, abs=1e-4) for ends in with_r4)
    assert not any(ends == pytest.approx(expected, abs=1e-4) for ends in without)


def test_the_confusion_matrix_says_the_mean_share_of_each_class_and_takes_one_arm():
    runs = synthetic_runs("R2")
    figure = plot_confusion(runs, "test")
    bold = [text.get_text() for text in figure.axes[0].texts if text.get_fontweight() == "bold"]
    expected = 100 * np.mean([run.classwise("test") for run in runs], axis=0)
    assert bold == [f"{value:.0f}" for value in expected]
    with pytest.raises(ValueError, match="R2, R4"):
        plot_confusion(synthetic_runs("R2", "R4"))


def test_a_class_keeps_its_colour_and_arms_never_share_a_look():
    assert style.class_colours(CLASSES)["cat"] == style.class_colours(CLASSES[:5])["cat"]
    assert len(set(style.class_colours([str(i) for i in range(40)]).values())) == 40
    assert len(set(style.arm_styles([str(i) for i in range(20)]).values())) == 20


def test_right_and_wrong_answers_are_told_apart_without_colour():
    texts = [text.get_text() for text in gallery().axes[0].texts]
    assert sum(text.startswith("✓") for text in texts) == 4
    assert sum(text.startswith("✗") for text in texts) == 8
    assert sum(text.startswith("is ") for text in texts) == 8
    sure = [text for text in texts if text.endswith("% sure")]
    assert sure[-4:] == sorted(sure[-4:], reverse=True)


def test_pictures_refuse_what_is_no_image():
    with pytest.raises(ValueError, match="uint8"):
        pictures.image_grid(images(2).float())
    with pytest.raises(ValueError, match=r"\(2, 32, 32\)"):
        pictures.image_grid(images(2)[:, 0])
    with pytest.raises(ValueError, match="40 images and 39 predictions"):
        pictures.right_wrong_gallery(images(), labels(), labels(39), np.ones(39), CLASSES)


def test_tables_give_means_with_half_widths():
    runs = synthetic_runs()
    table = classwise_table(runs)
    assert list(table.columns) == [(arm, split) for arm in runs.arms for split in ("train", "validation")]
    assert list(table.index) == [*CLASSES, "all classes"]
    values = 100 * runs.values("test_accuracy")["R4"]
    seeds = values.std(ddof=1) / np.sqrt(3) * 4.302652729911275  # Student's t, 97.5 %, two degrees of freedom
    right = np.mean([run.right("test") for run in runs.by_arm()["R4"]], axis=0)
    half = np.hypot(seeds, 1.959964 * 100 * right.std(ddof=1) / np.sqrt(1_000))  # and the normal one, over pictures
    both = comparison_table(runs, PUBLISHED)
    assert both.loc["R4", ("Test accuracy (%)", "ours")] == f"{values.mean():.2f} ± {half:.2f}"
    assert both.loc["R4", ("Test accuracy (%)", "published")] == "64.57 [60.7, 68.2]"
    assert comparison_table(runs, {}).loc["R4", ("Test accuracy (%)", "published")] == "–"
    assert arms_table(runs).loc["R2", "parameters"] == "81,574"


def test_a_lone_seed_has_no_interval():
    runs = synthetic_runs(seeds=1)
    assert "±" not in "".join(accuracy_table(runs).iloc[:, 1])


def test_the_scale_is_read_from_the_runs():
    arms = {"R2": ("r2", 12), "R4": ("r4", 15)}
    runs = Runs("s", [synthetic_run(a, m, 0.7, s, epochs=e) for a, (m, e) in arms.items() for s in (0, 1)])
    told = ["r2, r4", "4,500", "64", "0.001", "12 to 15", "2"]
    assert list(scales_table({"which net?": runs}).loc["which net?"]) == told
