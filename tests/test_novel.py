"""What notebook 13 teaches: a baseline that sees colours alone, a linear probe, and a network with a new last layer."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from taught import taught

from helpers.data import Split, load, subset
from helpers.latent import split_latents
from helpers.models import build
from helpers.training import load_network, start

novel = taught("13", "colour_features", "colour_baseline", "linear_probe", "probe_network", "with_new_head")


def split_of(images, labels):
    return Split(torch.from_numpy(images), torch.tensor(labels), torch.arange(len(labels)))


def test_features_are_the_mean_and_numpys_histogram():
    images = np.random.default_rng(0).integers(0, 256, (5, 3, 8, 8), dtype=np.uint8)
    features = novel.colour_features(split_of(images, [0] * 5), levels=4)
    for image, row in zip(images, features, strict=True):
        counts, _ = np.histogramdd(image.reshape(3, -1).T, bins=4, range=[(0, 256)] * 3)
        assert np.allclose(row[:3], image.reshape(3, -1).mean(axis=1) / 255)
        assert np.allclose(row[3:], counts.ravel() / 64) and np.isclose(row[3:].sum(), 1)


def test_the_baseline_tells_colours_apart_and_no_shapes():
    rng = np.random.default_rng(1)
    labels = np.arange(300) % 2
    reds = np.array([[[[40]], [[90]], [[90]]], [[[120]], [[90]], [[90]]]])
    coloured = np.clip(reds[labels] + rng.normal(0, 40, (300, 3, 8, 8)), 0, 255).astype(np.uint8)
    # Left half white or right half white: every colour counts the same.
    halves = np.zeros((300, 3, 8, 8), dtype=np.uint8)
    halves[labels == 0, :, :, :4] = halves[labels == 1, :, :, 4:] = 255
    for images, least, most in ((coloured, 0.95, 1), (halves, 0.5, 0.5)):
        parts = [split_of(images[i::3], labels[i::3]) for i in range(3)]
        scores = novel.colour_baseline(SimpleNamespace(train=parts[0], validation=parts[1], test=parts[2]))
        assert list(scores) == ["train", "validation", "test"]
        assert all(least <= score <= most for score in scores.values())


def clouds(count, seed, noise=3.0):
    """Return points (count, 30) of three classes, told apart by three of the 30 numbers, and their classes."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 3
    return np.hstack([np.eye(3)[labels] * 4, np.zeros((count, 27))]) + noise * rng.normal(size=(count, 30)), labels


def test_the_strength_is_the_one_that_validation_prefers():
    (x, y), (held, wanted) = clouds(60, 0), clouds(600, 1)
    scale = StandardScaler().fit(x)
    scores = {
        c: LogisticRegression(C=c, max_iter=1000).fit(scale.transform(x), y).score(scale.transform(held), wanted)
        for c in (1e-3, 1e-1, 1e2)
    }
    probe = novel.linear_probe(x, y, (held, wanted), tuple(scores)[::-1])
    best, second, _ = sorted(scores, key=scores.get, reverse=True)
    assert scores[best] > scores[second]  # the strengths do differ here
    assert best == probe[-1].C and probe.score(held, wanted) == scores[best]
    # Of equal ones it is that which regularises most.
    (x, y), validation = clouds(90, 0, noise=0.01), clouds(90, 1, noise=0.01)
    assert novel.linear_probe(x, y, validation, (10.0, 0.1, 1.0))[-1].C == 0.1


def test_a_networks_probe_is_that_of_the_layer_which_validation_prefers():
    torch.manual_seed(0)
    data, model = load("digits"), build("r4").eval()
    train, before = subset(data.train, 100), {name: value.clone() for name, value in model.state_dict().items()}
    found = novel.probe_network(model, data, train, ["fc2", "flatten"])
    scores = {}
    for layer in ("fc2", "flatten"):
        x = [split_latents(model, s, data.mean, data.std, layer)[layer] for s in (train, data.validation, data.test)]
        probe = novel.linear_probe(x[0], train.labels.numpy(), (x[1], data.validation.labels.numpy()))
        scores[layer] = probe.score(x[1], data.validation.labels), probe.score(x[2], data.test.labels), probe[-1].C
    best = max(scores, key=lambda layer: scores[layer][0])
    assert scores["fc2"][0] != scores["flatten"][0]
    assert (found["layer"], found["validation"], found["test"], found["C"]) == (best, *scores[best])
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("name", ["r2", "compact"])
def test_the_notebooks_new_head_is_where_an_experiment_starts(name):
    experiment = load_network(name)[1]["experiment"].but(initial=name)
    models = []
    for make in (
        lambda: novel.with_new_head(experiment, 3),
        lambda: start(experiment, SimpleNamespace(classes=("a", "b", "c"))),
    ):
        torch.manual_seed(4)
        models.append(make().state_dict())
    assert models[0].keys() == models[1].keys() and models[0]["logits.weight"].shape[0] == 3
    assert all(torch.equal(value, models[1][key]) for key, value in models[0].items())
