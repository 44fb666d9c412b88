"""A verdict at a glance: every comparison of a family, its effect and its interval, in one figure."""

from collections import Counter
from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from helpers.evidence import Verdict
from helpers.quantities import metric_label
from helpers.style import GREY, INK, PALE, RIGHT, WRONG, new_figure, styled


@styled
def plot_forest(
    found: Verdict, *, published: Mapping[str, float] | None = None, limits: tuple[float, float] | None = None
) -> Figure:
    """Return a row for each comparison of a verdict: a dot for the difference of means, a line for its interval.

    Full dots are separable from zero, hollow ones are not. Where most rows are compared with one arm, these carry the
    other's name alone. ``published`` holds a published difference by the name of arm a, on the axis' scale, each a
    diamond. ``limits`` cuts the axis where a few rows would squeeze all others; what is cut carries an arrowhead.
    """
    scale, unit = found.scale_and_unit
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
            note = f"{scale * d.mean:+.1f} [{scale * d.low:.1f}, {scale * d.high:.1f}]"
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
    figure.legend(loc="outside upper left", ncols=3, handletextpad=0.4, columnspacing=1.5, handlelength=1.8)
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
