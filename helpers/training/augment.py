"""Random changes to training images, a batch at a time, with a choice of its own for every image.

An augmentation is written as text: transforms in the order in which they act, each with its strength after a colon or,
without one, at its default, such as ``"crop:4 hflip"``. Images are uint8 tensors (N, C, H, W) and stay on their device,
for which no step waits. Choosing and changing are apart: given the same choices, torchvision makes the same images.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import torch
import torch.nn.functional as F
from torch import Generator, Tensor


def flip(axis: int, images: Tensor, chosen: Tensor, probability: float) -> Tensor:
    """Return the images mirrored along an axis (3: left and right, 2: top and bottom) where chosen, bool (N,)."""
    return torch.where(chosen.view(-1, 1, 1, 1), images.flip(axis), images)


def crop(images: Tensor, corners: Tensor, pad: float) -> Tensor:
    """Return cuts of the old size from images padded with black; corners: int64 (2, N), top and left."""
    n, _, height, width = images.shape
    pad = int(pad)
    if pad >= min(height, width):
        raise ValueError(f"crop:{pad} could move a {height}x{width} image out of sight; choose fewer pixels")
    # Every cut that there is, as a view that copies nothing: (N, C, 2 pad + 1, 2 pad + 1, H, W).
    cuts = F.pad(images, (pad, pad, pad, pad)).unfold(2, height, 1).unfold(3, width, 1)
    return cuts[torch.arange(n, device=images.device), :, corners[0], corners[1]]


def rotate(images: Tensor, angles: Tensor, limit: float) -> Tensor:
    """Return the images turned about their centre by angles (N,), degrees counter-clockwise, each pixel the nearest."""
    height, width = images.shape[2:]
    radians = angles.double().deg2rad().view(-1, 1, 1)
    cos, sin = radians.cos().float(), radians.sin().float()
    # Pixel centres, measured from the centre of the image: x (W,) and y (H, 1).
    x = torch.linspace(0.5 - width / 2, width / 2 - 0.5, width, device=images.device)
    y = torch.linspace(0.5 - height / 2, height / 2 - 0.5, height, device=images.device)[:, None]
    # Where each pixel comes from, (N, H, W), in grid_sample's units: -1 and 1 are the edges of the image.
    source_x = x * (cos / (width / 2)) - y * (sin / (width / 2))
    source_y = x * (sin / (height / 2)) + y * (cos / (height / 2))
    source = torch.stack([source_x, source_y], dim=-1)
    return F.grid_sample(images.float(), source, mode="nearest", align_corners=False).to(images.dtype)


def blur(images: Tensor, sigmas: Tensor, limit: float) -> Tensor:
    """Return the images blurred by 3x3 Gaussians of sigmas (N,), in pixels; the edges are reflected.

    The result is rounded to whole grey levels, so a sigma up to 0.25 changes nothing: a neighbour weighs exp(-8).
    """
    n, channels, height, width = images.shape
    distance = torch.arange(-1, 2, device=images.device)
    weights = torch.exp(-0.5 * (distance / sigmas.view(-1, 1)) ** 2)  # (N, 3)
    weights = weights / weights.sum(1, keepdim=True)
    kernels = weights[:, :, None] * weights[:, None, :]  # (N, 3, 3)
    padded = F.pad(images.float(), (1, 1, 1, 1), mode="reflect")
    # One image with N * C channels, as a convolution takes a kernel for each channel but not for each image.
    stacked = padded.reshape(1, n * channels, height + 2, width + 2)
    with torch.autocast(images.device.type, enabled=False):  # half precision would miss grey levels
        blurred = F.conv2d(stacked, kernels.repeat_interleave(channels, 0)[:, None], groups=n * channels)
    return blurred.view(images.shape).round().to(images.dtype)


def cutout(images: Tensor, centres: Tensor, side: float) -> Tensor:
    """Return the images with a black square each, clipped at the edges (DeVries and Taylor, 2017).

    centres: (2, N), row and column as fractions of height and width, below 1.
    """

    def covered(length: int, centre: Tensor) -> Tensor:  # bool (N, length)
        start = (centre * length).long() - int(side) // 2
        inside = torch.arange(length, device=images.device) - start[:, None]
        return (inside >= 0) & (inside < side)

    rows, columns = covered(images.shape[2], centres[0]), covered(images.shape[3], centres[1])
    return images.masked_fill((rows[:, :, None] & columns[:, None, :])[:, None], 0)


@dataclass(frozen=True)
class Transform:
    """One step of an augmentation: what it does, its strength, within limits, and the function that changes images."""

    name: str
    description: str
    strength: float  # the default, where the text gives none
    change: Callable[[Tensor, Tensor, float], Tensor]  # images, choices, strength
    low: float = 0
    high: float = math.inf
    whole: bool = False  # whether the strength counts pixels
    by_turns: bool = False  # whether the epoch decides, not chance

    def draw(self, n: int, generator: Generator, device: torch.device | str) -> Tensor:
        """Return the choices for n images, on ``device``; their last dimension is n."""
        uniform = partial(torch.rand, generator=generator, device=generator.device)
        match self.name:
            case "crop":
                sides = 2 * int(self.strength) + 1
                choices = torch.randint(sides, (2, n), generator=generator, device=generator.device)
            case "rotate":
                choices = self.strength * (2 * uniform(n) - 1)
            case "blur":
                choices = 0.1 + (self.strength - 0.1) * uniform(n)
            case "cutout":
                choices = uniform(2, n)
            case _:
                choices = uniform(n) < (0.5 if self.by_turns else self.strength)
        return choices.to(device)

    def apply(self, images: Tensor, choices: Tensor) -> Tensor:
        """Return the images, changed as chosen: a new tensor of the same shape, type and device."""
        return self.change(images, choices, self.strength)


ALTERNATELY = "mirrors left and right every image in every other epoch, half of them in the odd ones"
TRANSFORMS = (
    Transform("hflip", "mirrors left and right, with this probability", 0.5, partial(flip, 3), high=1),
    Transform("vflip", "mirrors top and bottom, with this probability", 0.5, partial(flip, 2), high=1),
    Transform("altflip", ALTERNATELY, 1, partial(flip, 3), low=1, high=1, by_turns=True),
    Transform("crop", "shifts by up to this many pixels, black fills the gap", 4, crop, whole=True),
    Transform("rotate", "turns by up to this many degrees either way, black fills the corners", 30, rotate, high=180),
    Transform("blur", "blurs with a 3x3 Gaussian, sigma from 0.1 to this many pixels", 1, blur, low=0.1),
    Transform("cutout", "blackens a square of this side anywhere, clipped at the edges", 8, cutout, whole=True),
)
# For texts and tables: name -> (what it does, default strength), of those that a single batch can show.
AUGMENTATIONS = {each.name: (each.description, each.strength) for each in TRANSFORMS if not each.by_turns}


@dataclass(frozen=True)
class Augmentation:
    """Transforms in a row."""

    transforms: tuple[Transform, ...]

    def __call__(self, images: Tensor, generator: Generator, turns: Tensor | None = None) -> Tensor:
        """Return changed copies of uint8 images (N, C, H, W); the tensor itself if nothing is to be done.

        ``turns``, bool (N,), says whose turn it is where a flip alternates from epoch to epoch; else chance does.
        """
        if images.dtype != torch.uint8 or images.dim() != 4:
            got = f"images are {images.dtype} of shape {tuple(images.shape)}"
            raise ValueError(f"{got}; augmentation takes torch.uint8 of shape (N, C, H, W), before they are normalised")
        for transform in self.transforms:
            alternates = turns is not None and transform.by_turns
            choices = turns if alternates else transform.draw(len(images), generator, images.device)
            images = transform.apply(images, choices)
        return images


def augmentation(spec: str) -> Augmentation:
    """Return the augmentation that a text such as ``"crop:4 hflip:0.5"`` describes; ``""`` does nothing.

    Raises ValueError, with the choices, if a name is unknown or comes twice or a strength makes no sense.
    """
    transforms = tuple(map(_transform, str(spec).split()))
    names = [transform.name for transform in transforms]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"augmentation {spec!r} names {', '.join(twice)} more than once; once is enough")
    return Augmentation(transforms)


def _transform(word: str) -> Transform:
    name, colon, strength = word.partition(":")
    kind = next((each for each in TRANSFORMS if each.name == name), None)
    if kind is None:
        choices = "; ".join(f"{each.name}:{each.strength} {each.description}" for each in TRANSFORMS)
        raise ValueError(f"there is no augmentation {name!r}; choose from: {choices}")
    try:
        value = float(strength if colon else kind.strength)
    except ValueError:
        value = math.nan
    if not (kind.low <= value <= kind.high and math.isfinite(value)) or (kind.whole and value % 1):
        number = "a whole number" if kind.whole else "a number"
        limits = f"of at least {kind.low}" if kind.high == math.inf else f"from {kind.low} to {kind.high}"
        raise ValueError(f"{word} makes no sense; {name} {kind.description}: give {number} {limits}")
    return replace(kind, strength=value)
