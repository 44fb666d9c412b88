"""The same picture twice: identical pixels, and copies that were re-encoded or resized."""

from collections.abc import Sequence

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from helpers.data.images import Picture, canonical_order

# Two thumbnails are of one picture where 1 - (their correlation) is at most this. Measured on PACS: copies as JPEG
# of quality 20 to 90, as WebP or GIF, resized to 32-227 pixels or squashed stay below 0.009; half the size and
# quality 30 together, 0.014; of 9,991 pictures, 23 pairs lie below 0.02, 8 of them drawings of guitars that are
# alike without being copies. Grouping those does no harm; a copy in two splits would.
TOLERANCE = 0.02

# Below this standard deviation, in grey levels, a picture is a plain surface, with nothing to tell it by but its
# pixels themselves.
FLAT = 1.0
_ROWS = 1 << 25  # comparisons at a time: 128 MB


def arranged(pictures: Sequence[Picture], labels: Sequence[int]) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Return the canonical order of ``pictures`` of classes ``labels``, (N,), and what they hold in that order.

    That is "images" uint8 (N, size, size, 3), "labels" uint8 (N,), "digests" uint64 (N,) and "groups" of copies (N,).
    """
    images, thumbnails = (np.stack([picture[part] for picture in pictures]) for part in (0, 1))
    digests = np.array([picture.digest for picture in pictures], dtype=np.uint64)
    classes = np.array(labels, dtype=np.uint8)
    order = canonical_order(images, classes)
    digests = digests[order]
    groups = duplicate_groups(thumbnails[order], digests)
    return order, {"images": images[order], "labels": classes[order], "digests": digests, "groups": groups}


def duplicate_groups(thumbnails: np.ndarray, digests: np.ndarray, tolerance: float = TOLERANCE) -> np.ndarray:
    """Return the group of each picture, (N,): the position of the first picture that it is a copy of, or its own.

    thumbnails: uint8 (N, h, w), whole pictures in grey; digests: (N,), equal where the pixels are. A copy of a copy
    belongs to the same group.
    """
    _, first, same = np.unique(digests, return_index=True, return_inverse=True)
    identical = np.stack([first[same], np.arange(len(digests))], axis=1)
    pairs = np.concatenate([identical, near_pairs(thumbnails, tolerance)])
    graph = coo_array((np.ones(len(pairs), dtype=bool), pairs.T), shape=(len(digests), len(digests)))
    _, component = connected_components(graph, directed=False)
    return np.unique(component, return_index=True)[1][component]


def near_pairs(thumbnails: np.ndarray, tolerance: float = TOLERANCE) -> np.ndarray:
    """Return the pairs (i, j), i < j, of pictures that look the same, (P, 2); every pair is compared.

    thumbnails: uint8 (N, h, w). Correlation does not change with brightness or contrast. Plain surfaces are left out.
    """
    grey = thumbnails.reshape(len(thumbnails), np.prod(thumbnails.shape[1:])).astype(np.float32)
    detailed = np.flatnonzero(grey.std(axis=1) >= FLAT)
    centred = grey[detailed] - grey[detailed].mean(axis=1, keepdims=True)
    unit = centred / np.linalg.norm(centred, axis=1, keepdims=True)  # (M, h*w); products are correlations
    found = [np.empty((0, 2), dtype=np.int64)]
    step = max(_ROWS // max(len(unit), 1), 1)
    for start in range(0, len(unit), step):
        alike = unit[start : start + step] @ unit[start:].T >= 1 - tolerance
        row, column = np.nonzero(np.triu(alike, 1))
        found.append(detailed[np.stack([row, column], axis=1) + start])
    return np.concatenate(found)
