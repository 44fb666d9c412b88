"""A page on which a reader hovers a point of a picture of latents and sees its image, class and prediction.

One file, no network: its own security policy refuses every address. It holds the points of one stage or several, which
may be stepped through with the arrow keys; zoom with the wheel, drag to move, double-click to see all again.
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
from PIL import Image

from helpers.latent.store import quantised
from helpers.style import class_colours

TEMPLATE = Path(__file__).with_suffix(".html")
JPEG_QUALITY = 75
# Browsers refuse larger pictures; so many 32 x 32 images are 260,000.
LARGEST_SIDE = 16_384


def explorer_page(
    stages: Mapping[str, np.ndarray],
    labels: np.ndarray,
    classes: Sequence[str],
    *,
    predictions: np.ndarray | None = None,
    images: np.ndarray | None = None,
    title: str = "Latent space",
) -> str:
    """Return the page as HTML: 5 bytes a point and stage, and 1 kB an image.

    ``stages``: coordinates (N, 2) by the stage's name, of the same images in the same order; ``labels`` and
    ``predictions``: class numbers (N,); ``images``: uint8 (N, 3, H, H) or None, then the page has no pictures.

    Raises:
        ValueError: arrays that do not fit together, or numbers that are no class.
    """
    if not stages:
        raise ValueError("there must be at least one stage")
    labels = _numbers("labels", labels, classes)
    if wrong := {name: Y.shape for name, Y in stages.items() if Y.shape != (len(labels), 2)}:
        raise ValueError(f"stages {wrong} do not fit {len(labels)} labels: all must have shape ({len(labels)}, 2)")
    if predictions is not None and len(predictions) != len(labels):
        raise ValueError(f"there are {len(predictions)} predictions for {len(labels)} labels")
    data = {
        "points": len(labels),
        "classes": list(classes),
        "colours": list(class_colours(classes).values()),
        "labels": _base64(labels),
        "predictions": None if predictions is None else _base64(_numbers("predictions", predictions, classes)),
        "stages": [_stage(name, Y) for name, Y in stages.items()],
    }
    sprite = ""
    if images is not None:
        if len(images) != len(labels):
            raise ValueError(f"there are {len(images)} images for {len(labels)} labels")
        jpeg, columns = _sprite(images)
        data["sprite"] = {"size": images.shape[-1], "columns": columns}
        sprite = f'<img id="sprite" hidden alt="" src="data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}">'
    hint = "Point at an image's place to see what it is. Wheel: zoom. Drag: move. Double-click: all."
    return Template(TEMPLATE.read_text(encoding="utf-8")).substitute(
        title=html.escape(title),
        hint=hint + (" Arrow keys: stages." if len(stages) > 1 else ""),
        description=html.escape(f"{len(labels):,} images of {len(classes)} classes as points in the plane"),
        sprite=sprite,
        # A class may be called anything, even "</script>".
        data=json.dumps(data).replace("<", "\\u003c"),
    )


def _stage(name: str, Y: np.ndarray) -> dict:
    steps, offset, scale = quantised(Y)
    return {"name": name, "steps": _base64(steps.astype("<u2")), "offset": offset.tolist(), "scale": scale.tolist()}


def _numbers(what: str, values: np.ndarray, classes: Sequence[str]) -> np.ndarray:
    """Return class numbers as uint8 (N,)."""
    values = np.asarray(values)
    if values.ndim != 1 or not len(values) or values.min() < 0 or values.max() >= min(len(classes), 256):
        raise ValueError(
            f"{what} must be numbers (N,) from 0 to {len(classes) - 1}, got {values.shape}, at most 256 classes"
        )
    return values.astype(np.uint8)


def _sprite(images: np.ndarray) -> tuple[bytes, int]:
    """Return all ``images``, uint8 (N, 3, H, H), as tiles of one JPEG, row by row, and how many stand in a row."""
    images = np.asarray(images)
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1] != 3 or images.shape[2] != images.shape[3]:
        raise ValueError(f"images must be uint8 (N, 3, H, H), got {images.dtype} {images.shape}")
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
