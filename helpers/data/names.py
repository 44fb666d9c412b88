"""The name of a data set: ``cifar10``, ``digits``, ``folder:PATH`` or ``pacs:QUESTION``, and its options.

Options follow a question mark, as in an address: ``pacs:style?styles=art_painting,cartoon,photo&held_out=dog``.
A name has one spelling, so that one choice is one record.
"""

from dataclasses import dataclass

STYLES = ("art_painting", "cartoon", "photo", "sketch")
CONTENTS = ("dog", "elephant", "giraffe", "guitar", "horse", "house", "person")
QUESTIONS = {"style": STYLES, "content": CONTENTS}

SIZES = range(8, 513)
_VALUES = {"balance": ("smallest",), "labels": ("random",)}
_OPTIONS = {
    "folder": ("size", "balance", "labels"),
    "pacs": ("styles", "contents", "held_out", "size", "balance", "labels"),
}


@dataclass(frozen=True)
class DatasetName:
    """A name taken apart. ``kind`` is what stands before the colon, ``rest`` a folder's path or PACS's question.

    ``balance``: every class is cut to the size of the smallest, in training and test; ``random_labels``: the labels
    of training and validation are shuffled, so that nothing but memorising helps; ``held_out``: what PACS's test set
    alone holds, a content where style is asked, a style where content is. Without it a fifth is the test set.
    """

    kind: str
    rest: str = ""
    styles: tuple[str, ...] = STYLES
    contents: tuple[str, ...] = CONTENTS
    held_out: str = ""
    size: int = 32
    balance: bool = False
    random_labels: bool = False

    def __str__(self) -> str:
        options = {
            "styles": ",".join(self.styles) if self.styles != STYLES else "",
            "contents": ",".join(self.contents) if self.contents != CONTENTS else "",
            "held_out": self.held_out,
            "size": str(self.size) if self.size != 32 else "",
            "balance": "smallest" if self.balance else "",
            "labels": "random" if self.random_labels else "",
        }
        tail = "&".join(f"{option}={value}" for option, value in options.items() if value)
        return self.kind + (f":{self.rest}" if self.rest else "") + (f"?{tail}" if tail else "")

    @property
    def classes(self) -> tuple[str, ...]:
        """The names that a label of PACS is a position in."""
        return self.styles if self.rest == "style" else self.contents


def parse(name: str) -> DatasetName:
    """Return ``name`` taken apart and checked. Raises ValueError, with the choices, for what makes no sense."""
    if name in ("cifar10", "digits"):
        return DatasetName(name)
    kind, _, rest = name.partition(":")
    if kind not in _OPTIONS or not rest:
        choices = 'choose "cifar10", "digits", "folder:PATH" or "pacs:style" and "pacs:content"'
        raise ValueError(f"dataset={name!r} is unknown; {choices}")
    head, mark, tail = rest.rpartition("?")
    try:
        # A folder's name may hold a question mark; options hold an equals sign.
        if mark and (kind != "folder" or "=" in tail):
            return _checked(DatasetName(kind, head, **_options(kind, tail)))
        return _checked(DatasetName(kind, rest))
    except ValueError as error:
        raise ValueError(f"dataset={name!r}: {error}") from None


def _options(kind: str, text: str) -> dict:
    """Return the options of a name as fields of DatasetName."""
    given = {}
    for part in text.split("&"):
        option, _, value = (word.strip() for word in part.partition("="))
        if option not in _OPTIONS[kind]:
            raise ValueError(f"no option {option!r}; there are: {', '.join(_OPTIONS[kind])}")
        if option in given or not value:
            raise ValueError(f"give {option} one value, as in {option}=...")
        if value not in _VALUES.get(option, (value,)):
            raise ValueError(f"{option}={value!r} is unknown; choose {', '.join(_VALUES[option])}")
        given[option] = value
    fields = {"held_out": given.get("held_out", ""), "balance": "balance" in given, "random_labels": "labels" in given}
    if "size" in given:
        if not given["size"].isdecimal() or int(given["size"]) not in SIZES:
            raise ValueError(f"size={given['size']!r}: give {SIZES[0]} to {SIZES[-1]} pixels")
        fields["size"] = int(given["size"])
    for option, known in (("styles", STYLES), ("contents", CONTENTS)):
        if option in given:
            wanted = [word.strip() for word in given[option].split(",")]
            for word in wanted:
                if word not in known:
                    raise ValueError(f"{option}={word!r} is unknown; choose among: {', '.join(known)}")
            fields[option] = tuple(word for word in known if word in wanted)
    return fields


def _checked(name: DatasetName) -> DatasetName:
    """Return ``name``. Raises ValueError for a question about PACS that leaves nothing to learn."""
    if name.kind == "pacs":
        if name.rest not in QUESTIONS:
            raise ValueError(f"PACS is asked for {' or '.join(QUESTIONS)}, not {name.rest!r}")
        if len(name.classes) < 2:
            raise ValueError(f"one {name.rest} alone, {name.classes[0]}, leaves nothing to tell apart; name more")
        others = name.contents if name.rest == "style" else name.styles
        if name.held_out and name.held_out not in others:
            raise ValueError(
                f"held_out={name.held_out!r} is not among the {len(others)} that can be: {', '.join(others)}"
            )
        if name.held_out and len(others) == 1:
            raise ValueError(f"held_out={name.held_out!r} leaves nothing to train on; name more than {others[0]}")
    return name
