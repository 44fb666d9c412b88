"""Muon for whole networks: PyTorch's own on flattened kernels, AdamW for the rest, whatever the memory layout."""

from contextlib import nullcontext

import pytest
import torch
from taught import taught
from torch import nn

from helpers.models import build
from helpers.training.parts import Muon, as_matrix


def net():
    torch.manual_seed(3)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 9, 4))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_steps_are_those_of_torchs_muon_and_adamw(layout):
    ours, images, labels = net().to(memory_format=layout), torch.randn(16, 3, 5, 5), torch.arange(16) % 4
    theirs = net()
    matrix = nn.Parameter(theirs[0].weight.data.flatten(1).clone())  # the oracle: a matrix of its own
    muon = torch.optim.Muon([matrix], 0.02, weight_decay=0.01, adjust_lr_fn="match_rms_adamw")
    rest = [p for n, p in theirs.named_parameters() if n != "0.weight"]
    adamw = torch.optim.AdamW(rest, 0.02, weight_decay=0.01)
    optimizer = Muon(ours.parameters(), 0.02, weight_decay=0.01)
    for _ in range(3):
        optimizer.zero_grad()
        nn.functional.cross_entropy(ours(images), labels).backward()
        optimizer.step()
        theirs.zero_grad()
        nn.functional.cross_entropy(theirs(images), labels).backward()
        matrix.grad = theirs[0].weight.grad.flatten(1)
        muon.step()
        adamw.step()
        theirs[0].weight.data.copy_(matrix.data.view(8, 3, 3, 3))
    # Muon works in bfloat16: columns in another order round otherwise.
    torch.testing.assert_close(ours[0].weight.detach(), theirs[0].weight.detach(), atol=2e-3, rtol=2e-2)
    torch.testing.assert_close(ours[4].weight, theirs[4].weight, atol=2e-3, rtol=1e-2)
    assert (ours[0].weight - net()[0].weight).abs().max() > 0.005


def test_frozen_weights_are_left_alone_and_one_matrix_is_adamws():
    model = build("r2", whitened=True)
    optimizer = Muon(model.parameters())
    assert len(optimizer.kernels) == 4  # two kernels that learn, two hidden matrices; not the frozen, not the last
    assert [len(group["params"]) for group in Muon([nn.Parameter(torch.ones(2, 2))]).param_groups] == [1]


def test_notebook_10_writes_the_step_out(monkeypatch):
    monkeypatch.setattr(torch, "bfloat16", torch.float64)  # in which PyTorch's Muon would work
    monkeypatch.setattr("helpers.training.parts.products", lambda *_: nullcontext())
    shown, memory = taught("10", "orthogonalised", "muon"), {}
    model = net().double()
    ours, optimizer = as_matrix(model[0].weight.detach()).numpy().copy(), Muon(model.parameters(), 0.02)
    for _ in range(3):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(torch.randn(16, 3, 5, 5).double()), torch.arange(16) % 4).backward()
        ours -= shown.muon(as_matrix(model[0].weight.grad).numpy(), memory, 0.02)
        optimizer.step()
    torch.testing.assert_close(as_matrix(model[0].weight.detach()), torch.from_numpy(ours), rtol=0, atol=1e-12)
