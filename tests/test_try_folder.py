"""A folder of one's own, end to end: the page's figures are true, troubles are named, and nothing is written over."""

import math
import re
from html import unescape

import numpy as np
import pytest
from PIL import Image
from scenes import contents, encoded, scene
from sklearn.metrics import accuracy_score, confusion_matrix
from taught import taught

from course import __main__ as command_line
from course import try_folder
from helpers.data import load
from helpers.models import build
from helpers.record import load_weights, read_run
from helpers.record import run as run_module
from helpers.settings import ROOT, pages_folder

CLASSES, EACH, SEEDS = ("red & <warm>", "море"), (30, 21), 2
pytestmark = pytest.mark.filterwarnings("ignore:left out")


@pytest.fixture(scope="module", autouse=True)
def elsewhere(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        data = tmp_path_factory.mktemp("data")
        patch.setattr(run_module, "runs_folder", lambda: data / "runs")
        patch.setitem(load.__kwdefaults__, "root", data)
        patch.setattr(try_folder, "KEPT", data / "tried")
        patch.setattr(try_folder, "CACHE", data / "cache")
        patch.setattr(try_folder, "pages_folder", lambda: data / "pages")
        yield data


def paint(folder, label, numbers):
    folder.mkdir(parents=True, exist_ok=True)
    for number in numbers:
        pixels = np.asarray(scene(1000 * label + number, (50, 40))).astype(int)
        pixels[..., 2 * label] += 40  # a little more red, or blue
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / f"{number}.png")


@pytest.fixture(scope="module")
def mine(tmp_path_factory):
    root = tmp_path_factory.mktemp("pictures") / "mine <i>"
    for label, (name, count) in enumerate(zip(CLASSES, EACH, strict=True)):
        paint(root / name, label, range(count))
    (root / CLASSES[0] / "notes.png").write_text("remember the milk")
    (root / CLASSES[1] / "empty.jpg").touch()
    copy = Image.open(root / CLASSES[0] / "3.png").resize((90, 70))
    (root / CLASSES[0] / "three again.jpg").write_bytes(encoded(copy, "JPEG", quality=80))
    return root


def tried(root, *words):
    return command_line.main(["try", str(root), "--seeds", str(SEEDS), "--epochs", "1", *words])


@pytest.fixture(scope="module")
def made(mine, elsewhere):
    before = contents(mine)
    assert tried(mine) == 0
    assert contents(mine) == before, "a reader's file was changed"
    path = elsewhere / "pages" / "try-mine <i>.html"
    return path, path.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def answers(mine, elsewhere, made):
    """Return the data set and each network's probabilities of the test pictures, (N, 2), from its kept weights."""
    data = load(f"folder:{mine}", root=elsewhere)
    found = []
    for seed in range(SEEDS):
        (path,) = (elsewhere / "tried").glob("*/cpu")
        experiment = try_folder.Experiment(dataset=data.name, epochs=1, seed=seed, **try_folder.RECIPE)
        model = build("r2", classes=2).eval()
        model.load_state_dict(load_weights(read_run(experiment, "cpu", folder=path.parent)))
        images = data.test.images.double() / 255
        normal = (images - data.mean.view(1, 3, 1, 1)) / data.std.view(1, 3, 1, 1)
        found.append(model(normal.float()).softmax(1).detach().numpy())
    return data, np.array(found)


def percent(share, digits=1):
    return f"{100 * share:.{digits}f}\u00a0%"


def wilson(p, n, z=1.959964):
    middle, half = p + z * z / (2 * n), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return (middle - half) / (1 + z * z / n), (middle + half) / (1 + z * z / n)


def test_accuracy_and_interval_are_those_of_the_kept_networks(made, answers):
    data, probabilities = answers
    labels, n = data.test.labels.numpy(), len(data.test)
    shares = [accuracy_score(labels, p.argmax(1)) for p in probabilities]
    mean = sum(shares) / 2
    by_picture = np.mean([p.argmax(1) == labels for p in probabilities], axis=0)
    seeds = 12.7062 * abs(shares[0] - shares[1]) / 2  # Student's t of one degree of freedom, times the standard error
    half = math.hypot(seeds, 1.959964 * by_picture.std(ddof=1) / math.sqrt(n))
    alone = wilson(round(mean * n) / n, n)
    low, high = max(0, min(mean - half, alone[0])), min(1, max(mean + half, alone[1]))
    assert f"<b>{percent(mean)}</b> of {n} pictures" in made[1]
    assert f"(95 % interval {percent(low)} to {percent(high)}; 2 trainings)" in made[1]


def test_colour_and_guessing_are_those_of_the_notebook_and_of_counting(made, answers):
    data, _ = answers
    lesson = taught("13", "colour_features", "colour_baseline")
    colour = lesson.colour_baseline(data)["test"]
    assert np.array_equal(try_folder.colour_features(data.test), lesson.colour_features(data.test))
    bars = dict(re.findall(r"<span>([^<]*)</span><span class=\"track\">.*?</span><span>([^<]*)</span>", made[1]))
    assert unescape(bars["colour alone"]) == percent(colour)
    counted = np.mean([name.startswith(CLASSES[0]) for name in data.test_names])
    assert bars["always “red &amp; &lt;warm&gt;”"] == percent(counted)


def test_confusions_are_in_percent_of_the_true_class_over_all_networks(made, answers):
    data, probabilities = answers
    labels = data.test.labels.numpy()
    shares = np.mean([confusion_matrix(labels, p.argmax(1), normalize="true") for p in probabilities], axis=0)
    cells, told = re.findall(r"--share:\d+%\">(\d+)</td>", made[1]), re.findall(r"<li>(.*?)</li>", made[1])
    assert [int(cell) for cell in cells] == [int(f"{100 * share:.0f}") for share in shares.ravel()]
    assert re.findall(r"class=\"of\">of (\d+)<", made[1]) == [str((labels == i).sum()) for i in range(2)]
    worst = sorted(((i, 1 - i) for i in range(2) if shares[i, 1 - i]), key=lambda pair: -shares[pair])
    words = [f"{CLASSES[i]} taken for {CLASSES[j]}: {percent(shares[i, j], 0)} of the time" for i, j in worst]
    assert [unescape(one) for one in told] == words


def test_the_worst_mistakes_come_first_with_their_files(made, answers, mine):
    data, probabilities = answers
    labels = data.test.labels.numpy()
    wrong = probabilities.argmax(2) != labels
    sure = np.ma.masked_array(probabilities.max(2), ~wrong).mean(0).filled(0)
    order = sorted(np.flatnonzero(wrong.any(0)), key=lambda i: (-wrong[:, i].sum(), -sure[i]))
    captions = re.findall(r"<figcaption>(.*?)</figcaption>", made[1])
    assert len(captions) == min(len(order), try_folder.MISTAKES) > 0
    for caption in captions:
        truth, count, confidence, name = re.fullmatch(
            r"(.*), taken for <b>.*</b> by (\d) of 2 trainings, (\d+)\xa0% sure<br>(.*)", unescape(caption)
        ).groups()
        (i,) = np.flatnonzero(data.test_names == name)
        assert truth == data.classes[labels[i]] == name.split("/")[0]
        assert int(count) == wrong[:, i].sum() and abs(int(confidence) - 100 * sure[i]) < 1.5
        shown = Image.open(mine / name).resize((32, 32), Image.Resampling.BICUBIC, box=(5, 0, 45, 40))
        assert np.abs(np.asarray(shown).astype(int) - data.test.images[i].permute(1, 2, 0).numpy()).max() <= 2
    told = [int(re.search(r"by (\d) of", caption)[1]) for caption in captions]
    assert told == [wrong[:, i].sum() for i in order][: len(told)]


def test_the_page_names_copies_and_broken_files_and_asks_for_nothing(made):
    text = made[1]
    assert "2 files cannot be read" in text and "1 files are copies" in text
    for name in ("red &amp; &lt;warm&gt;/notes.png", "море/empty.jpg", "red &amp; &lt;warm&gt;/three again.jpg"):
        assert f"<td>{name}</td>" in text
    assert "<i>" not in text.replace('<i style="left', "") and "<warm>" not in text
    assert re.findall(r"(?:src|href)=\"(?!data:)|url\(|@import|<script", text) == []
    assert "default-src 'none'" in text and "prefers-color-scheme: dark" in text and "@media print" in text


def test_the_same_pictures_are_not_trained_on_again_and_others_are(mine, made, monkeypatch, tmp_path, capsys):
    other = tmp_path / "other.html"
    monkeypatch.setattr(try_folder, "train_run", lambda *_, **__: pytest.fail("trained again"))
    assert tried(mine, "--out", str(other)) == 0 and f"{other}\n" in capsys.readouterr().out
    assert other.read_text(encoding="utf-8") == made[1]
    monkeypatch.setattr(try_folder, "WIDEST", 1)  # a matrix of two columns is too wide: the list stays
    assert tried(mine, "--out", str(other)) == 0
    matrix = re.compile(r'<div class="wide"><table class="matrix">.*?</div>\n', re.DOTALL)
    assert other.read_text(encoding="utf-8") == matrix.sub("", made[1]) != made[1]
    paint(mine / CLASSES[1], 1, [99])
    with pytest.raises(pytest.fail.Exception, match="trained again"):
        tried(mine)
    (mine / CLASSES[1] / "99.png").unlink()


def test_nobody_elses_file_is_written_over_and_a_file_and_a_rehearsal_are_refused(mine, tmp_path, monkeypatch, capsys):
    letter = tmp_path / "letter.html"
    letter.write_text("Dear diary")
    assert tried(mine, "--out", str(letter)) == 1 and letter.read_text() == "Dear diary"
    assert "letter.html is there already" in capsys.readouterr().err
    assert tried(mine, "--out", str(tmp_path)) == 1 and "is a folder" in capsys.readouterr().err
    (tmp_path / "one.png").write_bytes(encoded(scene(0), "PNG"))
    assert tried(tmp_path / "one.png") == 1 and "There is no folder" in capsys.readouterr().err
    monkeypatch.setenv("COURSE_SMOKE", "1")
    assert tried(tmp_path) == 1 and "a rehearsal looks at digits alone" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ({}, "There is no folder"),
        ({"a/0.png": None}, "few: 1, where 2 to 256"),
        ({"a/0.png": None, "a/1.png": None, "a/2.png": None, "b/0.png": None}, "different pictures .*: b has 1"),
        ({f"{c}/{i}.png": None if c == "a" else 7 for c in "ab" for i in range(4)}, "b has 1"),
    ],
)
def test_what_cannot_be_tried_is_refused_in_one_line(files, says, tmp_path, capsys):
    for seed, (name, content) in enumerate(files.items()):
        path = tmp_path / "few" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded(scene(content or 100 + seed), "PNG"))
    assert tried(tmp_path / "few") == 1
    told = capsys.readouterr().err.strip()
    assert re.search(f"^try: .*{says}", told) and len(told.splitlines()) == 1


def test_one_training_has_the_interval_of_its_pictures():
    right = {"test_accuracy": 0.9}
    run = run_module.Run({"metrics": right, "confusion": {"test": [[5, 1], [0, 4]]}})
    assert try_folder.accuracy([run]) == pytest.approx((0.9, *wilson(0.9, 10)), abs=1e-4)


def test_readme_and_help_name_the_folder_that_pages_are_written_to(capsys):
    place = pages_folder().relative_to(ROOT)
    assert f"`{place}/try-animals.html`" in (ROOT / "README.md").read_text()
    with pytest.raises(SystemExit):
        command_line.main(["try", "--help"])
    assert f"{place}/try-NAME.html" in "".join(capsys.readouterr().out.split())
