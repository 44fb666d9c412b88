"""Arms beside each other, and their classes, as figures and as tables of printable cells."""

import itertools
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from helpers.record import (
    MISSING,
    Runs,
    Verdict,
    arm_mean_and_half,
    arm_plus_minus,
    mean_and_half,
    metric_label,
    plus_minus,
    published_for,
    seeds_text,
    span,
)
from helpers.style import GREY, INK, PALE, RIGHT, WRONG, arm_styles, new_figure, styled

# What a sweep's choice is called on its axis.
NAMES = {"lr": "Learning rate", "batch_size": "Batch size (images)", "train_size": "Training images"}


def _legend(figure: Figure, columns: int = 3, length: float = 1.2) -> None:
    figure.legend(loc="outside upper left", ncols=columns, handletextpad=0.4, columnspacing=1.5, handlelength=length)


@styled
def plot_forest(found: Verdict, *, published: Mapping[str, float] | None = None) -> Figure:
    """Return a row for each comparison of a verdict: a dot for the difference of means, a line for its interval.

    Full dots are separable from zero, hollow ones are not. Where all rows are compared with one arm, they carry the
    other's name alone. ``published`` holds published differences by the name of arm a, on the axis' scale: diamonds.
    """
    scale, unit = found.scale_and_unit
    digits = 1 if unit else 3
    bases = {d.b for d in found.differences}
    alone = len(bases) == 1 < len(found.differences)
    names, notes = [d.a if alone else f"{d.a} − {d.b}" for d in found.differences], []
    figure = new_figure(0.85 + 0.21 * len(names))
    figure.get_layout_engine().set(rect=(0, 0, 0.975, 1))  # letters are a little wider in print than when laid out
    ax = figure.subplots()
    for row, d in enumerate(found.differences):
        colour = (RIGHT if d.mean > 0 else WRONG) if d.separable else GREY
        if np.isnan(d.mean):
            note = "collapsed"
        else:
            ax.plot([scale * d.low, scale * d.high], [row] * 2, color=colour, lw=1.6, solid_capstyle="butt")
            ax.plot(scale * d.mean, row, "o", color=colour, mfc=colour if d.separable else "white", ms=4.5)
            note = f"{scale * d.mean:+z.{digits}f} [{scale * d.low:z.{digits}f}, {scale * d.high:z.{digits}f}]"
            note = note.replace("-", "−")
        lost = [f"{n} of {of} collapsed" for arm, (n, of) in found.collapsed.items() if arm in (d.a, d.b)]
        notes.append(("  ".join([note, *lost]), colour))
        if published and d.a in published:
            ax.plot(published[d.a], row, "D", color=INK, mfc="none", ms=5.5, zorder=4)
    ax.axvline(0, color=INK, lw=0.8, zorder=0.5)
    ax.plot([], [], "o-", color=GREY, mfc=GREY, ms=4.5, label="separable from zero")
    ax.plot([], [], "o-", color=GREY, mfc="white", ms=4.5, label="not separable")
    if published:
        ax.plot([], [], "D", color=INK, mfc="none", ms=5, label="published")
    _legend(figure, length=1.8)
    ax.set_yticks(range(len(names)), names)
    beside = ax.secondary_yaxis("right")
    beside.set_yticks(range(len(names)), [text for text, _ in notes], fontsize=7)
    for label, (_, colour) in zip(beside.get_yticklabels(), notes, strict=True):
        label.set_color(colour)
    beside.tick_params(length=0)
    beside.spines["right"].set_visible(False)
    against = f", against {bases.pop()}" if alone else ""
    what = metric_label(found.metric).removesuffix(" (%)").lower()
    ax.set(xlabel=f"Difference of {what}{against} ({unit.strip() or 'as measured'})", ylim=(len(names) - 0.4, -0.6))
    ax.annotate(found.family, (0, 1), (0, 3), "axes fraction", textcoords="offset points", fontsize=7, color=GREY)
    ax.grid(axis="y", color=PALE, lw=0.4)
    ax.tick_params(axis="y", length=0)
    return figure


@styled
def plot_sweep(runs: Runs, choice: str) -> Figure:
    """Return validation accuracy against a positive choice: a ring a seed, a line through means, bars for intervals.

    ``choice`` is a field of the experiment, on a logarithmic axis; each arm has a value of its own. Runs that collapsed
    are crosses at the bottom and belong to no mean.
    """
    places = {float(getattr(several[0].experiment, choice)): several for several in runs.by_arm().values()}
    if len(places) < len(runs.arms):
        raise ValueError(f"some of {', '.join(runs.arms)} have the same {choice}: take fewer arms with runs.only(...)")
    xs, any_lost, colour = sorted(places), any(run.collapsed for run in runs), arm_styles([""])[""][0]
    figure = new_figure(2.8)
    ax = figure.subplots()
    ax.set_xscale("log")
    ax.set_xticks(xs, [f"{value:,.6g}".replace("e-0", "e-").replace("e+0", "e") for value in xs])
    ax.set_xticks([], minor=True)
    reach = np.log10(xs[-1] / xs[0]) or 1.0
    ax.set_xlim(xs[0] / 10 ** (0.05 * reach), xs[-1] * 10 ** (0.05 * reach))
    for x in xs:
        kept = [100 * run.metrics["validation_accuracy"] for run in places[x] if not run.collapsed]
        ax.plot([x] * len(kept), kept, "o", color=colour, mfc="white", ms=4, mew=0.8, alpha=0.9)
        if len(kept) < (of := len(places[x])):
            text, at, place = f"{of - len(kept)} of {of}", 0.035, ax.get_xaxis_transform()
            ax.plot([x], [at], "x", color=colour, ms=4.5, mew=1.2, transform=place)
            ax.annotate(text, (x, at), (4, 0), place, "offset points", va="center", fontsize=7, color=colour)
    means, halves = np.array([arm_mean_and_half(places[x], "validation_accuracy") for x in xs]).T
    ax.plot(xs, means, color=colour)
    ax.margins(y=0.25)
    low, high = np.clip(ax.get_ylim(), 0, 100)  # of the seeds: the interval of two may reach far beyond
    ax.errorbar(xs, means, halves, fmt="none", ecolor=colour, elinewidth=2.5, alpha=0.4)
    ax.set(xlabel=NAMES.get(choice, choice), ylabel="Validation accuracy (%)")
    ax.set_ylim(low - any_lost * (high - low) * 0.075, high)  # room for the crosses, below all that is drawn to scale
    ax.plot([], [], "o", color=GREY, mfc="white", ms=4, label="one seed")
    ax.plot([], [], color=GREY, lw=2.5, alpha=0.5, label="95 % interval of the mean")
    if any_lost:
        ax.plot([], [], "x", color=GREY, ms=4.5, mew=1.2, label="runs that collapsed")
    _legend(figure, 4)
    return figure


@styled
def plot_gap(runs: Runs) -> Figure:
    """Return training and validation accuracy of the final weights per arm, joined by a line, and the gap in points.

    Both are taken without augmentation; bars are 95 % intervals of the means, the gap's over its paired seeds.
    """
    splits = {"training": (INK, "train_accuracy"), "validation": (arm_styles(["v"])["v"][0], "validation_accuracy")}
    values = {name: 100 * runs.values(metric) for name, (_, metric) in splits.items()}
    gaps, arms = values["training"] - values["validation"], runs.arms
    figure = new_figure(0.8 + 0.3 * len(arms))
    ax = figure.subplots()
    for row, arm in enumerate(arms):
        ax.plot([values[name][arm].mean() for name in splits], [row] * 2, color=PALE, lw=3, zorder=1)
        text = f"{plus_minus(gaps[arm], 2)} points"
        ax.annotate(text, (1.02, row), xycoords=("axes fraction", "data"), va="center")
    for name, (colour, _) in splits.items():
        means, halves = np.array([mean_and_half(values[name][arm]) for arm in arms]).T
        face = "white" if name == "training" else colour
        ax.errorbar(means, range(len(arms)), xerr=halves, fmt="none", ecolor=colour, elinewidth=2, alpha=0.45)
        ax.plot(means, range(len(arms)), "o", color=colour, mfc=face, ms=4.5, label=name)
    ax.plot([], [], color=GREY, lw=2, alpha=0.6, label="95 % interval of the mean")
    ax.plot([], [], color=PALE, lw=3, label="gap")
    _legend(figure, columns=4)
    ax.annotate("Gap", (1.02, 1.0), xycoords="axes fraction", va="bottom", fontweight="bold")
    ax.set_yticks(range(len(arms)), arms)
    ax.set(xlabel="Accuracy (%)", ylim=(len(arms) - 0.5, -0.5))
    ax.grid(axis="y", visible=False)
    ax.tick_params(axis="y", length=0)
    return figure


@styled
def plot_reliability(runs: Runs, split: str = "validation") -> Figure:
    """Return a reliability diagram per arm: how often predictions are right against how sure they are, in percent.

    Predictions of all seeds are pooled. Light bars are the share of predictions in each range of confidence, the
    line from corner to corner is perfect calibration. See :func:`helpers.record.recorder.reliability`.
    """
    by_arm, metric = runs.by_arm(), f"{split}_calibration_error"
    if missing := [run for run in runs if split not in run.calibration]:
        raise ValueError(f"split={split!r} has no reliability curve; there are: {', '.join(missing[0].calibration)}")
    errors = 100 * runs.values(metric)
    columns, rows = min(4, len(by_arm)), -(-len(by_arm) // min(4, len(by_arm)))
    figure = new_figure(0.45 + 1.75 * rows if columns > 2 else 0.4 + 2.4 * rows)
    axes = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel()
    for ax, (arm, (colour, _)) in zip(axes, arm_styles(list(by_arm)).items(), strict=False):
        curves = [run.calibration[split] for run in by_arm[arm]]
        count = np.array([curve["count"] for curve in curves], dtype=float)  # (seeds, bins)
        total, width = count.sum(axis=0), 100 / count.shape[1]
        sums = [(count * [curve[what] for curve in curves]).sum(axis=0) for what in ("confidence", "accuracy")]
        sure, right = 100 * np.array(sums)[:, total > 0] / total[total > 0]
        ax.bar((np.arange(len(total)) + 0.5) * width, 100 * total / total.sum(), 0.9 * width, color=PALE)
        ax.plot([0, 100], [0, 100], color=GREY, lw=0.7, ls="--")
        ax.plot(sure, right, "o-", color=colour, ms=3)
        text = f"calibration error\n{plus_minus(errors[arm], 2)} points"
        ax.annotate(text, (0.04, 0.96), xycoords="axes fraction", va="top", fontsize=7)
        ax.set_title(arm, color=colour)
        ax.set(box_aspect=1, ylabel="Right (%)" if ax.get_subplotspec().is_first_col() else "")
        ax.tick_params(labelbottom=True)
    for ax in axes[len(by_arm) :]:
        ax.set_visible(False)
    axes[0].set(xlim=(0, 100), ylim=(0, 100), xticks=[0, 50, 100], yticks=[0, 50, 100])
    figure.supxlabel(f"Confidence (%), {split} images; bars: share of predictions (%)", fontsize=8)
    return figure


def comparison_table(
    runs: Runs, published: Mapping[str, str], metrics: Sequence[str] = ("test_accuracy",)
) -> pd.DataFrame:
    """Return, per arm, our mean ± half-width of its 95 % interval beside the published figure, maybe with its own.

    ``published`` names, per arm, the published net or setting, such as "R2/kernels/3-3-3".
    """
    columns = {("", "seeds"): [seeds_text(seeds) for seeds in runs.by_arm().values()]}
    for metric in metrics:
        theirs = [published_for(published[arm], metric) if arm in published else None for arm in runs.arms]
        ours = [arm_plus_minus(seeds, metric) for seeds in runs.by_arm().values()]
        columns[metric_label(metric), "ours"] = ours
        columns[metric_label(metric), "published"] = [figure.with_interval if figure else MISSING for figure in theirs]
    return pd.DataFrame(columns, index=runs.arms)


def accuracy_table(runs: Runs, metrics: Sequence[str] | None = None) -> pd.DataFrame:
    """Return final figures of each arm, mean ± half-width of the 95 % interval; by default all accuracies."""
    every = ("train_accuracy", "validation_accuracy", "test_accuracy")
    columns = {"seeds": [seeds_text(seeds) for seeds in runs.by_arm().values()]}
    for metric in metrics or [m for m in every if all(m in run.metrics for run in runs)]:
        columns[metric_label(metric)] = [arm_plus_minus(seeds, metric) for seeds in runs.by_arm().values()]
    return pd.DataFrame(columns, index=runs.arms)


def arms_table(runs: Runs) -> pd.DataFrame:
    """Return what each arm cost, from the record: parameters, epochs trained and kept, time per epoch."""
    rows = {
        arm: {
            "parameters": f"{seeds[0].metrics['parameters']:,}",
            "epochs": span(run.metrics["epochs"] for run in seeds),
            "weights of epoch": span(run.metrics["best_epoch"] for run in seeds),
            "seconds per epoch": f"{np.median([s for run in seeds for s in run.history['seconds']]):.1f}",
        }
        for arm, seeds in runs.by_arm().items()
    }
    return pd.DataFrame.from_dict(rows, orient="index")


def scales_table(questions: Mapping[str, Runs]) -> pd.DataFrame:
    """Return at which scale each question was asked: a row per question, with the least and the most of its runs."""
    rows = {}
    for question, runs in questions.items():
        experiments = [run.experiment for run in runs]
        rows[question] = {
            "network": ", ".join(dict.fromkeys(experiment.model for experiment in experiments)),
            # Every training picture stands once in the confusion matrix, whichever part of the split was used.
            "training pictures": span(int(run.confusion["train"].sum()) for run in runs),
            "batch size": span(experiment.batch_size for experiment in experiments),
            "learning rate": span(experiment.lr for experiment in experiments),
            "epochs": span(run.metrics["epochs"] for run in runs),
            "seeds": str(len(runs.seeds)),
        }
    return pd.DataFrame.from_dict(rows, orient="index")


def classwise_table(runs: Runs, splits: Sequence[str] = ("train", "validation")) -> pd.DataFrame:
    """Return the accuracy of each class in percent: a row per class and one for all, columns (arm, split).

    With one split the columns are the arms alone. Intervals cover the seeds, not which pictures are in the split.
    """
    table = {}
    for (arm, seeds), split in itertools.product(runs.by_arm().items(), splits):
        shares = 100 * np.array([[*run.classwise(split), run.metrics[f"{split}_accuracy"]] for run in seeds])
        table[(arm, split) if len(splits) > 1 else arm] = [plus_minus(column, 1) for column in shares.T]
    return pd.DataFrame(table, index=[*runs[0].classes, "all classes"])
