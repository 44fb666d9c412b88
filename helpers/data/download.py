"""A large file over an unreliable network: resumed, retried, checked, from whichever mirror has it."""

import errno
import hashlib
import http.client
import os
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

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
