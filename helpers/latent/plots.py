"""Latents in the plane: as a figure, and as a page on which a reader walks through all points and their images."""

import base64
import html
import json
from collections.abc import Collection, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from string import Template
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba_array
from matplotlib.patheffects import withStroke
from PIL import Image
from scipy.signal import convolve2d

from helpers.data import stratified_split
from helpers.latent.store import answers, pictured, pictures, quantised
from helpers.record import Run
from helpers.style import RIGHT, WRONG, class_colours

CELLS, NAMES_APART = 24, 0.075  # a side, to find the densest place of a class; the least distance of two names


def name_places(Y: np.ndarray, labels: np.ndarray, classes: int) -> np.ndarray:
    """Return where the name of each class belongs, (classes, 2): at its densest place, apart; NaN without points."""
    # The mean of a class would often lie between its islands, or in another class.
    low, size = Y.min(0), np.ptp(Y, axis=0).max() or 1.0
    places = np.full((classes, 2), np.nan)
    for c in np.unique(labels):
        own = Y[labels == c]
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
    colours = to_rgba_array(list(class_colours(classes).values()))
    order = np.random.default_rng(0).permutation(len(Y))  # no class lies on top of the others
    ax.scatter(*Y[order].T, s=size, c=colours[labels[order]], alpha=0.6, lw=0, rasterized=True)
    if names:
        halo = [withStroke(linewidth=2.2, foreground="white")]
        style = {"ha": "center", "va": "center", "fontsize": 7, "weight": "bold", "path_effects": halo}
        for place, name in zip(name_places(Y, labels, len(classes)), classes, strict=True):
            if np.isfinite(place).all():
                ax.annotate(name, place, **style)
    half, middle = 0.52 * np.ptp(Y, axis=0).max(), (Y.min(0) + Y.max(0)) / 2
    ax.set(xlim=(middle[0] - half, middle[0] + half), ylim=(middle[1] - half, middle[1] + half))
    ax.set(xticks=[], yticks=[], aspect="equal")
    ax.grid(False)
    ax.spines[:].set_visible(False)


WEBP_QUALITY, SHEET, COLUMNS = 50, 500, 20  # 45,000 pictures are then 12 MB of the page, and few are decoded at once


def explorer_page(
    views: Mapping[str, Mapping[int, np.ndarray]],
    labels: np.ndarray,
    classes: Sequence[str],
    *,
    answers: Mapping[int, np.ndarray],
    images: np.ndarray | None = None,
    title: str = "Latent space",
) -> str:
    """Return the page as HTML, one file without network: 5 bytes a point and stage, and 270 an image.

    ``views``: by name, coordinates (N, 2) after each of some epochs, NaN for images that none of the view's has.
    ``labels`` and ``answers``, what the network named after some epochs: (N,). ``images``: uint8 (N, 3, H, H).
    """
    given = {f"{name}, epoch {epoch}": Y for name, stages in views.items() for epoch, Y in stages.items()}
    given |= {"images": labels if images is None else images, **{f"answers {e}": found for e, found in answers.items()}}
    if wrong := {what: len(array) for what, array in given.items() if len(array) != len(labels)}:
        raise ValueError(f"{len(labels)} labels do not go together with {wrong}")
    data = {
        "points": len(labels),
        "classes": list(classes),
        "colours": list(class_colours(classes).values()),
        "judged": [RIGHT, WRONG],
        "labels": _base64(labels.astype(np.uint8)),
        "answers": {epoch: _base64(found.astype(np.uint8)) for epoch, found in answers.items()},
        "views": [_view(name, stages, labels, len(classes)) for name, stages in views.items()],
        "pictures": None if images is None else _pictures(images),
    }
    template = Path(__file__).with_name("explorer.html").read_text(encoding="utf-8")
    return Template(template).substitute(
        title=html.escape(title),
        description=html.escape(f"{len(labels):,} images of {len(classes)} classes as points in the plane"),
        # A class may be called anything, even "</script>".
        data=json.dumps(data).replace("<", "\\u003c"),
    )


def latent_page(
    run: Run,
    layers: Mapping[str, str],
    epochs: Collection[int],
    *,
    film: tuple[str, int] | None = None,
    images: bool = False,
) -> str:
    """Return the :func:`explorer_page` of ``run``: its ``layers``, {name: layer}, after ``epochs``, as they are kept.

    ``film``, (layer, points), adds a part of the images after every epoch. Only ``images`` need the data set.
    """
    found = {epoch: answers(run, epoch) for epoch in epochs}
    labels = next(iter(found.values()))[0]
    views = {
        name: {e: made.coordinates for e, made in zip(epochs, pictures(run, place, epochs), strict=True)}
        for name, place in layers.items()
    }
    if film:
        place, points = film
        name = next((name for name, layer in layers.items() if layer == place), place)
        left_out = max(0, len(labels) - points)  # as helpers.data.subset does, which needs the images
        part = stratified_split(labels, left_out)[0] if left_out else np.arange(len(labels))
        stages = pictures(run, place, range(run.experiment.epochs + 1), points=points)
        Y = np.full((len(stages), len(labels), 2), np.nan)
        Y[:, part] = [made.coordinates for made in stages]
        views[f"{name}, every epoch ({len(part):,} pictures)"] = dict(enumerate(Y))
    return explorer_page(
        views,
        labels,
        run.classes,
        answers={epoch: named for epoch, (_, named) in found.items()},
        images=pictured(run).images.numpy() if images else None,
        title=f"The latent space of {run.arm or run.experiment.model}",
    )


def _view(name: str, stages: Mapping[int, np.ndarray], labels: np.ndarray, classes: int) -> dict[str, Any]:
    here = np.flatnonzero(np.isfinite(next(iter(stages.values()))).all(axis=1))
    drawn = []
    for epoch, Y in stages.items():
        steps, offset, scale = quantised(Y[here])
        places = name_places(Y[here], labels[here], classes).round(3)
        stage = {"epoch": epoch, "steps": _base64(steps.astype("<u2")), "offset": offset.tolist()}
        stage |= {"scale": scale.tolist(), "names": [p.tolist() if np.isfinite(p).all() else None for p in places]}
        drawn.append(stage)
    every = len(here) == len(labels)
    return {"name": name, "members": None if every else _base64(here.astype("<u4")), "stages": drawn}


def _pictures(images: np.ndarray) -> dict[str, Any]:
    """Return ``images`` as sheets, each a WebP of some hundred tiles, row by row."""
    n, _, _, size = images.shape
    sheets = []
    for first in range(0, n, SHEET):
        some = images[first : first + SHEET].transpose(0, 2, 3, 1)
        tiles = np.full((-(-len(some) // COLUMNS) * COLUMNS, size, size, 3), 255, np.uint8)
        tiles[: len(some)] = some
        rows = tiles.reshape(-1, COLUMNS, size, size, 3).transpose(0, 2, 1, 3, 4)
        buffer = BytesIO()
        Image.fromarray(rows.reshape(-1, COLUMNS * size, 3)).save(buffer, "WEBP", quality=WEBP_QUALITY)
        sheets.append(base64.b64encode(buffer.getvalue()).decode())
    return {"size": size, "columns": COLUMNS, "each": SHEET, "sheets": sheets}


def _base64(array: np.ndarray) -> str:
    return base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()
