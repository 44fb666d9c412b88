"""A linear probe: what a fixed network's features tell about the classes, by logistic regression."""

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

from helpers.data import Dataset, Split
from helpers.latent import split_latents

STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1)


def linear_probe(
    features: np.ndarray,
    labels: np.ndarray,
    validation: tuple[np.ndarray, np.ndarray],
    strengths: Sequence[float] = STRENGTHS,
) -> Pipeline:
    """Return a logistic regression on standardised features, as strongly regularised as does best on validation.

    features: (N, D); labels: (N,); validation: features (M, D) and labels (M,) that are not learned from.
    ``strengths`` are the values of scikit-learn's C that are tried; of equals the smallest, which regularises most.

    Raises:
        ValueError: no strength to try, or features and labels that do not go together.
    """
    if not len(strengths):
        raise ValueError("strengths is empty: give at least one value of C, such as 0.01")
    probes = [
        make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=1000)).fit(features, labels)
        for strength in sorted(strengths)
    ]
    return max(probes, key=lambda probe: probe.score(*validation))  # the first of equals


def probe_network(
    model: nn.Module, data: Dataset, train: Split, layers: Sequence[str], batch_size: int = 500
) -> dict[str, Any]:
    """Return what a linear probe of the best of ``layers`` reaches, learned from ``train``, a part of ``data``.

    The values are "layer", chosen on validation like the strength "C", the accuracies "validation" and "test",
    fractions, and the "seconds" that all of it took. The network stays as it was.

    Raises:
        ValueError: an unknown layer, or a split without images.
    """
    began, splits = time.perf_counter(), (train, data.validation, data.test)
    features = [split_latents(model, s, data.mean, data.std, layers, batch_size=batch_size) for s in splits]
    labels = [split.labels.cpu().numpy() for split in splits]
    probes = {}
    for layer in layers:
        learned, held, _ = (found[layer] for found in features)
        fitted = linear_probe(learned, labels[0], (held, labels[1]))
        probes[layer] = fitted, float(fitted.score(held, labels[1]))
    best = max(layers, key=lambda layer: probes[layer][1])
    fitted, validation = probes[best]
    return {
        "layer": best,
        "C": fitted[-1].C,
        "validation": validation,
        "test": float(fitted.score(features[2][best], labels[2])),
        "seconds": time.perf_counter() - began,
    }
