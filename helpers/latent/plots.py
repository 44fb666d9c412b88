"""Latents in the plane: as a figure, and as a page on which a reader hovers a point and sees its image.

The page is one file without network: its own security policy refuses every address. It holds the points of one stage or
several, which may be stepped through with the arrow keys; zoom with the wheel, drag to move, double-click to see all.
"""

import base64
import html
import json
import math
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from string import Template

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from PIL import Image

from helpers.latent.store import quantised
from helpers.style import WIDTH, class_colours, new_figure, styled

# Points are drawn as pixels in print, too: as shapes, 45,000 of them would make a page of megabytes.
DPI = 300
# Cells a side, in which the densest place of a class is looked for, and the least distance of two names.
CELLS, NAMES_APART = 24, 0.075


def name_places(Y: np.ndarray, labels: np.ndarray, classes: int) -> np.ndarray:
    """Return where the name of each class belongs, (classes, 2): at its densest place, names kept apart.

    A class without points gets NaN. The mean of a class would often lie between its islands, or in another class.
    """
    low, size = Y.min(0), np.ptp(Y, axis=0).max() or 1.0
    places = np.full((classes, 2), np.nan)
    for c in range(classes):
        own = Y[labels == c]
        if not len(own):
            continue
        cells = np.minimum(((own - low) / size * CELLS).astype(int), CELLS - 1)
        counts = np.zeros((CELLS + 2, CELLS + 2))
        np.add.at(counts, tuple(cells.T + 1), 1)
        around = sum(counts[1 + i : CELLS + 1 + i, 1 + j : CELLS + 1 + j] for i in (-1, 0, 1) for j in (-1, 0, 1))
        best = np.unravel_index(around.argmax(), around.shape)
        near = own[(np.abs(cells - best) <= 1).all(axis=1)]
        places[c] = near.mean(0)
    for _ in range(200):  # names that cover each other move apart, up and down
        gaps = places[:, None] - places[None]  # (K, K, 2)
        covered = (np.abs(gaps[..., 0]) < 3 * NAMES_APART * size) & (np.abs(gaps[..., 1]) < NAMES_APART * size)
        np.fill_diagonal(covered, False)
        if not covered.any():
            break
        # Two at the same height part by their number.
        side = np.where(gaps[..., 1] == 0, np.sign(np.subtract.outer(range(classes), range(classes))), gaps[..., 1])
        places[:, 1] += 0.2 * NAMES_APART * size * np.sign(np.where(covered, side, 0).sum(axis=1))
    return places


def scatter(
    ax: Axes, Y: np.ndarray, labels: np.ndarray, classes: Sequence[str], *, names: bool = True, size: float = 0.5
) -> None:
    """Draw points ``Y`` (N, 2) in the colours of their classes into ``ax``, with the names of the classes in place."""
    colours = np.array(list(class_colours(classes).values()))
    order = np.random.default_rng(0).permutation(len(Y))  # no class lies on top of the others
    ax.scatter(*Y[order].T, s=size, c=colours[labels[order]], alpha=0.6, lw=0, rasterized=True)
    if names:
        for place, name, colour in zip(name_places(Y, labels, len(classes)), classes, colours, strict=True):
            if np.isfinite(place).all():
                halo = [withStroke(linewidth=2.2, foreground="white")]
                ax.annotate(
                    name, place, ha="center", va="center", fontsize=7, color=colour, weight="bold", path_effects=halo
                )
    low, high = Y.min(0), Y.max(0)
    half, middle = 0.52 * (high - low).max(), (low + high) / 2
    ax.set(xlim=(middle[0] - half, middle[0] + half), ylim=(middle[1] - half, middle[1] + half))
    ax.set(xticks=[], yticks=[], aspect="equal")
    ax.grid(False)
    ax.spines[:].set_visible(False)


@styled
def plot_latents(Y: np.ndarray, labels: np.ndarray, classes: Sequence[str], *, height: float = 5.4) -> Figure:
    """Return one large picture of points ``Y`` (N, 2) of classes ``labels`` (N,)."""
    drawing = new_figure(height, WIDTH)
    drawing.set_dpi(DPI)
    scatter(drawing.subplots(), Y, labels, classes, size=max(0.5, min(6.0, 20_000 / len(Y))))
    return drawing


JPEG_QUALITY = 75
# Browsers refuse larger pictures; so many 32 x 32 images are 260,000.
LARGEST_SIDE = 16_384


def explorer_page(
    stages: Mapping[str, np.ndarray],
    labels: np.ndarray,
    classes: Sequence[str],
    *,
    predictions: np.ndarray,
    images: np.ndarray | None = None,
    title: str = "Latent space",
) -> str:
    """Return the page as HTML: 5 bytes a point and stage, and 1 kB an image.

    ``stages``: coordinates (N, 2) by the stage's name, of the same images in the same order; ``labels`` and
    ``predictions``: class numbers (N,); ``images``: uint8 (N, 3, H, H) or None, then the page has no pictures.

    Raises:
        ValueError: arrays of different lengths, or more images than fit into one picture.
    """
    n = len(labels)
    lengths = {"predictions": len(predictions), **{name: len(Y) for name, Y in stages.items()}}
    lengths |= {} if images is None else {"images": len(images)}
    if wrong := {what: length for what, length in lengths.items() if length != n}:
        raise ValueError(f"{n} labels do not go together with {wrong}")
    data = {
        "points": n,
        "classes": list(classes),
        "colours": list(class_colours(classes).values()),
        "labels": _base64(labels.astype(np.uint8)),
        "predictions": _base64(predictions.astype(np.uint8)),
        "stages": [_stage(name, Y) for name, Y in stages.items()],
    }
    sprite = ""
    if images is not None:
        jpeg, columns = _sprite(images)
        data["sprite"] = {"size": images.shape[-1], "columns": columns}
        sprite = f'<img id="sprite" hidden alt="" src="data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}">'
    template = Path(__file__).with_name("explorer.html").read_text(encoding="utf-8")
    return Template(template).substitute(
        title=html.escape(title),
        hint="Point at an image's place to see what it is. Wheel: zoom. Drag: move. Double-click: all."
        + (" Arrow keys: stages." if len(stages) > 1 else ""),
        description=html.escape(f"{n:,} images of {len(classes)} classes as points in the plane"),
        sprite=sprite,
        # A class may be called anything, even "</script>".
        data=json.dumps(data).replace("<", "\\u003c"),
    )


def _stage(name: str, Y: np.ndarray) -> dict:
    steps, offset, scale = quantised(Y)
    return {"name": name, "steps": _base64(steps.astype("<u2")), "offset": offset.tolist(), "scale": scale.tolist()}


def _sprite(images: np.ndarray) -> tuple[bytes, int]:
    """Return all ``images`` as tiles of one JPEG, row by row, and how many stand in a row."""
    n, _, _, size = images.shape
    columns = math.ceil(math.sqrt(n))
    rows = math.ceil(n / columns)
    if columns * size > LARGEST_SIDE:
        raise ValueError(f"{n:,} images of {size} x {size} do not fit into one picture; give fewer, or none")
    tiles = np.full((rows * columns, size, size, 3), 255, np.uint8)
    tiles[:n] = images.transpose(0, 2, 3, 1)
    sheet = tiles.reshape(rows, columns, size, size, 3).transpose(0, 2, 1, 3, 4).reshape(rows * size, columns * size, 3)
    buffer = BytesIO()
    Image.fromarray(sheet).save(buffer, "JPEG", quality=JPEG_QUALITY)
    return buffer.getvalue(), columns


def _base64(array: np.ndarray) -> str:
    return base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()
