"""Learning curves, and accuracy against what it cost: epochs, optimizer steps and seconds."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, LogLocator, MaxNLocator, NullFormatter

from helpers.record import Run, Runs, percent
from helpers.style import INK, arm_styles, new_figure, styled


def per_epoch(runs: Sequence[Run], key: str) -> pd.DataFrame:
    """Return ``history[key]`` with a row per epoch and a column per seed; NaN after a seed stopped early."""
    scale = 100 if percent(key) else 1
    return pd.DataFrame({r.seed: pd.Series(r.history[key], r.history["epoch"], dtype=float) * scale for r in runs})


def _per_iteration(runs: Sequence[Run], smooth: bool) -> pd.DataFrame:
    """Return the training loss with a row per block of iterations (in epochs) and a column per seed."""
    columns = {}
    for run in (run for run in runs if run.iterations["step"]):
        steps, loss = np.asarray(run.iterations["step"]), pd.Series(run.iterations["loss"], dtype=float)
        # The last recorded step is the middle of the last block, half a block short of the last epoch's end.
        block = steps[1] - steps[0] if len(steps) > 1 else 0.0
        epochs = steps / (steps[-1] + block / 2) * len(run.history["epoch"])
        if smooth:
            loss = loss.rolling(max(1, len(loss) // 40), center=True, min_periods=1).mean()
        columns[run.seed] = pd.Series(loss.to_numpy(), epochs)
    # Seeds that stopped at different epochs were thinned to different steps: bring them onto one grid.
    return pd.DataFrame(columns).interpolate("index", limit_area="inside") if columns else pd.DataFrame()


def draw_seeds(ax: Axes, frame: pd.DataFrame, colour: str, line: str) -> tuple[float, float] | None:
    """Draw the mean over seeds and their range while all train, then each alone; return the mean's end, or None."""
    frame = frame.dropna(axis=1, how="all")  # a seed that diverged at once has nothing to draw
    together = frame.dropna()
    if together.empty:
        return None
    ax.fill_between(together.index, together.min(axis=1), together.max(axis=1), color=colour, alpha=0.18, lw=0)
    dot = "o" if len(together) <= 12 else ""
    ax.plot(together.index, together.mean(axis=1), line, color=colour, marker=dot, ms=2.5)
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
    return placed[np.argsort(order)]


def label_ends(ax: Axes, ends: Mapping[str, tuple[float, float] | None], styles: Mapping[str, tuple]) -> None:
    """Write each line's name to the right of the axes, near the height of its end if it has one, no two overlapping."""
    ends = {name: end for name, end in ends.items() if end}
    low, high = ax.get_ylim()
    inches = ax.figure.get_figheight() / ax.get_subplotspec().get_gridspec().nrows * 0.72
    heights = spread([y for _, y in ends.values()], (high - low) * 9.5 / 72 / inches, low, high)
    for (name, end), height in zip(ends.items(), heights, strict=True):
        colour, place = styles[name][0], (1.03, (height - low) / (high - low))
        leader = {"arrowstyle": "-", "color": colour, "lw": 0.5, "alpha": 0.5, "relpos": (0, 0.5)}
        leader |= {"shrinkA": 1, "shrinkB": 2}
        look = {"color": colour, "va": "center", "annotation_clip": False, "arrowprops": leader}
        ax.annotate(name, end, place, textcoords="axes fraction", **look)


def _epoch_axis(ax: Axes) -> None:
    ax.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6, steps=[1, 2, 5, 10]))


def log_axis(ax: Axes) -> None:
    """Make the x axis logarithmic, with plain numbers (200, 5k, 1M) at its ticks, as many as fit."""
    ax.set_xscale("log")
    low, high = ax.get_xlim()
    few = MaxNLocator(4) if high < 4 * low else LogLocator(subs=(1, 2, 5) if high < 40 * low else (1,))
    ax.xaxis.set_major_locator(few)
    ax.xaxis.set_major_formatter(EngFormatter(sep=""))
    ax.xaxis.set_minor_formatter(NullFormatter())


@styled
def plot_curves(runs: Runs) -> Figure:
    """Return loss and accuracy over the epochs: training beside validation, or both in one panel for one arm.

    The training loss is drawn light as recorded per iteration (first seed), smooth on top; lines are means over seeds,
    bands reach from the lowest seed to the highest. Where seeds stopped at different epochs, the mean ends with the
    first of them and the others go on as thin lines.
    """
    by_arm, alone = runs.by_arm(), len(runs.arms) == 1
    if alone:
        figure, styles = new_figure(2.4), {"training": (INK, "--")} | arm_styles(["validation"])
        losses, accuracies = ([ax, ax] for ax in figure.subplots(1, 2))  # by split
        losses[0].set_xlabel("Epoch")
    else:
        figure, styles = new_figure(4.2), arm_styles(runs.arms)
        losses, accuracies = figure.subplots(2, 2, sharex=True, sharey="row")
        losses[0].set_title("Training")
        losses[1].set_title("Validation")
    loss_ends, accuracy_ends, tops = {}, {}, []
    for arm, several in by_arm.items():
        training, validation = ("training", "validation") if alone else (arm, arm)  # the names of its lines
        light, smooth = _per_iteration(several[:1], smooth=False), _per_iteration(several, smooth=True)
        if not light.empty:
            losses[0].plot(light.index, light, color=styles[training][0], lw=0.4, alpha=0.35)
        loss = per_epoch(several, "validation_loss")
        loss_ends[training] = draw_seeds(losses[0], smooth, *styles[training])
        loss_ends[validation] = draw_seeds(losses[1], loss, *styles[validation])
        tops += [smooth.max().max(), loss.max().max()]
        for ax, name, metric in zip(accuracies, (training, validation), ("train", "validation"), strict=True):
            accuracy_ends[name] = draw_seeds(ax, per_epoch(several, f"{metric}_accuracy"), *styles[name])
    # The axis ends at the highest smooth value, whatever single batches did; its row shares it.
    losses[0].set(ylabel="Loss", ylim=(0, 1.05 * max((top for top in tops if np.isfinite(top)), default=1.0)))
    accuracies[0].set_ylabel("Accuracy (%)")
    for ax in accuracies:
        ax.set_xlabel("Epoch")
    for ax in figure.axes:
        ax.set_xlim(0, None)
        _epoch_axis(ax)
    label_ends(losses[1], loss_ends, styles)
    label_ends(accuracies[1], accuracy_ends, styles)
    return figure


def steps_per_epoch(run: Run) -> int:
    """Return the optimizer's steps in one epoch: whole batches of the training images, and never less than one."""
    return max(1, int(run.confusion["train"].sum()) // run.experiment.batch_size)


@styled
def plot_progress(runs: Runs) -> Figure:
    """Return validation accuracy against what it cost in epochs, steps of the optimizer and seconds, an arm a colour.

    Lines are means over seeds, bands reach from the lowest seed to the highest; steps and seconds stand on
    logarithmic axes, seconds as the mean over seeds of the training time until then.
    """
    figure, styles, ends = new_figure(2.6), arm_styles(runs.arms), {}
    axes = figure.subplots(1, 3, sharey=True)
    for arm, several in runs.by_arm().items():
        frame, seconds = per_epoch(several, "validation_accuracy"), per_epoch(several, "seconds")
        # The mean epoch first, then the sum: so time goes on where some seeds stopped early.
        spent = seconds.mean(axis=1).cumsum().reindex(frame.index).to_numpy()
        for ax, cost in zip(axes, (frame.index, frame.index * steps_per_epoch(several[0]), spent), strict=True):
            ends.setdefault(arm, draw_seeds(ax, frame.set_axis(cost), *styles[arm]))
    for ax, label in zip(axes, ("Epoch", "Optimizer steps", "Training time (s)"), strict=True):
        ax.set_xlabel(label)
    axes[0].set(xlim=(0, None), ylabel="Validation accuracy (%)")
    _epoch_axis(axes[0])
    for ax in axes[1:]:
        log_axis(ax)
    label_ends(axes[0], ends, styles)  # over epochs most lines end at one place, and no leader crosses another
    return figure
