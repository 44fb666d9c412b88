"""Any folder of pictures as a data set: train/<class>/** and test/<class>/**, or <class>/** to be split.

The same picture twice, with identical pixels or as a copy that was re-encoded or resized, stays on one side of a split.
"""

import hashlib
import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from tqdm import tqdm

from helpers.data.images import (
    Arrays,
    DataError,
    DataMissing,
    Picture,
    balanced,
    cached_arrays,
    canonical_order,
    grouped_split,
    read_picture,
    share,
)

TEST_SHARE = 0.2
_LAYOUTS = "Expected PATH/train/<class>/* and PATH/test/<class>/*, or PATH/<class>/*"

# Part of the cache's key: raise it when the same files give other arrays than before.
_VERSION = 3

# Two thumbnails are of one picture where 1 - (their correlation) is at most this. Measured on PACS: copies as JPEG
# of quality 20 to 90, as WebP or GIF, resized to 32-227 pixels or squashed stay below 0.009; half the size and
# quality 30 together, 0.014; of 9,991 pictures, 23 pairs lie below 0.02, 8 of them drawings of guitars that are
# alike without being copies. Grouping those does no harm; a copy in two splits would.
TOLERANCE = 0.02

# Below this standard deviation, in grey levels, a picture is a plain surface, with nothing to tell it by but its
# pixels themselves.
FLAT = 1.0
_ROWS = 1 << 25  # comparisons at a time: 128 MB


@dataclass(frozen=True)
class Listing:
    """The files of a picture folder and their labels, none opened yet, by split: train and test, or all."""

    folder: Path
    classes: tuple[str, ...]
    files: dict[str, list[tuple[Path, int]]]


@dataclass(frozen=True)
class Scan:
    """What a picture folder holds: N readable pictures in canonical order, and the files that were left out.

    images: uint8 (N, size, size, 3); labels: uint8 (N,); splits: (N,), "train" and "test", or "all"; names: (N,),
    paths below the folder; groups: (N,), the position of the first picture that each is a copy of; digests: (N,),
    equal where all pixels of the files are; left_out: columns file, class and reason.
    """

    folder: Path
    classes: tuple[str, ...]
    images: np.ndarray
    labels: np.ndarray
    splits: np.ndarray
    names: np.ndarray
    groups: np.ndarray
    digests: np.ndarray
    left_out: pd.DataFrame

    def duplicates(self) -> pd.DataFrame:
        """Return the pictures that have a copy: columns file, class, group (the file it counts as), copy.

        ``copy`` is "first", "identical" (the same pixels as an earlier file of the group) or "near" (looks the same).
        """
        position = np.arange(len(self.groups))
        _, first, same = np.unique(self.digests, return_index=True, return_inverse=True)
        kinds = np.where(first[same] < position, "identical", "near")
        kinds[self.groups == position] = "first"
        members = np.bincount(self.groups, minlength=len(position))[self.groups] > 1
        names = np.array(self.classes, dtype=object)[self.labels]
        table = {"file": self.names, "class": names, "group": self.names[self.groups], "copy": kinds}
        return pd.DataFrame(table)[members].sort_values(["group", "copy", "file"], ignore_index=True)

    def summary(self) -> pd.DataFrame:
        """Return one row per class, and their sum: files, left out, images, and copies of earlier images.

        ``identical`` and ``near-duplicates`` count images beyond the first of their group; ``also elsewhere`` those
        with a copy in another class, whose label is in doubt.
        """
        copies = self.duplicates()
        classes_of = copies.groupby("group")["class"].transform("nunique")
        table = pd.DataFrame(index=pd.Index(self.classes, name="class"))
        table["left out"] = self.left_out["class"].value_counts()
        table["images"] = np.bincount(self.labels, minlength=len(self.classes))
        table["identical"] = copies["class"][copies["copy"] == "identical"].value_counts()
        table["near-duplicates"] = copies["class"][copies["copy"] == "near"].value_counts()
        table["also elsewhere"] = copies["class"][classes_of > 1].value_counts()
        table = table.fillna(0).astype(int)
        table.insert(0, "files", table["images"] + table["left out"])
        table.loc["all"] = table.sum()
        return table


def list_pictures(folder: Path) -> Listing:
    """Return the classes and files of ``folder``; folders below a class belong to it.

    Raises DataMissing where there is no such folder, DataError for a missing split, an empty class,
    classes that differ between train and test, or fewer than two classes.
    """
    if not folder.is_dir():
        raise DataMissing(f"There is no folder {folder}. {_LAYOUTS}.")
    # A class may itself be called "train" (a vehicle): only one that has folders inside is a split. Nested folders
    # make the name alone ambiguous, so both splits must be there, or nothing else.
    splits = [name for name in ("train", "test") if _subfolders(folder / name)]
    others = set(_subfolders(folder)) - {"train", "test"}
    if len(splits) == 1 and not others:
        raise DataError(f"{folder} has {splits[0]}/<class>/* but not the other split. {_LAYOUTS}.")
    roots = {name: folder / name for name in splits} if len(splits) == 2 else {"all": folder}
    names = {split: _subfolders(root) for split, root in roots.items()}
    classes = sorted(set().union(*names.values()))
    if not 2 <= len(classes) <= 256:
        raise DataError(f"{len(classes)} classes in {next(iter(roots.values()))}; 2 to 256 work. {_LAYOUTS}.")
    for split, root in roots.items():
        if absent := sorted(set(classes) - set(names[split])):
            raise DataError(f"{root} has no folder for {', '.join(absent)}, which the other split has.")
    files = {
        split: [(path, label) for label, name in enumerate(classes) for path in _files(root / name, folder.resolve())]
        for split, root in roots.items()
    }
    return Listing(folder, tuple(classes), files)


def scan(listing: Listing, cache: Path, size: int = 32) -> Scan:
    """Return all readable pictures, which of them are copies, and which files were left out and why.

    Shows its progress. Decoded once into ``cache`` (a folder), again when a picture changes; no file of the folder
    is changed. Raises DataError where a class has no readable picture.
    """
    files = [(split, path, label) for split, files in listing.files.items() for path, label in files]
    stamps = "\n".join(f"{split}\0{path}\0{label}\0{_stamp(path)}" for split, path, label in files)
    key = f"{_VERSION} {size} {hashlib.sha256(os.fsencode(stamps)).hexdigest()}"
    name = hashlib.sha256(os.fsencode(f"{listing.folder} {size}")).hexdigest()[:12]
    arrays = cached_arrays(cache / f"folder-{name}.npz", key, lambda: _decode(listing, files, size))
    parts = ("images", "labels", "splits", "names", "groups", "digests")
    left_out = pd.DataFrame(arrays["left_out"].astype(object), columns=["file", "class", "reason"])
    return Scan(listing.folder, listing.classes, *(arrays[part] for part in parts), left_out)


def load_arrays(listing: Listing, cache: Path, size: int = 32, balance: bool = False) -> Arrays:
    """Return train_images, train_labels, train_groups, test_images, test_labels and "source".

    Images are uint8 (N, size, size, 3), RGB, upright, centre-cropped; labels uint8 (N,). A folder without
    splits is divided 80:20, stratified, copies of a picture together; from given splits, pictures that the test set
    holds too are taken out of training. ``balance`` cuts every class to the smallest. Files that cannot be read are
    named in one warning and left out. Raises DataError where too few pictures are left.
    """
    found = scan(listing, cache, size)
    if count := len(found.left_out):
        named = ", ".join(found.left_out["file"][:10]) + (f" and {count - 10} more" if count > 10 else "")
        warnings.warn(f"left out, no readable images: {named} (in {listing.folder})", stacklevel=2)
    everything = np.arange(len(found.labels))
    if "all" in listing.files:
        pool = balanced(found.labels, everything) if balance else everything
        held_out = share(len(pool), TEST_SHARE, len(listing.classes))
        train, test = (pool[part] for part in grouped_split(found.labels[pool], found.groups[pool], held_out))
    else:
        test = everything[found.splits == "test"]
        train = everything[(found.splits == "train") & ~np.isin(found.groups, found.groups[test])]
        if len(gone := np.setdiff1d(found.labels, found.labels[train])):
            name = listing.classes[gone[0]]
            raise DataError(f"Every training picture of {name} in {listing.folder} is in the test folder, too.")
        if balance:
            train, test = balanced(found.labels, train), balanced(found.labels, test)
    return {
        "train_images": found.images[train],
        "train_labels": found.labels[train],
        "train_groups": found.groups[train],
        "test_images": found.images[test],
        "test_labels": found.labels[test],
        "source": np.array(f"folder {_printable(listing.folder.name)}"),
    }


def _subfolders(folder: Path) -> list[str]:
    if not folder.is_dir():
        return []
    return sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _files(class_folder: Path, top: Path) -> list[Path]:
    """Return the files in a class's folder and below, without hidden ones; a folder that cannot be listed is one."""
    files: list[Path] = []
    seen = {class_folder.resolve()}

    def enter(path: Path) -> bool:
        # A link into the scanned folder leads to pictures that have a class there, or round in circles.
        real = path.resolve()
        if path.name.startswith(".") or real in seen or (path.is_symlink() and real.is_relative_to(top)):
            return False
        seen.add(real)
        return True

    def unlisted(error: OSError) -> None:
        files.append(Path(error.filename))

    for here, below, names in os.walk(class_folder, onerror=unlisted, followlinks=True):
        files += [Path(here, name) for name in names if not name.startswith(".")]
        below[:] = [name for name in sorted(below) if enter(Path(here, name))]
    if not files:
        raise DataError(f"{class_folder} is empty: put pictures of that class there, or remove the folder.")
    return sorted(files)


def _stamp(path: Path) -> str:
    try:
        stat = path.stat()
    except OSError:  # a broken link, or no permission: decoding says so
        return "unreadable"
    return f"{stat.st_size}\0{stat.st_mtime_ns}"


def _printable(path: Path | str) -> str:
    """Return a path as text that can be printed, also where its bytes are no UTF-8."""
    return os.fsencode(path).decode("utf-8", "replace")


def _decode(listing: Listing, files: Sequence[tuple[str, Path, int]], size: int) -> Arrays:
    pictures, read, left_out = [], [], []
    for split, path, label in tqdm(files, desc=f"reading {_printable(listing.folder.name)}", disable=None):
        name = _printable(path.relative_to(listing.folder))
        try:
            pictures.append(read_picture(path, size))
        except DataError as error:
            left_out.append((name, listing.classes[label], _printable(str(error))))
        else:
            read.append((split, label, name))
    found = {(split, label) for split, label, _ in read}
    for split in listing.files:
        for label, name in enumerate(listing.classes):
            if (split, label) not in found:
                raise DataError(f"No readable image of {name} in {listing.folder} ({split}).")
    splits, labels, names = zip(*read, strict=True)
    order, arrays = arranged(pictures, labels)
    return arrays | {
        "splits": np.array(splits)[order],
        "names": np.array(names)[order],
        "left_out": np.array(left_out, dtype=str).reshape(-1, 3),
    }


# --- The same picture twice. ---


def arranged(pictures: Sequence[Picture], labels: Sequence[int]) -> tuple[np.ndarray, Arrays]:
    """Return the canonical order of ``pictures`` of classes ``labels``, (N,), and what they hold in that order.

    That is "images" uint8 (N, size, size, 3), "labels" uint8 (N,), "digests" uint64 (N,) and "groups" of copies (N,).
    """
    pixels, thumbnails, digests = zip(*pictures, strict=True)
    images, classes = np.stack(pixels), np.array(labels, dtype=np.uint8)
    order = canonical_order(images, classes)
    digests = np.array(digests, dtype=np.uint64)[order]
    groups = duplicate_groups(np.stack(thumbnails)[order], digests)
    return order, {"images": images[order], "labels": classes[order], "digests": digests, "groups": groups}


def duplicate_groups(thumbnails: np.ndarray, digests: np.ndarray) -> np.ndarray:
    """Return the group of each picture, (N,): the position of the first picture that it is a copy of, or its own.

    thumbnails: uint8 (N, h, w), whole pictures in grey; digests: (N,), equal where the pixels are. A copy of a copy
    belongs to the same group.
    """
    _, first, same = np.unique(digests, return_index=True, return_inverse=True)
    identical = np.stack([first[same], np.arange(len(digests))], axis=1)
    pairs = np.concatenate([identical, near_pairs(thumbnails)])
    graph = coo_array((np.ones(len(pairs), dtype=bool), pairs.T), shape=(len(digests), len(digests)))
    _, component = connected_components(graph, directed=False)
    return np.unique(component, return_index=True)[1][component]


def near_pairs(thumbnails: np.ndarray) -> np.ndarray:
    """Return the pairs (i, j), i < j, of pictures that look the same, (P, 2); every pair is compared.

    thumbnails: uint8 (N, h, w). Correlation does not change with brightness or contrast. Plain surfaces are left out.
    """
    grey = thumbnails.reshape(len(thumbnails), np.prod(thumbnails.shape[1:])).astype(np.float32)
    detailed = np.flatnonzero(grey.std(axis=1) >= FLAT)
    centred = grey[detailed] - grey[detailed].mean(axis=1, keepdims=True)
    unit = centred / np.linalg.norm(centred, axis=1, keepdims=True)  # (M, h*w); products are correlations
    found = [np.empty((0, 2), dtype=np.int64)]
    step = max(_ROWS // max(len(unit), 1), 1)
    for start in range(0, len(unit), step):
        alike = unit[start : start + step] @ unit[start:].T >= 1 - TOLERANCE
        row, column = np.nonzero(np.triu(alike, 1))
        found.append(detailed[np.stack([row, column], axis=1) + start])
    return np.concatenate(found)
