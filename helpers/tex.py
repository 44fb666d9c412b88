"""Text and tables as LaTeX: everything special escaped, numbers set in columns by siunitx."""

import re
from collections.abc import Sequence

import pandas as pd

_SPECIAL = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "%": r"\%",
    "#": r"\#",
    "_": r"\_",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    '"': r"\textquotedbl{}",
    "–": "--",
    "—": "---",
    "…": r"\dots{}",
    "±": r"$\pm$",
    "×": r"$\times$",
    "−": "$-$",
    "→": r"$\rightarrow$",
    "≤": r"$\leq$",
    "≥": r"$\geq$",
    "≈": r"$\approx$",
    "·": r"$\cdot$",
    "°": r"\textdegree{}",
    "µ": r"\textmu{}",
    "\u00a0": "~",
}
# Mathematics between dollars and code between backticks, in Markdown as in a caption.
_SPANS = re.compile(r"(\$[^$\n]+\$|`[^`\n]+`)")
_UNSIGNED = r"(?:0|[1-9][\d,]*)(?:\.\d+)?"
_NUMBER = re.compile(rf"([+-]?{_UNSIGNED})(?: ± ({_UNSIGNED}))?")


def escape(text: str) -> str:
    """Return ``text`` as LaTeX that prints it, character by character.

    Raises:
        ValueError: a character that the report's fonts may lack, and which it is.
    """
    odd = {char for char in text if ord(char) > 0x24F and char not in _SPECIAL}
    if odd:
        raise ValueError(f"{text!r} holds {''.join(sorted(odd))!r}, which LaTeX cannot set: use other words")
    # A space before a percent sign must not break the line between them.
    return "".join(_SPECIAL.get(char, char) for char in text).replace(r" \%", r"\,\%")


def number(value: float | str, digits: int | None = None) -> str:
    """Return a number for a sentence, thousands set apart; ``digits`` decimals, or as many as are there."""
    text = str(value) if digits is None else f"{value:.{digits}f}"
    if isinstance(value, float) and digits is None:
        text = text.removesuffix(".0")
    if text in ("nan", "inf", "-inf"):
        return escape(text)
    return rf"\num{{{text}}}"


def markdown(text: str) -> str:
    """Return a line of Markdown (plain words, ``$math$`` and `` `code` ``) as LaTeX."""
    parts = _SPANS.split(text)
    for i, part in enumerate(parts):
        if i % 2 == 0:
            parts[i] = escape(part)
        elif part.startswith("`"):
            parts[i] = rf"\texttt{{{escape(part[1:-1])}}}"
    return "".join(parts)


def _column(cells: Sequence[str]) -> tuple[str, int]:
    """Return how LaTeX sets a column, and how many of its own columns that takes.

    Numbers are aligned at the decimal point by siunitx; "mean ± half-width" takes two columns with ± between
    them; if any cell is text, all stand to the left.
    """
    found = [_NUMBER.fullmatch(cell) for cell in cells if cell not in ("", "–")]
    if not found or not all(found):
        return "l", 1
    column = _aligned([match[1] for match in found])
    unsure = [match[2] for match in found if match[2]]
    if not unsure:
        return column, 1
    # To the left: a heading wider than both columns widens the second, which must stay close to its ±.
    second = _aligned(unsure).replace("]", ",table-number-alignment=left]")
    return rf"{column}@{{${{}}\pm{{}}$}}{second}", 2


def _aligned(numbers: Sequence[str]) -> str:
    """Return siunitx's column that is as wide as the widest of ``numbers``."""
    parts = [text.replace(",", "").lstrip("+-").partition(".") for text in numbers]
    sign = "+" if any(text.startswith(("+", "-")) for text in numbers) else ""
    whole, digits = (max(len(part[i]) for part in parts) for i in (0, 2))
    return f"S[table-format={sign}{whole}" + (f".{digits}]" if digits else "]")


def _cell(text: str, spec: str, width: int) -> str:
    """Return one cell: numbers bare for siunitx, anything else in a number's column centred."""
    match = _NUMBER.fullmatch(text)
    if spec == "l":
        return markdown(text)
    if match and (width == 1 or match[2]):
        return " & ".join(part.replace(",", "") for part in match.groups() if part)
    return rf"\multicolumn{{{width}}}{{c}}{{{markdown(text)}}}"


def tabular(table: pd.DataFrame) -> str:
    """Return a booktabs tabular of ``table``: cells printed as they are, the index as first column."""
    cells = table.astype(str)
    columns = [_column(cells.iloc[:, i].tolist()) for i in range(cells.shape[1])]
    labels = [label if isinstance(label, tuple) else (label,) for label in cells.columns]
    lines = [rf"\begin{{tabular}}{{@{{}}l{''.join(spec for spec, _ in columns)}@{{}}}}", r"\toprule"]
    for level in range(cells.columns.nlevels):
        lines += _header([str(label[level]) for label in labels], columns, level == cells.columns.nlevels - 1)
    lines.append(r"\midrule")
    for name, row in zip(cells.index, cells.itertuples(index=False, name=None), strict=True):
        body = [_cell(text, *column) for text, column in zip(row, columns, strict=True)]
        lines.append(" & ".join([markdown(str(name)), *body]) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"])


def _header(names: Sequence[str], columns: Sequence[tuple[str, int]], last: bool) -> list[str]:
    """Return the lines of one level of the header: equal neighbours above the last level share one cell."""
    groups: list[tuple[str, str, int]] = []
    for name, (spec, width) in zip(names, columns, strict=True):
        if not last and groups and groups[-1][0] == name:
            groups[-1] = name, "c", groups[-1][2] + width
        else:
            groups.append((name, "l" if last and spec == "l" else "c", width))
    cells, rules, at = [], [], 2
    for name, place, width in groups:
        cells.append(rf"\multicolumn{{{width}}}{{{place}}}{{{markdown(name)}}}")
        if name and not last:
            rules.append(rf"\cmidrule(lr){{{at}-{at + width - 1}}}")
        at += width
    return [" & ".join(["", *cells]) + r" \\", *([" ".join(rules)] if rules else [])]


def pipe_table(table: pd.DataFrame) -> str:
    """Return ``table`` in Markdown, as README shows it; levels of the header share one line."""
    names = [" ".join(filter(None, n)) if isinstance(n, tuple) else str(n) for n in table.columns]
    rows = [["", *names], ["---"] * (len(names) + 1)]
    rows += [[str(i), *map(str, row)] for i, row in zip(table.index, table.to_numpy(), strict=True)]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows) + "\n"
