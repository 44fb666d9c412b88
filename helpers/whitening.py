"""A first convolution that is not learned but computed from the pictures: it whitens their patches."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

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
        """Leave the filters at random until they are set; ValueError if there are fewer eigenvectors than asked for."""
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
