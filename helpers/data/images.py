"""Images from files, folders and archives; decoded arrays, kept so that this is done once; splits, always the same."""

import hashlib
import tarfile
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import BinaryIO, NamedTuple

import numpy as np
import torch
from filelock import FileLock
from PIL import Image, ImageOps, UnidentifiedImageError
from PIL.JpegImagePlugin import JpegImageFile
from torch import Tensor

from helpers.settings import atomic_write

# No other decoder is tried: fewer ways for a broken file to surprise, and less time per image.
_FORMATS = ("PNG", "WEBP", "JPEG", "BMP", "GIF", "TIFF", "PPM")
# A JPEG is shrunk while it is decoded, so it may have more pixels than Pillow's limit for others, 179 million.
_LARGEST_JPEG = 1 << 29

SIZE = 32  # pixels a side, as in CIFAR-10: what the networks of the course take
SPLIT_SEED = 0  # for every split of the course: what is compared must be compared on the same images

Arrays = dict[str, np.ndarray]


class DataError(ValueError):
    """A data set that is there and cannot be used; says which file, what is wrong, and what to do."""


class DataMissing(FileNotFoundError):
    """A data set that is not there; lists the ways on."""


class Picture(NamedTuple):
    """A picture as a network sees it, and what tells it from others."""

    pixels: np.ndarray  # uint8 (32, 32, 3) unless more were asked for, RGB, centre-cropped
    thumbnail: np.ndarray  # uint8 (16, 16), the whole picture in grey
    digest: int  # 64 bits of the SHA-256 of the upright RGB pixels, before they are resized


def read_picture(file: Path | bytes, size: int = SIZE) -> Picture:
    """Return a picture of any shape and colour mode. Raises DataError, the reason alone, for none or too large a one.

    A camera's rotation (EXIF) is applied, an animation gives its first frame, transparency shows white, 16 bits are 8.
    The pixels are ``size`` a side: 32 is what a network sees, up to 128 is good to look at.
    """
    if isinstance(file, Path) and not file.is_file():  # a pipe would be waited for without end
        raise DataError("a broken link" if file.is_symlink() else "no file that can be read")
    try:
        with BytesIO(file) if isinstance(file, bytes) else open(file, "rb") as stream, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what Pillow finds odd about a picture it can read concerns nobody
            upright = _upright(stream)
    except UnidentifiedImageError as error:
        raise DataError(f"no picture in a format that is read ({', '.join(_FORMATS)})") from error
    except Exception as error:  # a decoder that trips over a broken file raises whatever the trip was
        raise DataError(str(error) or type(error).__name__) from error
    pixels = ImageOps.fit(upright, (size, size))
    thumbnail = upright.convert("L").resize((16, 16), Image.Resampling.BICUBIC)
    digest = hashlib.sha256(f"{upright.size}".encode() + upright.tobytes()).digest()
    return Picture(np.asarray(pixels), np.asarray(thumbnail), int.from_bytes(digest[:8], "big"))


def _upright(stream: BinaryIO) -> Image.Image:
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
            image.draft(None, (4 * SIZE, 4 * SIZE))  # leaves the last, antialiased step enough to average over
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


class Member(NamedTuple):
    """A file of a copy: its path in there, the name to give in an error, and its bytes."""

    path: str
    name: str
    content: bytes

    def picture(self) -> Picture:
        """Return the picture that the file holds. Raises DataError, naming the file, where it holds none."""
        try:
            return read_picture(self.content)
        except DataError as error:
            raise DataError(f"{self.name} is no readable image ({error}). Replace this copy, or remove it.") from error


def members(copy: Sequence[Path], largest: int) -> Iterator[Member]:
    """Yield the files of a copy: of a folder those three levels deep, sorted by path; or all of some tar archives.

    Nothing is unpacked. An archive may be damaged, or hold a path that leads out of it, a link, a device, or a file of
    more than ``largest`` bytes: then it is refused.
    """
    if copy[0].is_dir():
        for path in sorted(copy[0].glob("*/*/*")):
            if path.is_file():
                yield Member(path.relative_to(copy[0]).as_posix(), str(path), path.read_bytes())
        return
    for archive in copy:
        try:
            with tarfile.open(archive, "r:*") as tar:
                for info in tar:
                    _refuse_dangerous(info, archive, largest)
                    if info.isfile():
                        yield Member(info.name, f"{archive}: {info.name}", tar.extractfile(info).read())
        except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
            raise DataError(f"{archive} is truncated or damaged ({error}). Copy it again, or remove it.") from error


def _refuse_dangerous(info: tarfile.TarInfo, archive: Path, largest: int) -> None:
    path = PurePosixPath(info.name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or ":" in info.name:
        problem = "leads out of the archive"
    elif not (info.isfile() or info.isdir()):
        problem = "is a link or a device"
    elif info.size > largest:
        problem = f"has {info.size:,} bytes, more than a picture of this data set"
    else:
        return
    raise DataError(f"{archive}: member {info.name!r} {problem}. Refused; get this archive elsewhere.")


def canonical_order(images: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return the indices that sort images, uint8 (N, H, W, 3), by (label, raw bytes), whatever order a copy had."""
    rows = np.hstack([labels[:, None], images.reshape(len(images), -1)])  # (N, 1 + H*W*3)
    # One opaque item a row: NumPy then compares whole rows byte by byte, label first.
    return np.argsort(rows.view(f"V{rows.shape[1]}").ravel(), kind="stable")


def stacked(images: list[np.ndarray], labels: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """Return images and labels as arrays in canonical order: uint8 (N, H, W, 3) and uint8 (N,)."""
    x, y = np.stack(images), np.array(labels, dtype=np.uint8)
    order = canonical_order(x, y)
    return x[order], y[order]


def in_parts(images: np.ndarray, labels: np.ndarray, train: np.ndarray, test: np.ndarray) -> Arrays:
    """Return train_images, train_labels, test_images and test_labels: those at the indices ``train`` and ``test``."""
    parts = {"train_images": images[train], "train_labels": labels[train]}
    return parts | {"test_images": images[test], "test_labels": labels[test]}


def cached_arrays(path: Path, key: str, build: Callable[[], Arrays]) -> Arrays:
    """Return what ``build()`` returns, from ``path`` where that holds it undamaged and under the same ``key``.

    Of several processes one builds, the others wait and read. A folder that cannot be written to costs only the cache.
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
        if (found := _read(path, key)) is None:
            found, buffer = build(), BytesIO()
            np.savez(buffer, allow_pickle=False, _key=np.array([key, *found]), **found)  # with names: none gets lost
            try:
                atomic_write(path, buffer.getvalue())
            except OSError as error:
                warnings.warn(f"{path} could not be written ({error}): nothing is cached", stacklevel=2)
    return found


def _read(path: Path, key: str) -> Arrays | None:
    if not path.is_file():
        return None
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as stored:
            stored_key, *names = stored["_key"].tolist()
            return {name: stored[name] for name in names} if stored_key == key else None
    except (zipfile.BadZipFile, OSError, ValueError, KeyError, EOFError, RuntimeError):
        warnings.warn(f"{path} is damaged; building it again", stacklevel=3)
        return None


def share(count: int, fraction: float, classes: int) -> int:
    """Return how many of ``count`` images a ``fraction`` is, at least one a class."""
    return max(round(count * fraction), classes)


def stratified_split(labels: np.ndarray, held_out: int, seed: int = SPLIT_SEED) -> tuple[np.ndarray, np.ndarray]:
    """Return sorted indices, (kept, held out), of images of classes ``labels`` (N,), each in the proportions of all."""
    counts = np.unique(labels, return_counts=True)[1]
    if counts.min() < 2 or not len(counts) <= held_out <= len(labels) - len(counts):
        raise DataError(
            f"{len(labels)} images in {len(counts)} classes, the smallest of {counts.min()}, cannot be split "
            f"into {len(labels) - held_out} and {held_out} with every class in both. Add images."
        )
    from sklearn.model_selection import train_test_split  # late, as it takes seconds

    kept, held = train_test_split(np.arange(len(labels)), test_size=int(held_out), stratify=labels, random_state=seed)
    return np.sort(kept), np.sort(held)


def grouped_split(labels: np.ndarray, groups: np.ndarray, held_out: int) -> tuple[np.ndarray, np.ndarray]:
    """Return sorted indices, (kept, about ``held_out``), stratified by ``labels`` (N,), none of ``groups`` in both.

    Exactly :func:`stratified_split` where every group has one member.
    """
    _, first, group = np.unique(groups, return_index=True, return_inverse=True)
    if len(first) == len(labels):
        return stratified_split(labels, held_out)
    classes = np.unique(labels)
    held_groups = stratified_split(labels[first], share(len(first), held_out / len(labels), len(classes)))[1]
    held = np.isin(group, held_groups)
    for part in (labels[held], labels[~held]):
        if len(absent := np.setdiff1d(classes, part)):
            raise DataError(
                f"{len(labels)} images in {len(first)} groups of duplicates cannot be split with every class in both "
                f"parts: class {absent[0]} has too few different pictures. Add pictures."
            )
    return np.flatnonzero(~held), np.flatnonzero(held)


def balanced(labels: np.ndarray, index: np.ndarray) -> np.ndarray:
    """Return a sorted part of ``index``, positions in ``labels`` (N,), with each class cut to the smallest there."""
    rng = np.random.default_rng(SPLIT_SEED)
    classes, counts = np.unique(labels[index], return_counts=True)
    parts = [rng.choice(index[labels[index] == label], counts.min(), replace=False) for label in classes]
    return np.sort(np.concatenate(parts))


def class_weights(labels: np.ndarray) -> list[float]:
    """Return a weight per class, inverse to its number among ``labels`` (N,): a loss then counts every class alike."""
    from sklearn.utils.class_weight import compute_class_weight  # late, as it takes seconds

    return compute_class_weight("balanced", classes=np.unique(labels), y=labels).tolist()


@dataclass(frozen=True)
class Split:
    """Images, uint8 (N, 3, H, W), labels, int64 (N,), and their positions in the canonical order, (N,)."""

    images: Tensor
    labels: Tensor
    index: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: torch.device | str) -> "Split":
        """Return this split on ``device``; tensors that are there already are shared."""
        return Split(self.images.to(device), self.labels.to(device), self.index.to(device))


def part_of(arrays: Arrays, part: str, index: np.ndarray) -> Split:
    """Return the images ``index`` of a part, "train" or "test", as tensors, channels first."""
    images = np.ascontiguousarray(arrays[f"{part}_images"][index].transpose(0, 3, 1, 2))  # (N, 3, H, W)
    labels = arrays[f"{part}_labels"][index].astype(np.int64)
    return Split(torch.from_numpy(images), torch.from_numpy(labels), torch.from_numpy(index))


def subset(split: Split, size: int, seed: int = SPLIT_SEED) -> Split:
    """Return ``size`` images of ``split``, stratified; the same ones for the same size and seed."""
    if not 0 < size <= len(split):
        raise ValueError(f"size {size} is not between 1 and the {len(split):,} images of the split.")
    if size == len(split):
        return split
    chosen, _ = stratified_split(split.labels.cpu().numpy(), len(split) - size, seed)
    keep = torch.from_numpy(chosen).to(split.labels.device)
    return Split(split.images[keep], split.labels[keep], split.index[keep])


def split_hash(train: np.ndarray, validation: np.ndarray) -> str:
    """Return the SHA-256 of the training indices, -1, and the validation indices, as little-endian int64."""
    return sha256_array(np.concatenate([train, [-1], validation]).astype("<i8"))


def channel_statistics(images: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation of each channel of uint8 (N, 3, H, W), float32 (3,) each, scale 0 to 1."""
    # Counted per grey value: exact in any order, and without a copy as floats.
    values = torch.arange(256, dtype=torch.float64, device=images.device) / 255
    counts = torch.stack([torch.bincount(channel.flatten(), minlength=256) for channel in images.unbind(1)])
    weights = counts.double() / counts.sum(1, keepdim=True)  # (3, 256)
    mean = weights @ values
    variance = (weights * (values - mean[:, None]) ** 2).sum(1)
    return mean.float(), variance.sqrt().float()


DIGITS = tuple("0123456789")


def digits_arrays(count: int = 1797) -> Arrays:
    """Return ``count`` of scikit-learn's handwritten digits in the shape of CIFAR-10: real images, no network needed.

    Each of the 8 x 8 grey values, 0 to 16, becomes a square of 4 x 4 pixels, 0 to 255; of all, 297 are for testing.
    Source: E. Alpaydin, C. Kaynak, "Optical Recognition of Handwritten Digits", UCI, 1998.
    """
    from sklearn.datasets import load_digits  # late, as it takes seconds

    digits = load_digits()
    grey = np.round(digits.images[:count] * (255 / 16)).astype(np.uint8)  # (N, 8, 8)
    large = grey.repeat(4, axis=1).repeat(4, axis=2)  # (N, 32, 32)
    images, labels = stacked(large[..., None].repeat(3, axis=3), digits.target[:count])
    parts = in_parts(images, labels, *stratified_split(labels, count * 297 // 1797))
    return parts | {"source": np.array("scikit-learn's load_digits")}


def write_pictures(folder: Path, per_class: int | None = None) -> Path:
    """Return ``folder``, now with the digits as <digit>/<number>.png, ``per_class`` of each or all, but those there."""
    arrays = digits_arrays()
    images = np.concatenate([arrays["train_images"], arrays["test_images"]])
    labels = np.concatenate([arrays["train_labels"], arrays["test_labels"]])
    for label, name in enumerate(DIGITS):
        for number, pixels in enumerate(images[labels == label][:per_class]):
            path = Path(folder) / name / f"{number:03d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            if not path.exists():
                Image.fromarray(pixels).save(path)
    return Path(folder)


def sha256_array(array: np.ndarray) -> str:
    """Return the SHA-256 of an array's values in C order, in hexadecimal."""
    return hashlib.sha256(np.ascontiguousarray(array)).hexdigest()
