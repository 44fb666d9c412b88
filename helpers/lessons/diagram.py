"""A drawing of a network, made from the network itself: a box a layer, as high as its maps, as wide as its channels."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import log2

from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import nn

from helpers.models import layer_table
from helpers.style import GREY, INK, PALE, WIDTH, arm_styles, new_figure, styled

COLOURS = {"Conv2d": "convolution", "Whitening": "convolution", "Linear": "linear"}


@dataclass
class Box:
    """A layer that changes the shape or has weights, and the names of those after it that do neither."""

    name: str
    kind: str
    shape: list[int]
    parameters: int
    followers: list[str] = field(default_factory=list)


def boxes(model: nn.Module, input_shape: Sequence[int] = (3, 32, 32)) -> list[Box]:
    """Return the boxes of a network, the picture first, in order of execution.

    Activations, dropout and batch norms, which keep the shape, belong to the layer before them, with their weights. The
    branches of a residual block stand in a row.
    """
    found = [Box("picture", "picture", list(input_shape), 0)]
    for row in layer_table(model, input_shape):
        own = row["type"] in COLOURS or row["output_shape"] != found[-1].shape
        if own:
            kind = COLOURS.get(row["type"], "other")
            found.append(Box(row["layer"], kind, row["output_shape"], row["parameters"]))
        else:
            found[-1].parameters += row["parameters"]
            found[-1].followers.append(row["type"])
    return found


NAMES = {"BatchNorm2d": "batch norm", "BatchNorm1d": "batch norm", "ReLU": "ReLU", "LeakyReLU": "leaky ReLU"}
# Boxes, in inches: the picture is so high; a layer is so wide, and a little more with every doubling of its channels.
HIGHEST, NARROWEST, DOUBLING, GAP = 1.1, 0.14, 0.033, 0.16


@styled
def draw_network(model: nn.Module, input_shape: Sequence[int] = (3, 32, 32)) -> Figure:
    """Return the diagram of ``model``, from left to right; names, shapes and parameters are the layers' own.

    Heights follow the logarithm of the side of the maps, widths that of the number of channels.
    """
    found = boxes(model, input_shape)
    styles = arm_styles(["convolution", "linear"])
    widths = [NARROWEST + DOUBLING * log2(1 + box.shape[0]) for box in found]
    stretch = WIDTH / (sum(widths) + GAP * (len(found) + 1))  # the drawing fills the page, whatever the depth
    figure = new_figure(3.6, layout=None)
    ax = figure.add_axes((0, 0, 1, 1))
    ax.set(xlim=(0, WIDTH), ylim=(-2.05, 1.55))
    ax.axis("off")
    left = GAP * stretch
    ax.plot([left, WIDTH - left], [0, 0], color=GREY, lw=0.6, zorder=0)
    for box, width in zip(found, (stretch * w for w in widths), strict=True):
        height = HIGHEST * (log2(1 + box.shape[-1]) / log2(1 + input_shape[-1]) if len(box.shape) == 3 else 0.1)
        colour = styles[box.kind][0] if box.kind in styles else PALE
        ax.add_patch(Rectangle((left, -height / 2), width, height, facecolor=colour, edgecolor=INK, lw=0.5))
        middle, text = left + width / 2, {"ha": "center", "fontsize": 6.5, "rotation": 90}
        ax.text(middle, height / 2 + 0.06, "×".join(map(str, box.shape)), va="bottom", **text)
        count = f"  {box.parameters:,}" if box.parameters else ""
        names = ", ".join(dict.fromkeys(NAMES.get(name, name.lower()) for name in box.followers))
        ax.text(middle, -0.62, box.name + count + (f"\n{names}" if names else ""), va="top", ma="right", **text)
        left += width + GAP * stretch
    for place, (kind, (colour, _)) in enumerate([*styles.items(), ("no weights", (PALE, ""))]):
        ax.text(0.1 + 1.1 * place, 1.45, f"■ {kind}", color=colour if colour != PALE else GREY, va="center")
    return figure
