"""What a network looked at: Grad-CAM, a map of where the evidence for one class lies in the picture."""

from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.nn import functional as F

from helpers.figures import image_grid
from helpers.models import evaluating
from helpers.style import styled

PIXELS = 128  # side of a picture with its map: maps are smooth, pictures keep their pixels


def last_convolution(model: nn.Module) -> str:
    """Return the name of the network's last convolution; ValueError if it has none."""
    names = [name for name, layer in model.named_modules() if isinstance(layer, nn.Conv2d)]
    if not names:
        raise ValueError("the network has no convolution, so its layers have no map of the picture")
    return names[-1]


def class_activation_maps(model: nn.Module, images: Tensor, classes: Tensor, layer: str | None = None) -> Tensor:
    """Return where the evidence for ``classes`` (N,) lies in normalised ``images`` (N, 3, H, W): (N, h, w), 0 or more.

    Grad-CAM (Selvaraju et al., 2017): the maps A (N, C, h, w) that ``layer`` (the last convolution, if left out) gives
    are summed with the mean gradient of the class's logit as weights, and what speaks against the class is cut off.
    Where logits are the means of that layer's maps, this is the class's own map, CAM (Zhou et al., 2016), over h * w.

    Raises:
        ValueError: there is no such layer, or it has no maps.
    """
    modules, name = dict(model.named_modules()), layer or last_convolution(model)
    if name not in modules or not name:
        raise ValueError(f"the net has no layer {name!r}; its layers are: {', '.join(filter(None, modules))}")
    kept: list[Tensor] = []

    def keep(module: nn.Module, inputs: tuple, output: Tensor) -> Tensor:
        kept.append(output.detach().requires_grad_())
        return kept[-1] * 1.0  # a copy, as an activation in place would overwrite what is kept

    handle = modules[name].register_forward_hook(keep)
    try:
        with evaluating(model), torch.enable_grad():
            logits = model(images)
            (gradients,) = torch.autograd.grad(logits.gather(1, classes[:, None]).sum(), kept[0])
    finally:
        handle.remove()
    if gradients.ndim != 4:
        raise ValueError(f"layer {name!r} gives {tuple(gradients.shape)}, not maps (N, C, h, w): choose a convolution")
    weights = gradients.mean((2, 3), keepdim=True)  # (N, C, 1, 1)
    return F.relu((weights * kept[0].detach()).sum(1))  # (N, h, w)


def overlaid(images: Any, maps: Tensor) -> np.ndarray:
    """Return uint8 ``images`` (N, 3, H, W), grey, under ``maps`` (N, h, w) from 0 to their maxima: (N, 3, 128, 128)."""
    pictures = torch.as_tensor(np.asarray(images)).float()
    pictures = F.interpolate(pictures, (PIXELS, PIXELS), mode="nearest")
    scaled = maps / maps.amax((1, 2), keepdim=True).clamp_min(1e-12)
    smooth = F.interpolate(scaled[:, None], (PIXELS, PIXELS), mode="bilinear", align_corners=False)[:, 0]
    heat = matplotlib.colormaps["magma"](smooth.numpy())[..., :3].transpose(0, 3, 1, 2)  # (N, 3, 128, 128)
    grey = pictures.mean(1, keepdim=True).numpy()
    return (0.45 * grey + 0.55 * 255 * heat).clip(0, 255).astype(np.uint8)


@styled
def plot_maps(images: Any, maps: Tensor, titles: Sequence[str]) -> Figure:
    """Return a row of uint8 ``images`` (N, 3, H, W) under their titles, and below each the same under its map."""
    plain = F.interpolate(torch.as_tensor(np.asarray(images)).float(), (PIXELS, PIXELS), mode="nearest")
    both = np.concatenate([plain.numpy().astype(np.uint8), overlaid(images, maps)])
    return image_grid(both, titles=[*titles, *[""] * len(titles)], columns=len(titles))
