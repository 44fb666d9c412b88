"""Latents in the plane: as a figure, and as a page on which a reader hovers a point and sees its image."""

import base64
import html
import json
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from string import Template

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from PIL import Image
from scipy.signal import convolve2d

from helpers.latent.store import quantised
from helpers.style import WIDTH, class_colours, new_figure, styled

CELLS, NAMES_APART = 24, 0.075  # a side, to find the densest place of a class; the least distance of two names


def name_places(Y: np.ndarray, labels: np.ndarray, classes: int) -> np.ndarray:
    """Return where the name of each class belongs, (classes, 2): at its densest place, apart; NaN without points."""
    # The mean of a class would often lie between its islands, or in another class.
    low, size = Y.min(0), np.ptp(Y, axis=0).max() or 1.0
    places = np.full((classes, 2), np.nan)
    for c in range(classes):
        own = Y[labels == c]
        if not len(own):
            continue
        cells = np.minimum(((own - low) / size * CELLS).astype(int), CELLS - 1)
        counts = np.zeros((CELLS, CELLS))
        np.add.at(counts, tuple(cells.T), 1)
        best = np.unravel_index(convolve2d(counts, np.ones((3, 3)), "same").argmax(), counts.shape)
        places[c] = own[(np.abs(cells - best) <= 1).all(axis=1)].mean(0)
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
        halo = [withStroke(linewidth=2.2, foreground="white")]
        style = {"ha": "center", "va": "center", "fontsize": 7, "weight": "bold", "path_effects": halo}
        for place, name, colour in zip(name_places(Y, labels, len(classes)), classes, colours, strict=True):
            if np.isfinite(place).all():
                ax.annotate(name, place, color=colour, **style)
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
    drawing.set_dpi(300)  # points are drawn as pixels in print, too: 45,000 shapes would make a page of megabytes
    scatter(drawing.subplots(), Y, labels, classes, size=max(0.5, min(6.0, 20_000 / len(Y))))
    return drawing


JPEG_QUALITY, LARGEST_SIDE = 75, 16_384  # browsers refuse larger pictures; these are 260,000 images of 32 x 32


def explorer_page(
    stages: Mapping[str, np.ndarray],
    labels: np.ndarray,
    classes: Sequence[str],
    *,
    predictions: np.ndarray,
    images: np.ndarray | None = None,
    title: str = "Latent space",
) -> str:
    """Return the page as HTML, one file without network: 5 bytes a point and stage, and 1 kB an image.

    ``stages``: coordinates (N, 2) by name; labels and predictions: class numbers (N,); ``images``: uint8 (N, 3, H, H).
    """
    given = {"predictions": predictions, "images": labels if images is None else images, **stages}
    if wrong := {what: len(array) for what, array in given.items() if len(array) != len(labels)}:
        raise ValueError(f"{len(labels)} labels do not go together with {wrong}")
    data = {
        "points": len(labels),
        "classes": list(classes),
        "colours": list(class_colours(classes).values()),
        "labels": _base64(labels.astype(np.uint8)),
        "predictions": _base64(predictions.astype(np.uint8)),
        "stages": [
            {"name": name, "steps": _base64(steps.astype("<u2")), "offset": offset.tolist(), "scale": scale.tolist()}
            for name, (steps, offset, scale) in zip(stages, map(quantised, stages.values()), strict=True)
        ],
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
        description=html.escape(f"{len(labels):,} images of {len(classes)} classes as points in the plane"),
        sprite=sprite,
        # A class may be called anything, even "</script>".
        data=json.dumps(data).replace("<", "\\u003c"),
    )


def _sprite(images: np.ndarray) -> tuple[bytes, int]:
    """Return all ``images`` as tiles of one JPEG, row by row, and how many stand in a row."""
    n, _, _, size = images.shape
    columns = int(np.ceil(np.sqrt(n)))
    rows = -(-n // columns)
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
