"""bfloat16 computed in float32: what PyTorch's own autocast gives, forward and backward."""

import pytest
import torch
from torch import nn

from helpers.models import build
from helpers.precision import RoundedProducts, products


def outputs_and_gradients(model, images, *contexts):
    model.zero_grad()
    for context in contexts:
        context.__enter__()
    logits = model(images)
    for context in reversed(contexts):
        context.__exit__(None, None, None)
    logits.float().square().sum().backward()
    return [logits, *(p.grad.clone() for p in model.parameters())]


@pytest.mark.parametrize("layer", [nn.Conv2d(5, 7, 3, padding=1), nn.Conv2d(5, 7, 5, stride=2), nn.Linear(9, 7)])
def test_a_rounded_layer_is_autocasts(layer):
    images = torch.randn(4, 5, 9, 9, generator=torch.Generator().manual_seed(0))
    autocast = torch.autocast("cpu", torch.bfloat16)
    for theirs, ours in zip(
        outputs_and_gradients(layer, images, autocast),
        outputs_and_gradients(layer, images, autocast, RoundedProducts()),
        strict=True,
    ):
        assert theirs.dtype == ours.dtype
        # A sum taken in another order may round to the neighbouring bfloat16 number, 2**-8 of its value apart.
        assert (ours.float() - theirs.float()).norm() <= 2**-8 * theirs.float().norm()


def test_a_rounded_network_computes_as_under_autocast():
    torch.manual_seed(0)
    model, images = build("r4"), torch.randn(32, 3, 32, 32)
    autocast = torch.autocast("cpu", torch.bfloat16)
    theirs = outputs_and_gradients(model, images, autocast)
    ours = outputs_and_gradients(model, images, autocast, RoundedProducts())
    exact = outputs_and_gradients(model, images)
    for a, b, c in zip(theirs, ours, exact, strict=True):
        # As near to autocast as float32 is, at least: what differs is which of two neighbours a sum rounds to.
        assert (a - b).norm() <= (a - c).norm()
        assert (b - c).norm() > 0


def test_rounding_is_for_bfloat16_on_processors_without_it(monkeypatch):
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: False)
    assert isinstance(products("bf16", torch.device("cpu")), RoundedProducts)
    assert not isinstance(products("fp32", torch.device("cpu")), RoundedProducts)
    assert not isinstance(products("bf16", torch.device("cuda")), RoundedProducts)
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: True)
    assert not isinstance(products("bf16", torch.device("cpu")), RoundedProducts)
