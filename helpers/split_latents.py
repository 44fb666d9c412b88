"""What a net makes of every image of a split, layer by layer, without holding the images as floats."""

from collections.abc import Sequence

import numpy as np
from torch import Tensor, nn

from helpers.data import Split
from helpers.layers import latents
from helpers.train import EVALUATION_BATCH, normalise


def split_latents(
    model: nn.Module,
    split: Split,
    mean: Tensor,
    std: Tensor,
    layers: str | Sequence[str],
    *,
    batch_size: int = EVALUATION_BATCH,
) -> dict[str, np.ndarray]:
    """Return the named layers' outputs for all images of ``split``, {name: float32 (N, D)}, in order, on the CPU.

    The bytes of the split pass through the net ``batch_size`` at a time, normalised by ``mean`` and ``std`` (3,) on the
    net's device; each output is flattened and goes straight to its place in one array, so no more than a batch is ever
    held twice. 45,000 x 2048 numbers are 369 MB. The net stays as it was, see ``layers.latents``.

    Raises:
        ValueError: an unknown layer (those there are, are listed), or a split without images.
    """
    if not len(split):
        raise ValueError("the split has no images")
    device = next(model.parameters()).device
    mean, std = mean.to(device), std.to(device)
    found: dict[str, np.ndarray] = {}
    began = 0
    for images in split.images.split(batch_size):
        outputs = latents(model, normalise(images.to(device), mean, std), layers, batch_size=batch_size)
        for name, output in outputs.items():
            rows = output.flatten(1).float().cpu().numpy()  # (B, …) -> (B, D)
            if name not in found:
                found[name] = np.empty((len(split), rows.shape[1]), np.float32)
            found[name][began : began + len(rows)] = rows
        began += len(images)
    return found
