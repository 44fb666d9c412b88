"""What each of several changes is worth: alone on a base, and left out of all of them together."""

from dataclasses import replace

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from helpers.record import Difference, Runs, Verdict, arm_mean_and_half, scale_and_digits, verdict
from helpers.style import GREY, INK, PALE, RIGHT, WRONG, new_figure, styled

METRIC = "validation_accuracy"
BASE, ALL, WITHOUT, OTHERS = "base", "all", "without ", "the others alone"


def added_alone(added: Runs, metric: str = METRIC) -> Verdict:
    """Return what each idea alone, and what "all" of them together, gain over "base": one family."""
    return verdict(added, metric, BASE)


def left_out(runs: Runs, metric: str = METRIC) -> Verdict:
    """Return what each idea adds to all the others: what "all" has above the arm "without …", one family.

    Raises:
        ValueError: an arm's name does not begin with "without ".
    """
    if other := [arm for arm in runs.arms if arm != ALL and not arm.startswith(WITHOUT)]:
        raise ValueError(f"arm {other[0]!r} does not say what is left out: call it {WITHOUT + other[0]!r}")
    found = verdict(runs, metric, ALL)  # each arm against all: the loss with its sign turned
    turned = [Difference(d.a.removeprefix(WITHOUT), OTHERS, -d.mean, -d.high, -d.low) for d in found.differences]
    collapsed = {arm.removeprefix(WITHOUT): lost for arm, lost in found.collapsed.items()}
    return replace(found, differences=tuple(turned), collapsed=collapsed)


def ablation_table(added: Runs, without: Runs, metric: str = METRIC) -> pd.DataFrame:
    """Return, per idea, gain alone and loss when left out in points with simultaneous intervals, and what that says."""
    alone, missed = added_alone(added, metric), left_out(without, metric)
    scale, digits = scale_and_digits(metric)

    def cell(d: Difference) -> str:
        return f"{scale * d.mean:+.{digits}f} [{scale * d.low:+.{digits}f}, {scale * d.high:+.{digits}f}]"

    rows = {
        idea: {
            "alone": cell(alone[idea]),
            "among all": cell(missed[idea]),
            "verdict": judged(alone[idea], missed[idea]),
        }
        for idea in _ideas(added)
    }
    return pd.DataFrame.from_dict(rows, orient="index")


def _ideas(added: Runs) -> list[str]:
    return [arm for arm in added.arms if arm not in (BASE, ALL)]


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
    what all of them reach together, whose line is the interval of that mean. Right: what each idea adds to all the
    others. The other lines are intervals that hold together for a panel; what is not separable from nothing is pale,
    or hollow.
    """
    scale, _ = scale_and_digits(metric)
    alone, missed = added_alone(added, metric), left_out(without, metric)
    ideas, by_arm = _ideas(added), added.by_arm()
    figure = new_figure(0.9 + 0.24 * (len(ideas) + 3))
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=(1.25, 1))
    base, _ = arm_mean_and_half(by_arm[BASE], metric)
    left.plot([base], [0], "o", color=INK, ms=4)
    total = base
    for row, d in enumerate((alone[idea] for idea in ideas), start=1):
        end, colour = total + scale * d.mean, RIGHT if d.mean > 0 else WRONG
        left.barh(row, end - total, left=total, color=colour, height=0.55, alpha=0.75 if d.separable else 0.25)
        left.plot([total] * 2, [row - 1, row], color=GREY, lw=0.6)
        left.plot([total + scale * d.low, total + scale * d.high], [row] * 2, color=INK, lw=0.8)
        total = end
    last = len(ideas) + 1
    left.plot([total] * 2, [last - 1, last], color=GREY, lw=0.6)
    left.plot([total], [last], "o", color=INK, mfc="white", ms=4)
    mean, half = arm_mean_and_half(by_arm[ALL], metric)
    left.plot([mean - half, mean + half], [last + 1] * 2, color=GREY, lw=2.5, alpha=0.6)
    left.plot([mean], [last + 1], "o", color=INK, ms=4)
    for row, d in enumerate((missed[idea] for idea in ideas), start=1):
        colour = (RIGHT if d.mean > 0 else WRONG) if d.separable else GREY
        right.plot([scale * d.low, scale * d.high], [row] * 2, color=colour, lw=1.2)
        right.plot([scale * d.mean], [row], "o", color=colour, mfc=colour if d.separable else "white", ms=4)
    right.axvline(0, color=INK, lw=0.8)
    names = [BASE, *ideas, "sum of the gains", "all together"]
    left.set_yticks(range(len(names)), names)
    left.set(
        xlabel="Validation accuracy (%)", title="Each alone, one on top of the other", ylim=(len(names) - 0.4, -0.6)
    )
    right.set(xlabel="Points that it adds to the others", title="Each among all")
    for ax in (left, right):
        ax.grid(axis="y", color=PALE, lw=0.4)
        ax.tick_params(axis="y", length=0)
    return figure
