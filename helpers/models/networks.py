"""The networks: those of the published reports, the improved one, and the efficient ones."""

import re
from collections import OrderedDict
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

LEAST_VARIANCE = 5e-4  # is added, so that a direction in which pictures hardly vary is not blown up to noise
ENOUGH_PICTURES = 1_000  # of hundreds of patches each, give the covariance of patches to well below a percent


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
    return nn.Sequential(OrderedDict((name, layer) for name, layer in layers.items() if layer is not None))


class Whitening(nn.Conv2d):
    """A frozen convolution whose first filters, on training patches, have uncorrelated outputs of variance 1.

    The filters are eigenvectors of the covariance of patches, the widest first, each divided by its deviation; the
    second half are their negatives, so that a ReLU after them loses nothing (Jordan, 2024). The bias takes away the
    mean. :func:`whiten` sets both.
    """

    def __init__(self, inputs: int, outputs: int, kernel_size: int, padding: int = 0) -> None:
        patch = inputs * kernel_size**2
        if outputs % 2 or outputs > 2 * patch:
            have = f"patches of {patch} numbers have {patch} directions"
            raise ValueError(f"{outputs} whitening filters: {have}, so choose an even number up to {2 * patch}")
        super().__init__(inputs, outputs, kernel_size, padding=padding)
        self.requires_grad_(False)


@torch.no_grad()
def whiten(model: nn.Module, images: Tensor) -> None:
    """Set all whitening layers of ``model``, which must act on the pictures themselves, from normalised ``images``."""
    for layer in (layer for layer in model.modules() if isinstance(layer, Whitening)):
        patches = F.unfold(images.contiguous(), layer.kernel_size).transpose(1, 2).flatten(0, 1).double()  # (M, C*k*k)
        variances, directions = torch.linalg.eigh(torch.cov(patches.T))  # rising
        half = layer.out_channels // 2
        filters = directions.T.flip(0)[:half] / (variances.flip(0)[:half, None] + LEAST_VARIANCE).sqrt()
        # (half, C*k*k). An eigenvector's sign is free: the same on every machine, its largest number is positive.
        filters *= filters.gather(1, filters.abs().argmax(1, keepdim=True)).sign()
        filters = torch.cat([filters, -filters])
        layer.weight.copy_(filters.view_as(layer.weight))
        layer.bias.copy_(-filters @ patches.mean(0))


LAYERS = {"relu": nn.ReLU, "leaky_relu": nn.LeakyReLU, "pool": partial(nn.MaxPool2d, 2)}
R0 = "conv6 bn relu {} conv10 bn relu {} conv16 bn relu pool flatten fc256 relu {}"  # pools, and a last hidden layer


def outlined(
    classes: int, outline: str, kernels: Sequence[int] = (3,) * 4, padded: bool = False, bn: bool = True, **makers: Any
) -> nn.Sequential:
    """Return the net of an outline such as ``"conv6 bn relu pool flatten fc256 relu"``, and its last layer, "logits".

    A word is a layer, with the channels or units that leave it, and bears the number of its convolution (conv1, bn1,
    relu1, pool1) or the name of its fully connected layer (fc1, fc1_relu). ``padded`` convolutions keep height and
    width, every pool halves them. ``bn=False`` skips that word. ``makers`` make the layers of others, of "block" from
    its channels, or None.
    """
    net, makers, channels, side, convolutions, hidden, name = nn.Sequential(), LAYERS | makers, 3, 32, 0, 0, "{}"
    for kind, size in re.findall(r"([a-z_]+)(\d*)", outline):
        if kind in ("conv", "whitening"):
            convolutions, name = convolutions + 1, f"{{}}{convolutions + 1}"
            kernel = kernels[convolutions - 1]
            padding = kernel // 2 if padded else 0
            make = Whitening if kind == "whitening" else nn.Conv2d
            net.add_module(f"conv{convolutions}", make(channels, int(size), kernel, padding=padding))
            channels, side = int(size), side - kernel + 1 + 2 * padding
        elif kind == "block":
            name = f"block{convolutions}_{{}}"
            if (layer := makers["block"](channels)) is not None:
                net.add_module(f"block{convolutions}", layer)
        elif kind == "flatten":
            if side < 1:
                raise ValueError(f"kernels {tuple(kernels)} leave nothing of a 32x32 image; choose smaller ones")
            net.add_module("flatten", nn.Flatten())
            channels *= side**2
        elif kind == "fc":
            hidden, name = hidden + 1, f"fc{hidden + 1}_{{}}"
            net.add_module(f"fc{hidden}", nn.Linear(channels, int(size)))
            channels = int(size)
        elif kind == "bn" and bn:
            net.add_module(name.format("bn"), (nn.BatchNorm1d if hidden else nn.BatchNorm2d)(channels))
        elif kind != "bn":
            net.add_module(name.format(kind), makers[kind]())
            side //= 2 if kind == "pool" else 1
    net.add_module("logits", nn.Linear(channels, classes))
    return net


def r0_base(classes: int, *, kernels: Sequence[int] = (3, 3, 3), batch_norm: bool = False) -> nn.Sequential:
    """Return R0's base net. Published: 3 convolutions, 3 max pools and 2 fully connected layers.

    Our reading: channels, kernels, no padding and the width of the hidden layer are those of R0's final net.
    """
    return outlined(classes, R0.format("pool", "pool", ""), kernels, bn=batch_norm)


def r0_model2(classes: int, *, kernels: Sequence[int] = (3, 3, 3), batch_norm: bool = False) -> nn.Sequential:
    """Return R0's "Model 2": the base without one of its max pools. R0's own has batch norm: ``batch_norm=True``.

    Published: that one was removed. Our reading: the first, as R0 names the second as the next to go.
    """
    return outlined(classes, R0.format("", "pool", ""), kernels, bn=batch_norm)


def r0_final(classes: int, *, fc2: bool = True, kernels: Sequence[int] = (3, 3, 3)) -> nn.Sequential:
    """Return R0's final net, every size as published; its latent is ``flatten``, of 2704 dimensions.

    Our reading: ReLU between the fully connected layers, which R0 does not mention. ``fc2=False`` is the net before
    R0's last step, a third fully connected layer. ``kernels`` is for the step before it, in which R0 removed the second
    max pool and changed the second kernel: R0 gives no size, and [3, 5, 3] is our reading.
    """
    return outlined(classes, R0.format("", "", "fc32 relu" if fc2 else ""), kernels)


def r1(classes: int) -> nn.Sequential:
    """Return a net of the size of R1's base, of which "126K parameters" is published; with 10 classes, 126,059.

    Our reading: three convolutions, each before a max pool, and 99 hidden units: nearest to 126,000.
    """
    return outlined(classes, "conv16 relu pool conv32 relu pool conv64 relu pool flatten fc99 relu", padded=True)


CHOICES = {
    "activation": ("relu", "leaky_relu"),
    "pool": {"avg": nn.AvgPool2d, "max": nn.MaxPool2d},
    "blocks": {"none": None, "plain": lambda body: body, "residual": Residual},
}


def r2(
    classes: int,
    *,
    kernels: Sequence[int] = (3, 3, 3),
    batch_norm: bool = True,
    dropout: float = 0.1,
    activation: str = "relu",
    pool: str = "avg",
    blocks: str = "none",
    width: int = 1,
    hidden: int = 512,
    whitened: bool = False,
) -> nn.Sequential:
    """Return R2's three-convolution net; the options are the choices that R2 compared.

    Published: channels, kernels, batch norm before each activation, average pools, 2048-512-128-10. R2's final net, the
    printed one, has no dropout: ``dropout=0.0``. 0.1 is one arm that R2 tried, and our default only because runs are
    recorded under it. Our reading: dropout acts on the activations of both hidden fully connected layers,
    ``batch_norm=False`` removes batch norm everywhere, and padding keeps height and width. Ours: ``blocks``, two more
    convolutions after the second and the third pool, in a row ("plain") or as what is added to their input
    ("residual"), which R2 argued about; ``width``, which multiplies the convolutions' channels; ``hidden``, the first
    fully connected layer's units; ``whitened``, a first convolution fixed at what whitens the training patches.
    """
    for option, value in {"activation": activation, "pool": pool, "blocks": blocks}.items():
        if value not in CHOICES[option]:
            raise ValueError(f"{option} is {value!r}; choose one of: {', '.join(CHOICES[option])}")
    wrap = CHOICES["blocks"][blocks]

    def block(channels: int) -> nn.Module | None:  # keeps (N, channels, H, W)
        conv1, conv2 = (nn.Conv2d(channels, channels, 3, padding=1) for _ in range(2))
        bn1, bn2 = (nn.BatchNorm2d(channels) if batch_norm else None for _ in range(2))
        body = chain(conv1=conv1, bn1=bn1, **{activation: LAYERS[activation]()}, conv2=conv2, bn2=bn2)
        # Drawn even if there are no blocks, so that all other layers start from the same weights with and without.
        return wrap(body) if wrap else None

    first, after = "whitening" if whitened else "conv", activation if wrap else ""
    drop = "dropout" if dropout else ""
    outline = f"""
        {first}{32 * width} bn {activation} pool
        conv{64 * width} bn {activation} pool block {after}
        conv{128 * width} bn {activation} pool block {after}
        flatten fc{hidden} bn {activation} {drop} fc128 bn {activation} {drop}
    """
    makers = {"pool": partial(CHOICES["pool"][pool], 2), "dropout": partial(nn.Dropout, dropout), "block": block}
    return outlined(classes, outline, kernels, padded=True, bn=batch_norm, **makers)


def r3(classes: int) -> nn.Sequential:
    """Return R3's four-convolution net, as published; that padding keeps height and width is our reading."""
    return outlined(classes, "conv16 relu conv32 relu pool conv64 relu conv128 relu pool flatten", padded=True)


def r3_norm(classes: int) -> nn.Sequential:
    """Return R3's net with batch norm before each ReLU and a third pool, after the third convolution."""
    outline = "conv16 bn relu conv32 bn relu pool conv64 bn relu pool conv128 bn relu pool flatten"
    return outlined(classes, outline, padded=True)


def r4(classes: int) -> nn.Sequential:
    """Return R4's net, 81,574 parameters with 10 classes, as published.

    Our reading: no padding, which 576 = 16 * 6 * 6 implies, and leaky ReLU after both hidden layers.
    """
    return outlined(
        classes, "conv6 leaky_relu pool conv16 bn leaky_relu pool flatten fc120 bn leaky_relu fc84 leaky_relu"
    )


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
    """Return R1's base network with any of its ideas switched on; notebook 11 says what each does.

    Sides of the maps with all switches off: 32, conv 30, pool 15, conv 13, pool 6, conv 4, pool 2. With ``padding``
    alone they are 32, 16, 8, 4, and the network is ``r1`` layer by layer. With all on: 32, 16, 8, and 8 to the end.
    """
    channels, sizes = (3, 24, 48, 96) if filters else (3, 16, 32, 64), (3, 3, 5) if kernels else (3, 3, 3)
    # A stage of one convolution shares its pool with the next.
    pools = (*((1, 4) if pool_after_several and not convolutions else (2, 2)), 1 if resolution else 2)

    def conv(name: str, inputs: int, outputs: int, size: int, pad: int) -> dict[str, nn.Module | None]:
        layer, norm = nn.Conv2d(inputs, outputs, size, padding=pad), nn.BatchNorm2d(outputs) if batch_norm else None
        return {f"conv{name}": layer, f"bn{name}": norm, f"relu{name}": nn.ReLU()}

    layers, side = {}, 32
    for i, (size, pool) in enumerate(zip(sizes, pools, strict=True)):
        name, outputs = str(i + 1), channels[i + 1]
        first = conv(name, channels[i], outputs, size, size // 2 if padding else 0)
        second = conv(f"{name}b", outputs, outputs, 3, 1) if convolutions else {}
        halve = {f"pool{name}": nn.MaxPool2d(pool) if pool > 1 else None}
        layers |= {**first, **second, **halve} if pool_after_several else {**first, **halve, **second}
        side = (side if padding else side - size + 1) // pool

    last, drop = channels[-1], nn.Dropout(0.3) if dropout else None
    if pointwise:  # (N, C, side, side) -> the same -> a map of evidence for each class -> (N, classes)
        layers |= {**conv("_mix", last, last, 1, 0), "dropout": drop, "maps": nn.Conv2d(last, classes, 1)}
        return chain(**layers, average=nn.AdaptiveAvgPool2d(1), logits=nn.Flatten())
    layers |= {"flatten": nn.Flatten(), "fc1": nn.Linear(last * side**2, 99)}  # -> (N, C * side * side) -> (N, 99)
    layers |= {"fc1_bn": nn.BatchNorm1d(99) if batch_norm else None, "fc1_relu": nn.ReLU(), "dropout": drop}
    return chain(**layers, logits=nn.Linear(99, classes))  # -> (N, classes)


SWITCHES = tuple(improved.__kwdefaults__)


def separable(inputs: int, outputs: int, name: str = "") -> dict[str, nn.Module]:
    """Return a 3x3 convolution within each channel, then a 1x1 convolution across them, with batch norm, by name.

    That is 9 C + C C' weights in place of the 9 C C' of a full 3x3 convolution (Howard et al., 2017).
    """
    depthwise = nn.Conv2d(inputs, inputs, 3, padding=1, groups=inputs, bias=False)
    pointwise = nn.Conv2d(inputs, outputs, 1, bias=False)
    return {f"depthwise{name}": depthwise, f"pointwise{name}": pointwise, f"bn{name}": nn.BatchNorm2d(outputs)}


def compact(classes: int, *, widths: Sequence[int] = (48, 96, 160), blocks: int = 2) -> nn.Sequential:
    """Return a net whose weights go where they count: separable residual blocks, three resolutions, one linear layer.

    ``widths`` are the channels at sides 32, 16 and 8, ``blocks`` the residual blocks at each; 105,706 parameters.
    """
    first = nn.Conv2d(3, widths[0], 3, padding=1, bias=False)
    layers = {"conv1": first, "bn1": nn.BatchNorm2d(widths[0]), "relu1": nn.ReLU()}
    for stage, channels in enumerate(widths, start=1):
        if stage > 1:
            layers[f"pool{stage}"] = nn.MaxPool2d(2)  # halves height and width
            layers |= {**separable(widths[stage - 2], channels, str(stage)), f"relu{stage}": nn.ReLU()}
        for i in range(1, blocks + 1):
            layers[f"block{stage}_{i}"] = Residual(chain(**separable(channels, channels)))
            layers[f"block{stage}_{i}_relu"] = nn.ReLU()
    layers |= {"average": nn.AdaptiveAvgPool2d(1), "flatten": nn.Flatten()}  # (N, C, 8, 8) -> (N, C, 1, 1) -> (N, C)
    return chain(**layers, logits=nn.Linear(widths[-1], classes))  # -> (N, classes)


def fast94(classes: int) -> nn.Sequential:
    """Return a net in the design of airbench94 (Jordan, 2024), made to reach 94 % within seconds on a GPU.

    A whitening layer of 2x2 patches, three stages of two convolutions with a pool between, GELU, and logits scaled
    by 1/9. Convolutions begin as the identity on their first channels, and batch norms learn a shift, no factor.
    """
    layers = {"whitening": Whitening(3, 24, 2), "gelu": nn.GELU()}  # (N, 3, 32, 32) -> (N, 24, 31, 31)
    for i, (inputs, outputs) in enumerate(((24, 64), (64, 256), (256, 256)), start=1):  # sides 31 -> 15 -> 7 -> 3
        for part, channels in (("a", inputs), ("b", outputs)):
            layers[f"conv{i}{part}"] = nn.Conv2d(channels, outputs, 3, padding=1, bias=False)
            if part == "a":
                layers[f"pool{i}"] = nn.MaxPool2d(2)
            layers |= {f"bn{i}{part}": nn.BatchNorm2d(outputs, momentum=0.4), f"gelu{i}{part}": nn.GELU()}
    for name, layer in layers.items():
        if name.startswith("conv"):
            nn.init.dirac_(layer.weight[: layer.in_channels])
        elif name.startswith("bn"):
            layer.weight.requires_grad_(False)
    layers |= {"pool": nn.MaxPool2d(3), "flatten": nn.Flatten()}  # (N, C, 3, 3) -> (N, C, 1, 1) -> (N, C)
    return chain(**layers, linear=nn.Linear(256, classes, bias=False), logits=Scale(1 / 9))  # -> (N, classes)
