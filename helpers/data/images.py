"""Images from files, decoded arrays that are kept so that this is done once, and splits that are always the same."""

import hashlib
import warnings
import zipfile
from collections.abc import Callable
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
from filelock import FileLock
from PIL import Image, ImageOps, UnidentifiedImageError
from PIL.JpegImagePlugin import JpegImageFile
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.utils.class_weight import compute_class_weight

from helpers.files import atomic_write

# No other decoder is tried: fewer ways for a broken file to surprise, and less time per image.
_FORMATS = ("PNG", "WEBP", "JPEG", "BMP", "GIF", "TIFF", "PPM")

# A JPEG is shrunk while it is decoded, so it may be larger than Pillow's limit for other pictures (179 million
# pixels): phones of 200 megapixels exist.
_LARGEST_JPEG = 1 << 29
_THUMBNAIL = 16

# One seed for every split of the course: what is compared must be compared on the same images.
SPLIT_SEED = 0

Arrays = dict[str, np.ndarray]


class DataError(ValueError):
    """A data set that is there and cannot be used; says which file, what is wrong, and what to do."""


class DataMissing(FileNotFoundError):
    """A data set that is not there; lists the ways on."""


# --- Decoding. ---


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
    if isinstance(file, Path) and not file.is_file():  # a pipe would be waited for without end
        raise DataError("a broken link" if file.is_symlink() else "no file that can be read")
    try:
        with BytesIO(file) if isinstance(file, bytes) else open(file, "rb") as stream, warnings.catch_warnings():
            # Whatever Pillow finds odd about a picture it can read is no concern of the reader.
            warnings.simplefilter("ignore")
            upright = _upright(stream, size)
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
    start = stream.read(3)
    if not start:
        raise DataError("an empty file")
    is_jpeg = start == b"\xff\xd8\xff"
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


# --- One order. ---


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


# --- The cache. ---


def cached_arrays(path: Path, key: str, build: Callable[[], Arrays]) -> Arrays:
    """Return what ``build()`` returns, read from ``path`` where that holds it under the same ``key``.

    A cache that is damaged (each array carries a CRC-32) or has another key is built again. Of several processes one
    builds, the others wait and read. A folder that cannot be written to costs the cache, not the data; it says so.
    """
    if (found := _read(path, key)) is not None:
        return found
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path.with_suffix(".lock")).acquire()
    except OSError as error:
        warnings.warn(f"{path.parent} cannot be written to ({error}): nothing is cached", stacklevel=2)
        return build()
    with lock:
        if (found := _read(path, key, warn=True)) is None:
            found, buffer = build(), BytesIO()
            # The names too, so that none can get lost unnoticed.
            np.savez(buffer, allow_pickle=False, _key=np.array([key, *found]), **found)
            try:
                atomic_write(path, buffer.getvalue())
            except OSError as error:
                warnings.warn(f"{path} could not be written ({error}): nothing is cached", stacklevel=2)
    return found


def _read(path: Path, key: str, warn: bool = False) -> Arrays | None:
    """Return the arrays, or None where there are none, or damaged ones, or those of another key."""
    if not path.is_file():
        return None
    try:
        # Reading a member to its end checks its CRC.
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as stored:
            stored_key, *names = stored["_key"].tolist()
            return {name: stored[name] for name in names} if stored_key == key else None
    except (zipfile.BadZipFile, OSError, ValueError, KeyError, EOFError, RuntimeError):
        if warn:
            warnings.warn(f"{path} is damaged; building it again", stacklevel=3)
        return None


# --- Splits. ---


def share(count: int, fraction: float, classes: int) -> int:
    """Return how many of ``count`` images a ``fraction`` is, at least one a class."""
    return max(round(count * fraction), classes)


def stratified_split(labels: np.ndarray, held_out: int, seed: int = SPLIT_SEED) -> tuple[np.ndarray, np.ndarray]:
    """Return two sorted index arrays (kept, held out), each with the classes in the proportion of all.

    labels: (N,) integers; held_out: how many to hold out. Raises DataError where a class is too small.
    """
    counts = np.unique(labels, return_counts=True)[1]
    if counts.min() < 2 or not len(counts) <= held_out <= len(labels) - len(counts):
        raise DataError(
            f"{len(labels)} images in {len(counts)} classes, the smallest of {counts.min()}, cannot be split "
            f"into {len(labels) - held_out} and {held_out} with every class in both. Add images."
        )
    kept, held = train_test_split(np.arange(len(labels)), test_size=int(held_out), stratify=labels, random_state=seed)
    return np.sort(kept), np.sort(held)


def grouped_split(
    labels: np.ndarray, groups: np.ndarray, held_out: int, seed: int = SPLIT_SEED
) -> tuple[np.ndarray, np.ndarray]:
    """Return two sorted index arrays (kept, held out), stratified, with no group in both.

    labels, groups: (N,) integers; held_out: about how many to hold out. Exactly :func:`stratified_split` where
    every group has one member. Raises DataError where a class is too small, or would be missing from one part.
    """
    _, first, group = np.unique(groups, return_index=True, return_inverse=True)
    if len(first) == len(labels):
        return stratified_split(labels, held_out, seed)
    classes = np.unique(labels)
    fraction = held_out / len(labels)
    _, held_groups = stratified_split(labels[first], share(len(first), fraction, len(classes)), seed)
    held = np.isin(group, held_groups)
    for part in (labels[held], labels[~held]):
        if len(absent := np.setdiff1d(classes, part)):
            raise DataError(
                f"{len(labels)} images in {len(first)} groups of duplicates cannot be split with every class in both "
                f"parts: class {absent[0]} has too few different pictures. Add pictures."
            )
    return np.flatnonzero(~held), np.flatnonzero(held)


def balanced(labels: np.ndarray, index: np.ndarray, seed: int = SPLIT_SEED) -> np.ndarray:
    """Return a sorted part of ``index`` with as many images of each class as the smallest has there.

    labels: (N,) integers; index: positions in ``labels``. The same part for the same input and seed.
    """
    rng = np.random.default_rng(seed)
    classes, counts = np.unique(labels[index], return_counts=True)
    parts = [rng.choice(index[labels[index] == label], counts.min(), replace=False) for label in classes]
    return np.sort(np.concatenate(parts))


def class_weights(labels: np.ndarray) -> list[float]:
    """Return a weight per class, inverse to its number of images, with mean 1 over the images: "balanced" in sklearn.

    labels: (N,) integers, each of 0..K-1 at least once. A loss with these weights counts every class alike.
    """
    return compute_class_weight("balanced", classes=np.unique(labels), y=labels).tolist()


# --- Scikit-learn's handwritten digits in the shape of CIFAR-10: real images that need no network. ---

DIGITS = tuple("0123456789")


def digits_arrays() -> Arrays:
    """Return train_images, train_labels, test_images, test_labels and "source", in canonical order.

    Images are uint8 (N, 32, 32, 3): each of the 8 x 8 grey values, 0 to 16, becomes a square of 4 x 4
    pixels, 0 to 255. Labels are uint8 (N,). 1,500 for training and validation, 297 for testing.
    Source: E. Alpaydin, C. Kaynak, "Optical Recognition of Handwritten Digits", UCI, 1998.
    """
    digits = load_digits()
    grey = np.round(digits.images * (255 / 16)).astype(np.uint8)  # (1797, 8, 8)
    large = grey.repeat(4, axis=1).repeat(4, axis=2)  # (1797, 32, 32)
    images, labels = stacked(large[..., None].repeat(3, axis=3), digits.target)
    train, test = stratified_split(labels, 297)
    return {
        "train_images": images[train],
        "train_labels": labels[train],
        "test_images": images[test],
        "test_labels": labels[test],
        "source": np.array("scikit-learn's load_digits"),
    }


def write_pictures(folder: Path, per_class: int | None = None) -> Path:
    """Return ``folder`` after writing the digits there as pictures, <digit>/<number>.png, for want of others.

    ``per_class``: so many of each digit, or all, some 180. Files that are there already stay as they are.
    """
    arrays = digits_arrays()
    images = np.concatenate([arrays["train_images"], arrays["test_images"]])
    labels = np.concatenate([arrays["train_labels"], arrays["test_labels"]])
    for label, name in enumerate(DIGITS):
        for number, pixels in enumerate(images[labels == label][:per_class]):
            path = Path(folder) / name / f"{number:03d}.png"
            if not path.exists():
                buffer = BytesIO()
                Image.fromarray(pixels).save(buffer, "PNG")
                atomic_write(path, buffer.getvalue())
    return Path(folder)
