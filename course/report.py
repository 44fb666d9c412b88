"""The report: its numbers from the record, its rules checked, its PDF compiled to the same bytes each time."""

import hashlib
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from course import numbers as results
from course.notebooks import studies_by_notebook
from course.numbers import Found
from helpers.settings import GENERATED, ROOT, generated_folder, smoke, write_if_changed
from helpers.show import table_tex

FOLDER = ROOT / "report"
FIRST_DATE = "2026-11-21"  # of a report without any record
CLAIMS = (
    "What the reports claimed, at which scale it was repeated here, and what the record says. Effects are differences "
    "of validation accuracy (in the row on flips, rotation and blur, of training accuracy); the intervals of all that "
    "is asked of a study hold together. Where the scale is smaller than the report's, a verdict is about that scale."
)
# What each command in the text stands for, relative to the report's folder.
INPUTS = {
    "coursefigure": "generated/figures/{}.tex",
    "coursetable": "generated/tables/{}.tex",
    "coursetext": "generated/texts/{}.tex",
}
_USE = re.compile(r"\\(result|published|coursefigure|coursetable|coursetext)\{([^}]*)\}")
_DEFINED = re.compile(r"^\\DefineResult\{([^}]*)\}\{(.*)\}$", re.MULTILINE)
_COMMENT = re.compile(r"(?<!\\)%.*")
# What may hold digits that are no result: keys, references, addresses, code, and definitions marked as such.
_SPARED = re.compile(
    r"\\(?:result|published|coursefigure|coursetable|coursetext|cite[a-z]*|label|[cC]?ref|input|url|path|code|setting)"
    r"\*?(?:\[[^\]]*\])*\{[^{}]*\}"
)
# A number: digits that belong to no name or power, so CIFAR-10, R2, conv1, x_1 and s^2 are none.
_LITERAL = re.compile(r"(?<![A-Za-z\d_^])(?<![A-Za-z]-)\d+(?:[.,]\d+)*")
_COUNTED = (
    r"(?:three|four|five|six|seven|eight|nine|ten|eleven|twelve|twenty|thirty|fifty|hundred|thousand|million)"
    r"[ ~-]+(?:\w+[ ~-]+)?(?:seeds?|runs?|epochs?|percent|per~?cent|points?|seconds?|minutes?|hours?|images)\b"
)
_WORDS = re.compile(r"\b" + _COUNTED, re.IGNORECASE)
_SETTING = re.compile(r"\\setting\{([^{}]*)\}(\s*(?:\\,|~)?\s*(?:\\%|percent|per~?cent|points?))?")
_SOURCES = re.compile(rb"/CourseSources ?\(([0-9a-f]{64})\)")
# TeX's complaints, each a line of the log once its lines are long enough.
_WARNING = re.compile(
    r"^(?:(?:LaTeX|Package|Class)[ \w]* Warning:.*|pdfTeX warning.*|Overfull \\[hv]box.*|Missing character.*)",
    re.MULTILINE,
)


class ReportError(RuntimeError):
    """The report cannot be built as it stands; the message lists what to mend."""


def write_numbers(found: Found | None = None, folder: Path = FOLDER) -> None:
    """Write numbers.tex, with what the report in ``folder`` quotes, and the appendix's tables, from the record."""
    found = results.recorded(studies_by_notebook()) if found is None else found
    results.error_rates({name: runs for name, (_, runs) in found.items()})  # measured, and so among the numbers
    quoted = {_full(*use) for path in texts(folder) for use in _USE.findall(path.read_text())}
    known = sorted(results.numbers(found).items())
    lines = [rf"\DefineResult{{{key}}}{{{text}}}" for key, text in known if key in quoted]
    head = "% Written by course/report.py from data/runs.\n"
    write_if_changed(generated_folder() / "numbers.tex", head + "\n".join(lines) + "\n")
    appendix = {
        "claims": (results.claims_table(found), CLAIMS),
        "studies": (results.studies_table(found), "What was trained: arms, seeds, runs and hours of training."),
        "environments": (results.environments_table(found), "On what the runs were recorded."),
        "data": (results.data_table(found), "The arrays that were trained on; any copy of the data must match these."),
    }
    for name, (content, caption) in appendix.items():
        if len(content):
            text = table_tex(name, content, caption, made_by="course/report.py")
            write_if_changed(generated_folder() / "tables" / f"{name}.tex", text)


def texts(folder: Path = FOLDER) -> list[Path]:
    """Return the files that hold the report's prose."""
    return [folder / "report.tex", *sorted((folder / "sections").glob("*.tex"))]


def _prose(path: Path) -> Iterator[tuple[int, str]]:
    """Yield (line number, line without comment) of what a file prints: not of report.tex's preamble."""
    lines = path.read_text().splitlines()
    begin = lines.index(r"\begin{document}") + 1 if r"\begin{document}" in lines else 0
    for i, line in enumerate(lines[begin:], start=begin + 1):
        yield i, _COMMENT.sub("", line)


def check(folder: Path = FOLDER) -> list[str]:
    """Return what is wrong in the report's sources: unknown keys, missing figures, results typed by hand.

    A result is a macro from a file that a script wrote. So no number stands in the text, in digits or in words,
    unless it is part of a name (CIFAR-10) or marked as a definition, ``\\setting{3}``, which takes whole numbers
    alone and is never followed by a percent sign.
    """
    known, problems = _defined(folder), []
    for path in texts(folder):
        name = path.relative_to(folder)
        for i, line in _prose(path):
            for command, key in _USE.findall(line):
                if command in INPUTS and not (folder / INPUTS[command].format(key)).is_file():
                    problems.append(f"{name}:{i}: \\{command}{{{key}}}: no {INPUTS[command].format(key)}")
                elif command not in INPUTS and _full(command, key) not in known:
                    problems.append(f"{name}:{i}: \\{command}{{{key}}}: no such key in generated/numbers.tex")
            for value, unit in _SETTING.findall(line):
                if unit or not re.fullmatch(r"\d+", value):
                    problems.append(f"{name}:{i}: \\setting{{{value}}}{unit}: a result must come from the record")
            bare = _SPARED.sub(" ", line)
            for literal in [*_LITERAL.findall(bare), *_WORDS.findall(bare)]:
                problems.append(f"{name}:{i}: {literal!r} is typed by hand: quote it with \\result or \\published")
    return problems


def _defined(folder: Path) -> dict[str, str]:
    """Return the key and text of every number in generated/numbers.tex."""
    path = folder / "generated" / "numbers.tex"
    return dict(_DEFINED.findall(path.read_text())) if path.is_file() else {}


def _full(command: str, key: str) -> str:
    return f"published/{key}" if command == "published" else key


def sources_hash(folder: Path = FOLDER) -> str:
    """Return one SHA-256 over the names and bytes of every file that the PDF is made from."""
    generated = [p for p in (folder / "generated").rglob("*") if p.suffix in (".tex", ".pdf")]
    digest = hashlib.sha256()
    for path in (*texts(folder), folder / "references.bib", *sorted(generated)):
        content = path.read_bytes()
        digest.update(f"{path.relative_to(folder).as_posix()} {len(content)}\n".encode() + content)
    return digest.hexdigest()


def built_from(pdf: bytes) -> str | None:
    """Return the :func:`sources_hash` that a PDF carries, or None if it carries none."""
    found = _SOURCES.search(pdf)
    return found[1].decode() if found else None


def compile_pdf(folder: Path = FOLDER, build: Path | None = None) -> bytes:
    """Return the PDF of ``folder``/report.tex; intermediate files go to ``build``.

    The date that TeX sees is the record's, and the PDF carries the hash of its sources, so the same sources give
    the same bytes. ReportError: no LaTeX here, an error in the sources, or any warning of TeX.
    """
    if not (shutil.which("latexmk") and shutil.which("pdflatex")):
        raise ReportError("latexmk or pdflatex is missing; install the packages in apt.txt (make does, as root)")
    build = build or folder / "build"
    write_if_changed(build / "sources.tex", rf"\pdfinfo{{/CourseSources ({sources_hash(folder)})}}" + "\n")
    long_lines = {"max_print_line": "10000", "error_line": "254", "half_error_line": "238"}
    newest = datetime.fromisoformat(_defined(folder).get("date", FIRST_DATE)).replace(tzinfo=UTC)
    dates = {"SOURCE_DATE_EPOCH": f"{newest.timestamp():.0f}", "FORCE_SOURCE_DATE": "1"}
    command = [
        "latexmk", "-norc", "-pdf", "-interaction=nonstopmode", "-halt-on-error", "-file-line-error", "-silent",
        f"-outdir={build}", "report.tex",
    ]  # fmt: skip
    paths = {"TEXINPUTS": f"{build}:", "BIBINPUTS": f"{folder}:"}
    environment = os.environ | long_lines | dates | paths
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, errors="replace")
    log_path = build / "report.log"
    log = log_path.read_text(errors="replace") if log_path.is_file() else done.stdout + done.stderr
    if done.returncode:
        errors = [line for line in log.splitlines() if re.match(r"!|.+:\d+: |l\.\d+ ", line)]
        raise ReportError("LaTeX stopped:\n" + "\n".join(errors[:12] or [*done.stdout.splitlines()[-12:]]))
    blg = build / "report.blg"
    complaints = list(dict.fromkeys(_WARNING.findall(log))) + (
        re.findall(r"^Warning--.*", blg.read_text(), re.MULTILINE) if blg.is_file() else []
    )
    if complaints:
        raise ReportError("the report compiles, but TeX complains:\n" + "\n".join(complaints))
    return (build / "report.pdf").read_bytes()


def build() -> Path:
    """Return the path of report.pdf, rebuilt from record and sources; ReportError lists all that is wrong."""
    if generated_folder() != GENERATED:
        raise ReportError(f"COURSE_{'SMOKE' if smoke() else 'GENERATED'} is set: results go elsewhere; unset it")
    write_numbers()
    if problems := check():
        raise ReportError("\n".join(problems))
    path = FOLDER / "report.pdf"
    write_if_changed(path, compile_pdf())
    return path
