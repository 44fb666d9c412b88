"""PACS: seven contents in four styles, as a question about style or about content.

Li et al., "Deeper, Broader and Artier Domain Generalization", ICCV 2017: 9,991 pictures, each with a style
(art painting, cartoon, photo, sketch) and a content (dog, elephant, ...). A copy may be a folder or archives of one.
"""

from functools import lru_cache
from pathlib import Path, PurePosixPath

import numpy as np
from tqdm import tqdm

from helpers.data.download import members
from helpers.data.folder import TEST_SHARE, arranged
from helpers.data.images import (
    Arrays,
    DataError,
    DataMissing,
    balanced,
    cached_arrays,
    grouped_split,
    share,
)
from helpers.data.names import CONTENTS, QUESTIONS, STYLES, DatasetName

# Pictures of each style, content by content, as published.
COUNTS = {
    "art_painting": (379, 255, 285, 184, 201, 295, 449),
    "cartoon": (389, 457, 346, 135, 324, 288, 405),
    "photo": (189, 202, 182, 186, 199, 280, 432),
    "sketch": (772, 740, 753, 608, 816, 80, 160),
}

_LARGEST = 1 << 22
_VERSION = 1  # part of the cache's key: raise it when the same copy gives other arrays than before

WAYS_ON = """\
Two ways on:
  1. Put a copy into {root}: the folder pacs/<style>/<content>/*, or archives of it, pacs*.tar.gz (see data/README.md).
  2. Use other data: dataset="folder:PATH" takes your own pictures, dataset="digits" needs nothing."""


def find_copy(root: Path) -> list[Path]:
    """Return the folder or the archives under ``root`` that are used; [] without any."""
    return [root / "pacs"] if (root / "pacs").is_dir() else sorted(root.glob("pacs*.tar.gz"))


def load_arrays(name: DatasetName, root: Path) -> Arrays:
    """Return train_images, train_labels, train_groups, test_images, test_labels and "source".

    Images are uint8 (N, size, size, 3), labels uint8 (N,), positions in ``name.classes``; each part is in canonical
    order of the whole of PACS. Copies of a picture (``train_groups``) are never in both parts.
    Raises DataMissing without a copy, DataError for a broken one.
    """
    copy = find_copy(root)
    if not copy:
        raise DataMissing(f"PACS is not in {root}.\n{WAYS_ON.format(root=root)}")
    arrays = _whole(tuple(copy), root, name.size)
    style, content = divmod(arrays["labels"].astype(int), len(CONTENTS))
    chosen = np.isin(style, [STYLES.index(one) for one in name.styles])
    chosen &= np.isin(content, [CONTENTS.index(one) for one in name.contents])
    asked, other, others = (style, content, CONTENTS) if name.rest == "style" else (content, style, STYLES)
    position = {one: label for label, one in enumerate(name.classes)}
    labels = np.array([position.get(one, -1) for one in QUESTIONS[name.rest]])[asked]
    groups, pool = arrays["groups"], np.flatnonzero(chosen)
    if name.held_out:
        away = other[pool] == others.index(name.held_out)
        test = pool[away]
        train = pool[~away & ~np.isin(groups[pool], groups[test])]
        if name.balance:
            train, test = balanced(labels, train), balanced(labels, test)
    else:
        pool = balanced(labels, pool) if name.balance else pool
        held_out = share(len(pool), TEST_SHARE, len(name.classes))
        train, test = (pool[part] for part in grouped_split(labels[pool], groups[pool], held_out))
    return {
        "train_images": arrays["images"][train],
        "train_labels": labels[train].astype(np.uint8),
        "train_groups": groups[train],
        "test_images": arrays["images"][test],
        "test_labels": labels[test].astype(np.uint8),
        "source": arrays["source"],
    }


@lru_cache(maxsize=2)
def _whole(copy: tuple[Path, ...], root: Path, size: int) -> Arrays:
    """Return all of PACS: images, labels (style * 7 + content), groups and source."""
    files = [path for path in copy if path.is_file()]
    stamp = " ".join(f"{path.name} {path.stat().st_size} {path.stat().st_mtime_ns}" for path in files)
    key = f"{_VERSION} {size} {stamp or copy[0]}"
    return cached_arrays(root / "cache" / f"pacs-{size}.npz", key, lambda: _decode(copy, size))


def _decode(copy: tuple[Path, ...], size: int) -> Arrays:
    pictures, labels = [], []
    for member in tqdm(members(copy, _LARGEST), desc="decoding PACS", disable=None):
        parts = PurePosixPath(member.path).parts[-3:]
        # Hidden files and a README do no harm.
        if len(parts) != 3 or parts[0] not in STYLES or parts[1] not in CONTENTS or parts[2].startswith("."):
            continue
        pictures.append(member.picture(size))
        labels.append(STYLES.index(parts[0]) * len(CONTENTS) + CONTENTS.index(parts[1]))
    source = ", ".join(path.name for path in copy)
    found = np.bincount(np.array(labels, dtype=int), minlength=len(STYLES) * len(CONTENTS))
    for kind, expected in enumerate(np.concatenate([COUNTS[style] for style in STYLES])):
        if found[kind] != expected:
            style, content = divmod(kind, len(CONTENTS))
            raise DataError(
                f"{source} has {found[kind]} pictures of {STYLES[style]}/{CONTENTS[content]}; PACS has {expected}. "
                "Complete the copy, or remove it."
            )
    _, arrays = arranged(pictures, labels)
    return {name: arrays[name] for name in ("images", "labels", "groups")} | {"source": np.array(source)}
