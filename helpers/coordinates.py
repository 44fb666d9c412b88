"""Places in the plane, four bytes a point, in files that say what they hold and whether they are whole.

Each axis is cut into 65,536 steps from its least to its greatest value, so a coordinate is off by no more than half a
step, 1/131,070 of the width: by 0.0015 in a picture that is 200 wide, as a t-SNE of 45,000 points may be.
"""

import json
import zipfile
import zlib
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from helpers.files import sha256_array, write_if_changed

STEPS = 2**16 - 1


def quantised(Y: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return ``Y`` (N, 2) in steps, uint16 (N, 2), and the offset and size of a step, float64 (2,) each.

    Raises ValueError for another shape, for no points, and for values that are not finite.
    """
    Y = np.asarray(Y, dtype=np.float64)
    if Y.ndim != 2 or Y.shape[1] != 2 or not len(Y):
        raise ValueError(f"coordinates have shape {Y.shape}; expected (N, 2) with at least one point")
    if not np.isfinite(Y).all():
        raise ValueError("coordinates hold NaN or infinite values")
    offset = Y.min(0)
    scale = (Y.max(0) - offset) / STEPS
    scale[scale == 0] = 1.0  # all the same: any step will do
    return np.rint((Y - offset) / scale).astype(np.uint16), offset, scale


def restored(steps: np.ndarray, offset: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Return the coordinates float32 (N, 2) that :func:`quantised` took apart, to half a step."""
    return (steps * np.asarray(scale) + np.asarray(offset)).astype(np.float32)


def save_coordinates(path: Path, Y: np.ndarray, about: dict[str, Any]) -> bool:
    """Return whether ``path`` (.npz) had to be written to hold ``Y`` (N, 2) and ``about``, plain values as in JSON.

    The file is whole or not there, and the same content always gives the same bytes.
    """
    steps, offset, scale = quantised(Y)
    note = {"about": about, "offset": offset.tolist(), "scale": scale.tolist()}
    buffer = BytesIO()
    # Columns apart, low bytes from high ones: only the high bytes have a pattern that compresses.
    planes = np.ascontiguousarray(steps.T.astype("<u2")).view(np.uint8).reshape(2, len(steps), 2).transpose(0, 2, 1)
    arrays = {"planes": np.ascontiguousarray(planes), "note": np.array(json.dumps(note, sort_keys=True))}
    np.savez_compressed(buffer, allow_pickle=False, **arrays, sha256=np.array(_digest(steps, note)))
    return write_if_changed(path, buffer.getvalue())


def load_coordinates(path: Path) -> tuple[np.ndarray, dict[str, Any]]:
    """Return the coordinates float32 (N, 2) in ``path``, and what was noted about them.

    Raises ValueError if the file is damaged, FileNotFoundError if there is none.
    """
    try:
        with np.load(path, allow_pickle=False) as stored:
            planes, note, digest = stored["planes"], json.loads(str(stored["note"])), str(stored["sha256"])
        columns = np.ascontiguousarray(planes.transpose(0, 2, 1)).view("<u2")[..., 0]  # (2, N)
        steps = np.ascontiguousarray(columns.T)
    except (zipfile.BadZipFile, zlib.error, ValueError, KeyError, RuntimeError, EOFError, OSError) as error:
        if isinstance(error, FileNotFoundError):
            raise
        raise ValueError(f"{path} is damaged ({error}); take it from the repository again") from error
    if _digest(steps, note) != digest:
        raise ValueError(
            f"{path} is damaged: its content has another SHA-256 than it says; take it from the repository"
        )
    return restored(steps, note["offset"], note["scale"]), note["about"]


def _digest(steps: np.ndarray, note: dict[str, Any]) -> str:
    text = np.frombuffer(json.dumps(note, sort_keys=True).encode(), np.uint8)
    return sha256_array(np.concatenate([steps.astype("<u2").view(np.uint8).ravel(), text]))
