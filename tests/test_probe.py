"""A linear probe is scikit-learn's logistic regression, with the strength that validation prefers."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from helpers.data import load, subset
from helpers.latent import split_latents
from helpers.lessons.probe import linear_probe, probe_network
from helpers.models import build


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
    probe = linear_probe(x, y, (held, wanted), tuple(scores)[::-1])
    best, second, _ = sorted(scores, key=scores.get, reverse=True)
    assert scores[best] > scores[second]  # the strengths do differ here
    chosen = probe[-1].C
    assert chosen == best
    assert probe.score(held, wanted) == scores[best]


def test_of_equal_strengths_the_one_that_regularises_most():
    (x, y), validation = clouds(90, 0, noise=0.01), clouds(90, 1, noise=0.01)
    assert linear_probe(x, y, validation, (10.0, 0.1, 1.0))[-1].C == 0.1


def test_what_does_not_go_together_is_refused():
    (x, y), validation = clouds(30, 0), clouds(30, 1)
    with pytest.raises(ValueError, match="strengths"):
        linear_probe(x, y, validation, ())
    with pytest.raises(ValueError, match=r"30.*29|29.*30"):
        linear_probe(x, y[:-1], validation)


def test_a_networks_probe_is_that_of_the_layer_which_validation_prefers():
    torch.manual_seed(0)
    data, model = load("digits"), build("r4").eval()
    train, before = subset(data.train, 100), {name: value.clone() for name, value in model.state_dict().items()}
    found = probe_network(model, data, train, ["fc2", "flatten"])
    scores = {}
    for layer in ("fc2", "flatten"):
        x = [split_latents(model, s, data.mean, data.std, layer)[layer] for s in (train, data.validation, data.test)]
        probe = linear_probe(x[0], train.labels.numpy(), (x[1], data.validation.labels.numpy()))
        scores[layer] = probe.score(x[1], data.validation.labels), probe.score(x[2], data.test.labels), probe[-1].C
    best = max(scores, key=lambda layer: scores[layer][0])
    assert scores["fc2"][0] != scores["flatten"][0]
    assert (found["layer"], found["validation"], found["test"], found["C"]) == (best, *scores[best])
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    with pytest.raises(ValueError, match="no layer 'fc9'"):
        probe_network(model, data, train, ["fc9"])
