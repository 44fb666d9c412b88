"""Pictures as arrays: reading them, and the one order that every copy of a data set is put in."""

from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

# No other decoder is tried: fewer ways for a broken file to surprise, and less time per image.
_FORMATS = ("PNG", "WEBP", "JPEG", "BMP", "GIF", "TIFF", "PPM")

# What Pillow raises for a file that is no image, or only a part of one, or absurdly large.
_UNREADABLE = (
    UnidentifiedImageError,
    Image.DecompressionBombError,
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
)


class DataError(ValueError):
    """A data set that is there and cannot be used; says which file, what is wrong, and what to do."""


class DataMissing(FileNotFoundError):
    """A data set that is not there; lists the ways on."""


def read_exact(data: bytes, name: str, size: int = 32) -> np.ndarray:
    """Return the pixels of an encoded image as they are: uint8 (size, size, 3), RGB.

    Raises DataError, naming ``name``, for what is no image or has another size.
    """
    try:
        with Image.open(BytesIO(data), formats=_FORMATS) as image:
            # The size is known before any pixel is decoded.
            if image.size != (size, size):
                width, height = image.size
                raise DataError(f"{name} is {width} x {height} pixels; expected {size} x {size}.")
            return np.asarray(image.convert("RGB"))
    except DataError:
        raise
    except _UNREADABLE as error:
        raise DataError(f"{name} is no readable image ({error}); replace or remove it.") from error


def read_fitted(path: Path, size: int = 32) -> np.ndarray:
    """Return a picture of any shape, upright, centre-cropped and resized: uint8 (size, size, 3), RGB.

    A camera's rotation (EXIF) is applied first. Raises DataError for what is no image.
    """
    try:
        with Image.open(path, formats=_FORMATS) as image:
            upright = ImageOps.exif_transpose(image).convert("RGB")
            return np.asarray(ImageOps.fit(upright, (size, size)))
    except _UNREADABLE as error:
        raise DataError(f"{path} is no readable image ({error})") from error


def canonical_order(images: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return the indices that sort by (label, raw bytes), whatever order a copy had.

    images: uint8 (N, H, W, 3); labels: uint8 (N,). Images that differ nowhere are interchangeable.
    """
    rows = np.hstack([labels[:, None], images.reshape(len(images), -1)])  # (N, 1 + H*W*3)
    # One opaque item a row: NumPy then compares whole rows byte by byte, label first.
    return np.argsort(rows.view(f"V{rows.shape[1]}").ravel(), kind="stable")


def stacked(images: list[np.ndarray], labels: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """Return images and labels as arrays in canonical order: uint8 (N, H, W, 3) and uint8 (N,)."""
    x, y = np.stack(images), np.array(labels, dtype=np.uint8)
    order = canonical_order(x, y)
    return x[order], y[order]
