"""Softmax and cross entropy, in one step because together their gradient is simple."""

import numpy as np


def softmax(logits: np.ndarray) -> np.ndarray:
    """Return probabilities p = exp(z) / Σ exp(z) for logits z (N, K); the largest is subtracted against overflow."""
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exponentials / exponentials.sum(axis=1, keepdims=True)


def softmax_cross_entropy(logits: np.ndarray, labels: np.ndarray) -> tuple[float, np.ndarray]:
    """Return (L, dL/dlogits) for L = -1/N Σ log p[n, label n], the mean over a batch of logits (N, K).

    The gradient is (p - t) / N with t the one-hot labels: what the network says less what is true.
    """
    if len(logits) != len(labels):
        raise ValueError(f"cross entropy wants one label an image, got {len(labels)} labels for {len(logits)} images")
    images = np.arange(len(labels))
    shifted = logits - logits.max(axis=1, keepdims=True)  # (N, K)
    normaliser = np.exp(shifted).sum(axis=1, keepdims=True)  # (N, 1)
    loss = np.mean(np.log(normaliser[:, 0]) - shifted[images, labels])
    gradient = np.exp(shifted) / normaliser  # p
    gradient[images, labels] -= 1  # p - t
    gradient /= len(labels)
    return float(loss), gradient
