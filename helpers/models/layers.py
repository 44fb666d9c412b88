"""Layers and parts of which the networks are made, and the first layer that whitens patches."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Add(nn.Module):
    """The sum of two branches, as a layer of its own, so that a net's table and structure show it."""

    def forward(self, one: Tensor, other: Tensor) -> Tensor:
        """Return the sum."""
        return one + other


class Residual(nn.Module):
    """Layers that learn what to add to their input: x + body(x), of x's shape (He et al., 2015)."""

    def __init__(self, body: nn.Sequential) -> None:
        super().__init__()
        self.body, self.add = body, Add()

    def forward(self, x: Tensor) -> Tensor:
        """Return x + body(x)."""
        return self.add(x, self.body(x))


class Renormalise(nn.Module):
    """Images normalised by one data set's mean and deviation, as normalised by ImageNet's: what its networks expect.

    ``undo`` says what they were normalised by; until then ImageNet's own, so that nothing changes.
    """

    MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

    def __init__(self) -> None:
        super().__init__()
        for name, values in (("mean", self.MEAN), ("std", self.STD)):
            self.register_buffer(name, torch.tensor(values).view(1, 3, 1, 1))
            self.register_buffer(f"target_{name}", torch.tensor(values).view(1, 3, 1, 1))

    def undo(self, mean: Tensor, std: Tensor) -> None:
        """Take the mean and deviation, (3,) each on the scale 0 to 1, by which the images were normalised."""
        self.mean.copy_(mean.view(1, 3, 1, 1))
        self.std.copy_(std.view(1, 3, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Return the images (N, 3, H, W) with ImageNet's normalisation."""
        return (x * self.std + self.mean - self.target_mean) / self.target_std


class Scale(nn.Module):
    """A fixed factor."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        """Return factor * x."""
        return self.factor * x


def chain(**layers: nn.Module | None) -> nn.Sequential:
    """Return the layers in a row, under their names; those that are None are left out."""
    net = nn.Sequential()
    for name, layer in layers.items():
        if layer is not None:
            net.add_module(name, layer)
    return net


# Added to the variances, so that a direction in which pictures hardly vary is not blown up to noise.
LEAST_VARIANCE = 5e-4
# So many pictures, of hundreds of patches each, give the covariance of patches to well below a percent.
ENOUGH_PICTURES = 1_000


class Whitening(nn.Conv2d):
    """A frozen convolution whose first filters, on training patches, have uncorrelated outputs of variance 1.

    The filters are eigenvectors of the covariance of patches, the widest first, each divided by its deviation; the
    second half of the filters are their negatives, so that a ReLU after them loses nothing (Jordan, 2024). They are
    set by :func:`whiten`; the bias takes away the mean.
    """

    def __init__(self, inputs: int, outputs: int, kernel_size: int, padding: int = 0) -> None:
        patch = inputs * kernel_size**2
        if outputs % 2 or outputs > 2 * patch:
            raise ValueError(
                f"{outputs} whitening filters: patches of {patch} numbers have {patch} directions, so choose an even "
                f"number up to {2 * patch}"
            )
        super().__init__(inputs, outputs, kernel_size, padding=padding)
        self.requires_grad_(False)

    @torch.no_grad()
    def fit(self, images: Tensor) -> None:
        """Set the filters from normalised ``images`` (N, C, H, W)."""
        patches = F.unfold(images.contiguous(), self.kernel_size).transpose(1, 2).flatten(0, 1).double()  # (M, C*k*k)
        variances, directions = torch.linalg.eigh(torch.cov(patches.T))  # rising
        half = self.out_channels // 2
        widest = torch.arange(len(variances) - 1, len(variances) - 1 - half, -1, device=images.device)
        filters = directions.T[widest] / (variances[widest, None] + LEAST_VARIANCE).sqrt()  # (half, C*k*k)
        # An eigenvector's sign is free: the same on every machine, its largest number is positive.
        filters *= filters.gather(1, filters.abs().argmax(1, keepdim=True)).sign()
        filters = torch.cat([filters, -filters])
        self.weight.copy_(filters.view_as(self.weight))
        self.bias.copy_(-filters @ patches.mean(0))


def whiten(model: nn.Module, images: Tensor) -> None:
    """Set all whitening layers of ``model``, which must act on the pictures themselves, from normalised ``images``."""
    for layer in model.modules():
        if isinstance(layer, Whitening):
            layer.fit(images)
