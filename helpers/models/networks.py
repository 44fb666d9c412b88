"""The networks: those of the published reports, the improved one, the efficient ones, and torchvision's GoogLeNet."""

import re
from collections.abc import Callable, Sequence

from torch import nn

from helpers.models.layers import Renormalise, Residual, Scale, Whitening, chain

ACTIVATIONS = {"relu": nn.ReLU, "leaky_relu": nn.LeakyReLU}
POOLS = {"avg": nn.AvgPool2d, "max": nn.MaxPool2d}
BLOCKS = {"none": None, "plain": lambda body: body, "residual": Residual}


def outlined(
    classes: int,
    outline: str,
    *,
    kernels: Sequence[int] = (3, 3, 3, 3),
    padded: bool = False,
    pool: type[nn.Module] = nn.MaxPool2d,
    dropout: float = 0.0,
    block: Callable[[int], nn.Module] | None = None,
) -> nn.Sequential:
    """Return the net of an outline such as ``"conv6 bn relu pool flatten fc256 relu"``, and its last layer, "logits".

    A word is a layer, with the channels or units that leave it, and bears the number of its convolution (conv1, bn1,
    relu1, pool1) or the name of its fully connected layer (fc1, fc1_relu). ``padded`` convolutions keep height and
    width, every pool halves them, and ``block`` makes the layer of a word "block" from its channels, or None.
    """
    net, channels, side, convolutions, hidden, name = nn.Sequential(), 3, 32, 0, 0, "{}"
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
            if (layer := block(channels)) is not None:
                net.add_module(f"block{convolutions}", layer)
        elif kind == "pool":
            net.add_module(name.format("pool"), pool(2))
            side //= 2
        elif kind == "flatten":
            if side < 1:
                raise ValueError(f"kernels {tuple(kernels)} leave nothing of a 32x32 image; choose smaller ones")
            net.add_module("flatten", nn.Flatten())
            channels *= side**2
        elif kind == "fc":
            hidden, name = hidden + 1, f"fc{hidden + 1}_{{}}"
            net.add_module(f"fc{hidden}", nn.Linear(channels, int(size)))
            channels = int(size)
        elif kind == "bn":
            net.add_module(name.format("bn"), (nn.BatchNorm1d if hidden else nn.BatchNorm2d)(channels))
        else:
            net.add_module(name.format(kind), nn.Dropout(dropout) if kind == "dropout" else ACTIVATIONS[kind]())
    net.add_module("logits", nn.Linear(channels, classes))
    return net


def r0_base(classes: int, *, kernels: Sequence[int] = (3, 3, 3), batch_norm: bool = False) -> nn.Sequential:
    """Return R0's base net. Published: 3 convolutions, 3 max pools and 2 fully connected layers.

    Our reading: channels, kernels, no padding and the width of the hidden layer are those of R0's final net. The sides
    are 32, 30, pool 15, 13, pool 6, 4, pool 2.
    """
    bn = "bn" if batch_norm else ""
    outline = f"conv6 {bn} relu pool conv10 {bn} relu pool conv16 {bn} relu pool flatten fc256 relu"
    return outlined(classes, outline, kernels=kernels)


def r0_model2(classes: int, *, kernels: Sequence[int] = (3, 3, 3), batch_norm: bool = False) -> nn.Sequential:
    """Return R0's "Model 2": the base without one of its max pools. R0's own has batch norm: ``batch_norm=True``.

    Published: that one was removed. Our reading: the first, as R0 names the second as the next to go.
    """
    bn = "bn" if batch_norm else ""
    outline = f"conv6 {bn} relu conv10 {bn} relu pool conv16 {bn} relu pool flatten fc256 relu"
    return outlined(classes, outline, kernels=kernels)


def r0_final(classes: int, *, fc2: bool = True, kernels: Sequence[int] = (3, 3, 3)) -> nn.Sequential:
    """Return R0's final net, every size as published; its latent is ``flatten``, of 2704 dimensions.

    Our reading: ReLU between the fully connected layers, which R0 does not mention. ``fc2=False`` is the net before
    R0's last step, a third fully connected layer. ``kernels`` is for the step before it, in which R0 removed the second
    max pool and changed the second kernel: R0 gives no size, and [3, 5, 3] is our reading.
    """
    third = "fc32 relu" if fc2 else ""
    outline = f"conv6 bn relu conv10 bn relu conv16 bn relu pool flatten fc256 relu {third}"
    return outlined(classes, outline, kernels=kernels)


def r1(classes: int) -> nn.Sequential:
    """Return a net of the size of R1's base: 126,059 parameters with 10 classes.

    Published: "126K parameters". Our reading: three convolutions of 16, 32 and 64 channels, each before a
    max pool, and one hidden layer, whose 99 units bring the total nearest to 126,000.
    """
    return outlined(classes, "conv16 relu pool conv32 relu pool conv64 relu pool flatten fc99 relu", padded=True)


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
    recorded under it. Our reading: dropout acts on the activations of both hidden fully connected layers, and
    ``batch_norm=False`` removes batch norm everywhere. Padding lets every convolution keep height and width, so the
    maps are 16, 8 and 4 pixels wide after the pools.
    ``blocks`` is ours: two more convolutions after the second and the third pool, in a row ("plain") or as what is
    added to their input ("residual"), which R2 argued about. ``width``, ours too, multiplies the convolutions'
    channels, and ``hidden`` is the first fully connected layer's units. ``whitened`` fixes the first convolution's
    filters at what whitens the training pictures' patches (:mod:`helpers.models.layers`).
    """
    act = one_of("activation", activation, ACTIVATIONS)
    halve, wrap = one_of("pool", pool, POOLS), one_of("blocks", blocks, BLOCKS)

    def block(channels: int) -> nn.Module | None:  # keeps (N, channels, H, W)
        layers = {
            "conv1": nn.Conv2d(channels, channels, 3, padding=1),
            "bn1": nn.BatchNorm2d(channels) if batch_norm else None,
            activation: act(),
            "conv2": nn.Conv2d(channels, channels, 3, padding=1),
            "bn2": nn.BatchNorm2d(channels) if batch_norm else None,
        }
        # Drawn even if there are no blocks, so that all other layers start from the same weights with and without.
        return wrap(chain(**layers)) if wrap else None

    first = "whitening" if whitened else "conv"
    bn, drop = "bn" if batch_norm else "", "dropout" if dropout else ""
    after = activation if wrap else ""
    outline = f"""
        {first}{32 * width} {bn} {activation} pool
        conv{64 * width} {bn} {activation} pool block {after}
        conv{128 * width} {bn} {activation} pool block {after}
        flatten fc{hidden} {bn} {activation} {drop} fc128 {bn} {activation} {drop}
    """
    return outlined(classes, outline, kernels=kernels, padded=True, pool=halve, dropout=dropout, block=block)


def one_of(option: str, value: str, choices: dict[str, object]):
    """Return what an option's value names. Raises ValueError with the choices."""
    if value not in choices:
        raise ValueError(f"{option} is {value!r}; choose one of: {', '.join(choices)}")
    return choices[value]


def r3(classes: int) -> nn.Sequential:
    """Return R3's four-convolution net, which R3 and notebook 02 train with NumPy alone.

    Published: the layers and their order. Our reading: padding that keeps height and width.
    """
    outline = "conv16 relu conv32 relu pool conv64 relu conv128 relu pool flatten"
    return outlined(classes, outline, padded=True)


def r3_norm(classes: int) -> nn.Sequential:
    """Return R3's net with batch norm before each ReLU and a third pool, after the third convolution."""
    outline = "conv16 bn relu conv32 bn relu pool conv64 bn relu pool conv128 bn relu pool flatten"
    return outlined(classes, outline, padded=True)


def r4(classes: int) -> nn.Sequential:
    """Return R4's net, 81,574 parameters with 10 classes, as published.

    Our reading: no padding, which 576 = 16 * 6 * 6 implies, and leaky ReLU after both hidden layers.
    """
    convolutions = "conv6 leaky_relu pool conv16 bn leaky_relu pool"
    return outlined(classes, f"{convolutions} flatten fc120 bn leaky_relu fc84 leaky_relu")


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
    channels = (3, 24, 48, 96) if filters else (3, 16, 32, 64)
    sizes = (3, 3, 5) if kernels else (3, 3, 3)
    pools = (2, 2, 1) if resolution else (2, 2, 2)
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
        side = (side if padding else side - size + 1) // pool

    last = channels[-1]
    drop = {"dropout": nn.Dropout(0.3) if dropout else None}
    if pointwise:
        layers |= conv("_mix", last, last, 1, 0)  # (N, C, side, side) -> the same
        layers |= drop
        layers["maps"] = nn.Conv2d(last, classes, 1)  # -> (N, classes, side, side): a map of evidence for each class
        layers["average"] = nn.AdaptiveAvgPool2d(1)  # -> (N, classes, 1, 1)
        return chain(**layers, logits=nn.Flatten())  # -> (N, classes)
    layers["flatten"] = nn.Flatten()  # -> (N, C * side * side)
    layers["fc1"] = nn.Linear(last * side**2, 99)  # -> (N, 99)
    layers["fc1_bn"] = nn.BatchNorm1d(99) if batch_norm else None
    layers["fc1_relu"] = nn.ReLU()
    return chain(**layers, **drop, logits=nn.Linear(99, classes))  # -> (N, classes)


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
    c1, c2, c3 = widths
    layers: dict[str, nn.Module | None] = {
        "conv1": nn.Conv2d(3, c1, 3, padding=1, bias=False),  # (N, 3, 32, 32) -> (N, c1, 32, 32)
        "bn1": nn.BatchNorm2d(c1),
        "relu1": nn.ReLU(),
    }
    for stage, (inputs, channels) in enumerate(((c1, c1), (c1, c2), (c2, c3)), start=1):
        if stage > 1:
            layers[f"pool{stage}"] = nn.MaxPool2d(2)  # halves height and width
            layers |= {**separable(inputs, channels, str(stage)), f"relu{stage}": nn.ReLU()}
        for i in range(1, blocks + 1):
            layers[f"block{stage}_{i}"] = Residual(chain(**separable(channels, channels)))
            layers[f"block{stage}_{i}_relu"] = nn.ReLU()
    return chain(
        **layers,
        average=nn.AdaptiveAvgPool2d(1),  # -> (N, c3, 1, 1)
        flatten=nn.Flatten(),  # -> (N, c3)
        dropout=nn.Dropout(dropout) if dropout else None,
        logits=nn.Linear(c3, classes),  # -> (N, classes)
    )


def fast94(classes: int, *, widths: Sequence[int] = (64, 256, 256)) -> nn.Sequential:
    """Return a net in the design of airbench94 (Jordan, 2024), made to reach 94 % within seconds on a GPU.

    A whitening layer of 2x2 patches, three stages of two convolutions with a pool between, GELU, and logits scaled
    by 1/9. Convolutions begin as the identity on their first channels, and batch norms learn a shift, no factor.
    """
    sizes = (24, *widths)

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

    if not 32 <= side <= 512:
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
