"""A data set by its name, ready for training: images, labels, one fixed split, and the hashes of all that."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache, cached_property, partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from torch import Tensor

from helpers.data import cifar10, folder
from helpers.data.folder import list_pictures, parse, scan
from helpers.data.images import (
    DIGITS,
    Arrays,
    DataError,
    DataMissing,
    Split,
    channel_statistics,
    class_weights,
    digits_arrays,
    grouped_split,
    part_of,
    sha256_array,
    share,
    split_hash,
    stratified_split,
    subset,
    write_pictures,
)
from helpers.settings import DATA, smoke

VALIDATION_SHARE = 0.1


@dataclass(eq=False)
class Dataset:
    """A data set that is read at first use and then kept; where it is absent, its images raise DataMissing."""

    name: str
    _classes: Callable[[], tuple[str, ...]] = field(repr=False)
    available: Callable[[], bool] = field(repr=False)
    _arrays: Callable[[], Arrays] = field(repr=False)

    @cached_property
    def classes(self) -> tuple[str, ...]:
        """The class names; a label is a position in here."""
        return self._classes()

    train = property(lambda self: self._loaded.train, doc="Nine tenths of the training images (CIFAR-10: 45,000).")
    validation = property(lambda self: self._loaded.validation, doc="One tenth of them, stratified, to choose by.")
    test = property(lambda self: self._loaded.test, doc="The test images, for the last measurement only.")
    test_names = property(lambda self: self._loaded.test_names, doc="Test images' files in the folder, (N,), or None.")
    hashes = property(lambda self: self._loaded.hashes, doc="SHA-256 of each array, in canonical order, and the split.")
    source = property(lambda self: self._loaded.source, doc="Which copy the images came from.")
    mean = property(lambda self: self._statistics[0], doc="Of each channel of the training split, scale 0 to 1.")
    std = property(lambda self: self._statistics[1], doc="Standard deviation, as the mean float32 (3,).")

    @cached_property
    def _loaded(self) -> SimpleNamespace:
        arrays = self._arrays()
        labels = arrays["train_labels"]
        groups = arrays.get("train_groups", np.arange(len(labels)))
        train, validation = grouped_split(labels, groups, share(len(labels), VALIDATION_SHARE, len(self.classes)))
        hashes = {name: sha256_array(arrays[name]) for name in cifar10.SHA256}
        return SimpleNamespace(
            train=part_of(arrays, "train", train),
            validation=part_of(arrays, "train", validation),
            test=part_of(arrays, "test", np.arange(len(arrays["test_labels"]))),
            test_names=arrays.get("test_names"),
            hashes=hashes | {"split": split_hash(train, validation)},
            source=str(arrays["source"]),
        )

    @cached_property
    def _statistics(self) -> tuple[Tensor, Tensor]:
        return channel_statistics(self.train.images)


def load(name: str, *, root: Path = DATA, download: bool = True) -> Dataset:
    """Return the data set "cifar10", "digits", "folder:PATH" (PATH absolute, or below ``root``) or "pacs:QUESTION".

    Nothing is read yet. cifar10 and digits are kept for the life of the process; a folder is looked at anew, since its
    pictures may have changed. ``download`` False: never touch the network. In a rehearsal (COURSE_SMOKE=1) half of
    the digits stands in for any other. :func:`parse` has the options of a name.
    """
    if smoke():
        return _bundled("digits", DATA, False, 900)
    chosen, root = parse(name), Path(root).resolve()
    if chosen.kind == "folder":
        path = root / Path(chosen.rest).expanduser()
        read = partial(folder.load_arrays, path, root / "cache", chosen.options)
        return Dataset(str(chosen), lambda: list_pictures(path).classes, path.is_dir, read)
    if chosen.kind == "pacs":
        read = partial(folder.load_pacs, chosen, root)
        return Dataset(str(chosen), lambda: chosen.asked[0], lambda: bool(folder.find_pacs(root)), read)
    return _bundled(chosen.kind, root, download)


@cache
def _bundled(name: str, root: Path, download: bool, digits: int = 1797) -> Dataset:
    if name == "digits":
        return Dataset(name, lambda: DIGITS, lambda: True, partial(digits_arrays, digits))
    read = partial(cifar10.load_arrays, root, download=download)
    return Dataset(name, lambda: cifar10.CLASSES, partial(cifar10.is_available, root), read)
