"""The name of a data set: ``cifar10``, ``digits``, ``folder:PATH`` or ``pacs:QUESTION``, and its options.

Options follow a question mark, as in an address: ``pacs:style?styles=art_painting,cartoon,photo&held_out=dog``.
A name has one spelling, so that one choice is one record.
"""

from dataclasses import dataclass, field

from helpers.data.pacs import CONTENTS, STYLES, Selection

_CHOICES = 'choose "cifar10", "digits", "folder:PATH" or "pacs:style" and "pacs:content"'
_SHARED = {"balance": ("smallest",), "labels": ("random",)}
_OPTIONS = {
    "folder": ("size", "balance", "labels"),
    "pacs": ("styles", "contents", "held_out", "size", "balance", "labels"),
}
SIZES = range(8, 513)
DEFAULT_SIZE = 32


@dataclass(frozen=True)
class DatasetName:
    """A name taken apart. ``kind`` is what stands before the colon, ``rest`` a folder's path or PACS's question.

    ``balance``: every class is cut to the size of the smallest, in training and test; ``random_labels``: the labels
    of training and validation are shuffled, so that nothing but memorising helps.
    """

    kind: str
    rest: str = ""
    size: int = DEFAULT_SIZE
    balance: bool = False
    random_labels: bool = False
    selection: Selection | None = field(default=None)

    def __str__(self) -> str:
        """Return the one spelling: options in a fixed order, defaults left out."""
        options = {}
        if self.selection:
            for what, chosen, known in (
                ("styles", self.selection.styles, STYLES),
                ("contents", self.selection.contents, CONTENTS),
            ):
                options |= {what: ",".join(chosen)} if chosen != known else {}
            options |= {"held_out": self.selection.held_out} if self.selection.held_out else {}
        options |= {"size": self.size} if self.size != DEFAULT_SIZE else {}
        options |= {"balance": "smallest"} if self.balance else {}
        options |= {"labels": "random"} if self.random_labels else {}
        tail = "&".join(f"{name}={value}" for name, value in options.items())
        return self.kind + (f":{self.rest}" if self.rest else "") + (f"?{tail}" if tail else "")


def parse(name: str) -> DatasetName:
    """Return ``name`` taken apart and checked. Raises ValueError, with the choices, for what makes no sense."""
    if name in ("cifar10", "digits"):
        return DatasetName(name)
    kind, _, rest = name.partition(":")
    if kind not in _OPTIONS or not rest:
        raise ValueError(f"dataset={name!r} is unknown; {_CHOICES}")
    # A folder's name may hold a question mark; options hold an equals sign.
    head, mark, tail = rest.rpartition("?")
    rest, options = (head, _options(name, kind, tail)) if mark and (kind != "folder" or "=" in tail) else (rest, {})
    size = _size(name, options.get("size", str(DEFAULT_SIZE)))
    shared = {"size": size, "balance": "balance" in options, "random_labels": "labels" in options}
    if kind == "folder":
        return DatasetName(kind, rest, **shared)
    try:
        selection = Selection(
            rest,
            styles=_among(options, "styles", STYLES),
            contents=_among(options, "contents", CONTENTS),
            held_out=options.get("held_out", ""),
            size=size,
            balance="balance" in options,
        )
    except ValueError as error:
        raise ValueError(f"dataset={name!r}: {error}") from error
    return DatasetName(kind, rest, **shared, selection=selection)


def _options(name: str, kind: str, text: str) -> dict[str, str]:
    options = {}
    for part in text.split("&"):
        option, _, value = (word.strip() for word in part.partition("="))
        if option not in _OPTIONS[kind]:
            raise ValueError(f"dataset={name!r}: no option {option!r}; there are: {', '.join(_OPTIONS[kind])}")
        if option in options or not value:
            raise ValueError(f"dataset={name!r}: give {option} one value, as in {option}=...")
        if option in _SHARED and value not in _SHARED[option]:
            raise ValueError(f"dataset={name!r}: {option}={value!r} is unknown; choose {', '.join(_SHARED[option])}")
        options[option] = value
    return options


def _size(name: str, value: str) -> int:
    if not value.isdecimal() or int(value) not in SIZES:
        raise ValueError(f"dataset={name!r}: size={value!r}: give {SIZES[0]} to {SIZES[-1]} pixels")
    return int(value)


def _among(options: dict[str, str], what: str, known: tuple[str, ...]) -> tuple[str, ...]:
    """Return the names that an option lists, in the order of ``known``."""
    wanted = [word.strip() for word in options[what].split(",")] if what in options else known
    for word in wanted:
        if word not in known:
            raise ValueError(f"{what}={word!r} is unknown; choose among: {', '.join(known)}")
    return tuple(word for word in known if word in wanted)
