"""Networks that have learned already: a few of the course's own, kept in git.

A kept network is ``data/networks/NAME.safetensors``: its weights in half precision, and in the file's metadata the
experiment that trained it. ``Experiment(initial="NAME")`` starts from it.
"""

import io
import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from helpers import numpy_cnn as cnn
from helpers.data import DataError, DataMissing, Dataset, Split
from helpers.settings import DATA, atomic_write, networks_folder, sha256_file
from helpers.training.experiment import Experiment

# What all kept networks may weigh together, in bytes: they are part of every clone.
ROOM = 5 * 2**20


def save_network(name: str, model: nn.Module, record: Mapping[str, Any]) -> Path:
    """Return the file under which ``model``, as ``record`` says it was trained, is kept as ``name``, or ValueError."""
    if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", name):
        raise ValueError(f'name={name!r}: use a-z, 0-9 and hyphens: "three-convolutions"')
    *_, (last, _) = model.named_children()
    if last != "logits":
        raise ValueError(f"the last layer is {last!r}; give a network that ends in 'logits'")
    state = model.state_dict()
    tensors = {key: (v.half() if v.is_floating_point() else v).cpu().contiguous() for key, v in state.items()}
    if large := [key for key, value in tensors.items() if not value.isfinite().all()]:
        raise ValueError(f"{large[0]} is not finite in half precision; keep a network that converged")
    _fill(Experiment(**record["experiment"]).network(len(record["classes"])), tensors, "the model")
    info = {name: json.dumps(record[name]) for name in ("experiment", "classes")}
    info |= {"key": record["key"], "device": record["provenance"]["device"]}
    content, path = save(tensors, metadata=info), networks_folder() / f"{name}.safetensors"
    others = sum(other.stat().st_size for other in path.parent.glob("*.safetensors") if other != path)
    if len(content) + others > ROOM:
        raise ValueError(f"{name} takes {len(content):,} bytes, and of {ROOM:,} for all networks {others:,} are taken")
    atomic_write(path, content)
    return path


def load_network(name: str) -> tuple[nn.Module, dict[str, Any]]:
    """Return the kept network ``name`` (float32, evaluation mode) and its "experiment", "key", "device", "classes".

    DataMissing lists the networks that there are; DataError says that a file is damaged.
    """
    path = network_path(name)
    try:
        with safe_open(path, framework="pt") as file:
            info = dict(file.metadata() or {})
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (no mapping)
        info["experiment"] = Experiment(**json.loads(info["experiment"]))
        info["classes"] = tuple(json.loads(info["classes"]))
        model = info["experiment"].network(len(info["classes"]))
        _fill(model, tensors, path.name)
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise DataError(f"the network {path} cannot be used ({error}); restore it with git") from error
    return model.eval(), info


def network_path(name: str) -> Path:
    """Return the file of the kept network ``name``, in a rehearsal from its own folder if it is there."""
    folders = DATA / "networks", networks_folder()
    known = {path.stem: path for folder in folders for path in folder.glob("*.safetensors")}
    if name not in known:
        there = ", ".join(sorted(known)) or "none yet"
        raise DataMissing(f"there is no network {name!r} in {networks_folder()}; there are: {there}")
    return known[name]


def start(experiment: Experiment, data: Dataset) -> nn.Module:
    """Return the network from which ``experiment`` starts, its last layer for the classes of ``data``.

    All weights are drawn first, as from scratch; those of a kept network then take the place of all but the last
    layer's. So runs that differ in ``initial`` alone share the last layer's first weights. The caller seeds torch.
    """
    model = experiment.network(len(data.classes))
    if experiment.initial:
        kept, info = load_network(experiment.initial)
        theirs, ours = (f"a {e.model!r} with {e.choices()['model_options']}" for e in (info["experiment"], experiment))
        if theirs != ours:
            raise ValueError(f"initial={experiment.initial!r} is {theirs}, not {ours}: give the experiment that model")
        body = {key: value for key, value in kept.state_dict().items() if not key.startswith("logits.")}
        model.load_state_dict(body, strict=False)
    return model


def fingerprint(initial: str) -> str:
    """Return the SHA-256 of the file that ``Experiment(initial=...)`` starts from."""
    return sha256_file(network_path(initial))


def _fill(model: nn.Module, tensors: Mapping[str, Tensor], what: str) -> None:
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        raise ValueError(f"the weights of {what} do not fit: {str(error).splitlines()[-1].strip()}") from error


# --- A run that may be cut off: its state after each epoch, and the weights that NumPy found. ---


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write ``state`` (tensors, numbers, text, lists, dictionaries) to ``path``, whole or not at all."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    atomic_write(path, buffer.getvalue())


def load_checkpoint(path: Path, device: torch.device, structure: str) -> dict[str, Any] | None:
    """Return the state saved at ``path``, on ``device``, or None where there is none that can be used.

    A file that cannot be read, or of a model of another structure, is set aside under a new name, as stderr says.
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


def pictures(split: Split) -> cnn.Pictures:
    """Return a split as arrays, the images channels last: uint8 (N, 3, H, W) -> (N, H, W, 3)."""
    return cnn.Pictures(np.ascontiguousarray(split.images.numpy().transpose(0, 2, 3, 1)), split.labels.numpy())


@torch.no_grad()
def load_weights(model: nn.Sequential, network: cnn.Sequential) -> None:
    """Copy the weights of a NumPy network into the PyTorch network with the same layers."""
    channels = 3  # of what a layer gets; PyTorch keeps outputs first, and flattens images channel by channel
    for layer, module in zip(network.layers, model, strict=True):
        if layer.parameters:
            weight = torch.from_numpy(layer.parameters["weight"])
            if weight.ndim == 4:  # (k, k, in, out) -> (out, in, k, k)
                weight = weight.permute(3, 2, 0, 1)
            elif weight.ndim == 2:  # (H·W·C, out) -> (out, C·H·W)
                weight = weight.unflatten(0, (-1, channels)).permute(2, 1, 0).flatten(1)
            module.weight.copy_(weight)
            module.bias.copy_(torch.from_numpy(layer.parameters["bias"]))
            channels = len(module.bias)
        if layer.state:
            module.running_mean.copy_(torch.from_numpy(layer.state["mean"]))
            module.running_var.copy_(torch.from_numpy(layer.state["variance"]))
