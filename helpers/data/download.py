"""What comes from outside: a file over an unreliable network, and archives that may not be trusted."""

import errno
import hashlib
import http.client
import os
import sys
import tarfile
import time
import urllib.error
import urllib.request
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from tqdm import tqdm

from helpers.data.images import DataError, Picture, read_picture

TIMEOUT = 20.0  # seconds without a byte after which an answer has stalled
SLOWEST = 20_000  # bytes per second; an answer that stays below it for TIMEOUT is given up
ATTEMPTS = 3  # at one mirror, each bringing less than that
PAUSE = 1.0  # seconds before the next attempt, doubled each time

# Troubles of this machine, which no other mirror would cure: disk full, not writable.
_LOCAL = (errno.ENOSPC, errno.EACCES, errno.EROFS)


class DownloadError(OSError):
    """No mirror gave the file; says what happened at each."""


class _MirrorFailed(Exception):
    """This mirror will not give the file; the next one may."""


def fetch(urls: Sequence[str], target: Path, *, size: int, md5: str) -> Path:
    """Return ``target``, downloaded from the first of ``urls`` that gives ``size`` bytes with this MD5.

    What has arrived stays in ``target`` + ".part" and is gone on with, also after the program was ended,
    also from another mirror. Raises DownloadError, and OSError where ``target`` cannot be written.
    """
    part = target.with_name(target.name + ".part")
    target.parent.mkdir(parents=True, exist_ok=True)
    failures = []
    for url in urls:
        try:
            _from_mirror(url, part, size, md5)
        except _MirrorFailed as failure:
            failures.append(f"  {url}: {failure}")
            print(f"{url}: {failure}", file=sys.stderr)
        else:
            os.replace(part, target)
            return target
    raise DownloadError("\n".join([f"{target.name} could not be downloaded:", *failures]))


def _from_mirror(url: str, part: Path, size: int, md5: str) -> None:
    """Complete ``part`` from one mirror, or raise _MirrorFailed."""
    # Bytes from elsewhere may be to blame for a wrong sum; then this mirror gets a second, clean chance.
    inherited = best = _length(part)
    fruitless = 0
    while True:
        reason = "the connection ended early"
        if _length(part) < size:
            try:
                _append(url, part, size)
            except urllib.error.URLError as error:
                code = getattr(error, "code", None)
                reason = f"HTTP {code} {error.reason}" if code else f"no connection ({error.reason})"
                # No such host or file, refused, unreachable: asking again would only make the reader wait.
                if code not in (408, 429, *range(500, 600)):
                    raise _MirrorFailed(reason) from None
            except (OSError, http.client.HTTPException) as error:
                if getattr(error, "errno", None) in _LOCAL:
                    raise
                reason = str(error) or type(error).__name__
        if _length(part) >= size:
            if _length(part) == size and _md5(part.read_bytes()) == md5:
                return
            part.unlink()
            if not inherited:
                raise _MirrorFailed("wrong bytes (the MD5 differs)")
            inherited = best = 0
            continue
        # A few bytes a time would go on for days: progress is what the slowest bearable mirror makes.
        fruitless = 0 if _length(part) - best >= SLOWEST * TIMEOUT else fruitless + 1
        best = max(best, _length(part))
        if fruitless >= ATTEMPTS:
            raise _MirrorFailed(f"{reason}, {ATTEMPTS} times in a row")
        time.sleep(PAUSE * 2**fruitless)


def _append(url: str, part: Path, size: int) -> None:
    """Add to ``part`` what one answer brings, from where it stands (HTTP Range, RFC 9110 section 14)."""
    start = _length(part)
    headers = {"User-Agent": "cnn-course", "Accept-Encoding": "identity"} | (
        {"Range": f"bytes={start}-"} if start else {}
    )
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=TIMEOUT) as response:
        resumed = response.status == 206
        if resumed and response.headers.get("Content-Range", "") != f"bytes {start}-{size - 1}/{size}":
            raise _MirrorFailed(f"another file (Content-Range {response.headers.get('Content-Range')})")
        # Known before what we have is overwritten: a log-in page, say, is not the file.
        if not resumed and response.length not in (None, size):
            raise _MirrorFailed(f"another file ({response.length} bytes; expected {size})")
        start = start if resumed else 0  # without Range the whole file comes again, from its first byte
        with (
            open(part, "ab" if resumed else "wb") as file,
            tqdm(total=size, initial=start, unit="B", unit_scale=True, desc=part.stem, file=sys.stderr) as bar,
        ):
            since, received = time.monotonic(), 0
            # read1 hands over whatever has come; read would wait for a full chunk however slowly it drips.
            while file.tell() <= size and (chunk := response.read1(1 << 16)):
                file.write(chunk)
                bar.update(len(chunk))
                received += len(chunk)
                if (elapsed := time.monotonic() - since) > TIMEOUT:
                    if received < SLOWEST * elapsed:
                        raise TimeoutError(f"only {received / elapsed:,.0f} bytes per second")
                    since, received = time.monotonic(), 0


def _length(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


class Member(NamedTuple):
    """A file of a copy: its path in there, the name to give in an error, and its bytes."""

    path: str
    name: str
    content: bytes

    def picture(self, size: int) -> Picture:
        """Return the picture that the file holds. Raises DataError, naming the file, where it holds none."""
        try:
            return read_picture(self.content, size)
        except DataError as error:
            raise DataError(f"{self.name} is no readable image ({error}). Replace this copy, or remove it.") from error


def members(copy: Sequence[Path], largest: int) -> Iterator[Member]:
    """Yield the files of a copy: of a folder those three levels deep, sorted by path; or all of some tar archives.

    Nothing is unpacked. Raises DataError for an archive that is truncated or damaged, or that holds a path that leads
    out of it, a link, a device, or a file of more than ``largest`` bytes.
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
