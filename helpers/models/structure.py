"""What happens inside a net: its layers' outputs, sizes and costs.

Nothing here changes the net it looks at: weights, batch-norm statistics, training mode and random state stay
as they were found.
"""

import contextlib
import copy
import hashlib
import io
import json
from collections.abc import Iterator, Sequence
from functools import partial
from math import prod

import torch
import torchsummary
from torch import nn

# What a layer does beyond its type, shapes and parameters; part of the fingerprint of a structure.
WINDOW = ("kernel_size", "stride", "padding", "padding_mode", "dilation", "groups", "ceil_mode")
SETTINGS = (*WINDOW, "count_include_pad", "p", "negative_slope", "eps", "momentum", "track_running_stats")


def latents(
    model: nn.Module, images: torch.Tensor, layers: str | Sequence[str], *, batch_size: int = 1000
) -> dict[str, torch.Tensor]:
    """Return the named layers' outputs, {name: tensor (N, …)}, in evaluation mode and without gradients.

    ``images`` are what the net is trained on: normalised floats (N, 3, H, W). Names are dotted ("flatten",
    "block1.conv2"). They pass through the net ``batch_size`` at a time. ValueError lists the layers if one of
    them is unknown or takes no part.
    """
    names = [layers] if isinstance(layers, str) else list(layers)
    modules = dict(model.named_modules())
    if unknown := [name for name in names if not name or name not in modules]:
        choices = ", ".join(name for name in modules if name)
        raise ValueError(f"the net has no layer {', '.join(map(repr, unknown))}; its layers are: {choices}")
    if not images.is_floating_point():
        raise ValueError(f"images are {images.dtype}; give the normalised floats that the net is trained on")

    kept: dict[str, list[torch.Tensor]] = {name: [] for name in names}

    def keep(name: str, module: nn.Module, inputs: tuple, output: torch.Tensor) -> None:
        kept[name].append(output.detach().clone())  # a copy, as an activation in place may follow

    with evaluating(model), torch.no_grad(), contextlib.ExitStack() as hooks:
        for name in kept:
            hooks.callback(modules[name].register_forward_hook(partial(keep, name)).remove)
        for batch in images.split(batch_size):
            model(batch)
    if silent := [name for name, outputs in kept.items() if not outputs]:
        raise ValueError(f"{', '.join(silent)}: the forward pass does not use it, so there is no output")
    return {name: torch.cat(outputs) for name, outputs in kept.items()}


def layer_table(model: nn.Module, input_shape: Sequence[int] = (3, 32, 32)) -> list[dict]:
    """Return one row a layer, in order of execution: layer, type, output_shape, parameters, multiply_adds.

    Shapes and multiply-adds are for one image. Multiply-adds are those of convolutions (output numbers times
    input channels per group times kernel area) and of linear layers (in times out), biases left out. A batch
    norm's running statistics are no parameters.
    """
    return [row for row, _ in _walk(model, input_shape)]


def structure_hash(model: nn.Module, input_shape: Sequence[int] = (3, 32, 32)) -> str:
    """Return the SHA-256 of a net's structure: its layer table and each layer's settings, never its weights.

    It is made of our own rows, not of torch's ``repr``, so that another version of torch gives the same.
    """
    rows = [
        {**row, "settings": {key: getattr(module, key) for key in SETTINGS if hasattr(module, key)}}
        for row, module in _walk(model, input_shape)
    ]
    return hashlib.sha256(json.dumps(rows, sort_keys=True, default=str).encode()).hexdigest()


def summary(model: nn.Module, input_shape: Sequence[int] = (3, 32, 32)) -> str:
    """Return torchsummary's table as text.

    torchsummary sends random images through the net in the mode in which it finds it, which would move
    batch-norm statistics and the random state. So it gets a copy on the CPU, and random numbers of its own.
    """
    printed = io.StringIO()
    with torch.random.fork_rng(devices=[]), contextlib.redirect_stdout(printed):
        torchsummary.summary(copy.deepcopy(model).cpu(), tuple(input_shape), device="cpu")
    return printed.getvalue().rstrip()


def _walk(model: nn.Module, input_shape: Sequence[int]) -> list[tuple[dict, nn.Module]]:
    """Return (row of the layer table, layer) for each layer, in order of execution."""
    # A copy, so that the hooks go with it; in evaluation mode no layer draws numbers or keeps statistics.
    copied = copy.deepcopy(model).eval()
    some = next(model.parameters(), torch.empty(0))
    steps: dict[str, tuple[dict, nn.Module]] = {}

    def note(name: str, module: nn.Module, inputs: tuple, output: torch.Tensor) -> None:
        cost = 0
        if isinstance(module, nn.Conv2d):
            cost = output[0].numel() * (module.in_channels // module.groups) * prod(module.kernel_size)
        elif isinstance(module, nn.Linear):
            cost = output[0].numel() * module.in_features
        row = {"layer": name, "type": type(module).__name__, "output_shape": list(output.shape[1:])}
        row |= {"parameters": sum(p.numel() for p in module.parameters(recurse=False))}
        # A layer that is used twice costs twice.
        row |= {"multiply_adds": cost + (steps[name][0]["multiply_adds"] if name in steps else 0)}
        steps[name] = row, module

    for name, module in copied.named_modules():
        # A container has no work of its own, unless it holds a parameter that is not in one of its children.
        if not list(module.children()) or list(module.parameters(recurse=False)):
            module.register_forward_hook(partial(note, name))
    with torch.no_grad():
        copied(torch.zeros(1, *input_shape, device=some.device, dtype=some.dtype))
    return list(steps.values())


@contextlib.contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put a net in evaluation mode and back; each layer's own mode, as some may be frozen on purpose."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
