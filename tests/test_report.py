import json
import re
import shutil

import pandas as pd
import pytest
from synthetic import synthetic_runs

from course import report
from helpers import settings, show, style
from helpers.record import Run, Runs, Study, arm_interval, published_figures
from helpers.training import Experiment

LACKS_LATEX = not (shutil.which("latexmk") and shutil.which("pdflatex"))
needs_latex = pytest.mark.skipif(LACKS_LATEX, reason="latexmk and pdflatex are not installed")
FOUND = {"base-model": ("03_base_model", synthetic_runs())}
PREAMBLE = (settings.ROOT / "report" / "report.tex").read_text().split(r"\begin{document}")[0]


def built_from(pdf):
    """Return the hash of its sources that a PDF carries."""
    return re.search(rb"/CourseSources ?\(([0-9a-f]{64})\)", pdf)[1].decode()


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A report of one page, with the real preamble and the numbers of synthetic runs."""
    monkeypatch.setattr(report, "generated_folder", lambda: tmp_path / "generated")
    monkeypatch.setattr(report, "runs_folder", lambda: tmp_path / "runs")
    monkeypatch.setattr(report, "error_rates", lambda runs: None)
    (tmp_path / "references.bib").write_text((settings.ROOT / "report" / "references.bib").read_text())
    write(tmp_path, r"R2 reached \result{base-model/r2/test-accuracy/pm}\,\% \citep{R2}.")
    report.write_numbers(FOUND, tmp_path)
    return tmp_path


def write(folder, body: str) -> None:
    (folder / "report.tex").write_text(
        f"{PREAMBLE}\\begin{{document}}\n{body}\n\\bibliographystyle{{plainnat}}\n\\bibliography{{references}}\n"
        "\\end{document}\n"
    )


def test_numbers_come_from_the_record(folder):
    values = report.numbers(FOUND)
    runs = synthetic_runs()
    accuracies = 100 * runs.values("test_accuracy")["R2"]
    assert values["base-model/r2/test-accuracy/mean"] == rf"\num{{{accuracies.mean():.2f}}}"
    _, low, high = arm_interval(runs.by_arm()["R2"], "test_accuracy")
    pm = rf"{accuracies.mean():.2f} \pm {50 * (high - low):.2f}"
    assert values["base-model/r2/test-accuracy/pm"] == rf"\num{{{pm}}}"
    assert values["base-model/r2/test-accuracy/n"] == values["base-model/seeds"] == r"\num{3}"
    assert values["base-model/hours"] == values["total/hours"] == rf"\num{{{9 * 15 * 22 / 3600:.1f}}}"
    assert values["base-model/device"] == r"Some \& Other\_Processor"
    assert values["base-model/epochs"] == r"\num{15}" and values["base-model/optimizer"] == "Adam"
    assert "base-model/model" not in values and values["base-model/r4/model"] == "r4"
    quoted = [values[f"published/R4/test-accuracy{name}"] for name in ("", "/pictures", "/low", "/high")]
    assert quoted == [r"\num{64.57}", r"\num{626}", r"\num{60.7}", r"\num{68.2}"]
    assert "published/R2/kernels/3-3-3/test-accuracy/low" not in values
    assert values["date"] == "2026-11-20"


def test_measurements_can_be_quoted(folder):
    path = folder / "runs" / "measured" / "01-statistics.json"
    path.parent.mkdir(parents=True)
    path.write_text('{"of": {}, "value": {"mean": [0.4914, 0.5], "Images of all": 60000, "long": %s}}' % ([0] * 99))
    values = report.numbers(FOUND)
    assert values["measured/01-statistics/mean/0"] == r"\num{0.4914}"
    assert values["measured/01-statistics/images-of-all"] == r"\num{60000}"
    assert [key for key in values if "long" in key] == ["measured/01-statistics/long/sum"]


def test_every_study_that_lacks_a_record_is_left_out_and_nothing_is_trained():
    class Unrecorded(Study):
        def recorded_seeds(self, device):
            return [0] if device == "cpu" else []

        def runs(self, jobs=1):
            raise AssertionError("this would train")

    assert report.recorded({"09_new": [Unrecorded("new", Experiment(), arms={"alone": {}})]}) == {}


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (r"It reached 83.0\,\% on the test set.", "'83.0'"),
        (r"It reached $83$ percent.", "'83'"),
        ("The loss fell to 0.5.", "'0.5'"),
        ("All of this took 12 hours.", "'12'"),
        ("It holds 1,147,914 parameters.", "'1,147,914'"),
        ("With three more epochs it rose.", "'three more epochs'"),
        ("It was trained with six seeds.", "'six seeds'"),
        (r"A gain of \setting{7}\,\% was seen.", "must come from the record"),
        (r"A gain of \setting{7} points was seen.", "must come from the record"),
        (r"A loss of \setting{0.5} was seen.", "must come from the record"),
        (r"\result{base-model/r2/test-accuracy/median}", "no such key"),
        (r"\published{R9/test-accuracy}", "no such key"),
        (r"\coursefigure{03-nothing}", "no generated/figures/03-nothing.tex"),
        (r"\coursetable{03-nothing}", "no generated/tables/03-nothing.tex"),
        (r"\coursetext{03-nothing}", "no generated/texts/03-nothing.tex"),
    ],
)
def test_a_result_typed_by_hand_or_an_unknown_key_is_told_with_its_line(folder, line, told):
    (folder / "sections").mkdir()
    (folder / "sections" / "03.tex").write_text("Fine.\n" + line + "\n")
    problems = report.check(folder)
    assert len(problems) == 1 and told in problems[0] and problems[0].startswith("sections/03.tex:2:")


def test_names_references_definitions_and_comments_may_hold_digits(folder):
    fine = [
        r"CIFAR-10, R2, conv1, ResNet-18 and $x_1^2, \dots, x_n$ \citep[see][]{Krizhevsky2009}.",
        r"Images are \setting{32} pixels wide; see \cref{tab:03-arms}, \path{data/2026/}, \code{top5}. % 83.0 %",
        r"R4 has \published{R4/parameters} parameters. Two runs differ.",
    ]
    write(folder, "\n".join(fine))
    report.write_numbers(FOUND, folder)
    assert report.check(folder) == []


@needs_latex
def test_what_tex_complains_about_fails_the_build_and_is_listed(folder):
    write(folder, r"\noindent\rule{20cm}{1pt} \cref{fig:none} \citet{Nobody} \citep{R2}")
    with pytest.raises(report.ReportError) as error:
        report.compile_pdf(folder)
    for told in ("Overfull", "Reference `fig:none'", "Citation `Nobody'", 'a database entry for "Nobody"'):
        assert told in str(error.value)
    write(folder, r"\result{base-model/none}")
    with pytest.raises(report.ReportError, match="No result `base-model/none'"):
        report.compile_pdf(folder)


@needs_latex
def test_figures_and_tables_with_awkward_text_compile_to_the_same_bytes_which_carry_their_hash(folder, monkeypatch):
    awkward = r"_&%$#{}~^\ <>\" – ± × → ≥ é, [and] = so on"
    columns = {f"column number {i}": [awkward, "1,234.50 ± 0.25"][i % 2 : i % 2 + 1] for i in range(8)}
    monkeypatch.setattr(show, "generated_folder", lambda: folder / "generated")
    monkeypatch.setattr(show, "display", lambda *shown: None)
    show.table("03-awkward", pd.DataFrame(columns, index=[awkward]), caption=awkward)
    show.figure("03-awkward", lambda: style.new_figure(1.0), caption=awkward, alt=awkward)
    show.sentence("03-awkward", f"{awkward}\n{awkward}")
    kinds = ("coursefigure", "coursetable", "coursetext")
    write(folder, "\n".join(rf"\{kind}{{03-awkward}}" for kind in kinds) + r" \coursetable{studies} \citep{R2}")
    assert report.check(folder) == []
    made = report.compile_pdf(folder, folder / "one")
    assert b"/Subtype /Form" in made  # the figure itself, not only its caption
    assert report.compile_pdf(folder, folder / "a longer name") == made  # some seconds later
    assert built_from(made) == report.sources_hash(folder)
    write(folder, "Another text.")
    assert built_from(made) != report.sources_hash(folder)


def test_without_latex_the_error_says_how_to_get_it_and_a_rehearsal_builds_none(folder, monkeypatch):
    monkeypatch.setattr(report.shutil, "which", lambda name: None)
    with pytest.raises(report.ReportError, match="apt.txt"):
        report.compile_pdf(folder)
    monkeypatch.setenv("COURSE_SMOKE", "1")
    with pytest.raises(report.ReportError, match="COURSE_SMOKE"):
        report.build()


def test_the_record_regenerates_the_committed_numbers(tmp_path, monkeypatch):
    monkeypatch.setattr(report, "generated_folder", lambda: tmp_path)
    report.write_numbers()
    for path in tmp_path.rglob("*.tex"):
        committed = settings.GENERATED / path.relative_to(tmp_path)
        assert path.read_text() == committed.read_text(), f"{committed} is not what the record says: make report"


def test_a_claim_holds_where_the_record_separates_it_in_its_direction(tmp_path, monkeypatch):
    same = {"report": "R9", "study": "base-model", "metric": "validation_accuracy", "against": "R2"}
    claims = [same | {"claims": {"R4": [words, sign]}} for words, sign in (("up", 1), ("down", -1), ("alike", 0))]
    (tmp_path / "claims.json").write_text(json.dumps([*claims, same | {"study": "not recorded"}]))
    monkeypatch.setattr(report, "DATA", tmp_path)
    for shift, wanted in ((0.1, "holds"), (-0.1, "the opposite here"), (None, "cannot be told")):
        runs = Runs("s", [moved(run, shift) for run in synthetic_runs("R2", "R4")])
        table = report.claims_table({"base-model": ("03_base_model", runs)})
        mirrored = {"holds": "the opposite here", "the opposite here": "holds"}.get(wanted, wanted)
        assert table["verdict"].tolist()[:2] == [wanted, mirrored] and list(table.index) == ["up", "down", "alike"]
        assert table["verdict"]["alike"] == ("the opposite here" if shift else "cannot be told")
    equal = [Run({**run.content, "metrics": {"validation_accuracy": 0.5}}, run.arm) for run in runs]
    table = report.claims_table({"base-model": ("03_base_model", Runs("s", equal))})
    assert table["verdict"].tolist() == ["cannot be told", "cannot be told", "holds"]


def moved(run, shift):
    """Return a run at 50 % that differs from its neighbours by a little, and, in arm R4, by ``shift``."""
    value = 0.5 + 0.002 * run.seed if shift is None else 0.5 + 0.001 * run.seed + shift * (run.arm == "R4")
    value += 0.001 * (shift is None and run.arm == "R4") * (-1) ** run.seed
    return Run({**run.content, "metrics": {"validation_accuracy": value}}, run.arm)


def test_the_record_bears_out_every_sentence_that_rests_on_it():
    lines = [line for path in settings.GENERATED.glob("texts/*.tex") for line in path.read_text().splitlines()]
    assert [line for line in lines if show.FAILS in line] == []
    assert sum(line.startswith(f"% {show.HOLDS}: ") for line in lines) >= 2 * 13


def test_the_rule_of_evidence_errs_as_seldom_as_the_report_says():
    rates = json.loads((settings.DATA / "runs" / "measured" / "00-error-rate.json").read_text())["value"]
    assert rates["error-3-seeds"] <= 7 and rates["error-6-seeds"] <= 7
    assert rates["separable"] > rates["separable-in-pairs"]


def test_it_quotes_what_a_script_wrote_has_a_section_of_every_notebook_and_cites_all_whose_figures_it_quotes():
    assert report.check() == []
    text = (settings.ROOT / "report" / "report.tex").read_text()
    for path in sorted(settings.NOTEBOOKS.glob("[0-9][0-9]_*.ipynb")):
        assert rf"\input{{sections/{path.stem}}}" in text, f"{path.stem} has no section in the report"
    prose = "\n".join(path.read_text() for path in report.texts())
    citations = re.findall(r"\\cite[tp]?\*?(?:\[[^\]]*\])*\{([^}]*)\}", prose)
    cited = {key.strip() for keys in citations for key in keys.split(",")}
    assert {figure.report for figure in published_figures().values()} <= cited


def test_every_committed_figure_table_and_text_has_a_notebook_that_writes_it():
    cells = "".join(path.read_text() for path in sorted(settings.NOTEBOOKS.glob("*.ipynb")))
    written = [re.sub(r"{.*?}", "[a-z]+", name) for name in re.findall(r'\\"(\d\d-[a-z0-9{}_-]+)\\"', cells)]
    names = {path.stem for kind in ("figures", "tables", "texts") for path in (settings.GENERATED / kind).iterdir()}
    left = [
        name
        for name in names - {"claims", "data", "environments", "studies"}
        if not re.fullmatch("|".join(written), name)
    ]
    assert not left, f"no notebook writes {', '.join(left)} any more: git rm what is left of it in report/generated"


def test_the_committed_pdf_was_built_from_the_committed_sources():
    assert built_from((report.FOLDER / "report.pdf").read_bytes()) == report.sources_hash()


@needs_latex
def test_the_committed_pdf_is_rebuilt_to_the_byte(tmp_path):
    committed = (report.FOLDER / "report.pdf").read_bytes()
    rebuilt = report.compile_pdf(build=tmp_path)
    tex = re.compile(rb"/Producer ?\(([^)]*)\)")
    if tex.search(rebuilt)[1] != tex.search(committed)[1]:
        pytest.skip(f"committed with {tex.search(committed)[1].decode()}, here is {tex.search(rebuilt)[1].decode()}")
    assert rebuilt == committed
