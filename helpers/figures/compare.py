"""Arms beside each other, as figures and as tables of printable cells."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from math import isfinite
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

from helpers.figures.curves import label_ends, log_axis
from helpers.record import (
    MISSING,
    Run,
    Runs,
    Verdict,
    arm_mean_and_half,
    arm_plus_minus,
    mean_and_half,
    metric_label,
    percent,
    plus_minus,
    published_for,
    scale_and_digits,
    seeds_text,
    span,
)
from helpers.style import GREY, INK, PALE, RIGHT, WRONG, arm_styles, new_figure, styled
from helpers.training import Experiment

FINAL_ACCURACIES = ("train_accuracy", "validation_accuracy", "test_accuracy")


def _legend(figure: Figure, columns: int = 3, length: float = 1.2) -> None:
    figure.legend(loc="outside upper left", ncols=columns, handletextpad=0.4, columnspacing=1.5, handlelength=length)


@styled
def plot_forest(
    found: Verdict, *, published: Mapping[str, float] | None = None, limits: tuple[float, float] | None = None
) -> Figure:
    """Return a row for each comparison of a verdict: a dot for the difference of means, a line for its interval.

    Full dots are separable from zero, hollow ones are not. Where most rows are compared with one arm, these carry the
    other's name alone. ``published`` holds a published difference by the name of arm a, on the axis' scale, each a
    diamond. ``limits`` cuts the axis where a few rows would squeeze all others; what is cut carries an arrowhead.
    """
    (scale, unit), digits = found.scale_and_unit, 1 if percent(found.metric) else 3
    base, shared = Counter(d.b for d in found.differences).most_common(1)[0]
    most = 2 * shared > len(found.differences) > 1
    names = [d.a if d.b == base and most else f"{d.a} − {d.b}" for d in found.differences]
    notes = []
    rows = np.arange(len(names))
    figure = new_figure(0.85 + 0.21 * len(names))
    figure.get_layout_engine().set(rect=(0, 0, 0.975, 1))  # letters are a little wider in print than when laid out
    ax = figure.subplots()
    for row, d in zip(rows, found.differences, strict=True):
        colour = (RIGHT if d.mean > 0 else WRONG) if d.separable else GREY
        if np.isnan(d.mean):
            note = "collapsed"
        else:
            ax.plot([scale * d.low, scale * d.high], [row] * 2, color=colour, lw=1.6, solid_capstyle="butt")
            ax.plot(scale * d.mean, row, "o", color=colour, mfc=colour if d.separable else "white", ms=4.5)
            note = f"{scale * d.mean:+.{digits}f} [{scale * d.low:.{digits}f}, {scale * d.high:.{digits}f}]"
        lost = [f"{n} of {of} collapsed" for arm, (n, of) in found.collapsed.items() if arm in (d.a, d.b)]
        notes.append(("  ".join([note, *lost]), colour))
        if published and d.a in published:
            ax.plot(published[d.a], row, "D", color=INK, mfc="none", ms=5.5, zorder=4)
    ax.axvline(0, color=INK, lw=0.8, zorder=0.5)
    if limits:
        ax.set_xlim(*limits)
        for row, d in zip(rows, found.differences, strict=True):
            for end, edge, marker in ((d.low, limits[0], "<"), (d.high, limits[1], ">")):
                if np.isfinite(end) and not limits[0] <= scale * end <= limits[1]:
                    ax.plot(edge, row, marker, color=GREY, ms=4, clip_on=False)
    ax.plot([], [], "o-", color=GREY, mfc=GREY, ms=4.5, label="separable from zero")
    ax.plot([], [], "o-", color=GREY, mfc="white", ms=4.5, label="not separable")
    if published:
        ax.plot([], [], "D", color=INK, mfc="none", ms=5, label="published")
    _legend(figure, length=1.8)
    ax.set_yticks(rows, names)
    beside = ax.secondary_yaxis("right")
    beside.set_yticks(rows, [text for text, _ in notes], fontsize=7)
    for label, (_, colour) in zip(beside.get_yticklabels(), notes, strict=True):
        label.set_color(colour)
    beside.tick_params(length=0)
    beside.spines["right"].set_visible(False)
    against = f", against {base}" if most else ""
    what = metric_label(found.metric).removesuffix(" (%)").lower()
    ax.set(xlabel=f"Difference of {what}{against} ({unit.strip() or 'as measured'})", ylim=(len(names) - 0.4, -0.6))
    ax.annotate(found.family, (0, 1), (0, 3), "axes fraction", textcoords="offset points", fontsize=7, color=GREY)
    ax.grid(axis="y", color=PALE, lw=0.4)
    ax.tick_params(axis="y", length=0)
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
    _legend(figure)
    ax.set_yticks(range(len(styles)), list(styles))
    ax.set(xlabel=metric_label(metric), ylim=(len(styles) - 0.45, -0.6))
    ax.grid(axis="y", color=PALE, lw=0.4)
    ax.tick_params(axis="y", length=0)
    return figure


# More values than this are left to matplotlib's own ticks.
MOST_TICKS = 8
NAMES = {"lr": "Learning rate", "batch_size": "Batch size (images)", "train_size": "Training images"}


def _places(runs: Runs, choice: str, lines: Callable[[Experiment], str] | None) -> dict[str, dict[float, str]]:
    """Return line -> value on the x axis -> arm, values rising."""
    places: dict[str, dict[float, str]] = {}
    for arm, several in runs.by_arm().items():
        experiment = several[0].experiment
        x, line = float(getattr(experiment, choice)), places.setdefault(lines(experiment) if lines else "", {})
        if x in line:
            raise ValueError(f"arms {line[x]!r} and {arm!r} both stand at {x:g}: tell them apart with lines=...")
        line[x] = arm
    return {name: dict(sorted(line.items())) for name, line in places.items()}


@styled
def plot_sweep(
    runs: Runs, choice: str, metric: str = "validation_accuracy", *, lines: Callable[[Experiment], str] | None = None
) -> Figure:
    """Return a final figure against a numeric choice: a ring a seed, a line through means, 95 % intervals as bars.

    ``choice`` is a field of the experiment, and ``lines`` a function of it whose values split the arms into lines. The
    x axis is logarithmic where positive values span more than a factor of 10. Runs that collapsed or diverged are
    crosses at the bottom and belong to no mean.

    Raises:
        ValueError: a value is no number, or two arms fall on one place.
    """
    runs.values(metric)  # refuses a figure that some runs lack

    def lost(run: Run) -> bool:
        return run.collapsed or not isfinite(run.metrics[metric])

    places, by_arm, (scale, _) = _places(runs, choice, lines), runs.by_arm(), scale_and_digits(metric)
    any_lost, styles = any(map(lost, runs)), arm_styles(list(places))
    values = np.unique([x for line in places.values() for x in line])
    figure = new_figure(2.8)
    ax = figure.subplots()
    forward, back = _scale_x(ax, values)
    ends, reach = {}, np.ptp(forward(values)) or 1.0
    for i, (name, line) in enumerate(places.items()):
        colour, dash = styles[name]
        # Beside each other, not over each other: a hair of the axis between lines.
        xs = back(forward(np.array(list(line))) + (i - (len(places) - 1) / 2) * 0.012 * reach)
        figures = []
        for x, arm in zip(xs, line.values(), strict=True):
            whole = [run for run in by_arm[arm] if not lost(run)]
            kept = [scale * run.metrics[metric] for run in whole]
            ax.plot([x] * len(kept), kept, "o", color=colour, mfc="white", ms=4, mew=0.8, alpha=0.9)
            figures.append(arm_mean_and_half(whole, metric))
            if len(kept) < (of := len(by_arm[arm])):
                _mark_diverged(ax, x, i, f"{of - len(kept)} of {of}", colour)
        means, halves = np.array(figures).T
        ax.plot(xs, means, dash, color=colour)
        ax.errorbar(xs, means, halves, fmt="none", ecolor=colour, elinewidth=2.5, alpha=0.4)
        if np.isfinite(means).any():
            last = np.flatnonzero(np.isfinite(means))[-1]
            ends[name] = float(xs[last]), float(means[last])
    ax.set(xlabel=NAMES.get(choice, choice), ylabel=metric_label(metric))
    ax.margins(y=0.1)
    if percent(metric):  # an interval may reach beyond, a share cannot
        low, high = ax.get_ylim()
        ax.set_ylim(max(low, 0), min(high, 100))
    if any_lost:
        low, high = ax.get_ylim()
        # Room for a row of crosses per line below everything that is drawn to scale.
        ax.set_ylim(low - (high - low) * 0.075 * len(places), high)
    if lines is not None:
        label_ends(ax, ends, {name: colour for name, (colour, _) in styles.items()})
    ax.plot([], [], "o", color=GREY, mfc="white", ms=4, label="one seed")
    ax.plot([], [], color=GREY, lw=2.5, alpha=0.5, label="95 % interval of the mean")
    if any_lost:
        ax.plot([], [], "x", color=GREY, ms=4.5, mew=1.2, label="runs that collapsed")
    _legend(figure, 4)
    return figure


def _scale_x(ax: Axes, values: np.ndarray) -> tuple[Callable, Callable]:
    """Set scale and ticks of the x axis; return the way from values to even distances, and back."""
    log = values[0] > 0 and values[-1] > 10 * values[0]
    forward, back = (np.log10, lambda x: 10.0**x) if log else (np.asarray, np.asarray)
    if log:
        ax.set_xscale("log")
    if len(values) <= MOST_TICKS:
        shown, last, reach = [], -np.inf, np.ptp(forward(values)) or 1.0
        for value, place in zip(values, forward(values) / reach, strict=True):
            fits = place - last >= 0.06
            shown.append(f"{value:,.6g}".replace("e-0", "e-").replace("e+0", "e") if fits else "")
            last = place if fits else last
        ax.set_xticks(values, shown)
        ax.set_xticks([], minor=True)
    edge = 0.05 * (np.ptp(forward(values)) or 1.0)
    ax.set_xlim(back(forward(values[0]) - edge), back(forward(values[-1]) + edge))
    return forward, back


def _mark_diverged(ax: Axes, x: float, row: int, text: str, colour: str) -> None:
    place = ax.get_xaxis_transform()
    ax.plot([x], [0.035 + 0.07 * row], "x", color=colour, ms=4.5, mew=1.2, transform=place)
    ax.annotate(
        text, (x, 0.035 + 0.07 * row), (4, 0), place, textcoords="offset points", va="center", fontsize=7, color=colour
    )


@styled
def plot_tradeoff(runs: Runs, metric: str = "validation_accuracy") -> Figure:
    """Return a final figure against parameters and against multiply-adds per image: a point and its interval per arm.

    Raises:
        ValueError: some runs have no such figure.
    """
    runs.values(metric)  # refuses a figure that some runs lack
    by_arm = runs.by_arm()
    styles = arm_styles(list(by_arm))
    first = {arm: several[0] for arm, several in by_arm.items()}
    costs = {
        "Parameters": {arm: run.metrics["parameters"] for arm, run in first.items()},
        "Multiply-adds per image": {
            arm: sum(row["multiply_adds"] for row in run.structure) for arm, run in first.items()
        },
    }
    points = {arm: arm_mean_and_half(several, metric) for arm, several in by_arm.items()}
    points = {arm: point for arm, point in points.items() if isfinite(point[0])}
    figure = new_figure(3.0)
    axes = figure.subplots(1, 2, sharey=True)
    for ax, (name, cost) in zip(axes, costs.items(), strict=True):
        for arm, (mean, half) in points.items():
            colour = styles[arm][0]
            ax.errorbar(cost[arm], mean, half, fmt="o", color=colour, ms=4, elinewidth=2.5, ecolor=(colour, 0.4))
        ax.set_xscale("log")
        ax.margins(x=0.15, y=0.12)
        log_axis(ax)
        ax.set_xlabel(name)
    axes[0].set_ylabel(metric_label(metric))
    # Labels need the places of the points in print: lay out once, and keep that.
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    for ax, cost in zip(axes, costs.values(), strict=True):
        _label_points(ax, {arm: (cost[arm], *points[arm]) for arm in points}, styles)
    return figure


def _label_points(
    ax: Axes, points: Mapping[str, tuple[float, float, float]], styles: Mapping[str, tuple[str, str]]
) -> None:
    """Write each arm's name as near to its point (x, mean, half) as it fits within the axes and over nothing else."""
    dpi = ax.figure.dpi / 72  # pixels per point
    taken = []
    for x, mean, half in points.values():
        reach = half if isfinite(half) else 0.0
        (left, low), (_, high) = ax.transData.transform([(x, mean - reach), (x, mean + reach)])
        middle = (low + high) / 2
        low, high = min(low, middle - 3 * dpi), max(high, middle + 3 * dpi)
        taken.append(Bbox([[left - 3 * dpi, low], [left + 3 * dpi, high]]))
    frame = ax.get_window_extent()
    offsets = [(side * dx, dy) for dx in (6, 14, 26) for side in (1, -1) for dy in range(-171, 172, 9)]
    offsets += [(0, dy) for dy in range(-171, 172, 9)]
    offsets.sort(key=lambda offset: (np.hypot(*offset), -offset[0], -offset[1]))
    for arm, (x, mean, _) in points.items():
        colour = styles[arm][0]
        text = ax.annotate(arm, (x, mean), (0, 0), textcoords="offset points", va="center", fontsize=7.5, color=colour)
        best, chosen = np.inf, (6, 0)
        for dx, dy in offsets:
            _put(text, dx, dy)
            box = text.get_window_extent().padded(0.5 * dpi)
            outside = max(0, frame.x0 - box.x0) + max(0, box.x1 - frame.x1)
            outside += max(0, frame.y0 - box.y0) + max(0, box.y1 - frame.y1)
            covered = sum(np.prod(both.size) for other in taken if (both := Bbox.intersection(box, other)))
            if (cost := 10 * covered + outside) < best:
                best, chosen = cost, (dx, dy)
            if best == 0:
                break
        _put(text, *chosen)
        taken.append(text.get_window_extent())
        if np.hypot(*chosen) > 12:
            ax.annotate(
                "",
                (x, mean),
                chosen,
                textcoords="offset points",
                arrowprops={"arrowstyle": "-", "color": colour, "lw": 0.5, "alpha": 0.6, "shrinkA": 0, "shrinkB": 2},
            )


def _put(text: Any, dx: float, dy: float) -> None:
    text.xyann = (dx, dy)
    text.set_ha("left" if dx > 0 else "right" if dx < 0 else "center")


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
    _legend(figure)
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

    Raises:
        ValueError: a run has no such split, or is older than these curves.
    """
    by_arm, metric = runs.by_arm(), f"{split}_calibration_error"
    if missing := [run for run in runs if split not in run.calibration]:
        raise ValueError(f"split={split!r} has no reliability curve; there are: {', '.join(missing[0].calibration)}")
    errors, (scale, digits) = runs.values(metric), scale_and_digits(metric)
    columns = min(4, len(by_arm))
    rows = -(-len(by_arm) // columns)
    figure = new_figure(0.45 + 1.75 * rows if columns > 2 else 0.4 + 2.4 * rows)
    axes = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel()
    for ax, (arm, (colour, _)) in zip(axes, arm_styles(list(by_arm)).items(), strict=False):
        curves = [run.calibration[split] for run in by_arm[arm]]
        count = np.array([curve["count"] for curve in curves], dtype=float)  # (seeds, bins)
        total = count.sum(axis=0)
        used = total > 0
        sure, right = (
            100 * (count * [curve[what] for curve in curves]).sum(axis=0)[used] / total[used]
            for what in ("confidence", "accuracy")
        )
        width = 100 / len(total)
        ax.bar((np.arange(len(total)) + 0.5) * width, 100 * total / total.sum(), 0.9 * width, color=PALE)
        ax.plot([0, 100], [0, 100], color=GREY, lw=0.7, ls="--")
        ax.plot(sure, right, "o-", color=colour, ms=3)
        error = plus_minus(scale * errors[arm], digits)
        ax.annotate(f"calibration error\n{error} points", (0.04, 0.96), xycoords="axes fraction", va="top", fontsize=7)
        ax.set_title(arm, color=colour)
        ax.set_box_aspect(1)
        ax.tick_params(labelbottom=True)
    for ax in axes[len(by_arm) :]:
        ax.set_visible(False)
    axes[0].set(xlim=(0, 100), ylim=(0, 100), xticks=[0, 50, 100], yticks=[0, 50, 100])
    figure.supxlabel(f"Confidence (%), {split} images; bars: share of predictions (%)", fontsize=8)
    figure.supylabel("Right (%)", fontsize=8)
    return figure


def comparison_table(
    runs: Runs, published: Mapping[str, str], metrics: Sequence[str] = ("test_accuracy",)
) -> pd.DataFrame:
    """Return, per arm, our mean ± half-width of its 95 % interval over n seeds beside the published figure.

    ``published`` names, per arm, the published net or setting, such as "R2/kernels/3-3-3". Where the number of
    pictures is known on which a published accuracy stands, its own 95 % interval follows: "64.57 [60.7, 68.2]".
    """
    rows = {}
    for arm, seeds in runs.by_arm().items():
        row: dict[tuple[str, str], str] = {("", "seeds"): seeds_text(seeds)}
        for metric in metrics:
            theirs = published_for(published[arm], metric) if arm in published else None
            row[metric_label(metric), "ours"] = arm_plus_minus(seeds, metric)
            row[metric_label(metric), "published"] = theirs.with_interval if theirs else MISSING
        rows[arm] = row
    return pd.DataFrame.from_dict(rows, orient="index")


def accuracy_table(runs: Runs, metrics: Sequence[str] | None = None) -> pd.DataFrame:
    """Return final figures of each arm, mean ± half-width of the 95 % interval; by default all accuracies."""
    metrics = metrics or [m for m in FINAL_ACCURACIES if all(m in run.metrics for run in runs)]
    by_arm = runs.by_arm()
    columns = {"seeds": [seeds_text(seeds) for seeds in by_arm.values()]}
    for metric in metrics:
        columns[metric_label(metric)] = [arm_plus_minus(seeds, metric) for seeds in by_arm.values()]
    return pd.DataFrame(columns, index=runs.arms)


def arms_table(runs: Runs) -> pd.DataFrame:
    """Return what each arm cost, from the record: parameters, epochs trained and kept, time per epoch."""
    rows = {}
    for arm, seeds in runs.by_arm().items():
        last, best = ([run.metrics[name] for run in seeds] for name in ("epochs", "best_epoch"))
        rows[arm] = {
            "parameters": f"{seeds[0].metrics['parameters']:,}",
            "epochs": span(last),
            "weights of epoch": span(best),
            "seconds per epoch": f"{np.median([s for run in seeds for s in run.history['seconds']]):.1f}",
        }
    return pd.DataFrame.from_dict(rows, orient="index")


def scales_table(questions: Mapping[str, Runs]) -> pd.DataFrame:
    """Return at which scale each question was asked: a row per question, from its runs.

    Where arms differ in a choice, the lowest and the highest value stand there.
    """
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
