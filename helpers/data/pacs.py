"""PACS: seven contents in four styles, as a question about style or about content.

Li et al., "Deeper, Broader and Artier Domain Generalization", ICCV 2017: 9,991 pictures, each with a style
(art painting, cartoon, photo, sketch) and a content (dog, elephant, ...). A copy may be a folder or archives of one.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath

import numpy as np
from tqdm import tqdm

from helpers.data.download import archive_members, folder_members
from helpers.data.duplicates import arranged
from helpers.data.images import Arrays, DataError, DataMissing, cached_arrays, read_picture
from helpers.data.splits import balanced, grouped_split, share

STYLES = ("art_painting", "cartoon", "photo", "sketch")
CONTENTS = ("dog", "elephant", "giraffe", "guitar", "horse", "house", "person")
QUESTIONS = {"style": STYLES, "content": CONTENTS}
TEST_SHARE = 0.2

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


@dataclass(frozen=True)
class Selection:
    """Which pictures of PACS, and what is asked of them: ``question`` is "style" or "content".

    ``held_out`` names what the test set alone holds: a content where style is asked, a style where content is.
    Without it a fifth of the pictures is the test set.
    """

    question: str
    styles: tuple[str, ...] = STYLES
    contents: tuple[str, ...] = CONTENTS
    held_out: str = ""
    size: int = 32
    balance: bool = False

    def __post_init__(self) -> None:
        """Refuse what leaves nothing to learn. Raises ValueError."""
        if self.question not in QUESTIONS:
            raise ValueError(f"PACS is asked for {' or '.join(QUESTIONS)}, not {self.question!r}")
        if len(self.classes) < 2:
            raise ValueError(f"one {self.question} alone, {self.classes[0]}, leaves nothing to tell apart; name more")
        others = self.contents if self.question == "style" else self.styles
        if self.held_out and self.held_out not in others:
            raise ValueError(
                f"held_out={self.held_out!r} is not among the {len(others)} that can be: {', '.join(others)}"
            )
        if self.held_out and len(others) == 1:
            raise ValueError(f"held_out={self.held_out!r} leaves nothing to train on; name more than {others[0]}")

    @property
    def classes(self) -> tuple[str, ...]:
        """The names that a label is a position in."""
        return self.styles if self.question == "style" else self.contents


def find_copy(root: Path) -> list[Path]:
    """Return the folder or the archives under ``root`` that are used; [] without any."""
    return [root / "pacs"] if (root / "pacs").is_dir() else sorted(root.glob("pacs*.tar.gz"))


def load_arrays(selection: Selection, root: Path) -> Arrays:
    """Return train_images, train_labels, train_groups, test_images, test_labels and "source".

    Images are uint8 (N, size, size, 3), labels uint8 (N,), positions in ``selection.classes``; each part is in
    canonical order of the whole of PACS. Copies of a picture (``train_groups``) are never in both parts.
    Raises DataMissing without a copy, DataError for a broken one.
    """
    copy = find_copy(root)
    if not copy:
        raise DataMissing(f"PACS is not in {root}.\n{WAYS_ON.format(root=root)}")
    arrays = _whole(tuple(copy), root, selection.size)
    style, content = divmod(arrays["labels"].astype(int), len(CONTENTS))
    chosen = np.isin(style, [STYLES.index(name) for name in selection.styles])
    chosen &= np.isin(content, [CONTENTS.index(name) for name in selection.contents])
    asked, other = (style, content) if selection.question == "style" else (content, style)
    known = QUESTIONS[selection.question]
    labels = np.full(len(known), -1)
    labels[[known.index(name) for name in selection.classes]] = np.arange(len(selection.classes))
    labels = labels[asked]
    groups, pool = arrays["groups"], np.flatnonzero(chosen)
    if selection.held_out:
        others = CONTENTS if selection.question == "style" else STYLES
        away = other[pool] == others.index(selection.held_out)
        test = pool[away]
        train = pool[~away & ~np.isin(groups[pool], groups[test])]
        if selection.balance:
            train, test = balanced(labels, train), balanced(labels, test)
    else:
        pool = balanced(labels, pool) if selection.balance else pool
        held_out = share(len(pool), TEST_SHARE, len(selection.classes))
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


def _members(copy: tuple[Path, ...]) -> Iterator[tuple[int, int, str, bytes]]:
    """Yield (style, content, name, content of the file) of each member at <style>/<content>/<file>."""
    members = folder_members(copy[0]) if copy[0].is_dir() else archive_members(list(copy), _LARGEST)
    for member in members:
        parts = PurePosixPath(member.path).parts[-3:]
        # Hidden files and a README do no harm.
        if len(parts) == 3 and parts[0] in STYLES and parts[1] in CONTENTS and not parts[2].startswith("."):
            yield STYLES.index(parts[0]), CONTENTS.index(parts[1]), member.name, member.content


def _decode(copy: tuple[Path, ...], size: int) -> Arrays:
    pictures, labels = [], []
    total = sum(map(sum, COUNTS.values()))
    for style, content, name, data in tqdm(_members(copy), total=total, desc="decoding PACS", disable=None):
        try:
            pictures.append(read_picture(data, size))
        except DataError as error:
            raise DataError(f"{name} is no readable image ({error}). Replace this copy of PACS.") from error
        labels.append(style * len(CONTENTS) + content)
    found = np.bincount(np.array(labels, dtype=int), minlength=len(STYLES) * len(CONTENTS))
    expected = np.concatenate([COUNTS[style] for style in STYLES])
    if len(wrong := np.flatnonzero(found != expected)):
        style, content = divmod(int(wrong[0]), len(CONTENTS))
        raise DataError(
            f"{', '.join(path.name for path in copy)} has {found[wrong[0]]} pictures of {STYLES[style]}/"
            f"{CONTENTS[content]}; PACS has {expected[wrong[0]]}. Complete the copy, or remove it."
        )
    _, found_images = arranged(pictures, labels)
    return {
        **{name: found_images[name] for name in ("images", "labels", "groups")},
        "source": np.array(", ".join(path.name for path in copy)),
    }
