"""Images from files, and decoded arrays that are kept so that this is done once."""

import hashlib
import warnings
import zipfile
from collections.abc import Callable
from contextlib import ExitStack, suppress
from io import BytesIO
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
from filelock import FileLock
from PIL import Image, ImageOps, UnidentifiedImageError
from PIL.JpegImagePlugin import JpegImageFile

from helpers.files import atomic_write

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

# A JPEG is shrunk while it is decoded, so it may be larger than Pillow's limit for other pictures (179 million
# pixels): phones of 200 megapixels exist.
_LARGEST_JPEG = 1 << 29
_THUMBNAIL = 16


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


class Picture(NamedTuple):
    """A picture as a network sees it, and what tells it from others.

    pixels: uint8 (size, size, 3), RGB, centre-cropped; thumbnail: uint8 (16, 16), the whole picture in grey,
    uncropped; digest: 64 bits of the SHA-256 of the upright RGB pixels.
    """

    pixels: np.ndarray
    thumbnail: np.ndarray
    digest: int


def read_picture(file: Path | bytes, size: int = 32) -> Picture:
    """Return a picture of any shape and colour mode, upright, centre-cropped and resized with antialiasing.

    A camera's rotation (EXIF) is applied, an animation gives its first frame, transparency shows white, 16 bits
    become 8. Raises DataError, which gives the reason alone, for what is no picture or too large a one.
    """
    try:
        if isinstance(file, Path) and not file.is_file():  # a pipe would be waited for without end
            raise DataError("a broken link" if file.is_symlink() else "no file that can be read")
        with BytesIO(file) if isinstance(file, bytes) else open(file, "rb") as stream, warnings.catch_warnings():
            # Whatever Pillow finds odd about a picture it can read is no concern of the reader.
            warnings.simplefilter("ignore")
            if not stream.read(1):
                raise DataError("an empty file")
            upright = _upright(stream, size)
    except DataError:
        raise
    except UnidentifiedImageError as error:
        raise DataError(f"no picture in a format that is read ({', '.join(_FORMATS)})") from error
    # A decoder that trips over a broken file raises whatever the trip was.
    except Exception as error:
        raise DataError(str(error) or type(error).__name__) from error
    digest = hashlib.sha256(f"{upright.size}".encode() + upright.tobytes()).digest()
    thumbnail = upright.convert("L").resize((_THUMBNAIL, _THUMBNAIL), Image.Resampling.BICUBIC)
    pixels = np.asarray(ImageOps.fit(upright, (size, size)))
    return Picture(pixels, np.asarray(thumbnail), int.from_bytes(digest[:8], "big"))


def _upright(stream: BinaryIO, size: int) -> Image.Image:
    """Return the picture in RGB as it is meant to be looked at; a large JPEG at a fraction of its size."""
    stream.seek(0)
    is_jpeg = stream.read(3) == b"\xff\xd8\xff"
    stream.seek(0)
    with JpegImageFile(stream) if is_jpeg else Image.open(stream, formats=_FORMATS) as image:
        if is_jpeg:
            if image.width * image.height > _LARGEST_JPEG:
                raise DataError(f"{image.width} x {image.height} pixels, more than {_LARGEST_JPEG:,}")
            # Four times what is wanted leaves the last, antialiased step enough to average over.
            image.draft(None, (4 * size, 4 * size))
        image.load()
        with suppress(Exception):  # with a rotation that cannot be read, the picture is taken as it lies
            ImageOps.exif_transpose(image, in_place=True)
        return _in_rgb(image)


def _in_rgb(image: Image.Image) -> Image.Image:
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        values = np.nan_to_num(np.asarray(image, dtype=np.float64), posinf=0, neginf=0).clip(min=0)
        # Pillow would cut 16 bits off at 255. The other two modes do not tell what white is.
        likely = {"I": (255, 65535), "F": (1, 255, 65535)}.get(image.mode, (65535,))
        white = next((white for white in likely if values.max() <= white), values.max())
        image = Image.fromarray((values * (255 / white)).round().astype(np.uint8))
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba)
    return image.convert("RGB")


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


Arrays = dict[str, np.ndarray]

# The entry that holds the key, and the names of the arrays so that none can get lost unnoticed.
_KEY = "_key"


def cached_arrays(path: Path, key: str, build: Callable[[], Arrays]) -> Arrays:
    """Return what ``build()`` returns, read from ``path`` where that holds it under the same ``key``.

    A cache that is damaged (each of its arrays carries a CRC-32) or has another key is built again.
    Several processes may ask at once: one builds, the others wait and read. A folder that cannot be
    written to costs the cache, not the data; it says so.
    """
    found = _read(path, key)
    if found is None:
        with ExitStack() as held:
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                held.enter_context(FileLock(path.with_suffix(".lock")))
            except OSError as error:
                warnings.warn(f"{path.parent} cannot be written to ({error}): nothing is cached", stacklevel=2)
                return build()
            found = _read(path, key, warn=True)
            if found is None:
                found = build()
                _write(path, key, found)
    return found


def _read(path: Path, key: str, warn: bool = False) -> Arrays | None:
    """Return the arrays, or None where there are none, or damaged ones, or those of another key."""
    if not path.is_file():
        return None
    try:
        # Reading a member to its end checks its CRC.
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as stored:
            stored_key, *names = stored[_KEY].tolist()
            return {name: stored[name] for name in names} if stored_key == key else None
    except (zipfile.BadZipFile, OSError, ValueError, KeyError, EOFError, RuntimeError):
        if warn:
            warnings.warn(f"{path} is damaged; building it again", stacklevel=3)
        return None


def _write(path: Path, key: str, arrays: Arrays) -> None:
    buffer = BytesIO()
    np.savez(buffer, allow_pickle=False, **{_KEY: np.array([key, *arrays])}, **arrays)
    try:
        atomic_write(path, buffer.getvalue())
    except OSError as error:
        warnings.warn(f"{path} could not be written ({error}): nothing is cached", stacklevel=3)
