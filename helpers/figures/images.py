"""Figures that show images: grids with labels, right and wrong answers, samples per class, before and after.

Coordinates are inches from the top left corner, so every picture and every letter has its size in print. Images are
uint8 arrays or tensors of shape (N, 3, H, W). Answers carry a check mark or a cross, and a colour only besides.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from helpers.style import GREY, INK, RIGHT, WIDTH, WRONG, class_colours, new_figure, styled

GAP = 0.05
LINE = 0.135  # a line of 7.5 pt text, in inches
HEADING, FOOTING = 0.26, 0.24


def _canvas(height: float, width: float = WIDTH) -> Axes:
    """Return axes that fill a new figure, in inches, y downwards."""
    ax = new_figure(height, width, layout=None).add_axes((0, 0, 1, 1))
    ax.set(xlim=(0, width), ylim=(height, 0))
    ax.axis("off")
    return ax


def _numpy(images: Any) -> np.ndarray:
    """Return uint8 images (N, 3, H, W) as an array, wherever they were."""
    images = np.asarray(images.cpu() if hasattr(images, "cpu") else images)
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1] != 3:
        raise ValueError(f"images must be uint8 of shape (N, 3, H, W), got {images.dtype} {images.shape}")
    return images


def _grid(ax: Axes, images: np.ndarray, x: float, y: float, size: float, columns: int, text: float = 0.0) -> list:
    """Draw images row by row, ``size`` inches wide, ``text`` inches free above each; return their top left corners."""
    corners = []
    height = size * images.shape[2] / images.shape[3]
    for i, image in enumerate(images):
        row, column = divmod(i, columns)
        left, top = x + column * (size + GAP), y + text + row * (size + GAP + text)
        place = (left, left + size, top + height, top)
        ax.imshow(image.transpose(1, 2, 0), extent=place, interpolation="none", aspect="auto")
        corners.append((left, top))
    return corners


def _caption(ax: Axes, corner: tuple[float, float], size: float, text: str, line: int = 0, colour: str = INK) -> None:
    """Write ``text`` so many lines above an image."""
    ax.text(corner[0] + size / 2, corner[1] - 0.03 - line * LINE, text, ha="center", fontsize=7, color=colour)


def _answers(ax: Axes, corners: list, size: float, labels: Any, predictions: Any, classes: Sequence[str]) -> None:
    """Write above each image what it was taken for and, below that, what it is, if that is another class."""
    for corner, label, guess in zip(corners, np.asarray(labels), np.asarray(predictions), strict=True):
        if label == guess:
            _caption(ax, corner, size, f"✓ {classes[guess]}", colour=RIGHT)
        else:
            _caption(ax, corner, size, f"is {classes[label]}")
            _caption(ax, corner, size, f"✗ {classes[guess]}", 1, WRONG)


@styled
def image_grid(
    images: Any, titles: Any = None, *, labels: Any = None, predictions: Any = None, classes: Any = (), columns: int = 8
) -> Figure:
    """Return a grid of ``images``, each under its title, or under what it was taken for and what it is."""
    images, size = _numpy(images), (WIDTH - (columns - 1) * GAP) / columns
    text = 2 * LINE + 0.04 if predictions is not None else LINE + 0.03 if titles is not None else 0.0
    ax = _canvas(-(-len(images) // columns) * (size + text + GAP))
    corners = _grid(ax, images, 0, 0, size, columns, text)
    if predictions is not None:
        _answers(ax, corners, size, labels, predictions, classes)
    elif titles is not None:
        for corner, title in zip(corners, titles, strict=True):
            _caption(ax, corner, size, title)
    return ax.figure


@styled
def right_wrong_gallery(
    images: Any, labels: Any, predictions: Any, confidence: Any, classes: Sequence[str], count: int = 8, seed: int = 0
) -> Figure:
    """Return three rows of ``count`` images: right and wrong answers at random, and the surest wrong ones.

    Above each stands the answer and, where that is another, the true class; below, how sure the net was:
    ``confidence`` holds the probabilities (N,), 0..1, of the predicted classes. ``seed`` fixes the draw.
    """
    images, labels, predictions = _numpy(images), np.asarray(labels), np.asarray(predictions)
    confidence, rng = np.asarray(confidence), np.random.default_rng(seed)
    if not len(images) == len(labels) == len(predictions) == len(confidence):
        raise ValueError(f"{len(images)} images and {len(predictions)} predictions: are they of one data set?")
    right, wrong = np.flatnonzero(labels == predictions), np.flatnonzero(labels != predictions)
    surest = wrong[np.argsort(-confidence[wrong], kind="stable")][:count]
    rows = {
        f"Right, drawn at random from {len(right):,}": (rng.permutation(right)[:count], LINE),
        f"Wrong, drawn at random from {len(wrong):,}": (rng.permutation(wrong)[:count], 2 * LINE),
        "Wrong and most confident": (surest, 2 * LINE),
    }
    rows = {title: (chosen, text + 0.06) for title, (chosen, text) in rows.items() if len(chosen)}
    size = (WIDTH - (count - 1) * GAP) / count
    ax, y = _canvas(sum(HEADING + text + size + FOOTING for _, text in rows.values())), 0.0
    for title, (chosen, text) in rows.items():
        ax.text(0, y + 0.14, title, fontsize=8.5)
        corners = _grid(ax, images[chosen], 0, y + HEADING - 0.06, size, count, text)
        _answers(ax, corners, size, labels[chosen], predictions[chosen], classes)
        for (left, top), sure in zip(corners, confidence[chosen], strict=True):
            place = left + size / 2, top + size + LINE
            ax.text(*place, f"{100 * sure:.0f} % sure", ha="center", fontsize=7, color=GREY)
        y += HEADING + text + size + FOOTING
    return ax.figure


@styled
def class_grid(split: Any, classes: Sequence[str], per_class: int = 10, seed: int = 0) -> Figure:
    """Return a row of ``per_class`` images for each class, drawn at random but always the same."""
    images, labels = _numpy(split.images), np.asarray(split.labels.cpu())
    rng, left = np.random.default_rng(seed), 0.95
    size = min(0.42, (WIDTH - left - (per_class - 1) * GAP) / per_class)
    ax = _canvas(len(classes) * (size + GAP) - GAP, left + per_class * (size + GAP) - GAP)
    for row, (name, colour) in enumerate(class_colours(classes).items()):
        y = row * (size + GAP)
        chosen = rng.permutation(np.flatnonzero(labels == row))[:per_class]
        _grid(ax, images[chosen], left, y, size, per_class)
        ax.add_patch(Rectangle((0, y + size / 2 - 0.05), 0.1, 0.1, facecolor=colour, lw=0))
        ax.text(0.16, y + size / 2, name, va="center", fontsize=8)
    return ax.figure


@styled
def before_after(originals: Any, augmented: Mapping[str, Any]) -> Figure:
    """Return the original images in the first row and, below, what each augmentation made of them."""
    rows = {"original": _numpy(originals)} | {name: _numpy(images) for name, images in augmented.items()}
    columns, left = len(rows["original"]), 1.3
    size = (WIDTH - left - (columns - 1) * GAP) / columns
    ax, y = _canvas(len(rows) * (size + GAP) + GAP), 0.0
    for name, images in rows.items():
        _grid(ax, images, left, y, size, columns)
        ax.text(0, y + size / 2, name, va="center", fontsize=8)
        y += size + GAP * (3 if name == "original" else 1)
    return ax.figure
