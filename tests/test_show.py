from functools import partial
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib import pyplot

from helpers import settings, show
from helpers.data import DataMissing
from helpers.style import new_figure


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Generated files and measurements go to a temporary folder; what is displayed is collected."""
    for module in (show, settings):
        monkeypatch.setattr(module, "generated_folder", lambda: tmp_path / "generated")
    monkeypatch.setattr(show, "GENERATED", tmp_path / "generated")
    monkeypatch.setattr(show, "runs_folder", lambda: tmp_path / "runs")
    return tmp_path


@pytest.fixture
def shown(monkeypatch):
    objects = []
    monkeypatch.setattr(show, "display", lambda *several: objects.extend(several))
    return objects


def draw():
    figure = new_figure(1.0)
    figure.subplots().plot([1, 3, 2])
    return figure


refuse = partial(pytest.fail, "nothing is drawn without the data set")
HERE, ABSENT = (SimpleNamespace(name="cifar10", available=lambda here=here: here) for here in (True, False))


def test_a_figure_is_shown_with_its_description_and_kept_and_only_written_when_it_changes(folder, shown):
    show.figure("03-line", draw, caption="A line of 3 points, 95 % `sure`.", alt="It rises, then falls.")
    image, caption = shown
    kept = folder / "generated" / "figures"
    assert image.data == (kept / "03-line.png").read_bytes()
    assert image.metadata["alt"] == "It rises, then falls." and image.width == 693
    assert caption.data == "A line of 3 points, 95 % `sure`."
    text = (kept / "03-line.tex").read_text()
    assert r"\caption{A line of 3 points, 95\,\% \texttt{sure}. \madeby{03}}" in text
    assert r"\includegraphics[alt={It rises, then falls.}]{generated/figures/03-line.pdf}" in text
    assert repr(image) == "<IPython.core.display.Image object>"  # no address that would change
    before = [path.stat().st_mtime_ns for path in sorted(kept.iterdir())]
    show.figure("03-line", draw, caption="A line of 3 points, 95 % `sure`.", alt="It rises, then falls.")
    assert [path.stat().st_mtime_ns for path in sorted(kept.iterdir())] == before and len(before) == 3


def test_without_its_data_set_a_figure_is_shown_as_committed(folder, shown, capsys):
    show.figure("01-classes", draw, caption="Old.", alt="Old.", needs=HERE)
    committed = shown[0].data
    show.figure("01-classes", refuse, caption="New.", alt="New.", needs=ABSENT)
    assert shown[2].data == committed
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "cifar10 is absent" in said and "01-classes" in said
    assert "New." in (folder / "generated" / "figures" / "01-classes.tex").read_text()
    with pytest.raises(DataMissing, match="data/README.md"):  # nor is there a committed picture
        show.figure("01-other", refuse, caption="New.", alt="New.", needs=ABSENT)


def test_a_figure_needs_a_name_with_its_notebook_and_alt_text_and_is_not_left_open_to_be_shown_twice(folder, shown):
    for name in ("curves", "3-curves", "03_curves", "03-Curves", "../03-curves"):
        with pytest.raises(ValueError, match="notebook's number"):
            show.figure(name, draw, caption="A.", alt="A.")
    with pytest.raises(ValueError, match="alt text"):
        show.figure("03-line", draw, caption="A line.", alt=" ")
    show.figure("03-line", lambda: pyplot.subplots()[0], caption="A.", alt="A.")
    assert not pyplot.get_fignums()


def test_a_rehearsal_writes_elsewhere(shown, monkeypatch):
    monkeypatch.setenv("COURSE_SMOKE", "1")
    show.figure("99-rehearsal", draw, caption="A.", alt="A.")
    assert not (settings.GENERATED / "figures" / "99-rehearsal.png").exists()
    assert (settings.generated_folder() / "figures" / "99-rehearsal.png").exists()
    for folder in (settings.runs_folder, settings.embeddings_folder, settings.networks_folder, settings.pages_folder):
        assert not folder().is_relative_to(settings.ROOT)


def test_latex_prints_special_characters_as_they_are():
    assert show.escape(r"50 % & $5_{#}~^\ <a>") == (
        r"50\,\% \& \$5\_\{\#\}\textasciitilde{}\textasciicircum{}\textbackslash{} \textless{}a\textgreater{}"
    )
    assert show.markdown("`a_b` is $x_1$, 5 %") == r"\texttt{a\_b} is $x_1$, 5\,\%"
    assert show.escape("-8.7 points [-11.8, -5.6], (-1)") == "$-$8.7 points [$-$11.8, $-$5.6], ($-$1)"
    for no_sign in ("kernels 7-5-3", "1e-06", "2026-11-29", "R2-1", "one-cycle"):
        assert show.escape(no_sign) == no_sign
    with pytest.raises(ValueError, match="✓"):
        show.escape("right ✓")
    name = "pacs:style?styles=art_painting,photo&balance=smallest"
    printed = r"pacs:style?styles=art\_painting,photo\&balance=smallest"
    assert show.markdown(name) == printed and show.markdown(f"`{name}`") == rf"\texttt{{{printed}}}"


def test_numbers_with_and_without_half_widths_are_aligned_and_text_is_not():
    figures = {("test", "ours"): ["83.02 ± 1.25", "–"], ("test", "theirs"): ["1,083.00", "7"]}
    columns = {("", "net"): ["R2", "a_b"], **figures, ("", "commit"): ["0123", "4567"]}
    content = pd.DataFrame(columns, index=["x & y", "z"])
    assert show.tabular(content).splitlines() == [
        r"\begin{tabular}{@{}llS[table-format=2.2]@{${}\pm{}$}S[table-format=1.2,table-number-alignment=left]S[table-format=4.2]l@{}}",
        r"\toprule",
        r" & \multicolumn{1}{c}{} & \multicolumn{3}{c}{test} & \multicolumn{1}{c}{} \\",
        r"\cmidrule(lr){3-5}",
        r" & \multicolumn{1}{l}{net} & \multicolumn{2}{c}{ours} & \multicolumn{1}{c}{theirs}"
        r" & \multicolumn{1}{l}{commit} \\",
        r"\midrule",
        r"x \& y & R2 & 83.02 & 1.25 & 1083.00 & 0123 \\",
        r"z & a\_b & \multicolumn{2}{c}{--} & 7 & 4567 \\",
        r"\bottomrule",
        r"\end{tabular}",
    ]


def test_a_table_and_a_sentence_are_shown_and_kept_for_report_and_readme(folder, shown, capsys):
    content = pd.DataFrame({"accuracy (%)": ["83.0 ± 0.4"]}, index=["R2"])
    show.table("03-table", content, caption="One net.")
    assert shown[0].data == "One net." and shown[1] is content
    kept = folder / "generated" / "tables"
    assert r"\caption{One net. \madeby{03}}" in (kept / "03-table.tex").read_text()
    assert (kept / "03-table.md").read_text() == "|  | accuracy (%) |\n| --- | --- |\n| R2 | 83.0 ± 0.4 |\n"
    show.sentence("03-finding", "R2 above R4 by 18 points")
    show.sentence("03-verdict", "A above B, 95% interval [1, 2]\nB and C: not separable")
    assert capsys.readouterr().out.splitlines()[0] == "R2 above R4 by 18 points"
    kept = folder / "generated" / "texts"  # several sentences become a list
    assert (kept / "03-finding.tex").read_text().endswith("\nR2 above R4 by 18 points%\n")
    assert r"  \item A above B, 95\% interval [1, 2]" in (kept / "03-verdict.tex").read_text()


def test_a_measurement_is_made_once_and_read_as_it_was_first_returned(folder, capsys):
    made = {"mean": torch.tensor([0.5, 0.25]), "n": np.int64(3), 7: np.array([[1]]), "z": (1, 2), "a": None}
    expected = {"mean": [0.5, 0.25], "n": 3, "7": [[1]], "z": [1, 2], "a": None}
    for compute in (lambda: made, lambda: pytest.fail("measured again")):
        value = show.measured("01-statistics", compute)
        assert value == expected and list(value) == list(expected)
    # Under other conditions it is made again.
    assert show.measured("12-quality", lambda: 1, of={"perplexity": 30}) == 1
    assert show.measured("12-quality", lambda: 2, of={"perplexity": 30}) == 1
    assert show.measured("12-quality", lambda: 3, of={"perplexity": 50}) == 3
    assert "12-quality" in capsys.readouterr().err
    assert show.measured("12-quality", lambda: 4, of={"perplexity": 50}) == 3


def test_a_damaged_or_impossible_measurement_is_told(folder):
    path = folder / "runs" / "measured" / "01-x.json"
    with pytest.raises(TypeError, match="object"):
        show.measured("01-x", object)
    assert not path.exists()
    show.measured("01-x", lambda: 1)
    for damaged in (path.read_text()[:7], '{"value": 1}'):
        path.write_text(damaged)
        with pytest.raises(ValueError, match="01-x.json is damaged"):
            show.measured("01-x", lambda: 1)


def test_what_is_taken_home_names_its_facts_and_says_when_one_fails(folder, capsys):
    kept = folder / "generated" / "texts" / "04-home.tex"
    show.takeaway("04-home", "Better is better.", rests_on={"better above base": True})
    assert capsys.readouterr().out == "Better is better.\n"
    assert "% holds: better above base\n" in kept.read_text() and "Better is better.%" in kept.read_text()
    show.takeaway("04-home", "Same is better.", rests_on={"same above base": False})
    assert capsys.readouterr().out.startswith("The record does not bear this out: same above base.\n")
    assert "% DOES NOT HOLD: same above base\n" in kept.read_text()
    with pytest.raises(ValueError, match="name the facts"):
        show.takeaway("04-home", "Trust me.", rests_on={})
