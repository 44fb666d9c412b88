"""Any folder of pictures as a data set, train/<class>/** and test/<class>/**, or <class>/** to be split; and PACS.

Copies of a picture, with identical pixels, re-encoded or resized, stay on one side of a split. A data set's name, which
may hold options, is taken apart here, too.
"""

import hashlib
import os
import warnings
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import product
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from tqdm import tqdm

from helpers.data.images import (
    SIZE,
    SPLIT_SEED,
    Arrays,
    DataError,
    DataMissing,
    Picture,
    balanced,
    cached_arrays,
    canonical_order,
    grouped_split,
    in_parts,
    members,
    read_picture,
    share,
)

TEST_SHARE = 0.2
_LAYOUTS = "Expected PATH/train/<class>/* and PATH/test/<class>/*, or PATH/<class>/*"
_VERSION = 3  # part of the cache's key: raise it when the same files give other arrays than before

# Two thumbnails are of one picture where 1 - (their correlation) is at most this. Measured on PACS: copies as JPEG
# of quality 20 to 90, as WebP or GIF, resized to 32-227 pixels or squashed stay below 0.009; half the size and
# quality 30 together, 0.014; of 9,991 pictures, 23 pairs lie below 0.02, 8 of them drawings of guitars that are
# alike without being copies. Grouping those does no harm; a copy in two splits would.
TOLERANCE = 0.02

FLAT = 1.0  # grey levels; below this standard deviation a picture is a plain surface, with nothing to tell it by


@dataclass(frozen=True)
class Listing:
    """The files of a picture folder, none opened yet: split ("train" and "test", or "all"), path and label of each."""

    folder: Path
    classes: tuple[str, ...]
    files: list[tuple[str, Path, int]]


@dataclass(frozen=True)
class Scan:
    """What a picture folder holds: N readable pictures in canonical order, and the files that were left out."""

    classes: tuple[str, ...]
    images: np.ndarray  # uint8 (N, 32, 32, 3)
    labels: np.ndarray  # uint8 (N,)
    splits: np.ndarray  # (N,), "train" and "test", or "all"
    names: np.ndarray  # (N,), paths below the folder
    groups: np.ndarray  # (N,), the position of the first picture that each is a copy of
    digests: np.ndarray  # (N,), equal where all pixels of the files are
    left_out: pd.DataFrame  # columns file, class and reason

    def duplicates(self) -> pd.DataFrame:
        """Return the pictures that have a copy: columns file, class, group (the file it counts as), copy.

        ``copy`` is "first", "identical" (the same pixels as an earlier file of the group) or "near" (looks the same).
        """
        position = np.arange(len(self.groups))
        _, first, same = np.unique(self.digests, return_index=True, return_inverse=True)
        kinds = np.where(first[same] < position, "identical", "near")
        kinds[self.groups == position] = "first"
        members = np.bincount(self.groups, minlength=len(position))[self.groups] > 1
        names = np.array(self.classes, dtype=object)[self.labels]
        table = {"file": self.names, "class": names, "group": self.names[self.groups], "copy": kinds}
        return pd.DataFrame(table)[members].sort_values(["group", "copy", "file"], ignore_index=True)

    def summary(self) -> pd.DataFrame:
        """Return a row per class, and their sum; the label of what is in another class, too, is in doubt."""
        copies = self.duplicates()
        classes_of = copies.groupby("group")["class"].transform("nunique")
        table = pd.DataFrame(index=pd.Index(self.classes, name="class"))
        table["left out"] = self.left_out["class"].value_counts()
        table["images"] = np.bincount(self.labels, minlength=len(self.classes))
        table["identical"] = copies["class"][copies["copy"] == "identical"].value_counts()
        table["near-duplicates"] = copies["class"][copies["copy"] == "near"].value_counts()
        table["also elsewhere"] = copies["class"][classes_of > 1].value_counts()
        table = table.fillna(0).astype(int)
        table.insert(0, "files", table["images"] + table["left out"])
        table.loc["all"] = table.sum()
        return table


def list_pictures(folder: Path) -> Listing:
    """Return the classes and files of ``folder``; folders below a class belong to it."""
    if not folder.is_dir():
        raise DataMissing(f"There is no folder {folder}. {_LAYOUTS}.")
    # A class may itself be called "train" (a vehicle): only one that has folders inside is a split. Nested folders
    # make the name alone ambiguous, so both splits must be there, or nothing else.
    splits = [name for name in ("train", "test") if _subfolders(folder / name)]
    others = set(_subfolders(folder)) - {"train", "test"}
    if len(splits) == 1 and not others:
        raise DataError(f"{folder} has {splits[0]}/<class>/* but not the other split. {_LAYOUTS}.")
    roots = {name: folder / name for name in splits} if len(splits) == 2 else {"all": folder}
    names = {split: _subfolders(root) for split, root in roots.items()}
    classes = sorted(set().union(*names.values()))
    if not 2 <= len(classes) <= 256:
        raise DataError(
            f"Folders of classes in {next(iter(roots.values()))}: {len(classes)}, where 2 to 256 work. {_LAYOUTS}."
        )
    for split, root in roots.items():
        if absent := sorted(set(classes) - set(names[split])):
            raise DataError(f"{root} has no folder for {', '.join(absent)}, which the other split has.")
    files = [
        (split, path, label)
        for split, root in roots.items()
        for label, name in enumerate(classes)
        for path in _files(root / name, folder.resolve())
    ]
    return Listing(folder, tuple(classes), files)


def scan(listing: Listing, cache: Path) -> Scan:
    """Return all readable pictures, decoded once into the folder ``cache`` and again when a file of theirs changes."""
    stamps = "\n".join(f"{split}\0{path}\0{label}\0{_stamp(path)}" for split, path, label in listing.files)
    key = f"{_VERSION} {hashlib.sha256(os.fsencode(stamps)).hexdigest()}"
    name = hashlib.sha256(os.fsencode(listing.folder)).hexdigest()[:12]
    arrays = cached_arrays(cache / f"folder-{name}.npz", key, lambda: _decode(listing))
    left_out = pd.DataFrame(arrays["left_out"].astype(object), columns=["file", "class", "reason"])
    return Scan(listing.classes, **arrays | {"left_out": left_out})


def load_arrays(folder: Path, cache: Path, options: Collection[str] = ()) -> Arrays:
    """Return the readable pictures, :func:`divided`; one warning names the others, which are left out."""
    listing = list_pictures(folder)
    found = scan(listing, cache)
    if count := len(found.left_out):
        named = ", ".join(found.left_out["file"][:10]) + (f" and {count - 10} more" if count > 10 else "")
        warnings.warn(f"left out, no readable images: {named} (in {folder})", stacklevel=2)
    test = None if "all" in found.splits else np.flatnonzero(found.splits == "test")
    arrays = vars(found) | {"source": np.array(f"folder {printable(folder.name)}")}
    return divided(arrays, np.arange(len(found.labels)), test, found.classes, options)


def divided(
    arrays: Arrays, pool: np.ndarray, test: np.ndarray | None, classes: Sequence[str], options: Collection[str]
) -> Arrays:
    """Return the pictures at ``pool`` as train_images, train_labels, train_groups, test_images, test_labels, "source".

    ``arrays``: images (N, 32, 32, 3), labels (N,), groups (N,) of copies, and "source". At ``test`` are the test
    pictures, whose copies do not train; None: a fifth, stratified, copies together. ``options`` may hold "balance",
    which cuts every class to the smallest, and "labels", which shuffles those for training. Where ``arrays`` has the
    "names" (N,) of the pictures' files, "test_names" come along.
    """
    labels, groups = arrays["labels"], arrays["groups"]
    if test is None:
        pool = balanced(labels, pool) if "balance" in options else pool
        held_out = share(len(pool), TEST_SHARE, len(classes))
        train, test = (pool[part] for part in grouped_split(labels[pool], groups[pool], held_out))
    else:
        train = pool[~np.isin(groups[pool], groups[test])]
        if len(gone := np.setdiff1d(labels[pool], labels[train])):
            raise DataError(f"Every training picture of {classes[gone[0]]} in {arrays['source']} is a test picture.")
        if "balance" in options:
            train, test = balanced(labels, train), balanced(labels, test)
    parts = in_parts(arrays["images"], labels.astype(np.uint8), train, test)
    if "labels" in options:
        parts["train_labels"] = np.random.default_rng(SPLIT_SEED).permutation(parts["train_labels"])
    named = {"test_names": arrays["names"][test]} if "names" in arrays else {}
    return parts | named | {"train_groups": groups[train], "source": arrays["source"]}


def _subfolders(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("[!.]*/"))


def _files(class_folder: Path, top: Path) -> list[Path]:
    """Return the files in a class's folder and below, without hidden ones; a folder that cannot be listed is one."""
    files: list[Path] = []
    seen = {class_folder.resolve()}

    def enter(path: Path) -> bool:
        # A link into the scanned folder leads to pictures that have a class there, or round in circles.
        real = path.resolve()
        if path.name.startswith(".") or real in seen or (path.is_symlink() and real.is_relative_to(top)):
            return False
        seen.add(real)
        return True

    unlisted = []
    for here, below, names in os.walk(class_folder, onerror=unlisted.append, followlinks=True):
        files += [Path(here, name) for name in names if not name.startswith(".")]
        below[:] = [name for name in sorted(below) if enter(Path(here, name))]
    files += [Path(error.filename) for error in unlisted]
    if not files:
        raise DataError(f"{class_folder} is empty: put pictures of that class there, or remove the folder.")
    return sorted(files)


def _stamp(path: Path) -> str:
    try:
        stat = path.stat()
    except OSError:  # a broken link, or no permission: decoding says so
        return "unreadable"
    return f"{stat.st_size}\0{stat.st_mtime_ns}"


def printable(path: Path | str) -> str:
    """Return a path, or a text that names some, as it can be printed, also where a path's bytes are no UTF-8."""
    return str(path).encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _decode(listing: Listing) -> Arrays:
    pictures, read, left_out = [], [], []
    for split, path, label in tqdm(listing.files, desc=f"reading {printable(listing.folder.name)}", disable=None):
        name = printable(path.relative_to(listing.folder))
        try:
            pictures.append(read_picture(path))
        except DataError as error:
            left_out.append((name, listing.classes[label], printable(str(error))))
        else:
            read.append((split, label, name))
    readable = {(split, label) for split, label, _ in read}
    for split, _, label in listing.files:
        if (split, label) not in readable:
            raise DataError(f"No readable image of {listing.classes[label]} in {listing.folder} ({split}).")
    splits, labels, names = zip(*read, strict=True)
    order, arrays = arranged(pictures, labels)
    arrays |= {"splits": np.array(splits)[order], "names": np.array(names)[order]}
    return arrays | {"left_out": np.array(left_out, dtype=str).reshape(-1, 3)}


def arranged(pictures: Sequence[Picture], labels: Sequence[int]) -> tuple[np.ndarray, Arrays]:
    """Return the canonical order of ``pictures`` of classes ``labels``, and images, labels, digests, groups in that."""
    pixels, thumbnails, digests = zip(*pictures, strict=True)
    images, classes = np.stack(pixels), np.array(labels, dtype=np.uint8)
    order = canonical_order(images, classes)
    digests = np.array(digests, dtype=np.uint64)[order]
    groups = duplicate_groups(np.stack(thumbnails)[order], digests)
    return order, {"images": images[order], "labels": classes[order], "digests": digests, "groups": groups}


def duplicate_groups(thumbnails: np.ndarray, digests: np.ndarray) -> np.ndarray:
    """Return the group of each picture, (N,): the position of the first picture that it is a copy of, or its own.

    thumbnails: uint8 (N, h, w), whole pictures in grey, of which every pair is compared: their correlation does not
    change with brightness or contrast. digests: (N,), equal where the pixels are. A copy of a copy is in the group.
    """
    _, first, same = np.unique(digests, return_index=True, return_inverse=True)
    pairs = [np.stack([first[same], np.arange(len(digests))])]
    grey = thumbnails.reshape(len(thumbnails), -1).astype(np.float32)
    detailed = np.flatnonzero(grey.std(axis=1) >= FLAT)
    if len(detailed):
        from sklearn.neighbors import NearestNeighbors  # late, as it takes seconds

        centred = grey[detailed] - grey[detailed].mean(axis=1, keepdims=True)
        unit = centred / np.linalg.norm(centred, axis=1, keepdims=True)
        # The squared distance of two unit vectors is 2 - 2 (their product), here their correlation.
        near = NearestNeighbors(radius=(2 * TOLERANCE) ** 0.5, algorithm="brute").fit(unit).radius_neighbors_graph()
        pairs.append(detailed[np.stack(near.nonzero())])
    rows, columns = np.concatenate(pairs, axis=1)
    graph = coo_array((np.ones(len(rows), dtype=bool), (rows, columns)), shape=(len(digests), len(digests)))
    _, component = connected_components(graph, directed=False)
    return np.unique(component, return_index=True)[1][component]


# --- The name of a data set, taken apart and checked: what it asks, and with which options. ---

STYLES = ("art_painting", "cartoon", "photo", "sketch")
CONTENTS = ("dog", "elephant", "giraffe", "guitar", "horse", "house", "person")
QUESTIONS = {"style": STYLES, "content": CONTENTS}

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
    # All styles, or all contents, are not worth saying.
    return {option: given[option] for option in choices if given.get(option) not in (None, STYLES, CONTENTS)}


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


# --- PACS (Li et al., "Deeper, Broader and Artier Domain Generalization", ICCV 2017): 9,991 pictures, each with a style
# and a content, asked for one of the two. A copy may be a folder or archives of one. ---

# Pictures of each style, content by content, as published.
PACS_COUNTS = {
    "art_painting": (379, 255, 285, 184, 201, 295, 449),
    "cartoon": (389, 457, 346, 135, 324, 288, 405),
    "photo": (189, 202, 182, 186, 199, 280, 432),
    "sketch": (772, 740, 753, 608, 816, 80, 160),
}

PACS_WAYS_ON = """\
Two ways on:
  1. Put a copy into {root}: the folder pacs/<style>/<content>/*, or archives of it, pacs*.tar.gz (see data/README.md).
  2. Use other data: dataset="folder:PATH" takes your own pictures, dataset="digits" needs nothing."""

PACS_LARGEST = 1 << 22
PACS_VERSION = 1  # as _VERSION, of PACS's cache


def find_pacs(root: Path) -> list[Path]:
    """Return the folder or the archives under ``root`` that are used; [] without any."""
    return [root / "pacs"] if (root / "pacs").is_dir() else sorted(root.glob("pacs*.tar.gz"))


def load_pacs(name: DatasetName, root: Path) -> Arrays:
    """Return the pictures that ``name`` asks for, :func:`divided`; each part is in PACS's canonical order."""
    if not (copy := find_pacs(root)):
        raise DataMissing(f"PACS is not in {root}.\n{PACS_WAYS_ON.format(root=root)}")
    arrays = _whole_pacs(tuple(copy), root)
    classes, others = name.asked
    style, content = divmod(arrays["labels"].astype(int), len(CONTENTS))
    style, content = np.array(STYLES)[style], np.array(CONTENTS)[content]
    asked, other = (style, content) if name.rest == "style" else (content, style)
    labels = pd.Index(classes).get_indexer(asked)  # -1 where it is none of them
    chosen = (labels >= 0) & np.isin(other, others)
    test = np.flatnonzero(chosen & np.isin(other, name.options["held_out"])) if "held_out" in name.options else None
    return divided(arrays | {"labels": labels}, np.flatnonzero(chosen), test, classes, name.options)


@lru_cache(maxsize=1)
def _whole_pacs(copy: tuple[Path, ...], root: Path) -> Arrays:
    """Return all of PACS: images, labels (style * 7 + content), groups and source."""
    files = [path for path in copy if path.is_file()]
    stamp = " ".join(f"{path.name} {path.stat().st_size} {path.stat().st_mtime_ns}" for path in files)
    key = f"{PACS_VERSION} {SIZE} {stamp or copy[0]}"
    return cached_arrays(root / "cache" / f"pacs-{SIZE}.npz", key, lambda: _decode_pacs(copy))


def _decode_pacs(copy: tuple[Path, ...]) -> Arrays:
    pictures, labels, kinds = [], [], list(product(STYLES, CONTENTS))
    for member in tqdm(members(copy, PACS_LARGEST), desc="decoding PACS", disable=None):
        parts = PurePosixPath(member.path).parts[-3:]
        if parts[:-1] in kinds and not parts[-1].startswith("."):  # hidden files and a README do no harm
            pictures.append(member.picture())
            labels.append(kinds.index(parts[:-1]))
    source = ", ".join(path.name for path in copy)
    for number, (style, content) in enumerate(kinds):
        found, expected = labels.count(number), PACS_COUNTS[style][CONTENTS.index(content)]
        if found != expected:
            what = f"{found} pictures of {style}/{content}; PACS has {expected}"
            raise DataError(f"{source} has {what}. Complete the copy, or remove it.")
    return arranged(pictures, labels)[1] | {"source": np.array(source)}
