"""The outputs of layers over a whole split, batch by batch."""

import numpy as np
import pytest
import torch

from helpers.data import Split, channel_statistics
from helpers.latent import split_latents
from helpers.models import build
from helpers.training import predict


@pytest.fixture(scope="module")
def setting():
    """Return R4's net, a split of 23 random pictures, and their statistics."""
    torch.manual_seed(0)
    images = torch.randint(0, 256, (23, 3, 32, 32), dtype=torch.uint8)
    split = Split(images, torch.arange(23) % 10, torch.arange(23))
    return build("r4").to(memory_format=torch.channels_last), split, *channel_statistics(images)


def test_they_are_those_of_a_plain_forward_pass_in_order(setting):
    model, split, mean, std = setting
    found = split_latents(model, split, mean, std, ["pool2", "fc2", "logits"], batch_size=5)
    assert list(found) == ["pool2", "fc2", "logits"]
    assert {name: (a.shape, a.dtype) for name, a in found.items()} == {
        "pool2": ((23, 576), np.float32),
        "fc2": ((23, 84), np.float32),
        "logits": ((23, 10), np.float32),
    }
    # Channels first, then rows, then columns, whatever the order in memory is.
    x = (split.images.double() / 255 - mean.double().view(1, 3, 1, 1)) / std.double().view(1, 3, 1, 1)
    plain = build("r4").double().eval()
    plain.load_state_dict(model.state_dict())
    expected = {}
    with torch.no_grad():
        for name, layer in plain.named_children():
            x = layer(x)
            expected[name] = x.flatten(1).numpy()
    for name, rows in found.items():
        assert np.allclose(rows, expected[name], atol=1e-4), name
    assert np.allclose(found["logits"], predict(model, split, mean, std).numpy(), atol=1e-4)


def test_the_batch_size_changes_nothing_and_the_net_stays_as_it_was(setting):
    model, split, mean, std = setting
    model.train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    one, all_at_once = (split_latents(model, split, mean, std, "fc1", batch_size=n)["fc1"] for n in (1, 100))
    assert np.allclose(one, all_at_once, atol=1e-5)
    assert model.training and all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_unknown_layers_and_empty_splits_are_refused(setting):
    model, split, mean, std = setting
    with pytest.raises(ValueError, match="no layer 'fc9'; its layers are: conv1"):
        split_latents(model, split, mean, std, "fc9")
    empty = Split(split.images[:0], split.labels[:0], split.index[:0])
    with pytest.raises(ValueError, match="no images"):
        split_latents(model, empty, mean, std, "fc1")
