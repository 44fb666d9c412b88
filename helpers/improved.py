"""R1's list of ideas for a better network, each a switch on one network, so that each can be weighed by itself."""

from torch import nn

from helpers.model_parts import chain, side_left, switch

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
