"""How a network bears pictures that are worse than those it learned from: JPEG, blur and noise, as curves."""

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms.v2 import functional as transforms

from helpers.data import Dataset
from helpers.style import GREY, arm_styles, new_figure, styled
from helpers.training import normalise

BATCH = 500


def jpeg(images: Tensor, quality: float) -> Tensor:
    """Return uint8 images (N, 3, H, W) after a save as JPEG of ``quality``, 1 to 100, by Pillow's encoder."""
    decoded = []
    for image in images.permute(0, 2, 3, 1).numpy():
        file = io.BytesIO()
        Image.fromarray(image).save(file, "JPEG", quality=int(quality))
        decoded.append(np.array(Image.open(file)))
    return torch.from_numpy(np.stack(decoded)).permute(0, 3, 1, 2).contiguous()


def blur(images: Tensor, sigma: float) -> Tensor:
    """Return uint8 images (N, 3, H, W) under a Gaussian of ``sigma`` pixels (0: none), cut off at three sigmas."""
    size = 2 * int(np.ceil(3 * sigma)) + 1
    return transforms.gaussian_blur(images, [size, size], [sigma, sigma]) if sigma else images


def noise(images: Tensor, deviation: float) -> Tensor:
    """Return uint8 images (N, 3, H, W) with Gaussian noise of ``deviation`` grey levels on each number, clipped."""
    drawn = torch.randn(images.shape, generator=torch.Generator().manual_seed(0))
    return (images + deviation * drawn).round().clamp(0, 255).to(torch.uint8)


@dataclass(frozen=True)
class Corruption:
    """A kind of damage, the strengths at which it is tried (the mildest first), and what a strength is."""

    change: Callable[[Tensor, float], Tensor]
    strengths: tuple[float, ...]
    label: str


CORRUPTIONS = {
    "JPEG": Corruption(jpeg, (100, 80, 60, 40, 20, 10, 5), "JPEG quality"),
    "blur": Corruption(blur, (0, 0.5, 0.75, 1, 1.5, 2), "Blur, sigma (pixels)"),
    "noise": Corruption(noise, (0, 5, 10, 20, 30, 40), "Noise (grey levels)"),
}


@torch.inference_mode()
def robustness(
    model: nn.Module, images: Tensor, labels: Tensor, data: Dataset, batch_size: int = BATCH
) -> dict[str, list[list[float]]]:
    """Return, per corruption, pairs [strength, accuracy] of ``model`` on uint8 ``images`` (N, 3, H, W).

    ``data`` gives mean and deviation of the channels that the network was trained with. Computed on the CPU.
    """
    model.eval()

    def accuracy(damaged: Tensor) -> float:
        right = [
            model(normalise(batch, data.mean, data.std)).argmax(1) == truth
            for batch, truth in zip(damaged.split(batch_size), labels.split(batch_size), strict=True)
        ]
        return torch.cat(right).float().mean().item()

    return {
        name: [[strength, accuracy(kind.change(images, strength))] for strength in kind.strengths]
        for name, kind in CORRUPTIONS.items()
    }


@styled
def plot_robustness(curves: Mapping[str, Mapping[str, Sequence[Sequence[float]]]], chance: float) -> Figure:
    """Return accuracy in percent against the strength of each corruption, milder at the left, a colour a network.

    ``curves`` is {network: what :func:`robustness` returned}, ``chance`` the accuracy of guessing.
    """
    figure = new_figure(2.4)
    axes = figure.subplots(1, len(CORRUPTIONS), sharey=True)
    for ax, (name, kind) in zip(axes, CORRUPTIONS.items(), strict=True):
        for network, (colour, line) in arm_styles(list(curves)).items():
            strengths, accuracy = np.array(curves[network][name]).T
            ax.plot(strengths, 100 * accuracy, line, color=colour, marker="o", ms=3, label=network)
        ax.axhline(100 * chance, color=GREY, lw=0.7, ls=":")
        ax.set_xlabel(kind.label)
        if kind.strengths[0] > kind.strengths[-1]:
            ax.invert_xaxis()
    axes[0].annotate("guessing", (0.02, 100 * chance), (0, -8), ("axes fraction", "data"), textcoords="offset points",
                     fontsize=7, color=GREY)  # fmt: skip
    axes[0].set(ylabel="Accuracy (%)", ylim=(0, 100))
    if len(curves) > 1:
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper left", ncols=len(curves))
    return figure
