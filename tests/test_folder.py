"""A folder of one's own pictures: both layouts, odd pictures, and what is wrong with a folder."""

import warnings

import numpy as np
import pytest
from PIL import Image

from helpers.data import DataError, DataMissing, folder, images, load

COLOURS = {"blue": (0, 0, 250), "green": (0, 250, 0), "red": (250, 0, 0)}


def paint(path, colour, shade, size=(40, 36)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, tuple(max(value - shade, 0) for value in colour)).save(path)


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
    fill(pictures, 50)
    data = reading(pictures, tmp_path)
    assert data.classes == ("blue", "green", "red")
    assert [len(split) for split in (data.train, data.validation, data.test)] == [108, 12, 30]
    for split, each in ((data.train, 36), (data.validation, 4), (data.test, 10)):
        assert split.labels.bincount().tolist() == [each] * 3
        assert split.images.shape[1:] == (3, 32, 32)
    everything = [data.train, data.validation, data.test]
    shades = [(int(y), int(x.max())) for split in everything for x, y in zip(split.images, split.labels, strict=True)]
    assert len(set(shades)) == 150, "an image is in two splits, or lost"
    assert data.source == "folder pictures" and set(data.hashes) >= {"train_images", "split"}


def test_given_splits_are_kept(tmp_path, pictures):
    fill(pictures / "train", 20)
    for name, colour in COLOURS.items():
        for number in range(5):
            paint(pictures / "test" / name / f"{number}.png", colour, 100 + number)
    data = reading(pictures, tmp_path)
    assert [len(split) for split in (data.train, data.validation, data.test)] == [54, 6, 15]
    assert data.test.images.amax(dim=(1, 2, 3)).unique().tolist() == [146, 147, 148, 149, 150]


def test_the_order_of_names_changes_nothing(tmp_path, pictures):
    fill(pictures, 20)
    other = tmp_path / "other"
    for name, colour in COLOURS.items():
        for number in range(20):
            paint(other / name / f"{99 - number}.bmp", colour, number)
    assert reading(pictures, tmp_path).hashes == reading(other, tmp_path).hashes


def test_a_path_is_taken_below_root(tmp_path, pictures):
    fill(pictures, 10)
    assert load("folder:pictures", root=tmp_path).hashes == reading(pictures, tmp_path).hashes


def test_a_class_may_be_called_train(tmp_path, pictures):
    fill(pictures, 10, ["blue"])
    (pictures / "blue").rename(pictures / "train")
    fill(pictures, 10, ["red"])
    assert reading(pictures, tmp_path).classes == ("red", "train")


def test_a_picture_is_cropped_to_its_centre(pictures):
    strip = np.zeros((64, 192, 3), dtype=np.uint8)
    strip[:, 64:128] = (10, 200, 30)
    pictures.mkdir()
    Image.fromarray(strip).save(pictures / "wide.png")
    # The interpolation looks a little beyond the crop, so the outermost pixels may hold some black.
    inner = images.read_picture(pictures / "wide.png", 32).pixels[:, 2:-2]
    assert (inner == (10, 200, 30)).all()
    assert images.read_picture(pictures / "wide.png", 16).pixels.shape == (16, 16, 3)


def test_a_camera_rotation_is_applied(pictures):
    pictures.mkdir()
    lying = np.zeros((32, 32, 3), dtype=np.uint8)
    lying[:, :16] = 255  # left half white
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: rotate by 90 degrees clockwise to see it upright
    Image.fromarray(lying).save(pictures / "turned.png", exif=exif)
    upright = images.read_picture(pictures / "turned.png").pixels
    assert (upright[:16] == 255).all() and (upright[16:] == 0).all()


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "1", "CMYK"])
def test_every_colour_mode_becomes_rgb(pictures, mode):
    pictures.mkdir()
    Image.new("RGB", (50, 50), (255, 255, 255)).convert(mode).save(pictures / "picture.tiff")
    pixels = images.read_picture(pictures / "picture.tiff").pixels
    assert pixels.shape == (32, 32, 3) and pixels.dtype == np.uint8 and (pixels > 250).all()


def test_unreadable_files_are_named_left_out_and_kept(tmp_path, pictures):
    fill(pictures, 20)
    whole = (pictures / "red" / "3.png").read_bytes()
    bad = {"red/notes.txt": b"no picture", "red/3.png": whole[: len(whole) // 2], "blue/empty.png": b""}
    for name, content in bad.items():
        (pictures / name).write_bytes(content)
    (pictures / "red" / ".DS_Store").write_bytes(b"hidden files are nobody's pictures")
    for _ in range(2):  # decoded, then from the cache: the reader is told each time
        folder_data = folder.list_pictures(pictures)
        with pytest.warns(UserWarning, match="left out") as warned:
            arrays = folder.load_arrays(folder_data, tmp_path / "cache")
        assert len(warned) == 1 and all(name in str(warned[0].message) for name in bad)
        assert "DS_Store" not in str(warned[0].message)
        assert len(arrays["train_labels"]) + len(arrays["test_labels"]) == 59
    assert all((pictures / name).read_bytes() == content for name, content in bad.items())


def test_pictures_are_decoded_once_until_they_change(tmp_path, pictures, monkeypatch):
    fill(pictures, 10)
    paint(pictures / "red" / "changing.bmp", (1, 2, 3), 0)
    cache = tmp_path / "cache"
    before = folder.load_arrays(folder.list_pictures(pictures), cache)
    with monkeypatch.context() as patch:
        patch.setattr(folder, "read_picture", lambda *_: pytest.fail("decoded again"))
        again = folder.load_arrays(folder.list_pictures(pictures), cache)
    assert all(np.array_equal(before[name], again[name]) for name in before)
    paint(pictures / "red" / "changing.bmp", (123, 45, 67), 0)  # of the same length
    after = folder.load_arrays(folder.list_pictures(pictures), cache)
    assert not np.array_equal(before["train_images"], after["train_images"])


def test_a_change_of_the_folder_is_seen_by_the_next_load(tmp_path, pictures):
    fill(pictures, 10)
    before = reading(pictures, tmp_path)
    assert len(before.test) == 6
    fill(pictures, 20)
    assert len(reading(pictures, tmp_path).test) == 12


def empty_class(root):
    fill(root, 10)
    (root / "empty").mkdir()


def only_train(root):
    fill(root / "train", 10)


def only_test(root):
    fill(root / "test", 10)


def classes_differ(root):
    fill(root / "train", 10)
    fill(root / "test", 10, ["blue", "green"])


def one_class(root):
    fill(root, 10, ["red"])


def no_classes(root):
    paint(root / "1.png", (1, 2, 3), 0)


def nothing_readable(root):
    fill(root, 10, ["red", "blue"])
    (root / "green").mkdir()
    (root / "green" / "1.png").write_bytes(b"no picture")


def too_few(root):
    fill(root, 10, ["red", "blue"])
    paint(root / "green" / "1.png", (0, 250, 0), 0)


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (empty_class, r"pictures/empty is empty"),
        (only_train, r"has train/<class>/\* but not the other"),
        (only_test, r"has test/<class>/\* but not the other"),
        (classes_differ, r"test has no folder for red"),
        (one_class, r"1 classes"),
        (no_classes, r"0 classes"),
        (nothing_readable, r"No readable image of green"),
        (too_few, r"the smallest of 1"),
    ],
)
def test_a_folder_that_cannot_be_used_is_refused_with_the_reason(tmp_path, pictures, spoil, says):
    spoil(pictures)
    before = {path: path.read_bytes() for path in pictures.rglob("*") if path.is_file()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        data = reading(pictures, tmp_path)
        with pytest.raises(DataError, match=says):
            _ = data.train
    assert before == {path: path.read_bytes() for path in pictures.rglob("*") if path.is_file()}


def test_a_folder_that_is_not_there(tmp_path):
    data = load("folder:nowhere", root=tmp_path)
    assert data.name == "folder:nowhere" and not data.available()
    with pytest.raises(DataMissing, match="nowhere"):
        _ = data.train
    with pytest.raises(DataMissing):
        _ = data.classes
