"""Checkpoints: what a killed run needs to go on as if nothing had happened."""

import io
import sys
from pathlib import Path
from typing import Any

import torch

from helpers.files import atomic_write


def save(path: Path, state: dict[str, Any]) -> None:
    """Write ``state`` (tensors, numbers, text, lists, dictionaries) to ``path``, whole or not at all."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    atomic_write(path, buffer.getvalue())


def load(path: Path, device: torch.device, structure: str) -> dict[str, Any] | None:
    """Return the state saved at ``path``, on ``device``, or None where there is none that can be used.

    A file that cannot be read, or that belongs to another structure of the model, is set aside under a new name,
    never deleted, and training starts from the beginning; one line on stderr says so. Nothing is unpickled but
    tensors and plain values (``weights_only=True``).
    """
    if not path.is_file():
        return None
    try:
        state = torch.load(path, map_location=device, weights_only=True)
        if state["structure"] == structure:
            return state
        reason = "it was saved by a model of another structure"
    except Exception as error:  # torch.load raises a dozen kinds for a damaged file
        reason = f"it cannot be read ({type(error).__name__})"
    aside = path.with_suffix(f".aside-{path.stat().st_mtime_ns}.pt")
    path.rename(aside)
    print(f"checkpoint {path.name}: {reason}; kept as {aside.name}, training starts anew", file=sys.stderr)
    return None
