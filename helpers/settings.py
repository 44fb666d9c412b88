"""Where things stand, how files are written there, never by halves, and the one switch of the course.

``COURSE_SMOKE=1`` makes every experiment tiny, on the embedded digits, and sends whatever is written to a
temporary folder, so that a rehearsal can never be mistaken for a result. ``COURSE_GENERATED`` names another folder for
what goes into the report: tests of the notebooks leave the committed one alone, as another processor may draw a figure
a little differently.
"""

import atexit
import hashlib
import os
import shutil
import tempfile
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT / "data"
GENERATED = ROOT / "report" / "generated"
NOTEBOOKS = ROOT / "notebooks"
# glibc otherwise gives every large tensor back to the system and asks for it again at each step, a page at a time.
KEEP_MEMORY = {
    "MALLOC_TRIM_THRESHOLD_": str(2**33),
    "MALLOC_MMAP_THRESHOLD_": str(2**33),
    "MALLOC_TOP_PAD_": str(2**26),
}

# The badges and the set-up cell of every notebook point here. `make badges` writes what git's remote `origin` is on
# GitHub in place of the stand-ins, or of another fork's.
OWNER, REPO, BRANCH = "convolutional-course", "cnn-course", "main"
STAND_INS = ("convolutional-course", "cnn-course")


def smoke() -> bool:
    """Return whether this process rehearses (``COURSE_SMOKE=1``) instead of making results."""
    return os.environ.get("COURSE_SMOKE") == "1"


@cache
def _rehearsal_folder() -> Path:
    """Return this process's own temporary folder, removed when the process ends."""
    folder = Path(tempfile.mkdtemp(prefix="course-smoke-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def runs_folder() -> Path:
    """Return the folder of recorded runs: ``data/runs``, or a temporary one in a rehearsal."""
    return _rehearsal_folder() / "runs" if smoke() else DATA / "runs"


def embeddings_folder() -> Path:
    """Return the folder of embeddings: ``data/embeddings``, or a temporary one in a rehearsal."""
    return _rehearsal_folder() / "embeddings" if smoke() else DATA / "embeddings"


def pages_folder() -> Path:
    """Return the folder of pages for a browser, which hold images of data sets: ``notebooks/pages``, not in git."""
    # Below the notebooks, since Jupyter shows what lies beside them and nothing above.
    return _rehearsal_folder() / "pages" if smoke() else NOTEBOOKS / "pages"


def networks_folder() -> Path:
    """Return the folder of kept networks: ``data/networks``, or a temporary one in a rehearsal."""
    return _rehearsal_folder() / "networks" if smoke() else DATA / "networks"


def generated_folder() -> Path:
    """Return the folder of generated figures, tables and numbers, or the one named instead, or that of a rehearsal."""
    return _rehearsal_folder() / "generated" if smoke() else Path(os.environ.get("COURSE_GENERATED", GENERATED))


def atomic_write(path: Path, content: bytes | str) -> None:
    """Write ``content`` to ``path`` by way of a neighbour: a reader finds the old file or the new one, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    data = content.encode() if isinstance(content, str) else content
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        # mkstemp makes files that only their owner can read; a record is for everybody.
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def write_if_changed(path: Path, content: bytes | str) -> bool:
    """Return whether ``path`` had to be written; a file that already holds ``content`` is left untouched."""
    data = content.encode() if isinstance(content, str) else content
    if path.is_file() and path.read_bytes() == data:
        return False
    atomic_write(path, data)
    return True


def sha256_file(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
