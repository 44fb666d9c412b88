"""A data set by its name, ready for training: images, labels, one fixed split, and the hashes of all that."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache, cached_property, partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from torch import Tensor

from helpers.data import cifar10, folder
from helpers.data.folder import list_pictures, scan
from helpers.data.images import (
    DIGITS,
    SPLIT_SEED,
    Arrays,
    DataError,
    DataMissing,
    class_weights,
    digits_arrays,
    grouped_split,
    sha256_array,
    share,
    stratified_split,
    write_pictures,
)
from helpers.data.names import parse
from helpers.settings import DATA, smoke

VALIDATION_SHARE = 0.1


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
    hashes = property(
        lambda self: self._loaded.hashes, doc="SHA-256 of each array in canonical order, and of the split."
    )
    source = property(lambda self: self._loaded.source, doc="Which copy the images came from.")
    mean = property(
        lambda self: self._statistics[0], doc="Of each channel over the training split, on the scale 0 to 1."
    )
    std = property(lambda self: self._statistics[1], doc="Standard deviation, as the mean float32 (3,).")

    @cached_property
    def _loaded(self) -> SimpleNamespace:
        arrays = self._arrays()
        labels = arrays["train_labels"]
        groups = arrays.get("train_groups", np.arange(len(labels)))
        train, validation = grouped_split(labels, groups, share(len(labels), VALIDATION_SHARE, len(self.classes)))
        hashes = {name: sha256_array(arrays[name]) for name in cifar10.SHA256}
        return SimpleNamespace(
            train=_split(arrays, "train", train),
            validation=_split(arrays, "train", validation),
            test=_split(arrays, "test", np.arange(len(arrays["test_labels"]))),
            hashes=hashes | {"split": split_hash(train, validation)},
            source=str(arrays["source"]),
        )

    @cached_property
    def _statistics(self) -> tuple[Tensor, Tensor]:
        return channel_statistics(self.train.images)


def load(name: str, *, root: Path = DATA, download: bool = True) -> Dataset:
    """Return the data set "cifar10", "digits", "folder:PATH" (PATH absolute, or below ``root``) or "pacs:QUESTION".

    Nothing is read yet. cifar10 and digits are kept for the life of the process; a folder is looked at anew, since its
    pictures may have changed. ``download`` False: never touch the network. In a rehearsal (COURSE_SMOKE=1) the digits
    stand in for any other. :func:`parse` has the options of a name.
    """
    chosen, root = parse("digits" if smoke() else name), Path(root).resolve()
    if chosen.kind == "folder":
        path = root / Path(chosen.rest).expanduser()
        read = partial(folder.load_arrays, path, root / "cache", chosen.options)
        return Dataset(str(chosen), lambda: list_pictures(path).classes, path.is_dir, read)
    if chosen.kind == "pacs":
        read = partial(folder.load_pacs, chosen, root)
        return Dataset(str(chosen), lambda: chosen.asked[0], lambda: bool(folder.find_pacs(root)), read)
    return _bundled(chosen.kind, root, download)


@cache
def _bundled(name: str, root: Path, download: bool) -> Dataset:
    if name == "digits":
        return Dataset(name, lambda: DIGITS, lambda: True, digits_arrays)
    read = partial(cifar10.load_arrays, root, download=download)
    return Dataset(name, lambda: cifar10.CLASSES, partial(cifar10.is_available, root), read)


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


def _split(arrays: Arrays, part: str, index: np.ndarray) -> Split:
    images = np.ascontiguousarray(arrays[f"{part}_images"][index].transpose(0, 3, 1, 2))  # (N, 3, H, W)
    labels = arrays[f"{part}_labels"][index].astype(np.int64)
    return Split(torch.from_numpy(images), torch.from_numpy(labels), torch.from_numpy(index))
