"""Arrays that are computed once and read afterwards."""

import warnings
import zipfile
from collections.abc import Callable
from contextlib import ExitStack
from io import BytesIO
from pathlib import Path

import numpy as np
from filelock import FileLock

from helpers.files import atomic_write

Arrays = dict[str, np.ndarray]

# The entry that holds the key, and the names of the arrays so that none can get lost unnoticed.
_KEY = "_key"


def cached_arrays(path: Path, key: str, build: Callable[[], Arrays]) -> Arrays:
    """Return what ``build()`` returns, read from ``path`` where that holds it under the same ``key``.

    A cache that is damaged (each of its arrays carries a CRC-32) or has another key is built again.
    Several processes may ask at once: one builds, the others wait and read. A folder that cannot be
    written to costs the cache, not the data; it says so.
    """
    found = _read(path, key)
    if found is None:
        with ExitStack() as held:
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                held.enter_context(FileLock(path.with_suffix(".lock")))
            except OSError as error:
                warnings.warn(f"{path.parent} cannot be written to ({error}): nothing is cached", stacklevel=2)
                return build()
            found = _read(path, key, warn=True)
            if found is None:
                found = build()
                _write(path, key, found)
    return found


def _read(path: Path, key: str, warn: bool = False) -> Arrays | None:
    """Return the arrays, or None where there are none, or damaged ones, or those of another key."""
    if not path.is_file():
        return None
    try:
        # Reading a member to its end checks its CRC.
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as stored:
            stored_key, *names = stored[_KEY].tolist()
            return {name: stored[name] for name in names} if stored_key == key else None
    except (zipfile.BadZipFile, OSError, ValueError, KeyError, EOFError, RuntimeError):
        if warn:
            warnings.warn(f"{path} is damaged; building it again", stacklevel=3)
        return None


def _write(path: Path, key: str, arrays: Arrays) -> None:
    buffer = BytesIO()
    np.savez(buffer, allow_pickle=False, **{_KEY: np.array([key, *arrays])}, **arrays)
    try:
        atomic_write(path, buffer.getvalue())
    except OSError as error:
        warnings.warn(f"{path} could not be written ({error}): nothing is cached", stacklevel=3)
