"""The notebooks: what they declare and what of it is recorded, re-executing them in place, badges and set-up cell."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nbformat
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, DeadKernelError
from nbformat import NotebookNode

from helpers.settings import BRANCH, NOTEBOOKS, OWNER, REPO, ROOT, STAND_INS, smoke, write_if_changed

# What needs PyTorch is imported where it is used: some seconds, of which reading a notebook needs none.
if TYPE_CHECKING:
    from helpers.record import Study
    from helpers.training import Experiment

REPOSITORY = f"https://github.com/{OWNER}/{REPO}"
SETUP_CELL = f"""\
# In Colab: fetch the course and what Colab lacks. Elsewhere this cell does nothing.
import sys

if "google.colab" in sys.modules and "helpers" not in sys.modules:
    !test -d {REPO} || git clone -q --depth 1 -b {BRANCH} {REPOSITORY}.git
    sys.path.insert(0, "{REPO}")
    from course.colab import prepare

    prepare()"""
# An address of a repository on GitHub, as git has it: https, ssh or git@.
GITHUB = re.compile(r"(?:^|//|@)github\.com[:/]([\w.-]+)/([\w.-]+?)(?:\.git)?/?$")
BADGE = re.compile(r"\[!\[Open in Colab\]\([^)]*\)\]\(([^)]*)\)")
QUESTION = re.compile(r"^#+ The question\s*\n+(.+?)(?:\n\n|\n#|\Z)", re.MULTILINE | re.DOTALL)


class NotebookFailed(RuntimeError):
    """A notebook cannot be executed or read, or none declares a study; what is named is as it was."""


def all_notebooks() -> list[Path]:
    """Return the notebooks of the course in reading order."""
    return sorted(NOTEBOOKS.glob("[0-9][0-9]_*.ipynb"))


def code_cells(notebook: NotebookNode) -> list[tuple[int, NotebookNode]]:
    """Return the code cells that hold code, each with its position among all cells."""
    return [(i, c) for i, c in enumerate(notebook.cells) if c.cell_type == "code" and c.source.strip()]


def read(path: Path) -> NotebookNode:
    """Return the notebook in ``path``; a cell without an id gets one from its place. NotebookFailed if it is none."""
    try:
        content = json.loads(path.read_text())
        for position, cell in enumerate(content["cells"]):
            cell.setdefault("id", f"cell-{position:02d}")
    except (ValueError, KeyError, TypeError) as error:
        raise NotebookFailed(f"{path} is no notebook ({error}); restore it with git") from error
    content.update(nbformat=4, nbformat_minor=5)
    return nbformat.reads(json.dumps(content), as_version=4)


def write(path: Path, notebook: NotebookNode) -> bool:
    """Return whether the file changed by writing ``notebook`` without whatever differs from run to run."""
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    notebook.metadata = NotebookNode(kernelspec=kernel, language_info={"name": "python"})
    for cell in notebook.cells:
        cell.metadata = NotebookNode({k: v for k, v in cell.metadata.items() if k in ("tags", "jupyter")})
    return write_if_changed(path, nbformat.writes(notebook).rstrip("\n") + "\n")


def declared_studies(path: Path) -> list[Study]:
    """Return the studies that the notebook declares, in order, without training anything.

    Only cells tagged "imports" or "study" are executed; NotebookFailed names one that needs anything else.
    """
    from helpers.record import Study

    namespace: dict[str, Any] = {"__name__": path.stem}
    for position, cell in code_cells(read(path)):
        if not {"imports", "study"} & set(cell.metadata.get("tags", [])):
            continue
        place = f"{path.name}, cell {position}"
        try:
            exec(compile(cell.source, place, "exec"), namespace)
        except Exception as error:
            raise NotebookFailed(f"{place} declares a study, but fails alone: {error}") from error
    several = [value.values() if isinstance(value, Mapping) else [value] for value in namespace.values()]
    return list({id(study): study for found in several for study in found if isinstance(study, Study)}.values())


def studies_by_notebook() -> dict[str, list[Study]]:
    """Return the declared studies of every notebook, by the notebook's name without suffix."""
    return {path.stem: declared_studies(path) for path in all_notebooks()}


def status(studies: Mapping[str, Sequence[Study]]) -> list[dict[str, Any]]:
    """Return one row per study of ``studies`` (notebook -> its studies), and per kind of device that has runs of it.

    Each row has study, notebook, declared and recorded (numbers of runs), seeds (complete in every arm), device
    (None where nothing is recorded) and stale (runs whose model has changed since).
    """
    from helpers.record import DEVICES, read_run

    rows = []
    for notebook, study in ((name, study) for name, several in studies.items() for study in several):
        experiments = [e for _, e in study.experiments()]
        found = {kind: [run for e in experiments if (run := read_run(e, kind))] for kind in DEVICES}
        # NumPy's runs, which CPUs alone train, answer to both kinds.
        kinds = [kind for kind, runs in found.items() if any(run.device == kind for run in runs)]
        for device in kinds or [None]:
            runs = found.get(device, [])
            row = {"study": study.name, "notebook": notebook, "declared": len(experiments), "recorded": len(runs)}
            row["seeds"] = len(study.recorded_seeds(device)) if device else 0
            rows.append(row | {"device": device, "stale": sum(run.is_stale() for run in runs)})
    return rows


def train_missing(study: str | None = None, seeds: int | None = None, **how: Any) -> str:
    """Return in words what is recorded, after training what the notebooks declare and the record lacks.

    Of that, only the runs of ``study`` and the first so many ``seeds``, if given. ``how`` is for ``recorder.record``.
    """
    from helpers.record import recorder

    studies = [s for several in studies_by_notebook().values() for s in several]
    names = sorted({s.name for s in studies})
    if study not in (None, *names):
        raise NotebookFailed(f"no study {study!r}; the notebooks declare: {', '.join(names) or 'none'}")
    declared = [e for s in studies if study in (None, s.name) for _, e in s.experiments()]
    experiments = most_telling_first(e for e in declared if seeds is None or e.seed < seeds)
    return f"all {len(experiments)} runs are recorded ({recorder.record(experiments, **how)})"


def most_telling_first(experiments: Iterable[Experiment]) -> list[Experiment]:
    """Return the experiments, each once, in the order in which they answer most per hour.

    First the seeds that every arm needs, then those beyond; within each, from the fewest multiply-adds to the most. So
    a record that is stopped at any time holds many small studies rather than a part of one large one.
    """
    from helpers.models import layer_table
    from helpers.record import LEAST_SEEDS

    costs: dict[str, int] = {}

    def cost(e: Experiment) -> int:  # about, and at most: the multiply-adds of all forward passes
        name = f"{e.model} {e.model_options}"
        if name not in costs:
            costs[name] = sum(row["multiply_adds"] for row in layer_table(e.network()))
        return costs[name] * e.epochs * (e.train_size or 45_000)  # CIFAR-10's, where it takes all

    return sorted(dict.fromkeys(experiments), key=lambda e: (e.seed >= LEAST_SEEDS, cost(e), e.seed))


class _ThisPython(AsyncKernelManager):
    """Starts the kernel of the running Python, whatever kernels the user has installed elsewhere."""

    def _kernel_spec_manager_default(self) -> KernelSpecManager:
        return KernelSpecManager(parent=self, kernel_dirs=[])


def execute(paths: Sequence[Path], jobs: int = 2) -> list[Path]:
    """Return those of ``paths`` that changed when they were re-executed in place, ``jobs`` at a time.

    Executing again on the same machine gives the same bytes: no timings, no versions, and nothing from stderr, which
    goes to this process's instead. NotebookFailed names every notebook and cell that failed; their files are untouched.
    """
    if smoke():
        raise NotebookFailed("COURSE_SMOKE=1 is set, and no notebook may keep what a rehearsal shows; unset it")
    with ThreadPoolExecutor(jobs) as threads:
        outcomes = [threads.submit(_execute, path) for path in paths]
    if failures := [str(e) for outcome in outcomes if isinstance(e := outcome.exception(), NotebookFailed)]:
        raise NotebookFailed("\n\n".join(failures))
    return [path for path, outcome in zip(paths, outcomes, strict=True) if outcome.result()]


def _execute(path: Path) -> bool:
    began, notebook = time.perf_counter(), read(path)
    for _, cell in code_cells(notebook):
        cell.execution_count, cell.outputs = None, []
    options = {"kernel_name": "python3", "kernel_manager_class": _ThisPython, "extra_arguments": ["--log-level=40"]}
    options |= {"resources": {"metadata": {"path": str(path.parent)}}, "record_timing": False}
    client = NotebookClient(notebook, **options, coalesce_streams=True)
    search = os.pathsep.join(filter(None, [str(ROOT), os.getenv("PYTHONPATH")]))
    try:
        client.execute(env={"OMP_NUM_THREADS": "1"} | os.environ | {"PYTHONPATH": search})  # they run side by side
    except (CellExecutionError, DeadKernelError) as error:
        last = max((i for i, cell in code_cells(notebook) if cell.execution_count or cell.outputs), default=0)
        what = f"{error.ename}: {error.evalue}" if isinstance(error, CellExecutionError) else str(error)
        raise NotebookFailed(f"{path.name}, cell {last} failed: {what}\n{notebook.cells[last].source}") from error
    for _, cell in code_cells(notebook):
        for output in cell.outputs:
            if output.get("name") == "stderr" and output.text.strip():
                print(f"{path.stem}: {output.text.strip().splitlines()[-1]}", file=sys.stderr)
        cell.outputs = [o for o in cell.outputs if o.get("name") != "stderr"]
    changed = write(path, notebook)
    print(f"{path.stem}: {time.perf_counter() - began:.0f} s, {'changed' if changed else 'unchanged'}", flush=True)
    return changed


def origin(folder: Path = ROOT) -> tuple[str, str] | None:
    """Return owner and repository of git's remote ``origin`` where that is an address on GitHub, else None."""
    try:
        command = ["git", "-C", str(folder), "remote", "get-url", "origin"]
        address = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
    found = GITHUB.search(address)
    return (found[1], found[2]) if found else None


def name_repository(folder: Path = ROOT) -> bool:
    """Return whether settings.py and CITATION.cff in ``folder`` had to be changed to name git's :func:`origin`.

    They are committed, and what is compared with them is, too: no clone's own remote decides whether tests pass.
    Without an origin on GitHub they stay as they are; a line on stderr says so while they hold stand-ins.
    """
    path, citation, named = folder / "helpers" / "settings.py", folder / "CITATION.cff", origin(folder)
    line = re.compile(r'^OWNER, REPO, BRANCH = "([^"]*)", "([^"]*)", ', re.MULTILINE)
    text = path.read_text()
    if (named or line.search(text).groups()) == STAND_INS:
        todo = "give your clone its address on GitHub (git remote add origin https://github.com/OWNER/REPO)"
        print(f"Badges lead to {'/'.join(STAND_INS)}, a stand-in: {todo}, and run make badges again.", file=sys.stderr)
    if not named:
        return False
    changed = write_if_changed(path, line.sub(f'OWNER, REPO, BRANCH = "{named[0]}", "{named[1]}", ', text))
    address = f"repository-code: https://github.com/{'/'.join(named)}"
    return write_if_changed(citation, re.sub(r"(?m)^repository-code: .*$", address, citation.read_text())) or changed


def badge(path: Path) -> str:
    """Return the Markdown of the Colab badge of a notebook."""
    image = "https://colab.research.google.com/assets/colab-badge.svg"
    page = f"https://colab.research.google.com/github/{OWNER}/{REPO}/blob/{BRANCH}/notebooks/{path.name}"
    return f"[![Open in Colab]({image})]({page})"


def set_badge(path: Path) -> bool:
    """Return whether the notebook's badge or set-up cell had to be changed to point where settings.py says."""
    notebook = read(path)
    if not notebook.cells or notebook.cells[0].cell_type != "markdown":
        raise NotebookFailed(f"{path.name} must begin with a Markdown cell that holds its title")
    first = notebook.cells[0]
    if BADGE.search(first.source):
        first.source = BADGE.sub(lambda _: badge(path), first.source, count=1)
    else:
        title, _, rest = first.source.partition("\n")
        first.source = f"{title}\n\n{badge(path)}\n{rest}".rstrip("\n")
    for _, cell in code_cells(notebook):
        if "setup" in cell.metadata.get("tags", []):
            cell.source = SETUP_CELL
    return write(path, notebook)


def overview(times: Mapping[str, str]) -> str:
    """Return the README's table of notebooks: name, question, finding, time (from ``times``, by name), badge.

    The question is the first sentence under "The question"; the finding is what the cell tagged "finding" printed.
    """
    rows = ["| notebook | question | finding | trained in | |", "| --- | --- | --- | --- | --- |"]
    for path in all_notebooks():
        notebook = read(path)
        prose = "\n\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
        question = QUESTION.search(prose)
        asked = re.split(r"(?<=[.?!])\s", " ".join(question[1].split()))[0] if question else ""
        link, time_taken = f"[{path.stem}](notebooks/{path.name})", times.get(path.stem, "")
        cells = (link, asked, printed(notebook, "finding"), time_taken, badge(path))
        rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(rows)


def printed(notebook: NotebookNode, tag: str) -> str:
    """Return in one line what the cells tagged ``tag`` printed."""
    cells = [cell for _, cell in code_cells(notebook) if tag in cell.metadata.get("tags", [])]
    return " ".join(word for cell in cells for o in cell.outputs for word in o.get("text", "").split())


def surprises() -> str:
    """Return README's list of what surprised: the sentences of the cells tagged "surprise", with their notebooks."""
    said = {path: printed(read(path), "surprise") for path in all_notebooks()}
    return "\n".join(f"- {text} ([{path.stem[:2]}](notebooks/{path.name}))" for path, text in said.items() if text)


def fill(path: Path, name: str, text: str) -> bool:
    """Return whether ``path`` changed by putting ``text`` between its comments name:begin and name:end."""
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    content = path.read_text()
    if content.count(begin) != 1 or content.count(end) != 1:
        raise ValueError(f"{path} needs the lines {begin} and {end}, once each, to be filled in")
    before, _, rest = content.partition(begin)
    return write_if_changed(path, f"{before}{begin}\n{text}\n{end}{rest.partition(end)[2]}")
