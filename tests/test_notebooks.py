"""The notebooks run: strictly against what they hold, as rehearsals, in place; and their tools work."""

import json
import shutil
from pathlib import Path

import nbformat
import pytest
from contracts import notebook_problems
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from warm import pytest_in_a_copy

from course import notebooks
from course.notebooks import SETUP_CELL, NotebookFailed, badge, read, write
from helpers.settings import GENERATED, ROOT

NOTEBOOKS = [pytest.param(path, id=path.stem) for path in notebooks.all_notebooks()]


def nbval(path: Path, option: str, folder: Path, **environment: str) -> None:
    """Validate a notebook without network; if it fails, the test does, with what nbval says."""
    # A proxy that nobody listens at: whatever would be downloaded fails at once.
    nowhere = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:9")
    own = {"PYTHONPATH": str(ROOT), "IPYTHONDIR": str(folder), "TMPDIR": str(folder), "MPLBACKEND": "Agg"}
    words = [option, "--nbval-current-env", "--color=no", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", str(path)]
    if pytest_in_a_copy(words, nowhere | own | environment, folder / "told"):
        pytest.fail((folder / "told").read_text()[-8000:], pytrace=False)


@pytest.mark.parametrize("path", NOTEBOOKS)
def test_every_notebook_rehearses(path, tmp_path):
    nbval(path, "--nbval-lax", tmp_path, COURSE_SMOKE="1")


@pytest.mark.parametrize("path", NOTEBOOKS)
def test_every_notebook_shows_what_it_holds(path, tmp_path):
    """Compares every output with the record read again, on no GPU, and the report's tables and texts with the kept."""
    made = tmp_path / "generated"
    figures = GENERATED / "figures"  # one that has not changed is not drawn for the page again
    shutil.copytree(figures, made / "figures", ignore=lambda _, names: {n for n in names if n.endswith(".tex")})
    nbval(path, "--nbval", tmp_path, CUDA_VISIBLE_DEVICES="", COURSE_GENERATED=str(made))
    for new in [*made.rglob("*.tex"), *made.rglob("*.md")]:
        kept = GENERATED / new.relative_to(made)
        assert new.read_text() == kept.read_text(), f"{kept} is not what the notebook writes: make report"


@pytest.mark.parametrize("path", NOTEBOOKS)
def test_contracts(path):
    assert notebook_problems(path) == []


def sample(folder: Path, name: str = "05_sample.ipynb") -> Path:
    """Return a notebook that keeps every contract."""
    path = folder / name

    def code(source: str, tag: str | None = None, *outputs) -> nbformat.NotebookNode:
        return new_code_cell(source, metadata={"tags": [tag]} if tag else {}, outputs=list(outputs))

    cells = [
        new_markdown_cell(f"# Sample\n\n{badge(path)}\n\n## The question\n\nDoes it\nwork? It should."),
        new_markdown_cell("## Predict first\n\n## Set-up"),
        code(SETUP_CELL, "setup"),
        code("from helpers.training.experiment import Experiment\nfrom helpers.record.study import Study", "imports"),
        new_markdown_cell("## Experiment: one study"),
        code('study = Study("sample", Experiment(model="r4"), vary={"lr": [0.1, 0.2]}, seeds=3)', "study"),
        new_markdown_cell("## Evidence"),
        code("takeaway = print\ntakeaway(sum(range(4)))", "finding", *said("6\n")),  # leaves nothing in the report
        new_markdown_cell("## Verdict\n\n## What this does not show\n\n## Exercises\n\n## What next"),
    ]
    for count, cell in enumerate((c for c in cells if c.cell_type == "code"), 1):
        cell.execution_count = count
    for position, cell in enumerate(cells):
        cell.id = f"sample-{position}"
    write(path, new_notebook(cells=cells))
    return path


def change(path: Path, position: int, **fields) -> None:
    notebook = nbformat.read(path, as_version=4)
    notebook.cells[position].update(fields)
    nbformat.write(notebook, path)


def said(text: str, name: str = "stdout") -> list:
    return [new_output("stream", name=name, text=text)]


BREACHES = {
    "not executed": (7, {"execution_count": None}, "execution counts"),
    "executed out of order": (7, {"execution_count": 9}, "execution counts"),
    "untagged study": (5, {"metadata": {}}, "without the tag study"),
    "study that trains": (5, {"source": "runs = Study('a', Experiment()).runs()"}, "must not train"),
    "study cell with magics": (5, {"source": "%time\nStudy('a')"}, "not plain Python"),
    "foreign badge": (0, {"source": "# Sample\n\n[![Open in Colab](a)](b)"}, "points elsewhere"),
    "no title": (0, {"source": "Sample"}, "begin with the title"),
    "other set-up": (2, {"source": SETUP_CELL + "\n"}, "set-up cell"),
    "untagged set-up": (2, {"metadata": {}}, "set-up cell"),
    "missing heading": (6, {"source": "## Proof"}, '"Evidence" is missing'),
    "headings out of order": (6, {"source": "## What next"}, '"Evidence" is missing'),
    "empty cell": (6, {"source": ""}, "empty cell"),
    "second import cell": (7, {"source": "import os"}, "imports outside"),
    "two import tags": (7, {"metadata": {"tags": ["imports"]}}, "exactly one cell"),
    "asks for rehearsal": (7, {"source": "os.environ.get('COURSE_SMOKE')"}, "rehearsal"),
    "long cell": (7, {"source": "pass\n" * 26}, "26 lines"),
    "flagship": (5, {"source": "Study('a', Experiment(flagship=True))"}, "flagship"),
    "test split": (7, {"source": "data.test"}, "test split"),
    "test metric": (7, {"source": "runs.values('test_accuracy')"}, "test split"),
    "machine's path": (7, {"source": "open('/home/someone/data')"}, "path of one machine"),
    "error output": (7, {"outputs": [new_output("error", ename="E")]}, "holds an error"),
    "stderr output": (7, {"outputs": said("50%", "stderr")}, "stderr"),
    "path in output": (7, {"outputs": said("saved to /home/someone/x")}, "path of one machine"),
    "address in output": (7, {"outputs": said("<object at 0x7f3a12345678>")}, "address in memory"),
    "finding without facts": (7, {"source": "print(6)"}, "names its facts"),
    "finding without interval": (7, {"outputs": said("It gains +5.7 points.")}, "has no interval"),
    "finding beyond its verdict": (7, {"outputs": said("It gains 0.9 points [-0.2, 2.0].")}, "is not separable"),
    "finding reversed": (7, {"outputs": said("The record does not bear this out: up.\nUp.")}, "bear the finding out"),
    "judged twice": (7, {"source": "verdict(runs), verdict(runs.only('a'), against='b')"}, "7 and 7 judge runs by"),
    "timings": (7, {"metadata": {"execution": {}}}, "metadata"),
}


@pytest.mark.parametrize(("position", "fields", "complaint"), BREACHES.values(), ids=BREACHES)
def test_a_breach_is_noticed(tmp_path, position, fields, complaint):
    path = sample(tmp_path)
    assert notebook_problems(path) == []
    change(path, position, **fields)
    problems = notebook_problems(path)
    assert any(complaint in problem for problem in problems), problems


CANNOT_TELL = "A gains 5.7 points [3.1, 8.3]; B cannot be told apart: +0.9 points [-0.2, 2.0]."
ONCE_BY_EACH_FIGURE = "takeaway(verdict(runs), verdict(runs, 'train_accuracy'), verdict(others), rests_on={})"
TEST_SET = "study = Study('a', Experiment(flagship=True))\nstudy.test, 'test_accuracy'"  # as flagship notebooks may


@pytest.mark.parametrize(
    ("name", "position", "fields"),
    [
        ("05_sample.ipynb", 7, {"outputs": said(CANNOT_TELL)}),
        ("05_sample.ipynb", 7, {"source": ONCE_BY_EACH_FIGURE}),
        ("03_sample.ipynb", 5, {"source": TEST_SET}),
    ],
)
def test_what_is_no_breach_is_let_pass(tmp_path, name, position, fields):
    path = sample(tmp_path, name)
    change(path, position, **fields)
    assert notebook_problems(path) == []


def test_published_test_figures_are_read_beside_their_like_alone(tmp_path):
    path = sample(tmp_path, "07_sample.ipynb")
    change(path, 5, source="study = Study('a', Experiment(flagship=True))")
    assert notebook_problems(path) == []
    change(path, 7, source="takeaway(runs.values('test_accuracy'), rests_on={})")
    assert any("test split" in problem for problem in notebook_problems(path))
    change(path, 7, metadata={"tags": ["finding", "published"]})
    assert notebook_problems(path) == []
    change(path, 7, source="takeaway(Experiment(flagship=True), rests_on={})")
    assert any("flagship=" in problem for problem in notebook_problems(path))


def test_strict_notices_another_output_and_no_other_stderr(tmp_path):
    (tmp_path / "conftest.py").write_text((ROOT / "notebooks" / "conftest.py").read_text())
    path = tmp_path / "tiny.ipynb"
    source = "import sys\nprint(6, file=sys.stderr)\nprint(6)"
    write(path, new_notebook(cells=[new_code_cell(source, execution_count=1, outputs=said("6\n"))]))
    nbval(path, "--nbval", tmp_path)
    change(path, 0, outputs=said("7\n"))
    with pytest.raises(pytest.fail.Exception, match="Cell outputs differ"):
        nbval(path, "--nbval", tmp_path)


def test_declared_studies_executes_declarations_alone(tmp_path):
    path = sample(tmp_path)
    change(path, 7, source="raise RuntimeError('executed')")
    assert [study.name for study in notebooks.declared_studies(path)] == ["sample"]
    change(path, 5, source="several = {n: Study(n, Experiment(), arms={'a': {}}) for n in 'xy'}\nsame = several")
    assert [study.name for study in notebooks.declared_studies(path)] == ["x", "y"]
    change(path, 5, source="study = Study(name_of_an_earlier_cell)")
    with pytest.raises(NotebookFailed, match=r"05_sample.ipynb, cell 5 .*name_of_an_earlier_cell"):
        notebooks.declared_studies(path)


def light(folder: Path, name: str = "05_sample.ipynb") -> Path:
    """Return the sample without its imports, so that its kernel starts at once."""
    path = sample(folder, name)
    change(path, 3, source="lr = -1")
    change(path, 5, source="lr")
    return path


def test_execute_is_byte_stable_and_strips_what_varies(tmp_path, capsys):
    path = light(tmp_path)
    change(path, 7, source="import sys\nprint('note', file=sys.stderr)\nprint(1)\nprint(2)", outputs=[])
    assert notebooks.execute([path]) == [path]
    first = path.read_bytes()
    assert "05_sample: note" in capsys.readouterr().err
    assert notebooks.execute([path]) == [] and path.read_bytes() == first
    assert read(path).cells[7].outputs == said("1\n2\n")
    content = json.loads(first)
    assert content["metadata"]["language_info"] == {"name": "python"}
    assert all(set(cell["metadata"]) <= {"tags"} for cell in content["cells"])


def test_a_failing_notebook_is_named_and_untouched_and_the_others_are_written(tmp_path, monkeypatch):
    bad, good = light(tmp_path, "06_bad.ipynb"), light(tmp_path, "07_good.ipynb")
    change(bad, 5, source="raise ValueError(f'{lr=}')")
    change(good, 7, outputs=[])
    before = bad.read_bytes()
    with pytest.raises(NotebookFailed, match=r"06_bad.ipynb, cell 5 failed: ValueError: lr=-1"):
        notebooks.execute([bad, good])
    assert bad.read_bytes() == before and read(good).cells[7].outputs == said("6\n")
    monkeypatch.setenv("COURSE_SMOKE", "1")
    with pytest.raises(NotebookFailed, match="rehearsal"):
        notebooks.execute([good])


def test_broken_files_and_missing_ids(tmp_path):
    path = tmp_path / "01_x.ipynb"
    path.write_text('{"cells": [')
    with pytest.raises(NotebookFailed, match="01_x.ipynb is no notebook"):
        read(path)
    cell = {"cell_type": "code", "source": "1", "metadata": {}, "outputs": [], "execution_count": None}
    path.write_text(json.dumps({"cells": [cell], "metadata": {}, "nbformat": 4, "nbformat_minor": 4}))
    write(path, read(path))
    assert read(path).cells[0].id == "cell-00"


def test_badges_are_set_once(tmp_path):
    path = sample(tmp_path)
    assert not notebooks.set_badge(path)
    change(path, 0, source="# Sample\n\nText.")
    change(path, 2, source="print('old set-up')")
    assert notebooks.set_badge(path) and not notebooks.set_badge(path)
    cells = read(path).cells
    assert cells[0].source == f"# Sample\n\n{badge(path)}\n\nText."
    assert cells[2].source == SETUP_CELL


def test_overview_takes_question_finding_and_surprise_from_the_notebook(tmp_path, monkeypatch):
    path = sample(tmp_path)
    monkeypatch.setattr("course.notebooks.all_notebooks", lambda: [path])
    row = notebooks.overview({"05_sample": "1.0 h CPU"}).splitlines()[-1]
    assert row == f"| [05_sample](notebooks/05_sample.ipynb) | Does it work? | 6 | 1.0 h CPU | {badge(path)} |"
    assert notebooks.surprises() == ""
    change(path, 7, metadata={"tags": ["surprise"]})
    assert notebooks.surprises() == "- 6 ([05](notebooks/05_sample.ipynb))"


def test_fill_replaces_only_what_stands_between_the_markers(tmp_path):
    path = tmp_path / "page.md"
    path.write_text("a\n<!-- x:begin -->\nold\n<!-- x:end -->\nb\n")
    assert notebooks.fill(path, "x", "new") and not notebooks.fill(path, "x", "new")
    assert path.read_text() == "a\n<!-- x:begin -->\nnew\n<!-- x:end -->\nb\n"
    with pytest.raises(ValueError, match="y:begin"):
        notebooks.fill(path, "y", "new")
