"""The name of a data set, taken apart and checked: what it asks, and with which options."""

from dataclasses import dataclass, field

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
