"""Whitening against NumPy: patches cut by hand, their outputs uncorrelated and of variance one."""

import numpy as np
import pytest
import torch

from helpers.data import load
from helpers.models import build, structure_hash, whiten
from helpers.models.networks import LEAST_VARIANCE, Whitening
from helpers.training import Experiment, Trainer, normalise
from helpers.training.loop import fit


def pictures(n=60, seed=0):
    """Return smooth random images, whose neighbouring pixels are correlated, float32 (N, 3, 12, 12)."""
    noise = np.random.default_rng(seed).normal(0.3, 1, (n, 3, 14, 14))
    smooth = sum(noise[:, :, i : i + 12, j : j + 12] for i in range(3) for j in range(3)) / 3
    return torch.tensor(smooth + 0.5 * smooth.mean(1, keepdims=True), dtype=torch.float32)


def cut(images, size):
    """Return all patches by slicing, (M, C * size * size)."""
    n, _, height, width = images.shape
    return np.array([
        images[k, :, i : i + size, j : j + size].ravel()
        for k in range(n) for i in range(height - size + 1) for j in range(width - size + 1)
    ])  # fmt: skip


@pytest.mark.parametrize(("outputs", "size"), [(24, 2), (54, 3), (32, 3)])
def test_outputs_on_training_patches_have_mean_zero_and_identity_covariance(outputs, size):
    images, layer = pictures(), Whitening(3, outputs, size)
    whiten(layer, images)
    half = outputs // 2
    patches = cut(images.numpy(), size).astype(np.float64)
    got = patches @ layer.weight.numpy().reshape(outputs, -1).T.astype(np.float64) + layer.bias.numpy()
    np.testing.assert_allclose(got.mean(0), 0, atol=1e-4)
    variances = np.linalg.eigvalsh(np.cov(patches.T))[::-1][:half]
    np.testing.assert_allclose(np.cov(got[:, :half].T), np.diag(variances / (variances + LEAST_VARIANCE)), atol=1e-3)
    assert variances.min() > 20 * LEAST_VARIANCE  # so that is the identity to within 5 %
    np.testing.assert_allclose(got[:, half:], -got[:, :half], atol=1e-5)
    # And the layer itself computes them, in its own order: (N, outputs, H, W).
    np.testing.assert_allclose(layer(images).permute(0, 2, 3, 1).reshape(-1, outputs).numpy(), got, atol=1e-3)


def test_filters_do_not_depend_on_the_sign_of_an_eigenvector_nor_on_chance():
    one, other = Whitening(3, 24, 2), Whitening(3, 24, 2)
    whiten(torch.nn.ModuleList([one, other]), pictures())
    assert torch.equal(one.weight, other.weight)
    flat = one.weight[:12].flatten(1)
    assert (flat.gather(1, flat.abs().argmax(1, keepdim=True)) > 0).all()
    for outputs in (26, 23):  # more than directions, or an odd number
        with pytest.raises(ValueError, match=f"{outputs} whitening filters: patches of 12 .* up to 24"):
            Whitening(3, outputs, 2)


def test_a_run_begins_with_filters_from_its_own_pictures_and_keeps_them():
    chosen = {"model_options": {"whitened": True}, "train_size": 256, "batch_size": 64, "epochs": 1}
    experiment = Experiment(dataset="digits", model="r2", **chosen)
    data = load("digits")
    start = Trainer(experiment, data, torch.device("cpu"), False).model.conv1.weight.clone()
    expected = Whitening(3, 32, 3, padding=1)
    whiten(torch.nn.Sequential(expected), normalise(data.train.images, data.mean, data.std))
    assert (start - expected.weight).abs().max() > 0  # a quarter of the digits is another sample
    assert torch.equal(fit(experiment, data, device="cpu", progress=False).model.conv1.weight, start)
    assert structure_hash(build("r2", whitened=True)) != structure_hash(build("r2"))
    assert sum(p.numel() for p in build("r2", whitened=True).parameters()) == 1_211_018
