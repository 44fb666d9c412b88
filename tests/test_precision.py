"""bfloat16 computed in float32: what PyTorch's own autocast gives, forward and backward."""

import copy
from contextlib import ExitStack

import pytest
import torch
from torch import nn

from helpers.models import build
from helpers.training.parts import RoundedProducts, products


def outputs_and_gradients(model, images, *contexts):
    model.zero_grad()
    with ExitStack() as stack:
        for context in contexts:
            stack.enter_context(context)
        logits = model(images)
    logits.float().square().sum().backward()
    return [logits, *(p.grad.clone() for p in model.parameters())]


LAYERS = [nn.Conv2d(5, 7, 3, padding=1), nn.Conv2d(5, 7, 5, stride=2), nn.Linear(9, 7)]
IMAGES = torch.randn(4, 5, 9, 9, generator=torch.Generator().manual_seed(0))
CPU, AUTOCAST = torch.device("cpu"), torch.autocast("cpu", torch.bfloat16)
ROUNDING = 2**-8  # rounding to bfloat16 changes a number by this share of it, at most


@pytest.mark.parametrize("layer", LAYERS)
def test_a_rounded_layer_is_exact_but_for_one_rounding(layer):
    ours = outputs_and_gradients(layer, IMAGES, AUTOCAST, RoundedProducts())
    exact = copy.deepcopy(layer).bfloat16().double()
    logits = exact(IMAGES.bfloat16().double())
    exact.zero_grad()
    logits.backward(2 * ours[0].double())
    for a, b in zip([logits, *(p.grad for p in exact.parameters())], ours, strict=True):
        assert torch.equal(b, b.bfloat16().to(b.dtype))
        # Sums of some hundred float32 numbers are off by 1e-5 of the largest at most.
        assert ((a - b.double()).abs() <= ROUNDING * a.abs() + 1e-5 * a.abs().max()).all()


def test_a_rounded_network_computes_as_under_autocast():
    torch.manual_seed(0)
    model, images = build("r4"), torch.randn(32, 3, 32, 32)
    theirs = outputs_and_gradients(model, images, AUTOCAST)
    ours = outputs_and_gradients(model, images, AUTOCAST, RoundedProducts())
    exact = outputs_and_gradients(model, images)
    names = ["logits", *(name for name, _ in model.named_parameters())]
    for name, a, b, c in zip(names, theirs, ours, exact, strict=True):
        # As near to autocast as float32 is, at least: what differs is which of two neighbours a sum rounds to. Before
        # a batch norm a bias changes nothing: its gradient is zero, and what is computed is rounding alone.
        assert (a - b).norm() <= (a - c).norm() or name in ("conv2.bias", "fc1.bias"), name
        assert (b - c).norm() > 0, name


@pytest.mark.parametrize("supported", [False, True])
def test_rounding_is_for_bfloat16_on_processors_without_it(monkeypatch, supported):
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: supported)
    rounded = [products(*choice) for choice in (("bf16", CPU), ("fp32", CPU), ("bf16", torch.device("cuda")))]
    assert [isinstance(context, RoundedProducts) for context in rounded] == [not supported, False, False]


def test_muons_products_are_bfloat16s_computed_in_float32():
    a, b, c = torch.randn(3, 6, 6, generator=torch.Generator().manual_seed(1)).bfloat16()
    with RoundedProducts():
        ours = [a @ b, torch.addmm(a, b, c, beta=-4.775, alpha=2.0315), a.float() @ b.float()]
    a, b, c = a.double(), b.double(), c.double()
    exact = [a @ b, -4.775 * a + 2.0315 * b @ c]
    for value, true in zip(ours, exact, strict=False):
        assert value.dtype == torch.bfloat16
        assert ((value.double() - true).abs() <= ROUNDING * true.abs() + 1e-5 * true.abs().max()).all()
    assert ours[2].dtype == torch.float32  # what is float32 stays so
