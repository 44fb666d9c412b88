"""Damage against SciPy, Pillow and statistics; curves against accuracies by hand."""

import io

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.ndimage import gaussian_filter
from torch import nn

from helpers.data import load
from helpers.lessons.corruptions import CORRUPTIONS, blur, jpeg, noise, plot_robustness, robustness
from helpers.training import normalise

IMAGES = torch.randint(256, (6, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_blur_is_scipys_away_from_the_edges():
    images = load("digits").validation.images[:5]
    for sigma in (0.5, 1.0, 2.0):
        expected = gaussian_filter(images.double().numpy(), (0, 0, sigma, sigma), mode="mirror", truncate=3.0)
        # Torchvision samples the same Gaussian; both round to whole grey levels.
        assert np.abs(blur(images, sigma).numpy() - expected).max() < 1.01
    assert torch.equal(blur(images, 0), images)


def test_jpeg_is_pillows_and_worse_at_lower_quality():
    file = io.BytesIO()
    Image.fromarray(IMAGES[2].permute(1, 2, 0).numpy()).save(file, "JPEG", quality=30)
    assert np.array_equal(jpeg(IMAGES, 30)[2].permute(1, 2, 0).numpy(), np.array(Image.open(file)))
    errors = [(jpeg(IMAGES, q).float() - IMAGES.float()).abs().mean().item() for q in (95, 50, 10)]
    assert errors == sorted(errors) and errors[0] < errors[2]


def test_noise_has_the_deviation_that_it_says_and_is_the_same_each_time():
    grey = torch.full((40, 3, 32, 32), 128, dtype=torch.uint8)
    damaged = noise(grey, 20)
    assert damaged.float().mean().item() == pytest.approx(128, abs=0.3)
    assert damaged.float().std().item() == pytest.approx(20, rel=0.02)
    assert torch.equal(noise(grey, 20), damaged) and torch.equal(noise(grey, 0), grey)
    assert noise(torch.zeros_like(grey), 20).max() > 40  # clipped below, never wrapped around


def test_curves_are_accuracies_on_damaged_pictures():
    data = load("digits")
    images, labels = data.validation.images[:150], data.validation.labels[:150]
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 10))
    curves = robustness(model, images, labels, data, batch_size=64)
    assert {name: tuple(s for s, _ in curve) for name, curve in curves.items()} == {
        name: kind.strengths for name, kind in CORRUPTIONS.items()
    }
    clean = (model(normalise(images, data.mean, data.std)).argmax(1) == labels).float().mean().item()
    # In batches of another size, a picture between two classes may go either way.
    assert curves["blur"][0][1] == curves["noise"][0][1] == pytest.approx(clean, abs=1.5 / 150)
    damaged = normalise(noise(images, 40), data.mean, data.std)
    worst = (model(damaged).argmax(1) == labels).float().mean().item()
    assert curves["noise"][-1][1] == pytest.approx(worst, abs=1.5 / 150)
    figure = plot_robustness({"one": curves, "other": curves}, 0.1)
    lines = figure.axes[1].get_lines()
    assert list(lines[0].get_ydata()) == pytest.approx([100 * accuracy for _, accuracy in curves["blur"]])
    assert figure.axes[0].xaxis_inverted() and not figure.axes[1].xaxis_inverted()  # milder is at the left
