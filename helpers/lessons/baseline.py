"""What colour alone tells: the baseline that a network has to beat."""

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from helpers.data import Dataset, Split

LEVELS = 4


def colour_features(split: Split, levels: int = LEVELS) -> np.ndarray:
    """Return mean colour and colour histogram of each image, float64 (N, 3 + levels ** 3), on the scale 0 to 1.

    The histogram counts the pixels in ``levels`` x ``levels`` x ``levels`` boxes of the RGB cube; where a pixel
    lies in the image plays no part.
    """
    pixels = split.images.cpu().numpy().reshape(len(split), 3, -1)  # (N, 3, H*W)
    boxes = (pixels.astype(np.int64) * levels) // 256
    boxes = (boxes[:, 0] * levels + boxes[:, 1]) * levels + boxes[:, 2]  # (N, H*W)
    offset = np.arange(len(split))[:, None] * levels**3
    counts = np.bincount((boxes + offset).ravel(), minlength=len(split) * levels**3)
    histogram = counts.reshape(len(split), -1) / pixels.shape[2]
    return np.hstack([pixels.mean(axis=2) / 255, histogram])


def fit_colour(split: Split) -> Pipeline:
    """Return a logistic regression on standardised :func:`colour_features`, fitted to ``split``."""
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
    return model.fit(colour_features(split), split.labels.cpu().numpy())


def colour_baseline(data: Dataset) -> dict[str, float]:
    """Return the accuracy, a fraction, of :func:`fit_colour` on "train", "validation" and "test".

    Nothing is chosen: every setting is fixed beforehand, so the test set is read for the measurement alone.
    """
    model = fit_colour(data.train)
    splits = {"train": data.train, "validation": data.validation, "test": data.test}
    return {name: float(model.score(colour_features(s), s.labels.cpu().numpy())) for name, s in splits.items()}
