"""The networks of the published reports, each a plain ``nn.Sequential`` whose layers carry names."""

from collections.abc import Sequence

from torch import nn

from helpers.models.layers import (
    ACTIVATIONS,
    BLOCKS,
    POOLS,
    Whitening,
    chain,
    choice,
    probability,
    side_left,
    switch,
    three_kernels,
    whole,
)


def r0_base(classes: int, *, kernels: Sequence[int] = (3, 3, 3), batch_norm: bool = False) -> nn.Sequential:
    """Return R0's base net. Published: 3 convolutions, 3 max pools and 2 fully connected layers.

    Our reading: channels, kernels, no padding and the width of the hidden layer are those of R0's final net.
    """
    k1, k2, k3 = three_kernels(kernels)
    side = (((32 - k1 + 1) // 2 - k2 + 1) // 2 - k3 + 1) // 2  # 2 with 3x3 kernels
    bn = switch("batch_norm", batch_norm)
    return chain(
        conv1=nn.Conv2d(3, 6, k1),  # (N, 3, 32, 32) -> (N, 6, 30, 30)
        bn1=nn.BatchNorm2d(6) if bn else None,
        relu1=nn.ReLU(),
        pool1=nn.MaxPool2d(2),  # -> (N, 6, 15, 15)
        conv2=nn.Conv2d(6, 10, k2),  # -> (N, 10, 13, 13)
        bn2=nn.BatchNorm2d(10) if bn else None,
        relu2=nn.ReLU(),
        pool2=nn.MaxPool2d(2),  # -> (N, 10, 6, 6)
        conv3=nn.Conv2d(10, 16, k3),  # -> (N, 16, 4, 4)
        bn3=nn.BatchNorm2d(16) if bn else None,
        relu3=nn.ReLU(),
        pool3=nn.MaxPool2d(2),  # -> (N, 16, 2, 2)
        flatten=nn.Flatten(),  # -> (N, 64)
        fc1=nn.Linear(16 * side_left(side, kernels) ** 2, 256),  # -> (N, 256)
        fc1_relu=nn.ReLU(),
        logits=nn.Linear(256, classes),  # -> (N, classes)
    )


def r0_model2(classes: int, *, kernels: Sequence[int] = (3, 3, 3), batch_norm: bool = False) -> nn.Sequential:
    """Return R0's "Model 2": the base without one of its max pools. R0's own has batch norm: ``batch_norm=True``.

    Published: that one was removed. Our reading: the first, as R0 names the second as the next to go.
    """
    k1, k2, k3 = three_kernels(kernels)
    side = ((32 - k1 + 1 - k2 + 1) // 2 - k3 + 1) // 2  # 6 with 3x3 kernels
    bn = switch("batch_norm", batch_norm)
    return chain(
        conv1=nn.Conv2d(3, 6, k1),  # (N, 3, 32, 32) -> (N, 6, 30, 30)
        bn1=nn.BatchNorm2d(6) if bn else None,
        relu1=nn.ReLU(),
        conv2=nn.Conv2d(6, 10, k2),  # -> (N, 10, 28, 28)
        bn2=nn.BatchNorm2d(10) if bn else None,
        relu2=nn.ReLU(),
        pool2=nn.MaxPool2d(2),  # -> (N, 10, 14, 14)
        conv3=nn.Conv2d(10, 16, k3),  # -> (N, 16, 12, 12)
        bn3=nn.BatchNorm2d(16) if bn else None,
        relu3=nn.ReLU(),
        pool3=nn.MaxPool2d(2),  # -> (N, 16, 6, 6)
        flatten=nn.Flatten(),  # -> (N, 576)
        fc1=nn.Linear(16 * side_left(side, kernels) ** 2, 256),  # -> (N, 256)
        fc1_relu=nn.ReLU(),
        logits=nn.Linear(256, classes),  # -> (N, classes)
    )


def r0_final(classes: int, *, fc2: bool = True, kernels: Sequence[int] = (3, 3, 3)) -> nn.Sequential:
    """Return R0's final net, every size as published; its latent is ``flatten``, of 2704 dimensions.

    Our reading: ReLU between the fully connected layers, which R0 does not mention. ``fc2=False`` is the net before
    R0's last step, a third fully connected layer. ``kernels`` is for the step before it, in which R0 removed the second
    max pool and changed the second kernel: R0 gives no size, and [3, 5, 3] is our reading.
    """
    third, (k1, k2, k3) = switch("fc2", fc2), three_kernels(kernels)
    side = (32 - k1 + 1 - k2 + 1 - k3 + 1) // 2  # 13 with 3x3 kernels
    return chain(
        conv1=nn.Conv2d(3, 6, k1),  # (N, 3, 32, 32) -> (N, 6, 30, 30)
        bn1=nn.BatchNorm2d(6),
        relu1=nn.ReLU(),
        conv2=nn.Conv2d(6, 10, k2),  # -> (N, 10, 28, 28)
        bn2=nn.BatchNorm2d(10),
        relu2=nn.ReLU(),
        conv3=nn.Conv2d(10, 16, k3),  # -> (N, 16, 26, 26)
        bn3=nn.BatchNorm2d(16),
        relu3=nn.ReLU(),
        pool3=nn.MaxPool2d(2),  # -> (N, 16, 13, 13)
        flatten=nn.Flatten(),  # -> (N, 2704)
        fc1=nn.Linear(16 * side_left(side, kernels) ** 2, 256),  # -> (N, 256)
        fc1_relu=nn.ReLU(),
        fc2=nn.Linear(256, 32) if third else None,  # -> (N, 32)
        fc2_relu=nn.ReLU() if third else None,
        logits=nn.Linear(32 if third else 256, classes),  # -> (N, classes)
    )


def r1(classes: int) -> nn.Sequential:
    """Return a net of the size of R1's base: 126,059 parameters with 10 classes.

    Published: "126K parameters". Our reading: three convolutions of 16, 32 and 64 channels, each before a
    max pool, and one hidden layer, whose 99 units bring the total nearest to 126,000.
    """
    return chain(
        conv1=nn.Conv2d(3, 16, 3, padding=1),  # (N, 3, 32, 32) -> (N, 16, 32, 32)
        relu1=nn.ReLU(),
        pool1=nn.MaxPool2d(2),  # -> (N, 16, 16, 16)
        conv2=nn.Conv2d(16, 32, 3, padding=1),  # -> (N, 32, 16, 16)
        relu2=nn.ReLU(),
        pool2=nn.MaxPool2d(2),  # -> (N, 32, 8, 8)
        conv3=nn.Conv2d(32, 64, 3, padding=1),  # -> (N, 64, 8, 8)
        relu3=nn.ReLU(),
        pool3=nn.MaxPool2d(2),  # -> (N, 64, 4, 4)
        flatten=nn.Flatten(),  # -> (N, 1024)
        fc1=nn.Linear(64 * 4 * 4, 99),  # -> (N, 99)
        fc1_relu=nn.ReLU(),
        logits=nn.Linear(99, classes),  # -> (N, classes)
    )


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
    ``batch_norm=False`` removes batch norm everywhere. Padding lets every convolution keep height and width.
    ``blocks`` is ours: two more convolutions after the second and the third pool, in a row ("plain") or as what is
    added to their input ("residual"), which R2 argued about. ``width``, ours too, multiplies the convolutions'
    channels 32-64-128, and ``hidden`` is the first fully connected layer's units; shapes below are those of the
    defaults. ``whitened`` fixes the first convolution's filters at what whitens the training pictures' patches
    (:mod:`helpers.models.layers`).
    """
    k1, k2, k3 = three_kernels(kernels)
    bn, drop = switch("batch_norm", batch_norm), probability("dropout", dropout)
    act, halve = choice("activation", activation, ACTIVATIONS), choice("pool", pool, POOLS)
    wrap = choice("blocks", blocks, BLOCKS)
    c1, c2, c3 = (channels * whole("width", width) for channels in (32, 64, 128))
    hidden = whole("hidden", hidden)
    first = Whitening if switch("whitened", whitened) else nn.Conv2d

    def block(channels: int) -> nn.Module | None:  # keeps (N, channels, H, W)
        convolutions = {
            "conv1": nn.Conv2d(channels, channels, 3, padding=1),
            "bn1": nn.BatchNorm2d(channels) if bn else None,
            activation: act(),
            "conv2": nn.Conv2d(channels, channels, 3, padding=1),
            "bn2": nn.BatchNorm2d(channels) if bn else None,
        }
        return wrap(chain(**convolutions)) if wrap else None

    layers = {
        "conv1": first(3, c1, k1, padding=k1 // 2),  # (N, 3, 32, 32) -> (N, 32, 32, 32)
        "bn1": nn.BatchNorm2d(c1) if bn else None,
        f"{activation}1": act(),
        "pool1": halve(2),  # -> (N, 32, 16, 16)
        "conv2": nn.Conv2d(c1, c2, k2, padding=k2 // 2),  # -> (N, 64, 16, 16)
        "bn2": nn.BatchNorm2d(c2) if bn else None,
        f"{activation}2": act(),
        "pool2": halve(2),  # -> (N, 64, 8, 8)
        "block2": block(c2),
        f"block2_{activation}": act() if wrap else None,
        "conv3": nn.Conv2d(c2, c3, k3, padding=k3 // 2),  # -> (N, 128, 8, 8)
        "bn3": nn.BatchNorm2d(c3) if bn else None,
        f"{activation}3": act(),
        "pool3": halve(2),  # -> (N, 128, 4, 4)
        "block3": block(c3),
        f"block3_{activation}": act() if wrap else None,
        "flatten": nn.Flatten(),  # -> (N, 2048)
        "fc1": nn.Linear(c3 * 4 * 4, hidden),  # -> (N, 512)
        "fc1_bn": nn.BatchNorm1d(hidden) if bn else None,
        f"fc1_{activation}": act(),
        "fc1_dropout": nn.Dropout(drop) if drop else None,
        "fc2": nn.Linear(hidden, 128),  # -> (N, 128)
        "fc2_bn": nn.BatchNorm1d(128) if bn else None,
        f"fc2_{activation}": act(),
        "fc2_dropout": nn.Dropout(drop) if drop else None,
        "logits": nn.Linear(128, classes),  # -> (N, classes)
    }
    return chain(**layers)


def r3(classes: int) -> nn.Sequential:
    """Return R3's four-convolution net, which R3 and notebook 02 train with NumPy alone.

    Published: the layers and their order. Our reading: padding that keeps height and width.
    """
    return chain(
        conv1=nn.Conv2d(3, 16, 3, padding=1),  # (N, 3, 32, 32) -> (N, 16, 32, 32)
        relu1=nn.ReLU(),
        conv2=nn.Conv2d(16, 32, 3, padding=1),  # -> (N, 32, 32, 32)
        relu2=nn.ReLU(),
        pool2=nn.MaxPool2d(2),  # -> (N, 32, 16, 16)
        conv3=nn.Conv2d(32, 64, 3, padding=1),  # -> (N, 64, 16, 16)
        relu3=nn.ReLU(),
        conv4=nn.Conv2d(64, 128, 3, padding=1),  # -> (N, 128, 16, 16)
        relu4=nn.ReLU(),
        pool4=nn.MaxPool2d(2),  # -> (N, 128, 8, 8)
        flatten=nn.Flatten(),  # -> (N, 8192)
        logits=nn.Linear(128 * 8 * 8, classes),  # -> (N, classes)
    )


def r3_norm(classes: int) -> nn.Sequential:
    """Return R3's net with batch norm before each ReLU and a third pool, after the third convolution."""
    return chain(
        conv1=nn.Conv2d(3, 16, 3, padding=1),  # (N, 3, 32, 32) -> (N, 16, 32, 32)
        bn1=nn.BatchNorm2d(16),
        relu1=nn.ReLU(),
        conv2=nn.Conv2d(16, 32, 3, padding=1),  # -> (N, 32, 32, 32)
        bn2=nn.BatchNorm2d(32),
        relu2=nn.ReLU(),
        pool2=nn.MaxPool2d(2),  # -> (N, 32, 16, 16)
        conv3=nn.Conv2d(32, 64, 3, padding=1),  # -> (N, 64, 16, 16)
        bn3=nn.BatchNorm2d(64),
        relu3=nn.ReLU(),
        pool3=nn.MaxPool2d(2),  # -> (N, 64, 8, 8)
        conv4=nn.Conv2d(64, 128, 3, padding=1),  # -> (N, 128, 8, 8)
        bn4=nn.BatchNorm2d(128),
        relu4=nn.ReLU(),
        pool4=nn.MaxPool2d(2),  # -> (N, 128, 4, 4)
        flatten=nn.Flatten(),  # -> (N, 2048)
        logits=nn.Linear(128 * 4 * 4, classes),  # -> (N, classes)
    )


def r4(classes: int) -> nn.Sequential:
    """Return R4's net, 81,574 parameters with 10 classes, as published.

    Our reading: no padding, which 576 = 16 * 6 * 6 implies, and leaky ReLU after both hidden layers.
    """
    return chain(
        conv1=nn.Conv2d(3, 6, 3),  # (N, 3, 32, 32) -> (N, 6, 30, 30)
        leaky_relu1=nn.LeakyReLU(),
        pool1=nn.MaxPool2d(2),  # -> (N, 6, 15, 15)
        conv2=nn.Conv2d(6, 16, 3),  # -> (N, 16, 13, 13)
        bn2=nn.BatchNorm2d(16),
        leaky_relu2=nn.LeakyReLU(),
        pool2=nn.MaxPool2d(2),  # -> (N, 16, 6, 6)
        flatten=nn.Flatten(),  # -> (N, 576)
        fc1=nn.Linear(16 * 6 * 6, 120),  # -> (N, 120)
        fc1_bn=nn.BatchNorm1d(120),
        fc1_leaky_relu=nn.LeakyReLU(),
        fc2=nn.Linear(120, 84),  # -> (N, 84)
        fc2_leaky_relu=nn.LeakyReLU(),
        logits=nn.Linear(84, classes),  # -> (N, classes)
    )
