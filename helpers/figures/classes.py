"""Single classes: how often each is recognised, and what it is mistaken for."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import seaborn
from matplotlib.figure import Figure

from helpers.record import Run, Runs, mean_and_half, plus_minus
from helpers.style import arm_styles, class_colours, new_figure, styled


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
        handles, labels = ax.get_legend_handles_labels()
        place = {"loc": "outside upper left", "ncols": min(6, n), "handletextpad": 0.1, "columnspacing": 1.2}
        for text, handle in zip(figure.legend(handles, labels, **place).get_texts(), handles, strict=True):
            text.set_color(handle.get_color())
    return figure


def classwise_table(runs: Runs, splits: Sequence[str] = ("train", "validation")) -> pd.DataFrame:
    """Return the accuracy of each class in percent: a row per class and one for all, columns (arm, split).

    With a single split the columns are the arms alone. Intervals cover the seeds alone, not which pictures are in the
    split.
    """
    table = {}
    for arm, seeds in runs.by_arm().items():
        for split in splits:
            shares = 100 * np.array([run.classwise(split) for run in seeds])  # (seeds, classes)
            overall = [100 * run.metrics[f"{split}_accuracy"] for run in seeds]
            cells = [plus_minus(column, 1) for column in shares.T] + [plus_minus(overall, 1)]
            table[(arm, split) if len(splits) > 1 else arm] = cells
    return pd.DataFrame(table, index=[*runs[0].classes, "all classes"])


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
