"""Where things stand, and the one switch of the course.

``COURSE_SMOKE=1`` makes every experiment tiny, on the embedded digits, and sends whatever is written to a
temporary folder, so that a rehearsal can never be mistaken for a result. ``COURSE_GENERATED`` names another folder for
what goes into the report: tests of the notebooks leave the committed one alone, as another processor may draw a figure
a little differently.
"""

import atexit
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

# The badges and the set-up cell of every notebook point here; change it in a fork, then run `make badges`.
OWNER, REPO, BRANCH = "convolutional-course", "cnn-course", "main"


def smoke() -> bool:
    """Return whether this process rehearses (``COURSE_SMOKE=1``) instead of making results."""
    return os.environ.get("COURSE_SMOKE") == "1"


@cache
def _rehearsal_folder() -> Path:
    """Return this process's own temporary folder, removed when the process ends."""
    folder = Path(tempfile.mkdtemp(prefix="course-smoke-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def stand_in(dataset: str) -> str:
    """Return the data set to use for ``dataset``: in a rehearsal always the embedded digits."""
    return "digits" if smoke() else dataset


def runs_folder() -> Path:
    """Return the folder of recorded runs: ``data/runs``, or a temporary one in a rehearsal."""
    return _rehearsal_folder() / "runs" if smoke() else DATA / "runs"


def embeddings_folder() -> Path:
    """Return the folder of embeddings: ``data/embeddings``, or a temporary one in a rehearsal."""
    return _rehearsal_folder() / "embeddings" if smoke() else DATA / "embeddings"


def pages_folder() -> Path:
    """Return the folder of pages for a browser, which hold images of data sets: ``data/pages``, which git ignores."""
    return _rehearsal_folder() / "pages" if smoke() else DATA / "pages"


def networks_folder() -> Path:
    """Return the folder of kept networks: ``data/networks``, or a temporary one in a rehearsal."""
    return _rehearsal_folder() / "networks" if smoke() else DATA / "networks"


def generated_folder() -> Path:
    """Return the folder of generated figures, tables and numbers, or the one named instead, or that of a rehearsal."""
    return _rehearsal_folder() / "generated" if smoke() else Path(os.environ.get("COURSE_GENERATED", GENERATED))
