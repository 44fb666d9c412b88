"""Any folder of pictures as a data set: train/<class>/** and test/<class>/**, or <class>/** to be split."""

import hashlib
import os
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from helpers.data.duplicates import arranged
from helpers.data.images import Arrays, DataError, DataMissing, cached_arrays, read_picture
from helpers.data.splits import balanced, grouped_split, share

TEST_SHARE = 0.2
_LAYOUTS = "Expected PATH/train/<class>/* and PATH/test/<class>/*, or PATH/<class>/*"

# Part of the cache's key: raise it when the same files give other arrays than before.
_VERSION = 2


@dataclass(frozen=True)
class Listing:
    """The files of a picture folder, none opened yet; ``files`` maps train and test, or all, to them."""

    folder: Path
    classes: tuple[str, ...]
    files: dict[str, tuple[tuple[Path, int], ...]]

    def fingerprint(self) -> str:
        """Return a hash of every file's path, label, size and time, which changes when the pictures do."""
        digest = hashlib.sha256()
        for split, files in self.files.items():
            for path, label in files:
                digest.update(os.fsencode(f"{split}\0{path}\0{label}\0{_stamp(path)}\n"))
        return digest.hexdigest()


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
    others = [path.name for path in _subfolders(folder) if path.name not in ("train", "test")]
    if not splits or (others and len(splits) == 1):
        return Listing(folder, *_classes_of({"all": folder}, folder))
    if len(splits) == 1:
        raise DataError(f"{folder} has {splits[0]}/<class>/* but not the other split. {_LAYOUTS}.")
    return Listing(folder, *_classes_of({name: folder / name for name in splits}, folder))


def scan(listing: Listing, cache: Path, size: int = 32) -> Scan:
    """Return all readable pictures, which of them are copies, and which files were left out and why.

    Shows its progress. Decoded once into ``cache`` (a folder), again when a picture changes; no file of the folder
    is changed. Raises DataError where a class has no readable picture.
    """
    name = hashlib.sha256(os.fsencode(f"{listing.folder} {size}")).hexdigest()[:12]
    key = f"{_VERSION} {size} {listing.fingerprint()}"
    arrays = cached_arrays(cache / f"folder-{name}.npz", key, lambda: _decode(listing, size))
    bad = pd.DataFrame({"file": arrays["bad_names"], "class": arrays["bad_classes"], "reason": arrays["bad_reasons"]})
    parts = ("images", "labels", "splits", "names", "groups", "digests")
    return Scan(listing.folder, listing.classes, *(arrays[part] for part in parts), bad.astype(object))


def load_arrays(listing: Listing, cache: Path, size: int = 32, balance: bool = False) -> Arrays:
    """Return train_images, train_labels, train_groups, test_images, test_labels, "source" and "left_out".

    Images are uint8 (N, size, size, 3), RGB, upright, centre-cropped; labels uint8 (N,). A folder without
    splits is divided 80:20, stratified, copies of a picture together; from given splits, pictures that the test set
    holds too are taken out of training. ``balance`` cuts every class to the smallest. Files that cannot be read are
    named in one warning and left out. Raises DataError where too few pictures are left.
    """
    found = scan(listing, cache, size)
    left_out = found.left_out["file"].tolist()
    if left_out:
        more = f" and {len(left_out) - 10} more" if len(left_out) > 10 else ""
        named = ", ".join(left_out[:10])
        warnings.warn(f"left out, no readable images: {named}{more} (in {listing.folder})", stacklevel=2)
    everything = np.arange(len(found.labels))
    if "all" in listing.files:
        pool = balanced(found.labels, everything) if balance else everything
        labels, groups = found.labels[pool], found.groups[pool]
        train, test = grouped_split(labels, groups, share(len(pool), TEST_SHARE, len(listing.classes)))
        train, test = pool[train], pool[test]
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
        "left_out": np.array(left_out, dtype=str),
    }


def _subfolders(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _classes_of(
    roots: dict[str, Path], folder: Path
) -> tuple[tuple[str, ...], dict[str, tuple[tuple[Path, int], ...]]]:
    """Return the class names, sorted, and the files of each split with their labels."""
    names = {split: [path.name for path in _subfolders(root)] for split, root in roots.items()}
    classes = sorted(set().union(*names.values()))
    if not 2 <= len(classes) <= 256:
        raise DataError(f"{len(classes)} classes in {next(iter(roots.values()))}; 2 to 256 work. {_LAYOUTS}.")
    files = {}
    for split, root in roots.items():
        if absent := sorted(set(classes) - set(names[split])):
            raise DataError(f"{root} has no folder for {', '.join(absent)}, which the other split has.")
        files[split] = tuple(
            (path, label) for label, name in enumerate(classes) for path in _files(root / name, folder)
        )
    return tuple(classes), files


def _files(class_folder: Path, folder: Path) -> list[Path]:
    files = sorted(_below(class_folder, folder.resolve(), set()))
    if not files:
        raise DataError(f"{class_folder} is empty: put pictures of that class there, or remove the folder.")
    return files


def _below(here: Path, top: Path, seen: set[Path]) -> list[Path]:
    """Return the files in ``here`` and below, hidden ones aside; a folder that cannot be listed counts as a file."""
    seen.add(here.resolve())
    files = []
    try:
        entries = [path for path in here.iterdir() if not path.name.startswith(".")]
    except OSError:
        return [here]
    for path in entries:
        if not os.path.isdir(path):  # unlike Path.is_dir, never an error
            files.append(path)
        # A link into the scanned folder leads to pictures that have a class there, or round in circles.
        elif not (path.is_symlink() and path.resolve().is_relative_to(top)) and path.resolve() not in seen:
            files += _below(path, top, seen)
    return files


def _stamp(path: Path) -> str:
    try:
        stat = path.stat()
    except OSError:  # a broken link, or no permission: decoding says so
        return "unreadable"
    return f"{stat.st_size}\0{stat.st_mtime_ns}"


def _printable(path: Path | str) -> str:
    """Return a path as text that can be printed, also where its bytes are no UTF-8."""
    return os.fsencode(path).decode("utf-8", "replace")


def _decode(listing: Listing, size: int) -> Arrays:
    pictures, labels, splits, names = [], [], [], []
    bad: list[tuple[str, str, str]] = []
    files = [(path, label, split) for split, files in listing.files.items() for path, label in files]
    for path, label, split in tqdm(files, desc=f"reading {_printable(listing.folder.name)}", disable=None):
        name = _printable(path.relative_to(listing.folder))
        try:
            pictures.append(read_picture(path, size))
        except DataError as error:
            bad.append((name, listing.classes[label], _printable(str(error))))
            continue
        labels.append(label)
        splits.append(split)
        names.append(name)
    found = set(zip(splits, labels, strict=True))
    for split in listing.files:
        for label, name in enumerate(listing.classes):
            if (split, label) not in found:
                raise DataError(f"No readable image of {name} in {listing.folder} ({split}).")
    order, arrays = arranged(pictures, labels)
    return {
        **arrays,
        "splits": np.array(splits)[order],
        "names": np.array(names)[order],
        "bad_names": np.array([item[0] for item in bad], dtype=str),
        "bad_classes": np.array([item[1] for item in bad], dtype=str),
        "bad_reasons": np.array([item[2] for item in bad], dtype=str),
    }
