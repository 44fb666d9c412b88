"""Any folder of pictures as a data set: train/<class>/* and test/<class>/*, or <class>/* to be split."""

import hashlib
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from helpers.cache import Arrays, cached_arrays
from helpers.images import DataError, DataMissing, read_fitted, stacked
from helpers.splits import share, stratified_split

TEST_SHARE = 0.2
_LAYOUTS = "Expected PATH/train/<class>/* and PATH/test/<class>/*, or PATH/<class>/*"


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
                stat = path.stat()
                digest.update(f"{split}\0{path}\0{label}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode())
        return digest.hexdigest()


def list_pictures(folder: Path) -> Listing:
    """Return the classes and files of ``folder``.

    Raises DataMissing where there is no such folder, DataError for a missing split, an empty class,
    classes that differ between train and test, or fewer than two classes.
    """
    if not folder.is_dir():
        raise DataMissing(f"There is no folder {folder}. {_LAYOUTS}.")
    # A class may itself be called "train" (a vehicle): only one that has folders inside is a split.
    splits = [name for name in ("train", "test") if _subfolders(folder / name)]
    if not splits:
        return Listing(folder, *_classes_of({"all": folder}))
    if len(splits) == 1:
        raise DataError(f"{folder} has {splits[0]}/<class>/* but not the other split. {_LAYOUTS}.")
    return Listing(folder, *_classes_of({name: folder / name for name in splits}))


def load_arrays(listing: Listing, cache: Path, size: int = 32) -> Arrays:
    """Return train_images, train_labels, test_images, test_labels, "source" and "left_out".

    Images are uint8 (N, size, size, 3), RGB, upright, centre-cropped; labels uint8 (N,). A folder without
    splits is divided 80:20, stratified. Files that cannot be read are named in one warning and left out.
    Decoded once into ``cache`` (a folder), again when a picture changes. Raises DataError where too few
    pictures are left.
    """
    name = hashlib.sha256(f"{listing.folder} {size}".encode()).hexdigest()[:12]
    arrays = cached_arrays(
        cache / f"folder-{name}.npz", f"{size} {listing.fingerprint()}", lambda: _decode(listing, size)
    )
    if len(left_out := arrays["left_out"]):
        more = f" and {len(left_out) - 10} more" if len(left_out) > 10 else ""
        named = ", ".join(left_out[:10])
        warnings.warn(f"left out, no readable images: {named}{more} (in {listing.folder})", stacklevel=2)
    return arrays


def _subfolders(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _classes_of(roots: dict[str, Path]) -> tuple[tuple[str, ...], dict[str, tuple[tuple[Path, int], ...]]]:
    """Return the class names, sorted, and the files of each split with their labels."""
    names = {split: [path.name for path in _subfolders(root)] for split, root in roots.items()}
    classes = sorted(set().union(*names.values()))
    if not 2 <= len(classes) <= 256:
        raise DataError(f"{len(classes)} classes in {next(iter(roots.values()))}; 2 to 256 work. {_LAYOUTS}.")
    files = {}
    for split, root in roots.items():
        if absent := sorted(set(classes) - set(names[split])):
            raise DataError(f"{root} has no folder for {', '.join(absent)}, which the other split has.")
        files[split] = tuple((path, label) for label, name in enumerate(classes) for path in _files(root / name))
    return tuple(classes), files


def _files(folder: Path) -> list[Path]:
    files = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    if not files:
        raise DataError(f"{folder} is empty: put pictures of that class there, or remove the folder.")
    return files


def _decode(listing: Listing, size: int) -> Arrays:
    left_out: list[str] = []
    arrays = {}
    for split, files in listing.files.items():
        images, labels = [], []
        for path, label in files:
            try:
                images.append(read_fitted(path, size))
                labels.append(label)
            except DataError:
                left_out.append(str(path.relative_to(listing.folder)))
        for label, name in enumerate(listing.classes):
            if label not in labels:
                raise DataError(f"No readable image of {name} in {listing.folder} ({split}).")
        arrays[f"{split}_images"], arrays[f"{split}_labels"] = stacked(images, labels)
    if "all_images" in arrays:
        arrays = _divided(arrays["all_images"], arrays["all_labels"], len(listing.classes))
    return arrays | {"source": np.array(f"folder {listing.folder.name}"), "left_out": np.array(left_out, dtype=str)}


def _divided(images: np.ndarray, labels: np.ndarray, classes: int) -> Arrays:
    train, test = stratified_split(labels, share(len(labels), TEST_SHARE, classes))
    return {
        "train_images": images[train],
        "train_labels": labels[train],
        "test_images": images[test],
        "test_labels": labels[test],
    }
