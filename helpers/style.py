"""The one look of every figure: colours for colour-blind eyes, print sizes, files without dates."""

from collections.abc import Callable, Sequence
from functools import wraps
from io import BytesIO
from typing import Any

import matplotlib
import seaborn
from matplotlib.figure import Figure

# The width of a line in the report, in inches: figures are included at their natural size, so 8 pt stay 8 pt.
WIDTH = 6.3
PNG_DPI = 150

_PALETTE = [str(colour) for colour in seaborn.color_palette("colorblind", 10).as_hex()]
# Neighbours in this order stay apart for every kind of colour blindness, and the pale ones come last.
_ARM_ORDER = (0, 1, 2, 4, 3, 9, 5, 7)
INK, GREY, PALE = "#222222", "#767676", "#D9D9D9"
RIGHT, WRONG = _PALETTE[2], _PALETTE[3]

RC: dict[str, Any] = {
    "font.family": "DejaVu Sans",  # comes with matplotlib: the same letters on every machine
    "font.size": 8,
    "axes.titlesize": 8.5,
    "axes.titlelocation": "left",
    "axes.labelsize": 8,
    "axes.labelcolor": INK,
    "axes.edgecolor": GREY,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#E6E6E6",
    "grid.linewidth": 0.5,
    "text.color": INK,
    "lines.linewidth": 1.2,
    "legend.frameon": False,
    "pdf.fonttype": 42,
    "svg.hashsalt": "course",
    "figure.facecolor": "white",
    "figure.dpi": 100,
    "savefig.facecolor": "white",
    "savefig.bbox": None,
}
for tick in ("xtick", "ytick"):
    RC |= {f"{tick}.labelsize": 8, f"{tick}.color": GREY, f"{tick}.labelcolor": INK, f"{tick}.major.size": 2.5}


class CourseFigure(Figure):
    """A matplotlib figure of the course that a notebook shows by itself, with no pyplot and no back end."""

    def _repr_png_(self) -> bytes:
        return png(self)


def new_figure(height: float, width: float = WIDTH, *, layout: str | None = "constrained") -> Figure:
    """Return an empty figure of ``width`` x ``height`` inches."""
    return CourseFigure(figsize=(width, height), layout=layout)


def styled(draw: Callable[..., Figure]) -> Callable[..., Figure]:
    """Return ``draw`` run under the course's style, which leaves matplotlib's own settings as they were."""

    @wraps(draw)
    def wrapper(*args: Any, **kwargs: Any) -> Figure:
        with matplotlib.rc_context(RC):
            return draw(*args, **kwargs)

    return wrapper


def class_colours(classes: Sequence[str]) -> dict[str, str]:
    """Return a colour for each class, by position: a class keeps its colour in every figure of the course."""
    many = len(classes) > len(_PALETTE)
    return dict(zip(classes, seaborn.color_palette("husl", len(classes)).as_hex() if many else _PALETTE, strict=False))


def arm_styles(arms: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Return (colour, line style) for each arm, in order; the style changes when the colours begin again."""
    n = len(_ARM_ORDER)
    return {arm: (_PALETTE[_ARM_ORDER[i % n]], ("-", "--", ":")[i // n % 3]) for i, arm in enumerate(arms)}


def png(figure: Figure) -> bytes:
    """Return the figure as PNG, the same bytes each time: no software name, no date."""
    return _saved(figure, format="png", dpi=PNG_DPI, metadata={"Software": None})


def pdf(figure: Figure) -> bytes:
    """Return the figure as PDF, the same bytes each time: no software name, no date."""
    return _saved(figure, format="pdf", metadata={"CreationDate": None, "Creator": None, "Producer": None})


def _saved(figure: Figure, **options: Any) -> bytes:
    buffer = BytesIO()
    with matplotlib.rc_context(RC):
        if figure.axes and figure.get_layout_engine() is not None:
            # Each drawing would shift the axes by a hair, and PNG and PDF would differ: lay out once, then keep.
            figure.get_layout_engine().execute(figure)
            figure.set_layout_engine("none")
        figure.savefig(buffer, **options)
    return buffer.getvalue()
