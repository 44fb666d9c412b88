"""A linear probe: what a fixed network's features tell about the classes, by logistic regression."""

from collections.abc import Sequence

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

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
