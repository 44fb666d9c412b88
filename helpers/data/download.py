"""What comes from outside: a file over an unreliable network, and archives that may not be trusted."""

import errno
import hashlib
import http.client
import io
import os
import pickle
import sys
import tarfile
import time
import urllib.error
import urllib.request
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from helpers.data.images import DataError

_CHUNK = 1 << 16

# Troubles of this machine, which no other mirror would cure: disk full, not writable.
_LOCAL = (errno.ENOSPC, errno.EACCES, errno.EROFS)


class DownloadError(OSError):
    """No mirror gave the file; says what happened at each."""


class _MirrorFailed(Exception):
    """This mirror will not give the file; the next one may."""


def fetch(
    urls: Sequence[str],
    target: Path,
    *,
    size: int,
    md5: str,
    timeout: float = 20.0,
    attempts: int = 3,
    pause: float = 1.0,
    slowest: float = 20_000,
) -> Path:
    """Return ``target``, downloaded from the first of ``urls`` that gives ``size`` bytes with this MD5.

    What has arrived stays in ``target`` + ".part" and is gone on with, also after the program was ended,
    also from another mirror. An answer that stalls for ``timeout`` seconds, or stays under ``slowest``
    bytes per second that long, is asked for again; after ``attempts`` that brought no more than that, it
    is the next mirror's turn. ``pause`` seconds (doubled each time) lie between attempts.
    Raises DownloadError, and OSError where ``target`` cannot be written.
    """
    part = target.with_name(target.name + ".part")
    target.parent.mkdir(parents=True, exist_ok=True)
    failures = []
    for url in urls:
        try:
            _from_mirror(url, part, size, md5, timeout, attempts, pause, slowest)
        except _MirrorFailed as failure:
            failures.append(f"  {url}: {failure}")
            print(f"{url}: {failure}", file=sys.stderr)
        else:
            os.replace(part, target)
            return target
    raise DownloadError("\n".join([f"{target.name} could not be downloaded:", *failures]))


def _from_mirror(
    url: str, part: Path, size: int, md5: str, timeout: float, attempts: int, pause: float, slowest: float
) -> None:
    """Complete ``part`` from one mirror, or raise _MirrorFailed."""
    # Bytes from elsewhere may be to blame for a wrong sum; then this mirror gets a second, clean chance.
    inherited = best = _length(part)
    fruitless = 0
    while True:
        reason = "the connection ended early"
        if _length(part) < size:
            try:
                _append(url, part, size, timeout, slowest)
            except urllib.error.HTTPError as error:
                reason = f"HTTP {error.code} {error.reason}"
                if error.code < 500 and error.code not in (408, 429):
                    raise _MirrorFailed(reason) from None
            except urllib.error.URLError as error:
                # No such host, refused, unreachable: asking again would only make the reader wait.
                raise _MirrorFailed(f"no connection ({error.reason})") from None
            except (OSError, http.client.HTTPException) as error:
                if getattr(error, "errno", None) in _LOCAL:
                    raise
                reason = str(error) or type(error).__name__
        if _length(part) >= size:
            if _length(part) == size and _md5(part) == md5:
                return
            part.unlink()
            if not inherited:
                raise _MirrorFailed("wrong bytes (the MD5 differs)")
            inherited = best = 0
            continue
        # A few bytes a time would go on for days: progress is what the slowest bearable mirror makes.
        fruitless = 0 if _length(part) - best >= slowest * timeout else fruitless + 1
        best = max(best, _length(part))
        if fruitless >= attempts:
            raise _MirrorFailed(f"{reason}, {attempts} times in a row")
        time.sleep(pause * 2**fruitless)


def _append(url: str, part: Path, size: int, timeout: float, slowest: float) -> None:
    """Add to ``part`` what one answer brings, from where it stands (HTTP Range, RFC 9110 section 14)."""
    start = _length(part)
    headers = {"User-Agent": "cnn-course", "Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=timeout) as response:
        resumed = response.status == 206
        if resumed and response.headers.get("Content-Range", "") != f"bytes {start}-{size - 1}/{size}":
            raise _MirrorFailed(f"another file (Content-Range {response.headers.get('Content-Range')})")
        if not resumed:  # without Range the whole file comes again, from its first byte
            start = 0
            # Known before what we have is overwritten: a log-in page, say, is not the file.
            if response.length is not None and response.length != size:
                raise _MirrorFailed(f"another file ({response.length} bytes; expected {size})")
        with (
            open(part, "ab" if resumed else "wb") as file,
            tqdm(total=size, initial=start, unit="B", unit_scale=True, desc=part.stem, file=sys.stderr) as bar,
        ):
            since, received = time.monotonic(), 0
            # read1 hands over whatever has come; read would wait for a full chunk however slowly it drips.
            while chunk := response.read1(_CHUNK):
                file.write(chunk)
                bar.update(len(chunk))
                received += len(chunk)
                if file.tell() > size:
                    return
                if (elapsed := time.monotonic() - since) > timeout:
                    if received < slowest * elapsed:
                        raise TimeoutError(f"only {received / elapsed:,.0f} bytes per second")
                    since, received = time.monotonic(), 0


def _length(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _md5(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


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
