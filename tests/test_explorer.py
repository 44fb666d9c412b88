"""The explorer page: what it holds, and what a real browser makes of it."""

import base64
import json
import re
import subprocess
from io import BytesIO

import numpy as np
import pytest
from browser import COMMAND, needs_browser
from PIL import Image

from helpers.latent import explorer_page
from helpers.style import class_colours

CLASSES = ("cat", "dog", "ship")


def written(path, *content, **more):
    path.write_text(explorer_page(*content, **more), encoding="utf-8")
    return path


@pytest.fixture
def points():
    random = np.random.default_rng(0)
    labels = np.arange(300) % 3
    end = np.array([[0, 0], [9, 0], [0, 9]])[labels] + random.normal(0, 0.7, (300, 2))
    stages = {"start": random.normal(0, 3, (300, 2)), "end": end}
    predictions = np.where(np.arange(300) % 50 == 17, 0, labels)
    images = np.broadcast_to((np.arange(300) % 200 + 28).astype(np.uint8)[:, None, None, None], (300, 3, 32, 32))
    return stages, labels, predictions, images


def data_of(page: str) -> dict:
    return json.loads(re.search(r'id="data">(.*?)</script>', page, re.DOTALL)[1])


# --- What the page holds. ---


def test_the_page_holds_points_classes_and_predictions_and_no_address(points):
    stages, labels, predictions, _ = points
    page = explorer_page(stages, labels, CLASSES, predictions=predictions, title="R2 & <its> latents")
    data = data_of(page)
    assert data["points"] == 300 and data["classes"] == list(CLASSES)
    assert data["colours"] == list(class_colours(CLASSES).values())
    assert np.array_equal(np.frombuffer(base64.b64decode(data["labels"]), np.uint8), labels)
    assert np.array_equal(np.frombuffer(base64.b64decode(data["predictions"]), np.uint8), predictions)
    for stage, Y in zip(data["stages"], stages.values(), strict=True):
        steps = np.frombuffer(base64.b64decode(stage["steps"]), "<u2").reshape(-1, 2)
        assert np.abs(steps * stage["scale"] + stage["offset"] - Y).max() < 1e-3
    assert "<title>R2 &amp; &lt;its&gt; latents</title>" in page
    assert "://" not in page and "default-src 'none'" in page
    assert "sprite" not in data and '<img id="sprite"' not in page


def test_class_names_cannot_break_the_page(points):
    names = ("</script><script>alert(1)", '"quoted"', "ünï")
    page = explorer_page(*points[:2], names, predictions=points[2])
    assert data_of(page)["classes"] == list(names) and page.count("</script>") == 2


def test_images_stand_in_rows_of_one_picture(points):
    stages, labels, predictions, images = points
    page = explorer_page(stages, labels, CLASSES, predictions=predictions, images=images)
    assert data_of(page)["sprite"] == {"size": 32, "columns": 18}
    encoded = re.search(r'src="data:image/jpeg;base64,([^"]+)"', page)[1]
    sheet = np.asarray(Image.open(BytesIO(base64.b64decode(encoded))))
    assert sheet.shape == (17 * 32, 18 * 32, 3)
    for i in (0, 17, 18, 299):
        row, column = divmod(i, 18)
        tile = sheet[row * 32 : (row + 1) * 32, column * 32 : (column + 1) * 32]
        assert np.abs(tile.astype(int) - images[i, 0, 0, 0]).max() <= 3, i


def test_the_file_is_small_without_images():
    labels = np.arange(45_000) % 10
    stages = {name: np.random.default_rng(0).normal(size=(45_000, 2)) for name in ("beginning", "middle", "end")}
    assert len(explorer_page(stages, labels, [str(i) for i in range(10)], predictions=labels)) < 1_000_000


def test_arrays_that_do_not_fit_are_refused(points):
    stages, labels, predictions, images = points
    for change in ({"stages": {"end": stages["end"][1:]}}, {"predictions": labels[1:]}, {"images": images[1:]}):
        given = {"stages": stages, "predictions": predictions} | change
        with pytest.raises(ValueError, match="300 labels do not go together with .*299"):
            explorer_page(labels=labels, classes=CLASSES, **given)
    with pytest.raises(ValueError, match="do not fit into one picture"):
        large = np.broadcast_to(np.uint8(0), (300, 3, 1000, 1000))
        explorer_page(stages, labels, CLASSES, predictions=predictions, images=large)


# --- In a browser. ---

# What a reader does, and notes of what is then on the page. Functions declared by the page can be called by their name.
PROBE = """
<script>
addEventListener("load", () => {
  const notes = {}, box = map.getBoundingClientRect();
  const point = (i) => map.dispatchEvent(new PointerEvent("pointermove",
    { clientX: box.left + toX(i), clientY: box.top + toY(i), bubbles: true }));
  const text = () => tip.hidden ? null : [...byId("text").children].map((e) => e.textContent);
  const colours = () => {
    const pixels = new Uint32Array(context.getImageData(0, 0, map.width, map.height).data.buffer), count = {};
    for (const p of pixels) count[p] = (count[p] || 0) + 1;
    return data.colours.map((_, c) => count[rgba[c]] || 0);
  };
  notes.drawn = colours();
  PROBE_BODY
  const note = document.createElement("pre");
  note.id = "notes";
  note.textContent = JSON.stringify(notes);
  document.body.append(note);
});
</script></body>
"""


def browse(path, body: str) -> dict:
    page = path.read_text().replace("</body>", PROBE.replace("PROBE_BODY", body))
    probe = path.with_name("probe.html")
    probe.write_text(page)
    profile = f"--user-data-dir={path.parent / 'profile'}"
    command = [*COMMAND, "--window-size=1000,800", profile, "--force-prefers-reduced-motion"]
    done = subprocess.run([*command, "--dump-dom", probe.as_uri()], capture_output=True, text=True, timeout=300)
    found = re.search(r'<pre id="notes">(.*?)</pre>', done.stdout, re.DOTALL)
    assert found, done.stderr[-2000:] + done.stdout[-2000:]
    return json.loads(found[1].replace("&gt;", ">").replace("&lt;", "<").replace("&amp;", "&"))


@needs_browser
def test_a_browser_shows_class_prediction_and_image_of_the_point_under_the_mouse(points, tmp_path):
    stages, labels, predictions, images = points
    path = written(tmp_path / "page.html", stages, labels, CLASSES, predictions=predictions, images=images)
    notes = browse(
        path,
        """
        point(17); notes.wrong = [hovered, text()];
        notes.grey = [...byId("thumb").getContext("2d").getImageData(16, 16, 1, 1).data];
        point(18); notes.right = [hovered, text()];
        dispatchEvent(new KeyboardEvent("keydown", { key: "ArrowRight" }));
        notes.stage = [stage, tip.hidden, stages[stage].name];
        byId("classes").children[1].click();
        notes.without = colours();
        point(19); notes.hidden = hovered === 19;
        map.dispatchEvent(new PointerEvent("pointermove", { clientX: box.left + 1, clientY: box.top + 1 }));
        notes.nothing = [hovered, text()];
        const before = [toX(40), toY(40)];
        map.dispatchEvent(new WheelEvent("wheel",
          { deltaY: -300, clientX: box.left + before[0], clientY: box.top + before[1] }));
        notes.zoomed = [view.zoom > 1.9 * home.zoom, Math.hypot(toX(40) - before[0], toY(40) - before[1])];
        point(42); notes.after = data.classes[labels[hovered]];
        """,
    )
    assert all(count > 100 for count in notes["drawn"])
    assert notes["wrong"] == [17, ["ship", "taken for cat", "image 17"]]
    assert abs(notes["grey"][0] - (17 + 28)) <= 3 and notes["grey"][3] == 255
    assert notes["right"] == [18, ["cat", "recognised", "image 18"]]
    assert notes["stage"] == [1, True, "end"]
    assert notes["without"][1] == 0 and notes["without"][0] > 100
    assert not notes["hidden"] and notes["nothing"] == [-1, None]
    assert notes["zoomed"][0] and notes["zoomed"][1] < 2  # a wheel's place is in whole pixels
    assert notes["after"] == "cat"


@needs_browser
def test_forty_five_thousand_points_are_drawn_and_found_at_once(tmp_path):
    random = np.random.default_rng(0)
    labels = np.arange(45_000) % 10
    Y = random.uniform(-70, 70, (10, 2))[labels] + random.normal(0, 10, (45_000, 2))
    path = written(tmp_path / "page.html", {"end": Y}, labels, [f"class {i}" for i in range(10)], predictions=labels)
    notes = browse(
        path,
        """
        const timed = (work, n) => {
          const once = () => { const t = performance.now(); work(); return performance.now() - t; };
          const times = Array.from({ length: n }, once);
          return times.sort((a, b) => a - b)[0];
        };
        notes.loop = timed(() => { let s = 0; for (let i = 0; i < 1e7; i++) s += Math.sqrt(i); return s; }, 10);
        notes.draw = timed(draw, 10);
        notes.find = timed(() => { for (let i = 0; i < 100; i++) nearest(toX(i * 437), toY(i * 437)); }, 10) / 100;
        notes.exact = Array.from({ length: 200 }, (_, k) => k * 220).filter((i) => {
          const x = toX(i), y = toY(i) + 3, found = nearest(x, y);
          let least = Infinity;
          for (let j = 0; j < N; j++) least = Math.min(least, Math.hypot(toX(j) - x, toY(j) - y));
          return Math.abs(Math.hypot(toX(found) - x, toY(found) - y) - least) < 1e-3;
        }).length;
        """,
    )
    assert notes["exact"] == 200
    assert sum(notes["drawn"]) > 45_000
    # Against a plain loop in the same page, some 10 ms on a quiet machine: a busy one says nothing about the page.
    assert notes["draw"] < 10 * notes["loop"] and notes["find"] < notes["loop"]
