"""What a notebook shows is what the report prints: figures, tables, sentences and measurements, kept, and in LaTeX."""

import json
import re
import sys
import textwrap
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pandas as pd
from IPython.display import Image, Markdown, display
from matplotlib import pyplot
from matplotlib.figure import Figure

from helpers.data import DataMissing, Dataset
from helpers.settings import GENERATED, atomic_write, generated_folder, runs_folder, smoke, write_if_changed
from helpers.style import PNG_DPI, pdf, png, styled

_NAME = re.compile(r"\d\d-[a-z0-9-]+")
# Pixels per inch at which a notebook shows a figure; the file has more, for fine screens.
SHOWN_PER_INCH = 110
# How a text's file says of each fact that it rests on whether the record bears it out.
HOLDS, FAILS = "holds", "DOES NOT HOLD"


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise ValueError(f'name={name!r}: begin with the notebook\'s number and use a-z, 0-9 and "-": "03-curves"')


def figure(name: str, draw: Callable[[], Figure], *, caption: str, alt: str, needs: Dataset | None = None) -> None:
    """Show the figure that ``draw`` returns, and keep it for the report under ``name``, with its caption.

    Writes NAME.pdf, NAME.png and NAME.tex (caption and label) to report/generated/figures, each only if it changed.
    ``caption`` says in a sentence what to see, ``alt`` describes the figure to those who cannot see it; both are
    Markdown of plain words, ``$math$`` and `` `code` ``. Where the data set that the picture ``needs`` is absent, the
    committed picture is shown, and one line on stderr says so; where that is absent, too, DataMissing is raised.
    """
    _check_name(name)
    if not caption.strip() or not alt.strip():
        raise ValueError(f"figure {name}: give a caption and an alt text")
    folder = generated_folder() / "figures"
    if needs is not None and not needs.available():
        committed = GENERATED / "figures" / f"{name}.png"
        if not committed.is_file():
            raise DataMissing(
                f"figure {name} shows images of {needs.name}, which is absent, and there is no committed {committed}; "
                "data/README.md says how to get the data set"
            )
        print(f"{needs.name} is absent: figure {name} is shown as it was committed", file=sys.stderr)
        shown = committed.read_bytes()
    else:
        drawn, paged = styled(draw)(), folder / f"{name}.pdf"
        shown = png(drawn)
        new = write_if_changed(folder / f"{name}.png", shown)
        # A PDF, whose fonts are embedded, takes longer than all else; a rehearsal goes into no report.
        if (new or not paged.is_file()) and not smoke():
            write_if_changed(paged, pdf(drawn))
        pyplot.close(drawn)  # one made through pyplot would be shown a second time
    write_if_changed(folder / f"{name}.tex", _figure_tex(name, caption, alt))
    width = round(int.from_bytes(shown[16:20], "big") * SHOWN_PER_INCH / PNG_DPI)  # a PNG's width stands there
    display(Image(data=shown, format="png", width=width, metadata={"alt": alt}), Markdown(caption))


def _figure_tex(name: str, caption: str, alt: str) -> str:
    # The alt text stands in the source, for readers of it and for LaTeX that tags PDFs.
    return rf"""% Written by notebook {name[:2]}; change it there.
\begin{{figure}}[tbp]
  \centering
  \includegraphics[alt={{{markdown(alt)}}}]{{generated/figures/{name}.pdf}}
  \caption{{{markdown(caption)} \madeby{{{name[:2]}}}}}
  \label{{fig:{name}}}
\end{{figure}}
"""


def table(name: str, content: pd.DataFrame, *, caption: str) -> None:
    """Show a table whose cells are printed as they are, and keep it for the report under ``name``.

    Writes NAME.tex (booktabs, numbers aligned by siunitx, caption, label) and NAME.md (for README) to
    report/generated/tables, if they changed. Numbers must have been rounded: what is shown is printed.
    """
    _check_name(name)
    if not caption.strip():
        raise ValueError(f"table {name}: give a caption")
    folder = generated_folder() / "tables"
    write_if_changed(folder / f"{name}.tex", table_tex(name, content, caption))
    write_if_changed(folder / f"{name}.md", pipe_table(content))
    with pd.option_context("display.max_colwidth", None):  # a text that is cut off says nothing
        display(Markdown(caption), content)


def table_tex(name: str, content: pd.DataFrame, caption: str, made_by: str | None = None) -> str:
    """Return a LaTeX table float of ``content``; a table too wide for the page is scaled to fit."""
    note = rf" \madeby{{{name[:2]}}}" if _NAME.fullmatch(name) else ""
    return rf"""% Written by {made_by or "notebook " + name[:2]}; change it there.
\begin{{table}}[htbp]
  \centering\small
  \caption{{{markdown(caption)}{note}}}
  \label{{tab:{name}}}
  \begin{{fitted}}
{tabular(content)}
  \end{{fitted}}
\end{{table}}
"""


def sentence(name: str, text: object, comments: Sequence[str] = ()) -> None:
    """Print words such as a verdict's, and keep them for the report, several lines as a list, under ``comments``."""
    _check_name(name)
    told = str(text).strip().splitlines()
    lines = [markdown(line) for line in told]
    if len(lines) > 1:
        lines = [r"\begin{itemize}", *(rf"  \item {line}" for line in lines), r"\end{itemize}"]
    head = "".join(f"% {line}\n" for line in (f"Written by notebook {name[:2]}; change it there.", *comments))
    write_if_changed(generated_folder() / "texts" / f"{name}.tex", head + "\n".join(lines) + "%\n")
    # JupyterLab breaks a line of many more letters than a line of code has anywhere, also within a word.
    whole = {"break_long_words": False, "break_on_hyphens": False, "subsequent_indent": "  " * (len(told) > 1)}
    print(*(textwrap.fill(line, 92, **whole) for line in told), sep="\n")


def takeaway(name: str, text: str, *, rests_on: Mapping[str, bool]) -> None:
    """Print the sentence that a reader should take home, and keep it for the report with the facts that it rests on.

    ``rests_on`` says in words what must hold for the sentence to be true, each with whether it does by the record, such
    as ``{"batch norm above base": steps["batch norm"].above}``. Where one does not, the text is shown all the same,
    after a line that says so; a test of the project then fails, and a person has to write another sentence.
    """
    if not rests_on:
        raise ValueError(f"takeaway {name}: name the facts of the record that it rests on")
    for fact in (fact for fact, holds in rests_on.items() if not holds):
        print(f"The record does not bear this out: {fact}.")
    sentence(name, text, [f"{HOLDS if holds else FAILS}: {fact}" for fact, holds in rests_on.items()])


def measured(name: str, compute: Callable[[], Any], *, of: Mapping[str, Any] | None = None) -> Any:
    """Return what ``compute`` returned when it was first called under ``name``, as JSON gives it back.

    The value is recorded in data/runs/measured/NAME.json, so that a reader without the data set, or in a hurry, sees
    the same. ``of`` names what the value depends on (a choice, a version of the method); when that differs from the
    record, the value is computed anew. Arrays and tensors become lists, keys become text.
    """
    _check_name(name)
    path = runs_folder() / "measured" / f"{name}.json"
    depends = json.loads(json.dumps(dict(of or {}), default=_plain))
    if path.is_file():
        try:
            record = json.loads(path.read_text())
            value, recorded = record["value"], record["of"]
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"the record {path} is damaged ({error}); restore it with git, or delete it") from error
        if recorded == depends:
            return value
        print(f"{name} was measured under other conditions; measuring again", file=sys.stderr)
    text = json.dumps({"of": depends, "value": compute()}, indent=1, default=_plain) + "\n"
    atomic_write(path, text)
    return json.loads(text)["value"]


def _plain(value: Any) -> Any:
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"a measurement must be numbers, texts, lists and dictionaries, not {type(value).__name__}")


# --- Text and tables as LaTeX: everything special escaped, numbers set in columns by siunitx. ---

_SPECIAL = {char: f"\\{char}" for char in "{}$&%#_"} | {"–": "--", "—": "---", "\u00a0": "~", "…": r"\dots{}"}
_SPECIAL |= {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "°": r"\textdegree{}"}
_SPECIAL |= {"<": r"\textless{}", ">": r"\textgreater{}", '"': r"\textquotedbl{}", "µ": r"\textmu{}"}
_SPECIAL |= {"±": r"$\pm$", "×": r"$\times$", "−": "$-$", "·": r"$\cdot$", "→": r"$\rightarrow$"}
_SPECIAL |= {"≤": r"$\leq$", "≥": r"$\geq$", "≈": r"$\approx$"}
# Mathematics between dollars and code between backticks, in Markdown as in a caption.
_SPANS = re.compile(r"(\$[^$\n]+\$|`[^`\n]+`)")
# A hyphen that is the sign of a number: not the one in 3-3, 1e-06 or 2026-11-29.
_MINUS = re.compile(r"(?<![\w.)\]-])-(?=\.?\d)")
_UNSIGNED = r"(?:0|[1-9][\d,]*)(?:\.\d+)?"
_NUMBER = re.compile(rf"([+-]?{_UNSIGNED})(?: ± ({_UNSIGNED}))?")


def escape(text: str) -> str:
    """Return ``text`` as LaTeX that prints it; a character that the report's fonts may lack is refused."""
    if odd := {char for char in text if ord(char) > 0x24F and char not in _SPECIAL}:
        raise ValueError(f"{text!r} holds {''.join(sorted(odd))!r}, which LaTeX cannot set: use other words")
    signed = _MINUS.sub("−", text)
    # A space before a percent sign must not break the line between them.
    return "".join(_SPECIAL.get(char, char) for char in signed).replace(r" \%", r"\,\%")


def number(value: float | str, digits: int | None = None) -> str:
    """Return a number for a sentence, thousands set apart; ``digits`` decimals, or as many as are there."""
    text = str(value) if digits is None else f"{value:.{digits}f}"
    text = text.removesuffix(".0") if isinstance(value, float) and digits is None else text
    return escape(text) if text in ("nan", "inf", "-inf") else rf"\num{{{text}}}"


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
    """Return how LaTeX sets a column, and how many of its own that takes: two for "mean ± half-width", else one.

    Numbers are aligned at the decimal point by siunitx; if any cell is text, all stand to the left.
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
