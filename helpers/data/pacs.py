"""PACS as a question about style or about content, and the names of data sets, with options that ask it.

Li et al., "Deeper, Broader and Artier Domain Generalization", ICCV 2017: 9,991 pictures, each with a style
(art painting, cartoon, photo, sketch) and a content (dog, elephant, ...). A copy may be a folder or archives of one.
"""

from dataclasses import dataclass, field
from functools import lru_cache
from itertools import product
from pathlib import Path, PurePosixPath

import numpy as np
from tqdm import tqdm

from helpers.data.folder import arranged, divided
from helpers.data.images import SIZE, Arrays, DataError, DataMissing, cached_arrays, members

STYLES = ("art_painting", "cartoon", "photo", "sketch")
CONTENTS = ("dog", "elephant", "giraffe", "guitar", "horse", "house", "person")
QUESTIONS = {"style": STYLES, "content": CONTENTS}

# Pictures of each style, content by content, as published.
COUNTS = {
    "art_painting": (379, 255, 285, 184, 201, 295, 449),
    "cartoon": (389, 457, 346, 135, 324, 288, 405),
    "photo": (189, 202, 182, 186, 199, 280, 432),
    "sketch": (772, 740, 753, 608, 816, 80, 160),
}

WAYS_ON = """\
Two ways on:
  1. Put a copy into {root}: the folder pacs/<style>/<content>/*, or archives of it, pacs*.tar.gz (see data/README.md).
  2. Use other data: dataset="folder:PATH" takes your own pictures, dataset="digits" needs nothing."""

_LARGEST = 1 << 22
_VERSION = 1  # part of the cache's key: raise it when the same copy gives other arrays than before

_FOLDER_OPTIONS = {"balance": ("smallest",), "labels": ("random",)}
# The options of a name, in their order, and what each may be.
OPTIONS = {
    "folder": _FOLDER_OPTIONS,
    "pacs": {"styles": STYLES, "contents": CONTENTS, "held_out": (*CONTENTS, *STYLES), **_FOLDER_OPTIONS},
}


@dataclass(frozen=True)
class DatasetName:
    """A name taken apart: what stands before the colon, a folder's path or PACS's question, and the options given.

    ``balance``: every class is cut to the size of the smallest, in training and test; ``labels``: those of training
    and validation are shuffled, so that nothing but memorising helps; ``styles``, ``contents``: these alone of PACS;
    ``held_out``: what its test set alone holds, a content where style is asked, a style where content is.
    """

    kind: str
    rest: str = ""
    options: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def __str__(self) -> str:
        tail = "&".join(f"{option}={','.join(values)}" for option, values in self.options.items())
        return self.kind + (f":{self.rest}" if self.rest else "") + (f"?{tail}" if tail else "")

    @property
    def asked(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """The names that a label of PACS is a position in, and those of the other kind, of which one is held out."""
        styles, contents = self.options.get("styles", STYLES), self.options.get("contents", CONTENTS)
        return (styles, contents) if self.rest == "style" else (contents, styles)


def parse(name: str) -> DatasetName:
    """Return ``name`` taken apart and checked; as text it has one spelling, so that one choice is one record.

    Options follow a question mark, as in an address: ``pacs:style?styles=cartoon,photo&held_out=dog``.
    """
    if name in ("cifar10", "digits"):
        return DatasetName(name)
    kind, _, rest = name.partition(":")
    if kind not in OPTIONS or not rest:
        choices = 'choose "cifar10", "digits", "folder:PATH" or "pacs:style" and "pacs:content"'
        raise ValueError(f"dataset={name!r} is unknown; {choices}")
    head, mark, tail = rest.rpartition("?")
    # A folder's name may hold a question mark; options hold an equals sign.
    plain = not mark or (kind == "folder" and "=" not in tail)
    try:
        found = DatasetName(kind, rest) if plain else DatasetName(kind, head, _options(kind, tail))
        if kind == "pacs":
            _check_question(found)
    except ValueError as error:
        raise ValueError(f"dataset={name!r}: {error}") from None
    return found


def _options(kind: str, text: str) -> dict[str, tuple[str, ...]]:
    choices, given = OPTIONS[kind], {}
    for part in text.split("&"):
        option, _, value = (word.strip() for word in part.partition("="))
        if option not in choices:
            raise ValueError(f"no option {option!r}; there are: {', '.join(choices)}")
        if option in given or not value:
            raise ValueError(f"give {option} one value, as in {option}=...")
        wanted = [word.strip() for word in value.split(",")] if option in ("styles", "contents") else [value]
        for word in wanted:
            if word not in choices[option]:
                raise ValueError(f"{option}={word!r} is unknown; choose among: {', '.join(choices[option])}")
        given[option] = tuple(word for word in choices[option] if word in wanted)
    everything = (STYLES, CONTENTS)  # is not worth saying
    return {option: given[option] for option in choices if option in given and given[option] not in everything}


def _check_question(name: DatasetName) -> None:
    """Raise ValueError for a question about PACS that leaves nothing to learn."""
    if name.rest not in QUESTIONS:
        raise ValueError(f"PACS is asked for {' or '.join(QUESTIONS)}, not {name.rest!r}")
    classes, others = name.asked
    if len(classes) < 2:
        raise ValueError(f"one {name.rest} alone, {classes[0]}, leaves nothing to tell apart; name more")
    for one in name.options.get("held_out", ()):
        if one not in others:
            raise ValueError(f"held_out={one!r} is not among the {len(others)} that can be: {', '.join(others)}")
        if len(others) == 1:
            raise ValueError(f"held_out={one!r} leaves nothing to train on; name more than {one}")


def find_copy(root: Path) -> list[Path]:
    """Return the folder or the archives under ``root`` that are used; [] without any."""
    return [root / "pacs"] if (root / "pacs").is_dir() else sorted(root.glob("pacs*.tar.gz"))


def load_arrays(name: DatasetName, root: Path) -> Arrays:
    """Return the pictures that ``name`` asks for, :func:`divided`; each part is in PACS's canonical order."""
    if not (copy := find_copy(root)):
        raise DataMissing(f"PACS is not in {root}.\n{WAYS_ON.format(root=root)}")
    arrays = _whole(tuple(copy), root)
    classes, others = name.asked
    style, content = divmod(arrays["labels"].astype(int), len(CONTENTS))
    style, content = np.array(STYLES)[style], np.array(CONTENTS)[content]
    asked, other = (style, content) if name.rest == "style" else (content, style)
    chosen = np.isin(asked, classes) & np.isin(other, others)
    position = {one: label for label, one in enumerate(classes)}
    labels = np.array([position.get(one, -1) for one in asked])
    test = np.flatnonzero(chosen & np.isin(other, name.options["held_out"])) if "held_out" in name.options else None
    return divided(arrays | {"labels": labels}, np.flatnonzero(chosen), test, classes, name.options)


@lru_cache(maxsize=1)
def _whole(copy: tuple[Path, ...], root: Path) -> Arrays:
    """Return all of PACS: images, labels (style * 7 + content), groups and source."""
    files = [path for path in copy if path.is_file()]
    stamp = " ".join(f"{path.name} {path.stat().st_size} {path.stat().st_mtime_ns}" for path in files)
    key = f"{_VERSION} {SIZE} {stamp or copy[0]}"
    return cached_arrays(root / "cache" / f"pacs-{SIZE}.npz", key, lambda: _decode(copy))


def _decode(copy: tuple[Path, ...]) -> Arrays:
    pictures, labels = [], []
    for member in tqdm(members(copy, _LARGEST), desc="decoding PACS", disable=None):
        parts = PurePosixPath(member.path).parts[-3:]
        # Hidden files and a README do no harm.
        if len(parts) != 3 or parts[0] not in STYLES or parts[1] not in CONTENTS or parts[2].startswith("."):
            continue
        pictures.append(member.picture())
        labels.append(STYLES.index(parts[0]) * len(CONTENTS) + CONTENTS.index(parts[1]))
    source = ", ".join(path.name for path in copy)
    for number, kind in enumerate(product(STYLES, CONTENTS)):
        found, expected = labels.count(number), COUNTS[kind[0]][CONTENTS.index(kind[1])]
        if found != expected:
            what = f"{found} pictures of {'/'.join(kind)}; PACS has {expected}"
            raise DataError(f"{source} has {what}. Complete the copy, or remove it.")
    return arranged(pictures, labels)[1] | {"source": np.array(source)}
