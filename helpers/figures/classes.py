"""Figures of runs: class-wise accuracy, confusion, and the final figure of every seed.

Each function returns a matplotlib Figure and shows nothing by itself; a notebook shows what a cell returns,
and :func:`helpers.show.figure` shows it and keeps it for the report.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import seaborn
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from helpers.record import (
    Run,
    Runs,
    arm_mean_and_half,
    arm_plus_minus,
    mean_and_half,
    metric_label,
    published_for,
    scale_and_digits,
)
from helpers.style import GREY, INK, PALE, arm_styles, class_colours, new_figure, styled


@styled
def plot_classwise(runs: Runs, split: str = "validation") -> Figure:
    """Return a dot plot of the accuracy of each class, hardest class at the bottom, an arm a colour.

    A dot is a mean over seeds, its line the 95 % interval of that mean, which covers the seeds alone, not which
    pictures are in the split; ``split`` is "train", "validation" or, for flagship runs, "test".
    """
    by_arm, classes = runs.by_arm(), runs[0].classes
    accuracy = {arm: 100 * np.array([run.classwise(split) for run in several]) for arm, several in by_arm.items()}
    order = np.argsort(np.mean([values.mean(axis=0) for values in accuracy.values()], axis=0), kind="stable")
    styles, n = arm_styles(list(by_arm)), len(by_arm)
    figure = new_figure(0.75 + len(classes) * (0.15 + 0.045 * n))
    ax = figure.subplots()
    for i, (arm, values) in enumerate(accuracy.items()):
        rows = np.arange(len(classes)) + ((n - 1) / 2 - i) * 0.7 / n
        figures = np.array([mean_and_half(column) for column in values[:, order].T])
        colour, line = styles[arm]
        face = colour if line == "-" else "white"
        ax.hlines(rows, figures[:, 0] - figures[:, 1], figures[:, 0] + figures[:, 1], color=colour, lw=1.2)
        ax.plot(figures[:, 0], rows, "o", color=colour, mfc=face, ms=4, label=arm)
    ax.set_yticks(range(len(classes)), [classes[i] for i in order])
    ax.set(xlabel=f"{split.capitalize()} accuracy of the class (%)", ylim=(-0.6, len(classes) - 0.4))
    ax.set_yticks(np.arange(len(classes) - 1) + 0.5, minor=True)
    ax.grid(axis="y", visible=False)
    ax.grid(axis="y", which="minor", visible=True)
    ax.tick_params(axis="y", which="both", length=0)
    if n > 1:
        _coloured_legend(figure, ax)
    return figure


def _coloured_legend(figure: Figure, ax: Axes) -> None:
    """Put the arms' names, in their colours, on one line above the axes (two, where there are many)."""
    handles, labels = ax.get_legend_handles_labels()
    legend = figure.legend(
        handles,
        labels,
        loc="outside upper left",
        ncols=min(6, len(labels)),
        handletextpad=0.1,
        columnspacing=1.2,
    )
    for text, handle in zip(legend.get_texts(), handles, strict=True):
        text.set_color(handle.get_color())


@styled
def plot_confusion(runs: Sequence[Run], split: str = "validation") -> Figure:
    """Return the confusion matrix of one arm's runs: percent of each true class (row), mean over seeds.

    The colour scale serves the mistakes; the diagonal, always far above them, stands in bold on grey.

    Raises:
        ValueError: the runs are of several arms, whose mistakes must not be averaged.
    """
    if len(arms := {run.arm for run in runs}) > 1:
        raise ValueError(f"a confusion matrix shows one arm, got {', '.join(sorted(arms))}: take runs.only(arm)")
    classes = runs[0].classes
    counts = np.array([run.confusion[split] for run in runs], dtype=float)
    shares = (100 * counts / counts.sum(axis=2, keepdims=True)).mean(axis=0)
    diagonal = np.eye(len(classes), dtype=bool)
    figure = new_figure(3.9, width=4.9)
    ax = figure.subplots()
    seaborn.heatmap(
        pd.DataFrame(shares, classes, classes),
        mask=diagonal,
        annot=np.where(shares < 0.05, "", np.char.mod("%.1f", shares)) if len(classes) <= 12 else False,
        fmt="",
        annot_kws={"size": 7},
        cmap=seaborn.light_palette("#D55E00", as_cmap=True),
        vmin=0,
        square=True,
        linewidths=0.5,
        cbar_kws={"label": "Mistaken (% of the true class)", "shrink": 0.75},
        ax=ax,
    )
    ax.set_facecolor("#EDEDED")
    for i in range(len(classes)):
        ax.text(i + 0.5, i + 0.5, f"{shares[i, i]:.0f}", ha="center", va="center", fontsize=7.5, fontweight="bold")
    for label, colour in zip(ax.get_yticklabels(), class_colours(classes).values(), strict=True):
        label.set_bbox({"facecolor": colour, "alpha": 0.25, "lw": 0, "pad": 1})
    ax.tick_params(length=0)
    ax.grid(False)
    ax.set(xlabel="Predicted class", ylabel="True class")
    ax.set_xticklabels(ax.get_xticklabels(), rotation=45, ha="right", rotation_mode="anchor")
    return figure


@styled
def plot_metric(runs: Runs, metric: str = "validation_accuracy", published: Mapping[str, str] | None = None) -> Figure:
    """Return one final figure of every arm: a ring a seed, a bar for the mean's 95 % interval, and its value.

    ``published`` names, per arm, the published net or setting (such as "R2/kernels/3-3-3") whose figure of
    the same name is marked with a diamond, with its own interval where the pictures that it stands on are known.
    """
    by_arm, (scale, _) = runs.by_arm(), scale_and_digits(metric)
    styles = arm_styles(list(by_arm))
    figure = new_figure(0.75 + 0.36 * len(styles))
    ax = figure.subplots()
    marked = False
    for row, (arm, (colour, _)) in enumerate(styles.items()):
        seeds = [scale * run.metrics[metric] for run in by_arm[arm]]
        mean, half = arm_mean_and_half(by_arm[arm], metric)
        ax.plot(seeds, np.full(len(seeds), row), "o", color=colour, mfc="white", ms=4.5, mew=0.9, alpha=0.9)
        ax.plot([mean - half, mean + half], [row - 0.28] * 2, color=colour, lw=2.5, solid_capstyle="butt")
        ax.plot([mean] * 2, [row - 0.42, row + 0.14], color=colour, lw=1.2)
        text = arm_plus_minus(by_arm[arm], metric)
        ax.annotate(text, (1.02, row), xycoords=("axes fraction", "data"), va="center", color=colour)
        if mark := published and arm in published and published_for(published[arm], metric):
            ax.plot(mark.value, row + 0.28, "D", color=INK, ms=4, zorder=4)
            if ends := mark.interval():
                ax.plot(ends, [row + 0.28] * 2, color=INK, lw=1)
            marked = True
    ax.plot([], [], "o", color=GREY, mfc="white", ms=4.5, label="one seed")
    ax.plot([], [], color=GREY, lw=2.5, label="95 % interval of the mean")
    if marked:
        ax.plot([], [], "D", color=INK, ms=4, label="published")
    figure.legend(loc="outside upper left", ncols=3, handletextpad=0.4, columnspacing=1.5, handlelength=1.2)
    ax.set_yticks(range(len(styles)), list(styles))
    ax.set(xlabel=metric_label(metric), ylim=(len(styles) - 0.45, -0.6))
    ax.grid(axis="y", color=PALE, lw=0.4)
    ax.tick_params(axis="y", length=0)
    return figure
