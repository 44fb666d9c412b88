"""The report: its numbers from the record, its rules checked, its PDF compiled to the same bytes each time.

Keys of numbers are lower case words joined by ``/``, as in ``study/arm/figure/mean``; what is no letter, digit, dot or
hyphen in a label becomes a hyphen. A figure has mean, n (seeds) and pm (mean ± half-width of the 95 % interval). Among
the numbers is how often the rule of evidence errs, and how much it sees: simulated and counted on the course's record.
"""

import hashlib
import json
import os
import re
import shutil
import subprocess
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from course.notebooks import studies_by_notebook
from helpers.record import Run, Runs, Study, arm_mean_and_half, evidence, published_figures, scale_and_digits
from helpers.settings import DATA, GENERATED, ROOT, generated_folder, runs_folder, smoke, write_if_changed
from helpers.show import escape, measured, number, table_tex

# What is recorded: each study's notebook and runs, by the study's name.
Found = Mapping[str, tuple[str, Runs]]
VERDICTS = ("holds", "the opposite here", "cannot be told")
# No sentence quotes from a longer list than this; a figure or a table shows it.
LONGEST_LIST = 32
# Numbers of seeds for which the rule's error is simulated, and in how many families for each study.
METRIC, SEEDS, FAMILIES = "validation_accuracy", (3, 6), 2_000
FOLDER = ROOT / "report"
FIRST_DATE = "2026-11-21"  # of a report without any record
CLAIMS = (
    "What the reports claimed, at which scale it was repeated here, and what the record says. Effects are differences "
    "of validation accuracy (in the row on flips, rotation and blur, of training accuracy); the intervals of one "
    "study hold jointly. Where the scale is smaller than the report's, a verdict is about that scale."
)
_USE = re.compile(r"\\(result|published|course(?:figure|table|text))\{([^}]*)\}")
_DEFINED = re.compile(r"^\\DefineResult\{([^}]*)\}\{(.*)\}$", re.MULTILINE)
_COMMENT = re.compile(r"(?<!\\)%.*")
# What may hold digits that are no result: keys, references, addresses, code, and definitions marked as such.
_SPARED = re.compile(
    r"\\(?:result|published|course(?:figure|table|text)|cite[a-z]*|label|[cC]?ref|input|url|path|code|setting)"
    r"\*?(?:\[[^\]]*\])*\{[^{}]*\}"
)
# A number: digits that belong to no name or power, so CIFAR-10, R2, conv1, x_1 and s^2 are none.
_LITERAL = re.compile(r"(?<![A-Za-z\d_^])(?<![A-Za-z]-)\d+(?:[.,]\d+)*")
_WORDS = re.compile(
    r"(?i)\b(?:three|four|five|six|seven|eight|nine|ten|eleven|twelve|twenty|thirty|fifty|hundred|thousand|million)"
    r"[ ~-]+(?:\w+[ ~-]+)?(?:seeds?|runs?|epochs?|percent|per~?cent|points?|seconds?|minutes?|hours?|images)\b"
)
_SETTING = re.compile(r"\\setting\{([^{}]*)\}(\s*(?:\\,|~)?\s*(?:\\%|percent|per~?cent|points?))?")
# TeX's complaints, each a line of the log once its lines are long enough.
_WARNING = r"(?m)^(?:(?:LaTeX|Package|Class)[ \w]* Warning:|pdfTeX warning|Overfull \\[hv]box|Missing character).*"


class ReportError(RuntimeError):
    """The report cannot be built as it stands; the message lists what to mend."""


def slug(label: object) -> str:
    """Return ``label`` as a part of a key."""
    return re.sub(r"[^a-z0-9.]+", "-", str(label).lower()).strip("-")


def recorded(studies: Mapping[str, Sequence[Study]]) -> Found:
    """Return every study of ``studies``, by notebook, that has enough of a record to be read; nothing is trained."""
    pairs = [(notebook, study) for notebook, several in studies.items() for study in several]
    return {study.name: (notebook, study.runs()) for notebook, study in pairs if study.is_recorded()}


def distinct(found: Found) -> list[Run]:
    """Return all runs, each once, though several studies may share it."""
    return list({(run.content["key"], run.device): run for _, runs in found.values() for run in runs}.values())


def _hours(runs: Sequence[Run]) -> float:
    return sum(run.metrics["training_seconds"] for run in runs) / 3600


def _machines(runs: Iterable[Run]) -> str:
    return ", ".join(sorted({run.provenance["device_name"] for run in runs}))


def numbers(found: Found) -> dict[str, str]:
    """Return the LaTeX text of every key: studies, totals, measurements and published figures."""
    values: dict[str, str] = {"level": number(100 * evidence.LEVEL)}
    for name, (_, runs) in found.items():
        values |= {f"{slug(name)}/{key}": text for key, text in _of_study(runs)}
    if runs := distinct(found):
        values["total/runs"], values["total/hours"] = number(len(runs)), number(_hours(runs), 1)
        values["total/seeds/least"] = number(min(len(several.seeds) for _, several in found.values()))
        values["date"] = max(run.provenance["date"] for run in runs)
    told = claims_table(found)["verdict"].tolist()
    values["claims"] = number(len(told))
    values |= {f"claims/{slug(verdict)}": number(told.count(verdict)) for verdict in VERDICTS}
    for path in sorted((runs_folder() / "measured").glob("*.json")):
        value = json.loads(path.read_text())["value"]
        values |= {f"measured/{path.stem}{key}": text for key, text in _flattened(value)}
    for key, figure in published_figures().items():
        values[f"published/{key}"] = number(figure.text)
        if ends := figure.interval():
            values[f"published/{key}/pictures"] = number(figure.pictures)
            values[f"published/{key}/low"], values[f"published/{key}/high"] = (number(end, 1) for end in ends)
    return values


def _of_study(runs: Runs) -> Iterator[tuple[str, str]]:
    """Yield the keys and texts of one study; a choice that all arms share has a key without an arm as well."""
    by_arm = runs.by_arm()
    yield "seeds", number(len(runs.seeds))
    yield "runs", number(len(runs))
    yield "hours", number(_hours(runs), 1)
    yield "device", escape(_machines(runs))
    choices = pd.DataFrame({arm: several[0].experiment.choices() for arm, several in by_arm.items()}).drop("seed")
    for choice, values in choices.iterrows():
        for arm, value in values.items():
            yield f"{slug(arm)}/{slug(choice)}", _choice(value)
        if all(value == values.iloc[0] for value in values):
            yield slug(choice), _choice(values.iloc[0])
    for metric in [m for m in runs[0].metrics if all(m in run.metrics for run in runs)]:
        digits = scale_and_digits(metric)[1]
        for arm, several in by_arm.items():
            key, (mean, half) = f"{slug(arm)}/{slug(metric)}", arm_mean_and_half(several, metric)
            if mean == mean:
                yield f"{key}/n", number(len(several))
                yield f"{key}/mean", number(mean, digits)
            if half == half:
                yield f"{key}/pm", rf"\num{{{mean:.{digits}f} \pm {half:.{digits}f}}}"


def _choice(value: Any) -> str:
    """Return one choice of an experiment, or one value of a measurement, as it stands in a sentence."""
    if value is None or isinstance(value, bool):
        return {True: "yes", False: "no", None: "none"}[value]
    if isinstance(value, int | float):
        return number(value)
    return escape(value if isinstance(value, str) else json.dumps(value))


def _flattened(value: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Yield the numbers and texts within a measurement, each under the path that leads to it."""
    if isinstance(value, list):
        if value and all(type(item) is int for item in value):
            yield f"{key}/sum", number(sum(value))
        value = dict(enumerate(value if len(value) <= LONGEST_LIST else []))
    if isinstance(value, dict):
        for name, item in value.items():
            yield from _flattened(item, f"{key}/{slug(name)}")
    elif isinstance(value, float):
        yield key, number(float(f"{value:.4g}"))
    elif value is not None:
        yield key, _choice(value)


def claims_table(found: Found) -> pd.DataFrame:
    """Return a row per claim of the reports (data/claims.json): at which scale it was repeated, and what came of it.

    A claim is an arm and a sign: 1 for better, -1 for worse, 0 for the same. Families are those of the notebooks.
    """
    rows = {}
    for question in json.loads((DATA / "claims.json").read_text()):
        if question["study"] not in found:
            continue
        runs = found[question["study"]][1]
        judged = evidence.verdict(runs, question["metric"], question["against"])
        for arm, (words, sign) in question["claims"].items():
            d, run = judged[arm], runs.by_arm()[arm][0]
            borne_out = sign == np.sign(d.mean) if d.separable else sign == 0 and d.low == d.high
            verdict = VERDICTS[0 if borne_out else 1 if d.separable else 2]
            longest = f"{'up to ' if run.experiment.patience else ''}{run.experiment.epochs}"
            scale = [f"{run.confusion['train'].sum():,}", longest, len(runs.seeds)]
            rows[words] = [question["report"], *scale, judged.amount(d).replace(" points", ""), verdict]
    columns = ["report", "pictures", "epochs", "seeds", "effect in points", "verdict"]
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns).rename_axis("claim")


def studies_table(found: Found) -> pd.DataFrame:
    """Return what was trained for each study: notebook, arms, seeds, runs, device, hours."""
    rows = {
        name: [notebook[:2], len(runs.arms), len(runs.seeds), len(runs), _machines(runs), f"{_hours(runs):.1f}"]
        for name, (notebook, runs) in found.items()
    }
    columns = ["notebook", "arms", "seeds", "runs", "device", "hours"]
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns)


def environments_table(found: Found) -> pd.DataFrame:
    """Return on what the runs were recorded: a row per machine, versions and commit."""
    rows = []
    for run in distinct(found):
        p = run.provenance
        cores = "" if p["device"] == "cuda" else f", {p['threads']} of {p['cores']} cores"
        rows.append({"machine": p["device_name"] + cores, **p["versions"], "commit": f"`{p['commit'][:10]}`"})
    if not rows:
        return pd.DataFrame()
    return pd.DataFrame(rows).value_counts(sort=False).rename("runs").astype(str).reset_index().set_index("machine")


def data_table(found: Found) -> pd.DataFrame:
    """Return the SHA-256 of every array of a whole data set; a run's file has those of any part."""
    rows = {
        f"{run.experiment.dataset}, {name.replace('_', ' ')}": f"`{digest}`"
        for run in distinct(found)
        if "?" not in run.experiment.dataset
        for name, digest in run.provenance["data_hashes"].items()
    }
    return pd.DataFrame({"SHA-256": rows})


def error_rates(runs: Mapping[str, Runs]) -> dict[str, float]:
    """Return what the report says of the rule, from the studies of several arms among ``runs``, by name.

    Every study asks of each arm whether it differs from the first one. Counted: these contrasts, and how many are
    separable by the course's rule and by its predecessor, in pairs by seed (:func:`helpers.record.compare_within`).
    Simulated: in what share of families without any difference the rule finds one, where the true variances are those
    that the record shows, which scatter more. An arm of one run left says nothing of them: its study is left out.
    """
    kept = {name: evidence.kept_values(found, METRIC) for name, found in runs.items() if len(found.arms) > 1}
    kept = {name: values for name, values in kept.items() if values.count().min() > 1}
    spread = {name: values.var(ddof=1).tolist() for name, values in kept.items()}
    depends = {name: [f"{variance:.3e}" for variance in variances] for name, variances in spread.items()}
    return measured("00-error-rate", lambda: _counts(runs, kept) | _simulated(spread), of=depends)


def _counts(runs: Mapping[str, Runs], kept: Mapping[str, pd.DataFrame]) -> dict[str, float]:
    judged = [evidence.verdict(runs[name], METRIC, values.columns[0]) for name, values in kept.items()]
    paired = [evidence.compare_within(values, METRIC, values.columns[0]) for values in kept.values()]
    # Of two arms of one study, over the seeds: what pairing by seed could gain from.
    correlations = [values.corr().to_numpy()[np.triu_indices(values.shape[1], 1)] for values in kept.values()]
    return {
        "correlation": round(float(np.nanmean(np.concatenate(correlations))), 2),
        "contrasts": sum(len(verdict.differences) for verdict in judged),
        "separable": sum(d.separable for verdict in judged for d in verdict.differences),
        "separable-in-pairs": sum(d.separable for verdict in paired for d in verdict.differences),
    }


def _simulated(spread: Mapping[str, Sequence[float]]) -> dict[str, float]:
    rates = {}
    for seeds in SEEDS:
        errors = {name: family_error(variances, seeds, zlib.crc32(name.encode())) for name, variances in spread.items()}
        worst = max(errors, key=errors.get)
        rates |= {f"error-{seeds}-seeds": np.mean(list(errors.values())), f"worst-{seeds}-seeds": errors[worst]}
    return {name: round(100 * float(rate), 2) for name, rate in rates.items()}


def family_error(variances: Sequence[float], seeds: int, start: int = 0, families: int = FAMILIES) -> float:
    """Return in what share of families of equal arms with these true ``variances`` the rule finds a difference."""
    arms = len(variances)
    runs, pairs = (seeds,) * arms, tuple((arm, 0) for arm in range(1, arms))
    scatter = np.broadcast_to(np.maximum(variances, 1e-12), (families, arms))
    largest = evidence.largest_t(np.random.default_rng(start), scatter, runs, pairs)
    return float((largest > evidence.critical_value(runs, pairs)).mean())


def write_numbers(found: Found | None = None, folder: Path = FOLDER) -> None:
    """Write numbers.tex, with what the report in ``folder`` quotes, and the appendix's tables, from the record."""
    found = recorded(studies_by_notebook()) if found is None else found
    error_rates({name: runs for name, (_, runs) in found.items()})  # measured, and so among the numbers
    quoted = {_full(*use) for path in texts(folder) for use in _USE.findall(path.read_text())}
    known = sorted(numbers(found).items())
    lines = [rf"\DefineResult{{{key}}}{{{text}}}" for key, text in known if key in quoted]
    head = "% Written by course/report.py from data/runs.\n"
    write_if_changed(generated_folder() / "numbers.tex", head + "\n".join(lines) + "\n")
    appendix = {
        "claims": (claims_table(found), CLAIMS),
        "studies": (studies_table(found), "Runs by study; some serve several. Hours vary with a machine's load."),
        "environments": (environments_table(found), "On what the runs were recorded."),
        "data": (data_table(found), "CIFAR-10, which any copy must match. A run's file has its own data's."),
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

    No number stands in the text, in digits or in words, unless it is part of a name (CIFAR-10) or marked as a
    definition, ``\\setting{3}``, which takes whole numbers alone and is never followed by a percent sign.
    """
    known = _defined(folder)
    return [
        f"{path.relative_to(folder)}:{i}: {problem}"
        for path in texts(folder)
        for i, line in _prose(path)
        for problem in _problems(line, folder, known)
    ]


def _problems(line: str, folder: Path, known: Mapping[str, str]) -> Iterator[str]:
    for command, key in _USE.findall(line):
        file = f"generated/{command.removeprefix('course')}s/{key}.tex"
        if command.startswith("course") and not (folder / file).is_file():
            yield f"\\{command}{{{key}}}: no {file}"
        elif not command.startswith("course") and _full(command, key) not in known:
            yield f"\\{command}{{{key}}}: no such key in generated/numbers.tex"
    for value, unit in _SETTING.findall(line):
        if unit or not value.isdecimal():
            yield f"\\setting{{{value}}}{unit}: a result must come from the record"
    bare = _SPARED.sub(" ", line)
    for literal in [*_LITERAL.findall(bare), *_WORDS.findall(bare)]:
        yield f"{literal!r} is typed by hand: quote it with \\result or \\published"


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


def compile_pdf(folder: Path = FOLDER, build: Path | None = None) -> bytes:
    """Return the PDF of ``folder``/report.tex; intermediate files go to ``build``.

    The date that TeX sees is the record's, and the PDF carries the hash of its sources, so the same sources give
    the same bytes. ReportError: no LaTeX here, an error in the sources, or any warning of TeX.
    """
    if not (shutil.which("latexmk") and shutil.which("pdflatex")):
        raise ReportError("latexmk or pdflatex is missing; install the packages in apt.txt (make does, as root)")
    build = build or folder / "build"
    write_if_changed(build / "sources.tex", rf"\pdfinfo{{/CourseSources ({sources_hash(folder)})}}" + "\n")
    newest = datetime.fromisoformat(_defined(folder).get("date", FIRST_DATE)).replace(tzinfo=UTC)
    environment = os.environ | {"TEXINPUTS": f"{build}:", "BIBINPUTS": f"{folder}:"}
    environment |= {"SOURCE_DATE_EPOCH": f"{newest.timestamp():.0f}", "FORCE_SOURCE_DATE": "1"}
    environment |= {"max_print_line": "10000", "error_line": "254", "half_error_line": "238"}  # long lines
    options = ["-norc", "-pdf", "-interaction=nonstopmode", "-halt-on-error", "-file-line-error", "-silent"]
    command = ["latexmk", *options, f"-outdir={build}", "report.tex"]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, errors="replace")
    logs = build / "report.log", build / "report.blg"
    log, blg = (path.read_text(errors="replace") if path.is_file() else "" for path in logs)
    if done.returncode:
        errors = re.findall(r"^(?:!|.+:\d+: |l\.\d+ ).*", log, re.MULTILINE)
        raise ReportError("LaTeX stopped:\n" + "\n".join(errors[:12] or (done.stdout + done.stderr).splitlines()[-12:]))
    complaints = [*dict.fromkeys(re.findall(_WARNING, log)), *re.findall(r"^Warning--.*", blg, re.MULTILINE)]
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
