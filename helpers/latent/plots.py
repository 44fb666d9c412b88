"""Figures of latents in the plane: one picture, stages beside each other, a film strip, and thumbnails in place."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from helpers.style import GREY, WIDTH, class_colours, new_figure, styled

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


@styled
def plot_stages(
    stages: Mapping[str, Sequence[np.ndarray]], columns: Sequence[str], labels: np.ndarray, classes: Sequence[str]
) -> Figure:
    """Return a grid of pictures: a row for each name in ``stages``, a column for each stage.

    Raises:
        ValueError: a row does not have as many pictures as there are columns.
    """
    if wrong := [name for name, row in stages.items() if len(row) != len(columns)]:
        raise ValueError(f"row {wrong[0]!r} has {len(stages[wrong[0]])} pictures for {len(columns)} columns")
    side = WIDTH / len(columns)
    drawing = new_figure((side + 0.12) * len(stages))
    drawing.set_dpi(DPI)
    axes = drawing.subplots(len(stages), len(columns), squeeze=False)
    for row, (name, pictures) in zip(axes, stages.items(), strict=True):
        for ax, Y, column in zip(row, pictures, columns, strict=True):
            scatter(ax, Y, labels, classes, size=0.35)
            ax.set_title(column)
        row[0].set_ylabel(name)
    return drawing


@styled
def plot_film(
    frames: Sequence[np.ndarray], titles: Sequence[str], labels: np.ndarray, classes: Sequence[str], columns: int = 6
) -> Figure:
    """Return a film strip: small pictures of the same points one after the other, names only in the last."""
    rows = -(-len(frames) // columns)
    side = WIDTH / columns
    drawing = new_figure(rows * (side + 0.16))
    drawing.set_dpi(DPI)
    axes = drawing.subplots(rows, columns, squeeze=False).ravel()
    for ax, Y, title in zip(axes, frames, titles, strict=False):
        scatter(ax, Y, labels, classes, names=False, size=0.5)
        ax.set_title(title, fontsize=7, color=GREY)
    for ax in axes[len(frames) :]:
        ax.axis("off")
    empty = axes[len(frames) :][-2:]  # they hold the key to the colours
    for i, (name, colour) in enumerate(class_colours(classes).items() if len(empty) else ()):
        column, row = divmod(i, -(-len(classes) // len(empty)))
        step = 0.95 / -(-len(classes) // len(empty))
        empty[column].text(0.05, 0.95 - step * row, name, color=colour, fontsize=7, weight="bold", va="top")
    return drawing


@styled
def plot_thumbnails(Y: np.ndarray, images: np.ndarray, *, across: int = 34, height: float = 5.6) -> Figure:
    """Return the plane tiled with images: in each occupied cell of a grid, the image nearest to its middle.

    ``images`` are uint8 (N, 3, H, W), in the order of ``Y`` (N, 2); ``across`` is the number of cells a side.
    """
    drawing = new_figure(height, WIDTH)
    drawing.set_dpi(DPI)
    ax = drawing.subplots()
    low, cell = Y.min(0), (np.ptp(Y, axis=0).max() or 1.0) / across
    place = np.minimum(((Y - low) / cell).astype(int), across - 1)
    distance = np.linalg.norm((Y - low) / cell - place - 0.5, axis=1)
    canvas = np.full((across, across, *images.shape[2:], 3), 255, np.uint8)
    for i in np.argsort(-distance):  # the nearest comes last and stays
        x, y = place[i]
        canvas[across - 1 - y, x] = images[i].transpose(1, 2, 0)
    sheet = canvas.transpose(0, 2, 1, 3, 4).reshape(across * images.shape[2], across * images.shape[3], 3)
    ax.imshow(sheet, interpolation="none")
    ax.axis("off")
    return drawing
