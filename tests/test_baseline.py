"""The colour baseline sees colours, and nothing but colours."""

import numpy as np
import torch
from PIL import Image
from scenes import scene

from helpers.data import Split, load
from helpers.lessons.baseline import colour_baseline, colour_features, fit_colour


def split_of(images, labels):
    return Split(torch.from_numpy(images), torch.tensor(labels), torch.arange(len(labels)))


def test_features_are_the_mean_and_numpys_histogram():
    images = np.random.default_rng(0).integers(0, 256, (5, 3, 8, 8), dtype=np.uint8)
    features = colour_features(split_of(images, [0] * 5), levels=4)
    for image, row in zip(images, features, strict=True):
        counts, _ = np.histogramdd(image.reshape(3, -1).T, bins=4, range=[(0, 256)] * 3)
        assert np.allclose(row[:3], image.reshape(3, -1).mean(axis=1) / 255)
        assert np.allclose(row[3:], counts.ravel() / 64) and np.isclose(row[3:].sum(), 1)


def test_it_tells_colours_apart_and_no_shapes():
    rng = np.random.default_rng(1)
    labels = np.arange(200) % 2
    colours = np.where(labels[:, None, None, None] == 0, [[[[40]], [[90]], [[90]]]], [[[[120]], [[90]], [[90]]]])
    coloured = np.clip(colours + rng.normal(0, 40, (200, 3, 8, 8)), 0, 255).astype(np.uint8)
    train, test = split_of(coloured[:100], labels[:100]), split_of(coloured[100:], labels[100:])
    assert fit_colour(train).score(colour_features(test), labels[100:]) > 0.95
    # Left half white or right half white: every colour counts the same.
    halves = np.zeros((200, 3, 8, 8), dtype=np.uint8)
    halves[labels == 0, :, :, :4] = halves[labels == 1, :, :, 4:] = 255
    features = colour_features(split_of(halves, labels))
    assert (features == features[0]).all()


def test_accuracies_of_the_three_splits(tmp_path):
    for number in range(60):
        for name, tint in (("cold", (0, 0, 90)), ("warm", (90, 0, 0))):
            pixels = np.clip(np.asarray(scene(number + 100 * (name == "cold"))).astype(int) + tint, 0, 255)
            (tmp_path / "own" / name).mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / "own" / name / f"{number}.png")
    scores = colour_baseline(load("folder:own", root=tmp_path))
    assert set(scores) == {"train", "validation", "test"}
    assert all(0.75 < score <= 1 for score in scores.values())
