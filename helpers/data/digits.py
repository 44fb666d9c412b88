"""Scikit-learn's handwritten digits in the shape of CIFAR-10: real images that need no network."""

from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

from helpers.data.images import Arrays, stacked
from helpers.data.splits import stratified_split
from helpers.files import atomic_write

CLASSES = tuple(str(digit) for digit in range(10))
TEST_IMAGES = 297


def load_arrays() -> Arrays:
    """Return train_images, train_labels, test_images, test_labels and "source", in canonical order.

    Images are uint8 (N, 32, 32, 3): each of the 8 x 8 grey values, 0 to 16, becomes a square of 4 x 4
    pixels, 0 to 255. Labels are uint8 (N,). 1,500 for training and validation, 297 for testing.
    Source: E. Alpaydin, C. Kaynak, "Optical Recognition of Handwritten Digits", UCI, 1998.
    """
    digits = load_digits()
    grey = np.round(digits.images * (255 / 16)).astype(np.uint8)  # (1797, 8, 8)
    large = grey.repeat(4, axis=1).repeat(4, axis=2)  # (1797, 32, 32)
    images, labels = stacked(list(large[..., None].repeat(3, axis=3)), list(digits.target))
    train, test = stratified_split(labels, TEST_IMAGES)
    return {
        "train_images": images[train],
        "train_labels": labels[train],
        "test_images": images[test],
        "test_labels": labels[test],
        "source": np.array("scikit-learn's load_digits"),
    }


def write_pictures(folder: Path, per_class: int | None = None) -> Path:
    """Return ``folder`` after writing the digits there as pictures, <digit>/<number>.png, for want of others.

    ``per_class``: so many of each digit, or all, some 180. Files that are there already stay as they are.
    """
    arrays = load_arrays()
    images = np.concatenate([arrays["train_images"], arrays["test_images"]])
    labels = np.concatenate([arrays["train_labels"], arrays["test_labels"]])
    for label, name in enumerate(CLASSES):
        for number, pixels in enumerate(images[labels == label][:per_class]):
            path = Path(folder) / name / f"{number:03d}.png"
            if not path.exists():
                buffer = BytesIO()
                Image.fromarray(pixels).save(buffer, "PNG")
                atomic_write(path, buffer.getvalue())
    return Path(folder)
