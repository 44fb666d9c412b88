"""Pictures that nobody took: smooth random scenes, all different, and what a camera or a web page does to them."""

import hashlib
import io
from pathlib import Path

import numpy as np
from PIL import Image


def scene(seed: int, size: tuple[int, int] = (64, 64)) -> Image.Image:
    """Return a scene of some coloured clouds; another seed gives another scene."""
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 5, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)


def contents(root: Path) -> dict[Path, str]:
    """Return the checksum of every file below ``root``, caches aside, to see whether somebody touched one."""
    files = (path for path in root.rglob("*") if path.is_file() and path.parent.name != "cache")
    return {path: hashlib.md5(path.read_bytes()).hexdigest() for path in files}


def encoded(image: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()
