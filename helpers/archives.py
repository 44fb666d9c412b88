"""Members of a data set's folder, archive or official batches, read in memory; nothing is extracted."""

import hashlib
import io
import pickle
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np

from helpers.images import DataError

# A 32 x 32 image has 3 kB of pixels; whatever claims more than this is something else.
_LARGEST = 1 << 20
_LARGEST_BATCH = 1 << 26

# All that a pickled array asks for, by (package, name).
_PARTS_OF_AN_ARRAY = {("numpy", "_reconstruct"), ("numpy", "ndarray"), ("numpy", "dtype"), ("_codecs", "encode")}


class Member(NamedTuple):
    """A file of a copy: its path in there, the name to give in an error, and its bytes."""

    path: str
    name: str
    content: bytes


def folder_members(folder: Path) -> Iterator[Member]:
    """Yield the files that lie three levels deep, folder/<split>/<class>/<file>, sorted by path."""
    for path in sorted(folder.glob("*/*/*")):
        if path.is_file():
            yield Member(path.relative_to(folder).as_posix(), str(path), path.read_bytes())


def archive_members(archives: list[Path], largest: int = _LARGEST) -> Iterator[Member]:
    """Yield the files of tar archives, one archive after the other.

    Raises DataError for an archive that is truncated or damaged, or that holds a path that leads out of
    it, a link, a device, or a file of more than ``largest`` bytes.
    """
    for archive in archives:
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


def official_batches(copy: Path, files: list[list[str]]) -> tuple[list[np.ndarray], list[int]]:
    """Return the images, uint8 (32, 32, 3) each, and labels of official python batches.

    copy: cifar-10-batches-py/ or cifar-10-python.tar.gz; files: [name, MD5] of each batch. A batch is
    a pickle, so it is looked into only after its MD5 has been found right. Raises DataError for a file
    that is missing or altered.
    """
    if copy.is_dir():
        contents = {name: (copy / name).read_bytes() for name, _ in files if (copy / name).is_file()}
    else:
        members = archive_members([copy], _LARGEST_BATCH)
        contents = {PurePosixPath(member.path).name: member.content for member in members}
    images, labels = [], []
    for name, md5 in files:
        if name not in contents:
            raise DataError(f"{copy}: {name} is missing. Complete the copy, or remove it to have it downloaded.")
        found = hashlib.md5(contents[name], usedforsecurity=False).hexdigest()
        if found != md5:
            raise DataError(
                f"{copy}: {name} has MD5 {found}; expected {md5}. The copy is incomplete or altered: replace "
                "it, or remove it to have it downloaded."
            )
        batch = _ArraysOnly(io.BytesIO(contents[name]), encoding="bytes").load()
        rows = np.asarray(batch[b"data"], dtype=np.uint8)  # (n, 3072), red then green then blue
        images.extend(rows.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))
        labels.extend(batch[b"labels"])
    return images, labels


class _ArraysOnly(pickle.Unpickler):
    """Unpickles NumPy arrays and plain containers, and nothing that could run code."""

    def find_class(self, module: str, name: str) -> Any:
        """Return the class or function that the pickle names; raises DataError for all but an array's parts."""
        if (module.split(".")[0], name) in _PARTS_OF_AN_ARRAY:
            return super().find_class(module, name)
        raise DataError(f"a batch asks for {module}.{name}, which no copy of CIFAR-10 does: refused.")
