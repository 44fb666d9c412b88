"""A folder of one's own pictures: both layouts, odd pictures, and what is wrong with a folder."""

import numpy as np
import pytest
from PIL import Image

from helpers.data import DataError, DataMissing, folder, load
from helpers.data.images import read_picture

COLOURS = {"blue": (0, 0, 250), "green": (0, 250, 0), "red": (250, 0, 0)}


def paint(path, colour, shade):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (40, 36), tuple(max(value - shade, 0) for value in colour)).save(path)


def fill(root, per_class, names=COLOURS):
    for name in names:
        for number in range(per_class):
            paint(root / name / f"{number}.png", COLOURS[name], number)


def reading(path, root):
    return load(f"folder:{path}", root=root)


@pytest.fixture
def pictures(tmp_path):
    return tmp_path / "pictures"


def test_a_folder_without_splits_is_divided_80_20_stratified(tmp_path, pictures):
    data = reading(pictures, tmp_path)
    assert data.name == f"folder:{pictures}" and not data.available()
    for question in ("train", "classes"):
        with pytest.raises(DataMissing, match="pictures"):
            getattr(data, question)
    fill(pictures, 50)
    assert data.classes == ("blue", "green", "red")
    assert [len(split) for split in (data.train, data.validation, data.test)] == [108, 12, 30]
    shades = set()
    for split, each in ((data.train, 36), (data.validation, 4), (data.test, 10)):
        assert split.labels.bincount().tolist() == [each] * 3
        assert split.images.shape[1:] == (3, 32, 32)
        shades |= set(zip(split.labels.tolist(), split.images.amax(dim=(1, 2, 3)).tolist(), strict=True))
    assert len(shades) == 150, "an image is in two splits, or lost"
    assert data.source == "folder pictures" and set(data.hashes) >= {"train_images", "split"}


def test_the_order_of_names_changes_nothing_and_a_path_is_taken_below_root(tmp_path, pictures):
    fill(pictures, 20)
    for path in pictures.rglob("*.png"):
        name, number = path.parent.name, int(path.stem)
        paint(tmp_path / "other" / name / f"{99 - number}.bmp", COLOURS[name], number)
    assert reading(pictures, tmp_path).hashes == load("folder:other", root=tmp_path).hashes
    (pictures / "blue").rename(pictures / "train")
    assert reading(pictures, tmp_path).classes == ("green", "red", "train")


def test_a_camera_rotation_is_applied(pictures):
    pictures.mkdir()
    lying = np.zeros((32, 32, 3), dtype=np.uint8)
    lying[:, :16] = 255  # left half white
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: rotate by 90 degrees clockwise to see it upright
    Image.fromarray(lying).save(pictures / "turned.png", exif=exif)
    upright = read_picture(pictures / "turned.png").pixels
    assert (upright[:16] == 255).all() and (upright[16:] == 0).all()


def test_pictures_are_decoded_once_until_they_change(tmp_path, pictures, monkeypatch):
    fill(pictures, 10)
    paint(pictures / "red" / "changing.bmp", (1, 2, 3), 0)
    before = folder.load_arrays(pictures, tmp_path / "cache")
    with monkeypatch.context() as patch:
        patch.setattr(folder, "read_picture", lambda *_: pytest.fail("decoded again"))
        again = folder.load_arrays(pictures, tmp_path / "cache")
    assert all(np.array_equal(before[name], again[name]) for name in before)
    paint(pictures / "red" / "changing.bmp", (123, 45, 67), 0)  # of the same length
    after = folder.load_arrays(pictures, tmp_path / "cache")
    assert not np.array_equal(before["train_images"], after["train_images"])


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ({"red": 10, "blue": 10, "empty": 0}, r"pictures/empty is empty"),
        ({"train/red": 10, "train/blue": 10}, r"has train/<class>/\* but not the other"),
        ({"test/red": 10, "test/blue": 10}, r"has test/<class>/\* but not the other"),
        ({"train/red": 9, "train/blue": 9, "test/blue": 9}, r"test has no folder for red"),
        ({"red": 10}, r"pictures: 1, where 2"),
        ({".": 1}, r"pictures: 0, where 2"),
        ({"red": 10, "blue": 10, "green": None}, r"No readable image of green"),
        ({"red": 10, "blue": 10, "green": 1}, r"the smallest of 1"),
    ],
)
def test_a_folder_that_cannot_be_used_is_refused_with_the_reason(tmp_path, pictures, files, says):
    for name, count in files.items():
        (pictures / name).mkdir(parents=True, exist_ok=True)
        for number in range(count or 1):
            paint(pictures / name / f"{number}.png", COLOURS.get(name.split("/")[-1], (9, 9, 99)), number)
        if count is None:
            (pictures / name / "0.png").write_text("no picture")
        if count == 0:
            (pictures / name / "0.png").unlink()
    with pytest.raises(DataError, match=says):
        _ = reading(pictures, tmp_path).train
