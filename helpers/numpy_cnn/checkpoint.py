"""Checkpoints: all that a killed training needs to go on to the same numbers, in one file that is never half there."""

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from helpers.files import atomic_write
from helpers.numpy_cnn.network import Sequential
from helpers.numpy_cnn.optimizers import Optimizer


class CheckpointError(ValueError):
    """A checkpoint cannot be read, or is another training's."""


def save(
    path: Path, network: Sequential, optimizer: Optimizer, settings: dict[str, Any], progress: dict[str, Any]
) -> None:
    """Write the state of a training to ``path`` in one step, over the one before.

    Random draws need no place in it: each step's are a function of the seed and the step's number.
    """
    arrays = {f"network/{name}": array for name, array in {**network.parameters, **network.state}.items()}
    for name, memory in optimizer.memory.items():
        arrays |= {f"optimizer/{name}/{key}": array for key, array in memory.items()}
    text = {"settings": settings, "progress": progress, "optimizer_steps": optimizer.steps}
    memory_file = io.BytesIO()
    np.savez(memory_file, about=np.array(json.dumps(text)), **arrays)
    atomic_write(path, memory_file.getvalue())


def load(path: Path, network: Sequential, optimizer: Optimizer, settings: dict[str, Any]) -> dict[str, Any]:
    """Return the progress saved at ``path``, after putting network and optimizer where they were then.

    Raises:
        CheckpointError: the file is damaged, or other settings made it; it is named, and left as it is.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = dict(file)
        about = json.loads(str(arrays.pop("about")))
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise CheckpointError(f"the checkpoint {path} cannot be read ({error}); move it away to start anew") from error
    for name in sorted(settings.keys() | about["settings"].keys()):
        there, here = about["settings"].get(name), settings.get(name)
        if there != json.loads(json.dumps(here)):
            raise CheckpointError(
                f"the checkpoint {path} is another training's: its {name} was {there}, now it is {here}; "
                "set it back to go on, or move the file away to start anew"
            )
    network.load({name.removeprefix("network/"): a for name, a in arrays.items() if name.startswith("network/")})
    optimizer.steps, optimizer.memory = about["optimizer_steps"], {}
    for name, array in arrays.items():
        if name.startswith("optimizer/"):
            _, parameter, key = name.split("/")
            optimizer.memory.setdefault(parameter, {})[key] = array
    return about["progress"]
