"""The explorer page: what it holds, and what a real browser makes of it when a reader uses mouse and keyboard."""

import base64
import json
import re
from io import BytesIO

import numpy as np
import pytest
from browser import Tab, browser
from PIL import Image
from scipy.spatial import cKDTree

from helpers.latent import explorer_page, latent_page
from helpers.latent import plots as latent_plots
from helpers.latent.store import load_coordinates
from helpers.record import Run, unpack
from helpers.settings import embeddings_folder, runs_folder
from helpers.style import class_colours

CLASSES = ("cat", "dog", "ship")
PART = np.arange(5, 600, 3)


@pytest.fixture(scope="module")
def content():
    """600 pictures in two views: three stages of all, two of a third of them; two stages have answers."""
    random = np.random.default_rng(0)
    labels = np.arange(600) // 200
    corners = np.array([[0, 0], [9, 0], [0, 9]])[labels]
    every = {epoch: corners * epoch / 4 + random.normal(0, 1.5, (600, 2)) for epoch in (0, 2, 4)}
    part = {epoch: np.where(np.isin(np.arange(600), PART)[:, None], every[4] + epoch, np.nan) for epoch in (0, 1)}
    answers = {0: np.zeros(600, int), 4: np.where(np.arange(600) % 50 == 17, 2 - labels, labels)}
    shades = (np.arange(600) % 200 + 28).astype(np.uint8)[:, None, None, None]
    return {"all": every, "a third": part}, labels, CLASSES, answers, np.broadcast_to(shades, (600, 3, 32, 32))


def page_of(content, pictures=False, **more):
    *rest, answers, images = content
    return explorer_page(*rest, answers=answers, images=images if pictures else None, **more)


def data_of(page: str) -> dict:
    return json.loads(re.search(r'id="data">(.*?)</script>', page, re.DOTALL)[1])


def array_of(text: str, kind: str = "u1") -> np.ndarray:
    return np.frombuffer(base64.b64decode(text), kind)


def drawn(stage: dict) -> np.ndarray:
    return array_of(stage["steps"], "<u2").reshape(-1, 2) * stage["scale"] + stage["offset"]


def test_the_page_holds_points_classes_and_answers_and_no_address(content):
    views, labels, _, answers, _ = content
    page = page_of(content, title="R2 & <its> latents")
    data = data_of(page)
    assert data["points"] == 600 and data["classes"] == list(CLASSES)
    assert data["colours"] == list(class_colours(CLASSES).values())
    assert np.array_equal(array_of(data["labels"]), labels)
    assert list(map(int, data["answers"])) == list(answers)
    assert all(np.array_equal(array_of(text), answers[int(epoch)]) for epoch, text in data["answers"].items())
    for view, (name, stages) in zip(data["views"], views.items(), strict=True):
        here = np.arange(600) if view["members"] is None else array_of(view["members"], "<u4")
        assert view["name"] == name and np.array_equal(here, PART if name == "a third" else np.arange(600))
        for stage, (epoch, Y) in zip(view["stages"], stages.items(), strict=True):
            assert stage["epoch"] == epoch and np.abs(drawn(stage) - Y[here]).max() < 1e-3
    assert "<title>R2 &amp; &lt;its&gt; latents</title>" in page
    assert "://" not in page and "default-src 'none'" in page
    assert data["pictures"] is None and "image/webp;base64,U" not in page
    # Nor can the name of a class break it.
    names = ("</script><script>alert(1)", '"quoted"', "ünï")
    page = explorer_page(views, labels, names, answers=answers)
    assert data_of(page)["classes"] == list(names) and page.count("</script>") == 2


def test_pictures_stand_in_rows_of_sheets_and_arrays_that_do_not_fit_are_refused(content):
    pictures = data_of(page_of(content, pictures=True))["pictures"]
    assert {name: pictures[name] for name in ("size", "columns", "each")} == {"size": 32, "columns": 20, "each": 500}
    sheets = [np.asarray(Image.open(BytesIO(base64.b64decode(text))).convert("RGB")) for text in pictures["sheets"]]
    assert [sheet.shape for sheet in sheets] == [(25 * 32, 640, 3), (5 * 32, 640, 3)]
    for i in (0, 17, 20, 499, 500, 599):
        row, column = divmod(i % 500, 20)
        tile = sheets[i // 500][row * 32 + 2 : row * 32 + 30, column * 32 + 2 : column * 32 + 30]
        assert np.abs(tile.astype(int) - (i % 200 + 28)).max() <= 4, i
    views, labels, _, answers, images = content
    Y = views["all"][0]
    for wrong in ({"views": {"all": {0: Y[1:]}}}, {"answers": {0: answers[0][1:]}}, {"images": images[1:]}):
        given = {"views": {"all": {0: Y}}, "answers": answers} | wrong
        with pytest.raises(ValueError, match="600 labels do not go together with .*599"):
            explorer_page(labels=labels, classes=CLASSES, **given)


def test_the_page_of_a_run_holds_what_is_kept_of_it_and_needs_no_data_set(monkeypatch):
    monkeypatch.setattr(latent_plots, "pictured", lambda *_: pytest.fail("asked for images"))
    (folder,) = {path.parent for path in embeddings_folder().glob("*/answers-*.json")}
    key, device = folder.name.split("-")
    run = Run(json.loads((runs_folder() / device / f"{key}.json").read_text()), "R2")
    layers = {"convolutions": "flatten", "last hidden layer": "fc2_relu"}
    page = latent_page(run, layers, (0, 10, 20), film=("fc2_relu", 3_000))
    data = data_of(page)
    assert len(page) < 2_500_000 and "<title>The latent space of R2</title>" in page
    film = data["views"][2]
    assert [view["name"] for view in data["views"]] == [*layers, "last hidden layer, every epoch (3,000 pictures)"]
    assert [stage["epoch"] for stage in film["stages"]] == list(range(21))
    for view, layer in zip(data["views"], ("flatten", "fc2_relu", "fc2_relu"), strict=True):
        for stage in view["stages"]:
            places = drawn(stage)
            assert len(places) == (3_000 if view is film else 45_000)
            kept = [load_coordinates(path)[0] for path in folder.glob(f"{layer}-{stage['epoch']:03}-*.npz")]
            same = [len(Y) == len(places) and np.abs(Y - places).max() < 0.01 for Y in kept]
            assert sum(same) == 1, (view["name"], stage["epoch"])
    labels, members = array_of(data["labels"]), array_of(film["members"], "<u4")
    assert np.array_equal(np.bincount(labels), run.confusion["train"].sum(axis=1))
    for count, part in ((45_000, slice(None)), (3_000, members)):
        kept = [json.loads(path.read_text()) for path in folder.glob("answers-020-*.json")]
        (kept,) = [each for each in kept if len(unpack(each["labels"])) == count]
        assert np.array_equal(unpack(kept["labels"]), labels[part])
        assert np.array_equal(unpack(kept["answers"]), array_of(data["answers"]["20"])[part])


class Explorer(Tab):
    """The page in a browser, and a hand on its mouse and keys."""

    def show(self, path):
        self.open(path.as_uri())
        self.until("typeof view === 'object' && !scheduled")

    def mouse(self, kind, x, y, **more):
        left, top = self.run("[map.getBoundingClientRect().left, map.getBoundingClientRect().top]")
        self.call("Input.dispatchMouseEvent", type=kind, x=left + x, y=top + y, **more)
        self.settled()

    def keys(self, *several):
        for key in several:
            text = {"text": key} if len(key) == 1 else {}
            self.call("Input.dispatchKeyEvent", type="keyDown", key=key, **text)
            self.call("Input.dispatchKeyEvent", type="keyUp", key=key)
        self.settled()

    def settled(self):
        self.run("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")

    def told(self):
        return self.run("tip.hidden ? null : [...byId('text').children].map((line) => line.textContent)")

    def places(self):
        """Return the places of all pictures on the map, (N, 2), NaN for those that the view lacks."""
        view, layer, stage = self.run("[view, layer, stage]")
        page = data_of(self.run("document.documentElement.outerHTML"))
        here = page["views"][layer]
        members = np.arange(page["points"]) if here["members"] is None else array_of(here["members"], "<u4")
        Y = np.full((page["points"], 2), np.nan)
        Y[members] = drawn(here["stages"][stage])
        return np.array([view["x"], view["y"]]) + view["zoom"] * Y * [1, -1]


@pytest.fixture(scope="module")
def chromium(tmp_path_factory):
    with browser(tmp_path_factory.mktemp("profile"), Explorer) as tab:
        tab.resize(1000, 800)
        yield tab


@pytest.fixture(scope="module")
def page(content, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "page.html"
    path.write_text(page_of(content, pictures=True), encoding="utf-8")
    return path


@pytest.fixture
def opened(chromium, page):
    """The page with its pictures, at its first stage."""
    chromium.show(page)
    return chromium


def hovered_as_the_nearest(browser, places, among, random):
    """Assert that the picture under the mouse is the one of ``among`` that a k-d tree finds within reach."""
    tree, size = cKDTree(places[among]), browser.run("[map.clientWidth, map.clientHeight]")
    near = places[random.choice(among, 25)] + random.normal(0, 9, (25, 2))
    hits = 0
    for x, y in near[((near > 1) & (near < np.array(size) - 1)).all(axis=1)].round():
        browser.mouse("mouseMoved", x, y)
        distance, which = tree.query((x, y))
        if abs(distance - 12) > 0.01:
            told = browser.told()
            assert (told and told[2]) == (f"picture {among[which]}" if distance < 12 else None), (x, y, distance)
            hits += distance < 12
    return hits


def test_the_nearest_picture_is_the_one_that_a_tree_finds(opened):
    random, every = np.random.default_rng(1), np.arange(600)
    places = opened.places()
    assert hovered_as_the_nearest(opened, places, every, random) > 5
    x, y = places[300].round()
    opened.mouse("mouseWheel", x, y, deltaX=0, deltaY=-600)
    zoomed = opened.places()
    assert np.ptp(zoomed[:, 0]) > 4 * np.ptp(places[:, 0]) and np.abs(zoomed[300] - places[300]).max() < 4
    inside = np.flatnonzero((np.abs(zoomed - [x, y]) < 200).all(axis=1))
    assert len(inside) and hovered_as_the_nearest(opened, zoomed, every, random) >= 0
    opened.mouse("mouseMoved", *zoomed[300].round())
    assert opened.told()[2] == f"picture {cKDTree(zoomed).query(zoomed[300].round())[1]}"
    opened.mouse("mousePressed", 400, 300, button="left", buttons=1, clickCount=1)
    opened.mouse("mouseMoved", 360, 330, button="left", buttons=1)
    opened.mouse("mouseReleased", 360, 330, button="left", clickCount=1)
    assert np.allclose(opened.places(), zoomed + [-40, 30], atol=1e-6)
    opened.keys("0")
    assert np.allclose(opened.places(), places)
    opened.run("byId('legend').children[1].click()")
    rest = every[(every < 200) | (every >= 400)]
    assert hovered_as_the_nearest(opened, places, rest, random) > 5
    opened.keys("ArrowDown")
    assert hovered_as_the_nearest(opened, opened.places(), np.setdiff1d(PART, range(200, 400)), random) > 5


def test_a_point_tells_class_answer_number_and_picture_of_that_stage(opened, content):
    opened.keys("ArrowRight", "ArrowRight")
    for i, lines in ((217, ["dog", "recognised"]), (67, ["cat", "taken for ship"]), (599, ["ship", "recognised"])):
        opened.run(f"choose({i})")
        opened.settled()
        assert opened.told() == [*lines, f"picture {i}"]
        shade = "[...thumb.getContext('2d').getImageData(16, 16, 1, 1).data]"
        opened.until(f"{shade}[3] === 255")
        assert abs(opened.run(shade)[0] - (i % 200 + 28)) <= 4
    opened.keys("ArrowLeft")
    assert opened.told() == ["ship", "", "picture 599"], "after epoch 2 no answers were kept"


def test_search_finds_a_picture_and_a_class(opened):
    opened.keys("/", *"417")
    place = opened.run("(({ x, y, width }) => [x + width / 2, y + width / 2])(ring.getBoundingClientRect())")
    corner = opened.run("[map.getBoundingClientRect().left, map.getBoundingClientRect().top]")
    assert np.allclose(np.subtract(place, corner), opened.places()[417], atol=1) and opened.told()[2] == "picture 417"
    opened.run("closer(30, 0, 0)")
    opened.keys("Escape", "/", *"12", "Enter")
    place, size = opened.places()[12], np.array(opened.run("[map.clientWidth, map.clientHeight]"))
    assert ((place > 0) & (place < size)).all(), "it is moved into sight"
    opened.keys("Escape", "/", *"dO")
    assert opened.run("[...lit].flatMap((is, i) => is ? [i] : [])") == list(range(200, 400))
    opened.keys("Enter")
    assert opened.told()[::2] == ["dog", "picture 200"] and "200 of dog" in opened.run("byId('found').textContent")
    opened.keys("Enter")
    assert opened.told()[::2] == ["dog", "picture 201"]
    for words, said in (("600", "the last picture is 599"), ("xyz", "no class begins with this")):
        opened.keys("Escape", "/", *words)
        assert opened.run("byId('found').textContent") == said and opened.told() is None
    opened.keys("Escape")
    assert opened.run("[lit.every((is) => is), byId('search').value, byId('found').textContent]") == [True, "", ""]
    opened.keys("ArrowDown", "/", "6")
    assert opened.run("byId('found').textContent") == "picture 6 is not in this part"


def test_keys_step_through_stages_layers_and_colours(opened, content):
    views = content[0]
    where = "[layer, stage, byId('when').textContent, Number(byId('stage').value)]"
    assert opened.run(where) == [0, 0, "before training", 0]
    opened.keys("ArrowRight")
    assert opened.run(where) == [0, 1, "after epoch 2", 1]
    opened.keys("ArrowRight", "ArrowRight")
    assert opened.run(where) == [0, 2, "after epoch 4", 2]
    assert np.abs(np.reshape(opened.run("[...at.slice(0, 1200)]"), (600, 2)) - views["all"][4]).max() < 1e-3
    opened.keys("ArrowDown")
    assert opened.run(where) == [1, 1, "after epoch 1", 1] and opened.run("isNaN(at[0]) && !isNaN(at[10])")
    opened.keys("ArrowUp", "ArrowLeft")
    assert opened.run(where) == [0, 0, "before training", 0]
    opened.keys("/", "c", "ArrowRight")
    assert opened.run("[byId('search').value, mode]") == ["c", "class"] and opened.run(where)[1] == 0
    opened.keys("Escape")
    before = opened.run("view.zoom")
    opened.keys("+", "c")
    assert opened.run("[view.zoom, mode]") == [pytest.approx(1.5 * before), "prediction"]
    controls = ("button", "slider", "searchbox")
    nodes = opened.call("Accessibility.getFullAXTree")["nodes"]
    named = {node["name"]["value"] for node in nodes if node["role"]["value"] in controls}
    assert {"all", "a third", "class", "prediction", "right or wrong", "closer", "farther"} <= named


def test_colours_are_what_the_page_says_they_are(opened, content):
    labels, answers = content[1], content[3]
    painted = """(() => {
      const bits = new Uint32Array(context.getImageData(0, 0, map.width, map.height).data.buffer);
      return modes[mode].colours.map(packed).map((c) => bits.reduce((n, p) => n + (p === c), 0));
    })()"""
    legend = "[...byId('legend').children].map((button) => button.textContent)"
    assert opened.run(legend) == ["cat 200", "dog 200", "ship 200"] and min(opened.run(painted)) > 500
    opened.run("byId('legend').children[1].click()")
    opened.settled()
    assert [count > 0 for count in opened.run(painted)] == [True, False, True]
    opened.run("colourBy('prediction')")
    opened.settled()
    assert opened.run(legend) == ["cat 600", "dog 0", "ship 0"] and opened.run(painted)[1:] == [0, 0]
    opened.keys("ArrowRight")
    assert opened.run(legend) == [] and "after epoch 2 was not kept" in opened.run("byId('meaning').textContent")
    opened.keys("ArrowRight")
    assert opened.run(legend) == [f"{name} {(answers[4] == k).sum()}" for k, name in enumerate(CLASSES)]
    opened.run("colourBy('right or wrong')")
    wrong = np.flatnonzero(answers[4] != labels).tolist()
    assert opened.run(legend) == [f"right {600 - len(wrong)}", f"wrong {len(wrong)}"]
    assert sorted(opened.run(f"[...queue.slice(-{len(wrong)})]")) == wrong
    assert "has learned from these very pictures" in opened.run("byId('meaning').textContent")


def test_the_page_alone_is_enough_without_pictures_and_in_the_dark(chromium, content, tmp_path):
    path = tmp_path / "page.html"
    path.write_text(page_of(content), encoding="utf-8")
    chromium.show(path)
    paper = "getComputedStyle(document.body).backgroundColor"
    assert chromium.run(paper) == "rgb(255, 255, 255)"
    chromium.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark"}])
    chromium.settled()
    assert sum(map(int, re.findall(r"\d+", chromium.run(paper)))) < 100
    assert chromium.run("context.getImageData(0, 0, 1, 1).data[3]") == 0, "the paper shows between the points"
    chromium.call("Emulation.setEmulatedMedia", features=[])
    chromium.mouse("mouseMoved", *chromium.places()[5].round())
    assert chromium.told() and chromium.run("thumb.hidden")
    assert set(chromium.requests()) <= {path.as_uri()}, "a page without network asks for itself alone"
    assert chromium.problems() == []
