"""R1's ideas as switches, and the nets under a budget: structure, sizes and costs against numbers by hand."""

import pytest
import torch
from taught import taught
from torch import nn

from helpers.models import SWITCHES, build, layer_table, structure_hash
from helpers.models.networks import Whitening


def of_kind(net, kind):
    return [layer for layer in net.modules() if isinstance(layer, kind)]


def test_of_eleven_ideas_nine_are_switches_and_with_padding_alone_it_is_r1s_network():
    ideas = taught("11", "IDEAS").IDEAS
    assert len(ideas) == 11 and [idea for idea in ideas if " " not in idea] == list(SWITCHES)
    assert structure_hash(build("improved", **dict.fromkeys(SWITCHES, False))) == structure_hash(build("improved"))
    assert structure_hash(build("improved", padding=True)) == structure_hash(build("r1"))
    torch.manual_seed(5)
    ours = build("improved", padding=True).state_dict()
    torch.manual_seed(5)  # and starts from the same weights
    theirs = build("r1").state_dict()
    assert list(ours) == list(theirs) and all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_each_switch_does_what_it_says():
    def parameters(**switches):
        return sum(p.numel() for p in build("improved", **switches).parameters())

    base = 448 + 4_640 + 18_496 + 99 * 257 + 10 * 100
    assert parameters() == base
    assert parameters(resolution=True) == base + 99 * 64 * (16 - 4)
    assert parameters(convolutions=True) == base + sum(9 * c * c + c for c in (16, 32, 64))
    assert parameters(pool_after_several=True) == base  # the pools move, nothing else
    assert parameters(kernels=True) == base + (25 - 9) * 32 * 64 - 99 * 64 * (4 - 1)
    assert parameters(batch_norm=True) == base + 2 * (16 + 32 + 64 + 99)
    assert parameters(dropout=True) == base
    assert parameters(pointwise=True) == 448 + 4_640 + 18_496 + 64 * 65 + 10 * 65
    assert [c.out_channels for c in of_kind(build("improved", filters=True), nn.Conv2d)] == [24, 48, 96]
    assert [d.p for d in of_kind(build("improved", dropout=True), nn.Dropout)] == [0.3]
    assert [c.kernel_size[0] for c in of_kind(build("improved", kernels=True), nn.Conv2d)] == [3, 3, 5]

    # The pools move behind several convolutions.
    def order(**switches):
        names = [name for name, _ in build("improved", **switches).named_children()]
        return [name for name in names if name.startswith(("conv", "pool"))]

    assert order(pool_after_several=True) == ["conv1", "conv2", "pool2", "conv3", "pool3"]
    both = ["conv1", "conv1b", "pool1", "conv2", "conv2b", "pool2", "conv3", "conv3b", "pool3"]
    assert order(pool_after_several=True, convolutions=True) == both
    assert order(convolutions=True)[:3] == ["conv1", "pool1", "conv1b"]
    assert build("improved", pool_after_several=True).pool2.kernel_size == 4


@pytest.mark.parametrize("left_out", [None, *SWITCHES])
def test_every_combination_of_the_ablation_learns_shapes_and_gradients(left_out):
    net = build("improved", classes=7, **{name: name != left_out for name in SWITCHES})
    logits = net(torch.randn(4, 3, 32, 32))
    assert logits.shape == (4, 7)
    logits.logsumexp(1).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())


def test_compact_keeps_to_its_budgets():
    def by_hand(widths, blocks):
        def pair(inputs, outputs):
            return 9 * inputs + inputs * outputs + 2 * outputs

        c1, c2, c3 = widths
        residual = blocks * sum(pair(c, c) for c in widths)
        return 27 * c1 + 2 * c1 + pair(c1, c2) + pair(c2, c3) + residual + 10 * (c3 + 1)

    for widths, blocks, limit in (((48, 96, 160), 2, 130_000), ((128, 256, 384), 3, 1_000_000)):
        count = sum(p.numel() for p in build("compact", widths=widths, blocks=blocks).parameters())
        assert count == by_hand(widths, blocks) <= limit
    assert build("compact")(torch.randn(2, 3, 32, 32)).shape == (2, 10)


def test_fast94_begins_as_the_identity_on_what_is_whitened():
    net = build("fast94")
    assert isinstance(net.whitening, Whitening) and not net.whitening.weight.requires_grad
    x = torch.rand(2, 24, 31, 31)
    torch.testing.assert_close(net.conv1a(x)[:, :24], x)  # a Dirac kernel passes each channel on
    torch.testing.assert_close(net.logits(x), x / 9)
    assert [row["output_shape"] for row in layer_table(net) if row["layer"] == "pool"] == [[256, 1, 1]]
    assert not any(n.weight.requires_grad for n in of_kind(net, nn.BatchNorm2d))
    assert all(n.bias.requires_grad for n in of_kind(net, nn.BatchNorm2d))
