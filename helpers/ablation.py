"""What each of several changes is worth: alone on a base, and left out of all of them together."""

from dataclasses import replace

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from helpers.evidence import Difference, Verdict, compare, interval
from helpers.quantities import scale_and_digits
from helpers.study import Runs
from helpers.style import GREY, INK, PALE, RIGHT, WRONG, new_figure, styled

METRIC = "validation_accuracy"
WITHOUT = "without "


def added_alone(added: Runs, metric: str = METRIC, base: str = "base", everything: str = "all") -> Verdict:
    """Return what each arm of ``added`` but ``everything`` gains over ``base``."""
    return compare(added.only(*(arm for arm in added.arms if arm != everything)), metric, base)


def left_out(runs: Runs, metric: str = METRIC, everything: str = "all") -> Verdict:
    """Return what ``everything`` has above each arm "without …" of ``runs``, in the order of the arms.

    Raises:
        ValueError: an arm's name does not begin with "without ".
    """
    arms = [arm for arm in runs.arms if arm != everything]
    if other := [arm for arm in arms if not arm.startswith(WITHOUT)]:
        raise ValueError(f"arm {other[0]!r} does not say what is left out: call it {WITHOUT + other[0]!r}")
    found = compare(runs, metric, everything)  # each arm against all: the loss with its sign turned
    turned = tuple(Difference(everything, d.a, -d.mean, -d.high, -d.low) for d in found.differences)
    return replace(found, differences=turned)


def ablation_table(added: Runs, without: Runs, metric: str = METRIC) -> pd.DataFrame:
    """Return, per idea, gain alone and loss when left out in points with simultaneous intervals, and what that says."""
    alone = {d.a: d for d in added_alone(added, metric).differences}
    missed = {d.b.removeprefix(WITHOUT): d for d in left_out(without, metric).differences}
    scale, digits = scale_and_digits(metric)

    def cell(d: Difference) -> str:
        return f"{scale * d.mean:+.{digits}f} [{scale * d.low:+.{digits}f}, {scale * d.high:+.{digits}f}]"

    rows = {
        idea: {
            "alone": cell(alone[idea]),
            "among all": cell(missed[idea]),
            "verdict": judged(alone[idea], missed[idea]),
        }
        for idea in alone
    }
    return pd.DataFrame.from_dict(rows, orient="index")


def judged(alone: Difference, among: Difference) -> str:
    """Return in words what an idea's gains ``alone`` and ``among`` all say; one that is not separable is silent."""
    signs = {np.sign(d.mean) for d in (alone, among) if d.separable}
    if not signs:
        return "not separable"
    if len(signs) == 2:
        return "depends on the others"
    where = "both ways" if alone.separable and among.separable else "alone" if alone.separable else "among all"
    return f"{'helps' if signs == {1.0} else 'hurts'} {where}"


@styled
def plot_waterfall(added: Runs, without: Runs, metric: str = METRIC) -> Figure:
    """Return two panels over the same ideas, in percent and points.

    Left, the waterfall: from the base, each idea's mean gain alone, one on top of the other, down to their sum and to
    what all of them reach together. Right: what is lost where an idea is left out. Lines are intervals that hold
    together for all differences of a panel.
    """
    scale, _ = scale_and_digits(metric)
    alone, missed = added_alone(added, metric), left_out(without, metric)
    ideas, values = [d.a for d in alone.differences], scale * added.values(metric)
    figure = new_figure(0.9 + 0.24 * (len(ideas) + 3))
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=(1.25, 1))
    base, total = values["base"].mean(), values["base"].mean()
    left.plot([base], [0], "o", color=INK, ms=4)
    for row, d in enumerate(alone.differences, start=1):
        end = total + scale * d.mean
        left.barh(row, end - total, left=total, color=RIGHT if d.mean > 0 else WRONG, height=0.55, alpha=0.75)
        left.plot([total] * 2, [row - 1, row], color=GREY, lw=0.6)
        left.plot([total + scale * d.low, total + scale * d.high], [row] * 2, color=INK, lw=0.8)
        total = end
    last = len(ideas) + 1
    left.plot([total] * 2, [last - 1, last], color=GREY, lw=0.6)
    left.plot([total], [last], "o", color=INK, mfc="white", ms=4)
    mean, low, high = interval(values["all"])
    left.plot([low, high], [last + 1] * 2, color=GREY, lw=2.5, alpha=0.6)
    left.plot([mean], [last + 1], "o", color=INK, ms=4)
    for row, d in enumerate(missed.differences, start=1):
        right.plot([scale * d.mean], [row], "o", color=RIGHT if d.mean > 0 else WRONG, ms=4)
        right.plot([scale * d.low, scale * d.high], [row] * 2, color=INK, lw=0.8)
    right.axvline(0, color=INK, lw=0.8)
    names = ["base", *(idea.replace("_", " ") for idea in ideas), "sum of the gains", "all together"]
    left.set_yticks(range(len(names)), names)
    left.set(
        xlabel="Validation accuracy (%)", title="Each alone, one on top of the other", ylim=(len(names) - 0.4, -0.6)
    )
    right.set(xlabel="Points lost where it is left out", title="Each left out of all")
    for ax in (left, right):
        ax.grid(axis="y", color=PALE, lw=0.4)
        ax.tick_params(axis="y", length=0)
    return figure
