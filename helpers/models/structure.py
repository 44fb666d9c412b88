"""What happens inside a net: its layers' outputs, sizes and costs, looked at in a copy, so that nothing changes."""

import copy
import hashlib
import io
import json
from collections.abc import Sequence
from contextlib import redirect_stdout
from functools import partial
from math import prod

import torch
import torchsummary
from torch import nn

# What a layer does beyond its type, shapes and parameters; part of the fingerprint of a structure.
SETTINGS = (
    *("kernel_size", "stride", "padding", "padding_mode", "dilation", "groups", "ceil_mode", "count_include_pad"),
    *("p", "negative_slope", "eps", "momentum", "track_running_stats"),
)


def latents(model: nn.Module, images: torch.Tensor, layers: str | Sequence[str]) -> dict[str, torch.Tensor]:
    """Return the named layers' outputs, {name: tensor (N, …)}, in evaluation mode and without gradients.

    ``images`` are what the net is trained on: normalised floats (N, 3, H, W), all in one batch. Names are dotted
    ("flatten", "block1.conv2"). ValueError lists the layers if one of them is unknown.
    """
    names = [layers] if isinstance(layers, str) else list(layers)
    copied = copy.deepcopy(model).eval()  # so that hooks and mode go with it
    modules = dict(copied.named_modules())
    if unknown := [name for name in names if not name or name not in modules]:
        choices = ", ".join(name for name in modules if name)
        raise ValueError(f"the net has no layer {', '.join(map(repr, unknown))}; its layers are: {choices}")
    kept: dict[str, torch.Tensor] = {}

    def keep(name: str, module: nn.Module, inputs: tuple, output: torch.Tensor) -> None:
        kept[name] = output.clone()  # a copy, as an activation in place may follow

    for name in names:
        modules[name].register_forward_hook(partial(keep, name))
    with torch.no_grad():
        copied(images)
    return {name: kept[name] for name in names}


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
        if isinstance(module, nn.Conv2d):
            cost = output[0].numel() * (module.in_channels // module.groups) * prod(module.kernel_size)
        elif isinstance(module, nn.Linear):
            cost = output[0].numel() * module.in_features
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
