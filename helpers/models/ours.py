"""Networks under a budget: few parameters (``compact``), or few seconds on a GPU (``fast94``)."""

from collections.abc import Sequence

from torch import Tensor, nn

from helpers.model_parts import Residual, chain, probability, whole
from helpers.whitening import Whitening


class Scale(nn.Module):
    """A fixed factor."""

    def __init__(self, factor: float) -> None:
        """Keep the factor."""
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        """Return factor * x."""
        return self.factor * x


def separable(inputs: int, outputs: int, name: str = "") -> dict[str, nn.Module]:
    """Return a 3x3 convolution within each channel, then a 1x1 convolution across them, with batch norm, by name.

    That is 9 C + C C' weights in place of the 9 C C' of a full 3x3 convolution (Howard et al., 2017).
    """
    return {
        f"depthwise{name}": nn.Conv2d(inputs, inputs, 3, padding=1, groups=inputs, bias=False),
        f"pointwise{name}": nn.Conv2d(inputs, outputs, 1, bias=False),
        f"bn{name}": nn.BatchNorm2d(outputs),
    }


def compact(
    classes: int, *, widths: Sequence[int] = (48, 96, 160), blocks: int = 2, dropout: float = 0.0
) -> nn.Sequential:
    """Return a net whose weights go where they count: separable residual blocks, three resolutions, one linear layer.

    ``widths`` are the channels at sides 32, 16 and 8, ``blocks`` the residual blocks at each. With the defaults it
    has 105,706 parameters.
    """
    if not isinstance(widths, list | tuple) or len(widths) != 3:
        raise ValueError(f"widths is {widths!r}; give three whole numbers, such as (48, 96, 160)")
    c1, c2, c3 = (whole("widths", width) for width in widths)
    layers: dict[str, nn.Module | None] = {
        "conv1": nn.Conv2d(3, c1, 3, padding=1, bias=False),  # (N, 3, 32, 32) -> (N, c1, 32, 32)
        "bn1": nn.BatchNorm2d(c1),
        "relu1": nn.ReLU(),
    }
    for stage, (inputs, channels) in enumerate(((c1, c1), (c1, c2), (c2, c3)), start=1):
        if stage > 1:
            layers[f"pool{stage}"] = nn.MaxPool2d(2)  # halves height and width
            layers |= {**separable(inputs, channels, str(stage)), f"relu{stage}": nn.ReLU()}
        for i in range(1, whole("blocks", blocks) + 1):
            layers[f"block{stage}_{i}"] = Residual(chain(**separable(channels, channels)))
            layers[f"block{stage}_{i}_relu"] = nn.ReLU()
    return chain(
        **layers,
        average=nn.AdaptiveAvgPool2d(1),  # -> (N, c3, 1, 1)
        flatten=nn.Flatten(),  # -> (N, c3)
        dropout=nn.Dropout(dropout) if probability("dropout", dropout) else None,
        logits=nn.Linear(c3, classes),  # -> (N, classes)
    )


def fast94(classes: int, *, widths: Sequence[int] = (64, 256, 256)) -> nn.Sequential:
    """Return a net in the design of airbench94 (Jordan, 2024), made to reach 94 % within seconds on a GPU.

    A whitening layer of 2x2 patches, three stages of two convolutions with a pool between, GELU, and logits scaled
    by 1/9. Convolutions begin as the identity on their first channels, and batch norms learn a shift, no factor.
    """
    if not isinstance(widths, list | tuple) or len(widths) != 3:
        raise ValueError(f"widths is {widths!r}; give three whole numbers, such as (64, 256, 256)")
    sizes = [24, *(whole("widths", width) for width in widths)]

    def conv(inputs: int, outputs: int) -> nn.Conv2d:
        layer = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        if not layer.weight.is_meta:
            nn.init.dirac_(layer.weight[: min(inputs, outputs)])
        return layer

    def norm(channels: int) -> nn.BatchNorm2d:
        layer = nn.BatchNorm2d(channels, momentum=0.4)
        layer.weight.requires_grad_(False)
        return layer

    layers: dict[str, nn.Module] = {
        "whitening": Whitening(3, 24, 2),  # (N, 3, 32, 32) -> (N, 24, 31, 31)
        "gelu": nn.GELU(),
    }
    for i, (inputs, outputs) in enumerate(zip(sizes, sizes[1:], strict=False), start=1):  # sides 31 -> 15 -> 7 -> 3
        layers |= {
            f"conv{i}a": conv(inputs, outputs),
            f"pool{i}": nn.MaxPool2d(2),
            f"bn{i}a": norm(outputs),
            f"gelu{i}a": nn.GELU(),
            f"conv{i}b": conv(outputs, outputs),
            f"bn{i}b": norm(outputs),
            f"gelu{i}b": nn.GELU(),
        }
    return chain(
        **layers,
        pool=nn.MaxPool2d(3),  # (N, C, 3, 3) -> (N, C, 1, 1)
        flatten=nn.Flatten(),  # -> (N, C)
        linear=nn.Linear(sizes[-1], classes, bias=False),
        logits=Scale(1 / 9),  # -> (N, classes)
    )
