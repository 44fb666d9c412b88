"""The networks of the course, by name, each a plain ``nn.Sequential`` whose layers carry names.

The keys r0, r1, r2 and r4 stand for the published reports that the course reproduces. Where a report does not give a
size, the docstring says what is published and what is our reading of it. Defaults are part of recorded keys, so they
stay. Every net takes normalised float images of shape (N, 3, 32, 32) and returns logits of shape (N, classes).

Weights are drawn layer by layer, in the order in which the layers are written, from torch's global generator and with
torch's default initialisation. So after the same ``torch.manual_seed`` two nets of the same shapes start from the same
weights, with or without batch norm and dropout, whatever the activation and the pooling: none of these draws anything.
"""

import copy
import hashlib
import io
import json
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from functools import partial

import torch
import torchsummary
from torch import nn

from helpers.models import networks
from helpers.models.networks import ENOUGH_PICTURES, SWITCHES, whiten

_FUNCTIONS = (
    *(networks.r0_base, networks.r0_model2, networks.r0_final, networks.r1, networks.r2, networks.r3, networks.r3_norm),
    *(networks.r4, networks.improved, networks.compact, networks.fast94),
)
MODELS: dict[str, Callable[..., nn.Sequential]] = {make.__name__.replace("_", "-"): make for make in _FUNCTIONS}


def build(name: str, classes: int = 10, **chosen: object) -> nn.Module:
    """Return a new, freshly initialised net: ``build("r2", classes=10, batch_norm=False)``.

    The caller seeds torch first. Unknown names and options, and senseless values, raise ValueError with
    the choices. To check a choice without drawing any weight, build under ``with torch.device("meta"):``.
    """
    if name not in MODELS:
        raise ValueError(f"there is no model {name!r}; choose one of: {', '.join(sorted(MODELS))}")
    known = MODELS[name].__kwdefaults__ or {}
    if unknown := sorted(set(chosen) - set(known)):
        choices = ", ".join(f"{key}={value!r}" for key, value in known.items()) or "none"
        raise ValueError(f"model {name!r} has no option {', '.join(unknown)}; its options: {choices}")
    for option, value in chosen.items():
        if not _is_like(value, known[option]):
            raise ValueError(f"{option} is {value!r}; give a value of the kind of {known[option]!r}")
    if type(classes) is not int or classes < 2:
        raise ValueError(f"classes is {classes!r}; a classifier needs at least 2")
    return MODELS[name](classes, **chosen)


def _is_like(value: object, like: object) -> bool:
    """Say whether a value is of the default's kind: a share below 1, a whole number from 1 on, or several of them."""
    if isinstance(like, tuple):
        return isinstance(value, list | tuple) and len(value) == len(like) and all(map(_is_like, value, like))
    if isinstance(like, float):
        return type(value) in (int, float) and 0 <= value < 1
    return type(value) is type(like) and (type(value) is not int or value >= 1)


# --- What happens inside a net: looked at in a copy, so that nothing changes. ---

# What a layer does beyond its type, shapes and parameters; part of the fingerprint of a structure.
SETTINGS = (
    *("kernel_size", "stride", "padding", "padding_mode", "dilation", "groups", "ceil_mode", "count_include_pad"),
    *("p", "negative_slope", "eps", "momentum", "track_running_stats"),
)


def layer_table(model: nn.Module, input_shape: Sequence[int] = (3, 32, 32)) -> list[dict]:
    """Return one row a layer, in order of execution: layer, type, output_shape, parameters, multiply_adds.

    Shapes and multiply-adds are for one image. Multiply-adds are those of convolutions (output numbers times
    input channels per group times kernel area) and of linear layers (in times out), biases left out.
    """
    return [row for row, _ in _walk(model, input_shape)]


def structure_hash(model: nn.Module) -> str:
    """Return the SHA-256 of a net's structure: its layer table and each layer's settings, never its weights.

    It is made of our own rows, not of torch's ``repr``, so that another version of torch gives the same.
    """
    rows = [
        {**row, "settings": {key: getattr(module, key) for key in SETTINGS if hasattr(module, key)}}
        for row, module in _walk(model)
    ]
    return hashlib.sha256(json.dumps(rows, sort_keys=True, default=str).encode()).hexdigest()


def summary(model: nn.Module) -> str:
    """Return torchsummary's table as text."""
    printed = io.StringIO()
    # torchsummary sends random images through the net in the mode in which it finds it: it gets a copy and a seed.
    with torch.random.fork_rng(devices=[]), redirect_stdout(printed):
        torchsummary.summary(copy.deepcopy(model).cpu(), (3, 32, 32), device="cpu")
    return printed.getvalue().rstrip()


def _walk(model: nn.Module, input_shape: Sequence[int] = (3, 32, 32)) -> list[tuple[dict, nn.Module]]:
    """Return (row of the layer table, layer) for each layer, in order of execution."""
    copied = copy.deepcopy(model).eval()  # in which no layer draws numbers or keeps statistics
    some = next(model.parameters(), torch.empty(0))
    steps: dict[str, tuple[dict, nn.Module]] = {}

    def note(name: str, module: nn.Module, inputs: tuple, output: torch.Tensor) -> None:
        cost = 0
        if isinstance(module, nn.Conv2d | nn.Linear):  # each number that leaves it takes all weights of its filter
            cost = output[0].numel() * module.weight[0].numel()
        if name in steps:
            cost += steps[name][0]["multiply_adds"]  # a layer that is used twice costs twice
        row = {"layer": name, "type": type(module).__name__, "output_shape": list(output.shape[1:])}
        row |= {"parameters": sum(p.numel() for p in module.parameters(recurse=False)), "multiply_adds": cost}
        steps[name] = row, module

    for name, module in copied.named_modules():
        # A container has no work of its own, unless it holds a parameter that is not in one of its children.
        if not list(module.children()) or list(module.parameters(recurse=False)):
            module.register_forward_hook(partial(note, name))
    with torch.no_grad():
        copied(torch.zeros(1, *input_shape, device=some.device, dtype=some.dtype))
    return list(steps.values())
