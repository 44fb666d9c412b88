"""What training costs: accuracy against epochs, optimizer steps and seconds, and when a level is first reached."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from helpers.curves import draw_seeds, label_ends, log_axis, per_epoch
from helpers.quantities import MISSING, metric_label, plus_minus
from helpers.run import Run
from helpers.study import Runs
from helpers.style import arm_styles, new_figure, styled

AGAINST = {"epochs": "Epoch", "steps": "Optimizer steps", "seconds": "Training time (s)"}


class Reached(NamedTuple):
    """The end of the first epoch that reached a level: its number, and steps and training seconds until then."""

    epoch: int
    steps: int
    seconds: float


def steps_per_epoch(run: Run) -> int:
    """Return the optimizer's steps in one epoch: whole batches of the training images, and never less than one."""
    # Every training image stands once in the confusion matrix, whichever part of the split was trained on.
    return max(1, int(run.confusion["train"].sum()) // run.experiment.batch_size)


@styled
def plot_progress(
    runs: Runs, metric: str = "validation_accuracy", against: Sequence[str] = ("epochs", "steps", "seconds")
) -> Figure:
    """Return a figure of every epoch against what it cost, a panel for each entry of ``against``, an arm a colour.

    Lines are means over seeds, bands reach from the lowest seed to the highest; steps and seconds stand on
    logarithmic axes, seconds as the mean over seeds of the training time until then.

    Raises:
        ValueError: ``against`` is empty or has an unknown entry, or no epoch has such a figure.
    """
    if unknown := [name for name in against if name not in AGAINST]:
        raise ValueError(f"against={unknown[0]!r} is unknown; choose among: {', '.join(AGAINST)}")
    if not against:
        raise ValueError(f"against is empty; choose among: {', '.join(AGAINST)}")
    by_arm = runs.by_arm()
    _check_history(runs, metric)
    figure = new_figure(2.6)
    axes = figure.subplots(1, len(against), sharey=True, squeeze=False)[0]
    styles = arm_styles(list(by_arm))
    ends: dict[str, tuple[float, float]] = {}
    for ax, name in zip(axes, against, strict=True):
        for arm, several in by_arm.items():
            frame = per_epoch(several, metric)
            if end := draw_seeds(ax, frame.set_axis(_cost(several, frame.index, name)), *styles[arm]):
                ends[arm] = end
        ax.set_xlabel(AGAINST[name])
        if name == "epochs":
            ax.set_xlim(0, None)
            ax.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6, steps=[1, 2, 5, 10]))
        else:
            log_axis(ax)
    axes[0].set_ylabel(metric_label(metric))
    label_ends(axes[-1], ends, {arm: colour for arm, (colour, _) in styles.items()})
    return figure


def _check_history(runs: Sequence[Run], metric: str) -> None:
    if metric not in (known := runs[0].history) or metric == "epoch":
        names = ", ".join(name for name in known if name != "epoch")
        raise ValueError(f"no epoch has a figure {metric!r}; there are: {names}")


def _cost(runs: Sequence[Run], epochs: pd.Index, name: str) -> np.ndarray:
    """Return what the ``epochs`` (E,) of one arm had cost when they ended, in the unit of ``name``."""
    if name == "seconds":
        # The mean epoch first, then the sum: so time goes on where some seeds stopped early.
        return per_epoch(runs, "seconds").mean(axis=1).cumsum().reindex(epochs).to_numpy()
    return epochs.to_numpy() * (steps_per_epoch(runs[0]) if name == "steps" else 1)


def first_reached(run: Run, accuracy: float, metric: str = "validation_accuracy") -> Reached | None:
    """Return when ``run`` first reached ``accuracy``, a fraction, at the end of an epoch; None if it never did.

    Raises:
        ValueError: ``accuracy`` is no fraction, or no epoch has such a figure.
    """
    if not 0 < accuracy <= 1:
        raise ValueError(f"accuracy={accuracy!r}: give a fraction above 0 and at most 1, such as 0.7 for 70 %")
    _check_history([run], metric)
    enough = np.flatnonzero(np.asarray(run.history[metric], dtype=float) >= accuracy)  # NaN is never enough
    if enough.size == 0:
        return None
    epoch = int(run.history["epoch"][enough[0]])
    return Reached(epoch, epoch * steps_per_epoch(run), float(np.sum(run.history["seconds"][: enough[0] + 1])))


def reached_table(runs: Runs, accuracy: float, metric: str = "validation_accuracy") -> pd.DataFrame:
    """Return when each arm first reached ``accuracy``, a fraction: how many seeds did, epochs, steps and seconds.

    Epochs, steps and seconds are mean ± half-width of the 95 % interval over the seeds that reached it.
    """
    rows: dict[str, Mapping[str, str]] = {}
    for arm, several in runs.by_arm().items():
        found = [reached for run in several if (reached := first_reached(run, accuracy, metric))]
        columns = {"epochs": ("epoch", 1), "steps": ("steps", 0), "seconds": ("seconds", 1)}
        cells = {
            name: plus_minus([getattr(reached, field) for reached in found], digits) if found else MISSING
            for name, (field, digits) in columns.items()
        }
        rows[arm] = {"seeds": f"{len(found)} of {len(several)}", **cells}
    return pd.DataFrame.from_dict(rows, orient="index")
