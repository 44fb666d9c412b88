"""Our own networks: the improved one, the efficient ones, and torchvision's GoogLeNet made to fit."""

from collections.abc import Sequence

from torch import Tensor, nn

from helpers.models.layers import Renormalise, Residual, Whitening, chain, probability, side_left, switch, whole

DROPOUT = 0.3
HIDDEN = 99  # units of the base's hidden layer: R1's 126 thousand parameters, see helpers.models.r1

# R1's ideas in the order of its list, by switch. The first nine are options of the network; batch and epochs are
# choices of the experiment. What each does here is our reading, where R1 gives no sizes.
IDEAS = {
    "resolution": "keep the resolution longer: no pool after the third convolution",
    "convolutions": "more convolutions: a second one, with padding, in each of the three stages",
    "pool_after_several": "pool after several convolutions, not after the first of a stage",
    "kernels": "small filters first, larger ones later: 3, 3, 5 in place of 3, 3, 3",
    "filters": "more filters: 24, 48, 96 in place of 16, 32, 64",
    "padding": "padding: a convolution keeps height and width",
    "dropout": "dropout of 0.3 before the last layer",
    "batch_norm": "batch norm before each activation",
    "larger batch": "a larger batch: 128 pictures in place of 32",
    "more epochs": "more epochs: twice as many",
    "pointwise": "1x1 convolutions with global average pooling in place of the fully connected layers",
}
SWITCHES = tuple(idea for idea in IDEAS if " " not in idea)


def improved(
    classes: int,
    *,
    resolution: bool = False,
    convolutions: bool = False,
    pool_after_several: bool = False,
    kernels: bool = False,
    filters: bool = False,
    padding: bool = False,
    dropout: bool = False,
    batch_norm: bool = False,
    pointwise: bool = False,
) -> nn.Sequential:
    """Return R1's base network with any of its ideas switched on; ``IDEAS`` says what each does.

    Sides of the maps with all switches off: 32, conv 30, pool 15, conv 13, pool 6, conv 4, pool 2. With ``padding``
    alone they are 32, 16, 8, 4, and the network is ``r1`` layer by layer. With all on: 32, 16, 8, and 8 to the end.
    """
    on = {name: switch(name, value) for name, value in locals().items() if name != "classes"}
    channels = (3, 24, 48, 96) if on["filters"] else (3, 16, 32, 64)
    sizes = (3, 3, 5) if on["kernels"] else (3, 3, 3)
    pools = (2, 2, 1) if on["resolution"] else (2, 2, 2)
    if pool_after_several and not convolutions:  # a stage of one convolution shares its pool with the next
        pools = (1, 4, pools[2])

    def conv(name: str, inputs: int, outputs: int, size: int, pad: int) -> dict[str, nn.Module | None]:
        return {
            f"conv{name}": nn.Conv2d(inputs, outputs, size, padding=pad),
            f"bn{name}": nn.BatchNorm2d(outputs) if batch_norm else None,
            f"relu{name}": nn.ReLU(),
        }

    layers: dict[str, nn.Module | None] = {}
    side = 32
    for i, (size, pool) in enumerate(zip(sizes, pools, strict=True)):
        name, inputs, outputs = str(i + 1), channels[i], channels[i + 1]
        first = conv(name, inputs, outputs, size, size // 2 if padding else 0)
        second = conv(f"{name}b", outputs, outputs, 3, 1) if convolutions else {}
        halve = {f"pool{name}": nn.MaxPool2d(pool) if pool > 1 else None}
        layers |= {**first, **second, **halve} if pool_after_several else {**first, **halve, **second}
        side = side_left((side if padding else side - size + 1) // pool, sizes)

    last = channels[-1]
    drop = {"dropout": nn.Dropout(DROPOUT) if dropout else None}
    if pointwise:
        layers |= conv("_mix", last, last, 1, 0)  # (N, C, side, side) -> the same
        layers |= drop
        layers["maps"] = nn.Conv2d(last, classes, 1)  # -> (N, classes, side, side): a map of evidence for each class
        layers["average"] = nn.AdaptiveAvgPool2d(1)  # -> (N, classes, 1, 1)
        return chain(**layers, logits=nn.Flatten())  # -> (N, classes)
    layers["flatten"] = nn.Flatten()  # -> (N, C * side * side)
    layers["fc1"] = nn.Linear(last * side**2, HIDDEN)  # -> (N, 99)
    layers["fc1_bn"] = nn.BatchNorm1d(HIDDEN) if batch_norm else None
    layers["fc1_relu"] = nn.ReLU()
    return chain(**layers, **drop, logits=nn.Linear(HIDDEN, classes))  # -> (N, classes)


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


def googlenet(classes: int, *, side: int = 224) -> nn.Sequential:
    """Return torchvision's GoogLeNet (Szegedy et al., 2015), without its auxiliary classifiers.

    It was made for images of 224 x 224, so those of the course are enlarged first, to ``side`` pixels. Weights are
    random; ``Experiment(initial="imagenet")`` starts from those that torchvision trained on ImageNet.
    """
    from torchvision.models import GoogLeNet  # not before it is wanted

    if isinstance(side, bool) or not isinstance(side, int) or not 32 <= side <= 512:
        raise ValueError(f"side is {side!r}; choose 32 to 512 pixels")
    # transform_input: the published weights came from another library, with another normalisation.
    body = GoogLeNet(aux_logits=False, transform_input=True, init_weights=False)
    body.fc = nn.Identity()
    return chain(
        renormalise=Renormalise(),
        enlarge=nn.Upsample(size=side, mode="bilinear"),  # (N, 3, 32, 32) -> (N, 3, side, side)
        body=body,  # -> (N, 1024)
        logits=nn.Linear(1024, classes),  # -> (N, classes)
    )
