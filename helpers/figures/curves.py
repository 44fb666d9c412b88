"""Learning curves: loss and accuracy over the epochs, every arm of a study, every seed."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, LogLocator, MaxNLocator, NullFormatter

from helpers.quantities import percent
from helpers.run import Run
from helpers.study import Runs
from helpers.style import INK, arm_styles, new_figure, styled

# Points per smoothing window of the loss per iteration: a fortieth of the run.
SMOOTHING = 40


def per_epoch(runs: Sequence[Run], key: str) -> pd.DataFrame:
    """Return ``history[key]`` with a row per epoch and a column per seed; NaN after a seed stopped early."""
    scale = 100 if percent(key) else 1
    return pd.DataFrame({r.seed: pd.Series(r.history[key], r.history["epoch"], dtype=float) * scale for r in runs})


def _per_iteration(runs: Sequence[Run], smooth: bool) -> pd.DataFrame:
    """Return the training loss with a row per block of iterations (in epochs) and a column per seed."""
    columns = {}
    for run in runs:
        steps, loss = np.asarray(run.iterations["step"]), pd.Series(run.iterations["loss"], dtype=float)
        if len(steps) == 0:
            continue
        # The last recorded step is the middle of the last block, half a block short of the last epoch's end.
        block = steps[1] - steps[0] if len(steps) > 1 else 0.0
        epochs = steps / (steps[-1] + block / 2) * len(run.history["epoch"])
        if smooth:
            loss = loss.rolling(max(1, len(loss) // SMOOTHING), center=True, min_periods=1).mean()
        columns[run.seed] = pd.Series(loss.to_numpy(), epochs)
    # Seeds that stopped at different epochs were thinned to different steps: bring them onto one grid.
    return pd.DataFrame(columns).interpolate("index", limit_area="inside") if columns else pd.DataFrame()


def draw_seeds(ax: Axes, frame: pd.DataFrame, colour: str, line: str) -> tuple[float, float] | None:
    """Draw the mean over seeds and their range as a band while all seeds train, then each one alone, thinly.

    Returns the end of the mean line, where a direct label belongs, or None if there is nothing to draw.
    """
    frame = frame.dropna(axis=1, how="all")  # a seed that diverged at once has nothing to draw
    together = frame.dropna()
    if together.empty:
        return None
    few = len(together) <= 12
    ax.fill_between(together.index, together.min(axis=1), together.max(axis=1), color=colour, alpha=0.18, lw=0)
    ax.plot(together.index, together.mean(axis=1), line, color=colour, marker="o" if few else "", ms=2.5)
    for seed in frame:
        alone = frame[seed].loc[together.index[-1] :].dropna()
        ax.plot(alone.index, alone, line, color=colour, lw=0.6, alpha=0.6)
    return float(together.index[-1]), float(together.iloc[-1].mean())


def spread(wanted: Sequence[float], gap: float, low: float, high: float) -> np.ndarray:
    """Return positions near ``wanted``, in their order, ``gap`` or more apart, in range where possible."""
    order = np.argsort(wanted, kind="stable")
    up = np.clip(np.asarray(wanted, float)[order], low, high)
    down = up.copy()
    for i in range(1, len(up)):
        up[i] = max(up[i], up[i - 1] + gap)
        down[-1 - i] = min(down[-1 - i], down[-i] - gap)
    steps = gap * np.arange(len(up))
    placed = np.maximum(np.minimum((up + down) / 2, high - steps[::-1]), low + steps)
    result = np.empty(len(placed))
    result[order] = placed
    return result


def label_ends(ax: Axes, ends: Mapping[str, tuple[float, float]], colours: Mapping[str, str]) -> None:
    """Write each line's name to the right of the axes, near the height of its end, no two over each other."""
    if not ends:
        return
    low, high = ax.get_ylim()
    inches = ax.figure.get_figheight() / ax.get_subplotspec().get_gridspec().nrows * 0.72
    heights = spread([y for _, y in ends.values()], (high - low) * 9.5 / 72 / inches, low, high)
    for (name, end), height in zip(ends.items(), heights, strict=True):
        leader = {
            "arrowstyle": "-",
            "color": colours[name],
            "lw": 0.5,
            "alpha": 0.5,
            "shrinkA": 1,
            "shrinkB": 2,
        }
        ax.annotate(
            name,
            end,
            (1.03, (height - low) / (high - low)),
            textcoords="axes fraction",
            color=colours[name],
            va="center",
            arrowprops=leader,
            annotation_clip=False,
        )


def log_axis(ax: Axes) -> None:
    """Make the x axis logarithmic, with plain numbers (200, 5k, 1M) at its ticks, as many as fit."""
    ax.set_xscale("log")
    low, high = ax.get_xlim()
    few = MaxNLocator(4) if high < 4 * low else LogLocator(subs=(1, 2, 5) if high < 40 * low else (1,))
    ax.xaxis.set_major_locator(few)
    ax.xaxis.set_major_formatter(EngFormatter(sep=""))
    ax.xaxis.set_minor_formatter(NullFormatter())


def _finish_curves(axes: Sequence[Axes], tops: Sequence[float]) -> None:
    """Give loss axes one range: from zero to the highest smooth value, whatever single batches did."""
    finite = [top for top in tops if np.isfinite(top)]
    for ax in axes:
        ax.set_ylim(0, 1.05 * max(finite, default=1.0))


@styled
def plot_curves(runs: Runs) -> Figure:
    """Return loss and accuracy over the epochs: training beside validation, or both in one panel for one arm.

    The training loss is drawn light as recorded per iteration (first seed), smooth on top; lines are means
    over seeds, bands reach from the lowest seed to the highest. Where seeds stopped early at different
    epochs, the mean ends with the first of them and the others go on as thin lines.
    """
    by_arm = runs.by_arm()
    return _one_arm(next(iter(by_arm.values()))) if len(by_arm) == 1 else _several_arms(by_arm)


def _draw_training_loss(ax: Axes, runs: Sequence[Run], colour: str, line: str) -> tuple[tuple | None, float]:
    """Draw the loss per iteration; return the end of the smooth line and its highest value."""
    light, smooth = _per_iteration(runs[:1], smooth=False), _per_iteration(runs, smooth=True)
    if not light.empty:
        ax.plot(light.index, light, color=colour, lw=0.4, alpha=0.35)
    end = draw_seeds(ax, smooth, colour, line)
    return end, smooth.max().max() if not smooth.empty else np.nan


def _one_arm(runs: Sequence[Run]) -> Figure:
    figure = new_figure(2.4)
    loss, accuracy = figure.subplots(1, 2)
    names = {"training": (INK, "--"), "validation": arm_styles(["validation"])["validation"]}
    colours = {name: colour for name, (colour, _) in names.items()}
    end, top = _draw_training_loss(loss, runs, *names["training"])
    validation = per_epoch(runs, "validation_loss")
    ends = {"training": end, "validation": draw_seeds(loss, validation, *names["validation"])}
    _finish_curves([loss], [top, validation.max().max()])
    label_ends(loss, {name: end for name, end in ends.items() if end}, colours)
    ends = {
        "training": draw_seeds(accuracy, per_epoch(runs, "train_accuracy"), *names["training"]),
        "validation": draw_seeds(accuracy, per_epoch(runs, "validation_accuracy"), *names["validation"]),
    }
    label_ends(accuracy, {name: end for name, end in ends.items() if end}, colours)
    for ax, label in ((loss, "Loss"), (accuracy, "Accuracy (%)")):
        ax.set(xlabel="Epoch", ylabel=label, xlim=(0, None))
        ax.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6, steps=[1, 2, 5, 10]))
    return figure


def _several_arms(by_arm: Mapping[str, Sequence[Run]]) -> Figure:
    figure = new_figure(4.2)
    axes = figure.subplots(2, 2, sharex=True, sharey="row")
    styles = arm_styles(list(by_arm))
    colours = {arm: colour for arm, (colour, _) in styles.items()}
    loss_ends, accuracy_ends, tops = {}, {}, []
    for arm, runs in by_arm.items():
        _, top = _draw_training_loss(axes[0, 0], runs, *styles[arm])
        validation = per_epoch(runs, "validation_loss")
        loss_ends[arm] = draw_seeds(axes[0, 1], validation, *styles[arm])
        draw_seeds(axes[1, 0], per_epoch(runs, "train_accuracy"), *styles[arm])
        accuracy_ends[arm] = draw_seeds(axes[1, 1], per_epoch(runs, "validation_accuracy"), *styles[arm])
        tops += [top, validation.max().max()]
    _finish_curves(axes[0], tops)
    axes[0, 0].set(title="Training", ylabel="Loss", xlim=(0, None))
    axes[0, 1].set(title="Validation")
    axes[1, 0].set(xlabel="Epoch", ylabel="Accuracy (%)")
    axes[1, 1].set(xlabel="Epoch")
    axes[1, 1].xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6, steps=[1, 2, 5, 10]))
    for ax, ends in ((axes[0, 1], loss_ends), (axes[1, 1], accuracy_ends)):
        label_ends(ax, {arm: end for arm, end in ends.items() if end}, colours)
    return figure
