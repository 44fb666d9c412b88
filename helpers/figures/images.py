"""Figures that show images: grids with labels, right and wrong answers, samples per class, before and after.

Coordinates are inches from the top left corner, so every picture and every letter has its size in print.
Images are uint8 arrays or tensors of shape (N, 3, H, W). A right answer is marked by a check mark, a wrong
one by a cross, and by colour only besides.
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


def _show(ax: Axes, image: Any, x: float, y: float, size: float) -> None:
    """Draw one image (3, H, W), ``size`` inches wide, its top left corner at (x, y), pixels as squares."""
    pixels = np.asarray(image).transpose(1, 2, 0)
    height = size * pixels.shape[0] / pixels.shape[1]
    limits = ax.get_xlim(), ax.get_ylim()
    ax.imshow(pixels, extent=(x, x + size, y + height, y), interpolation="none", aspect="auto")
    ax.set(xlim=limits[0], ylim=limits[1])


def _numpy(images: Any) -> np.ndarray:
    """Return uint8 images (N, 3, H, W) as an array, wherever they were."""
    images = np.asarray(images.cpu() if hasattr(images, "cpu") else images)
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1] != 3:
        raise ValueError(f"images must be uint8 of shape (N, 3, H, W), got {images.dtype} {images.shape}")
    return images


def _grid(ax: Axes, images: np.ndarray, x: float, y: float, size: float, columns: int, text: float = 0.0) -> list:
    """Draw images row by row from (x, y), with ``text`` inches kept free above each; return their corners."""
    corners = []
    for i, image in enumerate(images):
        row, column = divmod(i, columns)
        corner = x + column * (size + GAP), y + text + row * (size + GAP + text)
        _show(ax, image, *corner, size)
        corners.append(corner)
    return corners


def _caption(ax: Axes, corner: tuple[float, float], size: float, lines: Sequence[str], colour: str) -> None:
    """Write up to two lines above an image: the first in ``colour``, the second in ink."""
    for i, line in enumerate(reversed(lines)):
        first = i == len(lines) - 1
        ax.text(
            corner[0] + size / 2, corner[1] - 0.03 - i * LINE, line, ha="center", fontsize=7,
            color=colour if first else INK,
        )  # fmt: skip


def _answers(labels: Any, predictions: Any, classes: Sequence[str]) -> list[tuple[list[str], str]]:
    """Return per image its lines of text, the answer first, and the colour of the first."""
    answers = []
    for label, guess in zip(np.asarray(labels), np.asarray(predictions), strict=True):
        right = label == guess
        lines = [f"{'✓' if right else '✗'} {classes[guess]}"]
        answers.append((lines if right else [*lines, f"is {classes[label]}"], RIGHT if right else WRONG))
    return answers


@styled
def image_grid(
    images: Any,
    titles: Sequence[str] | None = None,
    *,
    labels: Any = None,
    predictions: Any = None,
    classes: Sequence[str] = (),
    columns: int = 8,
) -> Figure:
    """Return a grid of ``images``, each under its title, or under what it was taken for and what it is.

    Raises:
        ValueError: ``images`` are not uint8 (N, 3, H, W).
    """
    images = _numpy(images)
    answered = labels is not None and predictions is not None
    text = 2 * LINE + 0.04 if answered else LINE + 0.03 if titles is not None else 0.0
    size = (WIDTH - (columns - 1) * GAP) / columns
    rows = -(-len(images) // columns)
    ax = _canvas(rows * (size + text + GAP))
    corners = _grid(ax, images, 0, 0, size, columns, text)
    if answered:
        for corner, (lines, colour) in zip(corners, _answers(labels, predictions, classes), strict=True):
            _caption(ax, corner, size, lines, colour)
    elif titles is not None:
        for corner, title in zip(corners, titles, strict=True):
            _caption(ax, corner, size, [title], INK)
    return ax.figure


@styled
def right_wrong_gallery(
    images: Any,
    labels: Any,
    predictions: Any,
    confidence: Any,
    classes: Sequence[str],
    *,
    count: int = 8,
    seed: int = 0,
) -> Figure:
    """Return three rows of ``count`` images: right and wrong answers at random, and the surest wrong ones.

    Above each stands the answer and, where that is another, the true class; below, how sure the net was:
    ``confidence`` holds the probabilities (N,), 0..1, of the predicted classes. ``seed`` fixes the draw.

    Raises:
        ValueError: there are not as many predictions as images, so they are of another data set.
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
        answers = _answers(labels[chosen], predictions[chosen], classes)
        for corner, (lines, colour), sure in zip(corners, answers, confidence[chosen], strict=True):
            _caption(ax, corner, size, lines, colour)
            below = corner[1] + size + LINE
            ax.text(corner[0] + size / 2, below, f"{100 * sure:.0f} % sure", ha="center", fontsize=7, color=GREY)
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
