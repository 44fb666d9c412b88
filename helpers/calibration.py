"""Whether a network knows how sure it may be: predicted probability against how often it is right."""

from typing import Any

import numpy as np

BINS = 15


def reliability(confidence: np.ndarray, right: np.ndarray, bins: int = BINS) -> dict[str, list[Any]]:
    """Return, for ``bins`` equal ranges of confidence from 0 to 1: count, mean confidence, share of right answers.

    confidence: (N,) probabilities of the predicted class; right: (N,) whether the prediction is true. A range
    without predictions has zeros. Source: Guo et al., On Calibration of Modern Neural Networks (2017).

    Raises:
        ValueError: the arrays differ in length, a confidence is no probability, or ``right`` is not true or false.
    """
    confidence, right = np.asarray(confidence, dtype=float), np.asarray(right, dtype=float)
    if confidence.shape != right.shape or confidence.ndim != 1:
        raise ValueError(f"confidence {confidence.shape} and right {right.shape} must be rows of one length")
    if not ((confidence >= 0) & (confidence <= 1)).all():
        raise ValueError("a confidence lies outside 0 to 1; give probabilities, not logits")
    if not ((right == 0) | (right == 1)).all():
        raise ValueError("right has other values than true and false; give prediction == label, not the labels")
    if type(bins) is not int or bins < 1:
        raise ValueError(f"bins={bins!r}: give a positive whole number")
    place = np.minimum((confidence * bins).astype(int), bins - 1)
    count = np.bincount(place, minlength=bins)
    each = np.maximum(count, 1)
    return {
        "count": count.tolist(),
        "confidence": (np.bincount(place, confidence, bins) / each).tolist(),
        "accuracy": (np.bincount(place, right, bins) / each).tolist(),
    }


def expected_calibration_error(curve: dict[str, list[Any]]) -> float:
    """Return the mean distance between confidence and accuracy over all predictions of a :func:`reliability` curve."""
    count = np.array(curve["count"], dtype=float)
    gaps = np.abs(np.subtract(curve["confidence"], curve["accuracy"]))
    return float((count * gaps).sum() / max(count.sum(), 1))
