"""A folder of anything: what is a picture is used, what is none is named, and nothing is changed."""

import os
import re

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from scenes import contents, encoded, scene
from torchvision.transforms import v2

from helpers.data import DataError, list_pictures, load, scan, write_pictures
from helpers.data.images import read_picture

PER_CLASS = 100
CLASSES = ("Äpfel", "кошки", "犬", "plain")


def sixteen_bit(image: Image.Image) -> Image.Image:
    return Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)


def animation(image: Image.Image) -> bytes:
    other = Image.new("RGB", image.size, "black")
    return encoded(image, "GIF", save_all=True, append_images=[other, other])


GOOD = (
    ("png", lambda image: encoded(image, "PNG")),
    ("jpg", lambda image: encoded(image, "JPEG")),
    ("webp", lambda image: encoded(image, "WEBP")),
    ("gif", animation),
    ("png", lambda image: encoded(sixteen_bit(image), "PNG")),
    ("tiff", lambda image: encoded(sixteen_bit(image), "TIFF")),
    ("jpeg", lambda image: encoded(image.convert("CMYK"), "JPEG")),
    ("png", lambda image: encoded(image.convert("L"), "PNG")),
    ("png", lambda image: encoded(image.quantize(32), "PNG")),
    ("png", lambda image: encoded(image.convert("RGBA"), "PNG")),
    ("JPG", lambda image: encoded(image, "JPEG", progressive=True)),
    ("bmp", lambda image: encoded(image, "BMP")),
)
BAD = (
    ("png", lambda image: encoded(image, "PNG")[:-400], "truncated|broken|incomplete"),
    ("jpg", lambda image: encoded(image, "JPEG")[:500], "truncated"),
    ("webp", lambda image: b"", "empty"),
    ("jpg", lambda image: b"dear diary, this is no picture\n" * 20, "no picture in a format"),
    ("gif", lambda image: encoded(image, "GIF")[:20], "."),
    ("png", lambda image: os.urandom(300), "no picture in a format"),
)


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):  # a folder of files of all kinds, and the reason expected of each bad one
    root = tmp_path_factory.mktemp("mixed") / "bilder été"
    expected = {}
    for label, name in enumerate(CLASSES):
        for number in range(PER_CLASS):
            picture = scene(PER_CLASS * label + number, (40 + number % 30, 41 + number % 30))
            below = ("", "sub", "sub/süb 2/深い")[number % 3]
            if number % 10 == 9:
                kind, make, reason = BAD[number // 10 % len(BAD)]
            else:
                (kind, make), reason = GOOD[number % len(GOOD)], None
            path = root / name / below / f"{number} – é😀.{kind}"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(make(picture))
            if reason:
                expected[path.relative_to(root).as_posix()] = reason
        for link, target in {"round": root, "sub/self": ".", "neighbour": root / CLASSES[label - 1]}.items():
            (root / name / link).symlink_to(target, target_is_directory=True)
    return root, expected


def reasons_in(found):
    return dict(zip(found.left_out["file"], found.left_out["reason"], strict=True))


def test_mixed_files_load_and_the_bad_ones_are_named(mixed, tmp_path):
    root, expected = mixed
    before = contents(root)
    found = scan(list_pictures(root), tmp_path)
    reasons = reasons_in(found)
    assert set(reasons) == set(expected)
    assert all(re.search(reason, reasons[name], re.IGNORECASE) for name, reason in expected.items()), reasons
    assert np.bincount(found.labels).tolist() == [90] * 4 and found.classes == tuple(sorted(CLASSES))
    assert found.summary().loc["all"].tolist() == [400, 40, 360, 0, 0, 0]
    # Each readable picture shows its own scene, whatever its format.
    for name, pixels in list(zip(found.names, found.images, strict=True))[::17]:
        label, number = CLASSES.index(name.split("/")[0]), int(name.split("/")[-1].split()[0])
        shown = np.asarray(Image.fromarray(pixels).convert("L"), float)
        original = np.asarray(scene(PER_CLASS * label + number, (40, 40)).convert("L").resize((32, 32)), float)
        assert np.corrcoef(original.ravel(), shown.ravel())[0, 1] > 0.9, name
    with pytest.warns(UserWarning, match="and 30 more"):
        assert len(load(f"folder:{root}", root=tmp_path).test) == 72
    assert contents(root) == before


def test_odd_files_are_named_and_never_waited_for(tmp_path):
    root = write_pictures(tmp_path / "digits", 5)
    (root / "0" / "gone.png").symlink_to(tmp_path / "nowhere.png")
    os.mkfifo(root / "1" / "pipe.png")
    (root / "2" / "loop.png").symlink_to(root / "2" / "loop.png")
    (root / "2" / ".DS_Store").write_bytes(b"hidden files are nobody's pictures")
    outside = tmp_path / "outside" / "deep"
    outside.mkdir(parents=True)
    (outside / "one.png").write_bytes(encoded(scene(1), "PNG"))
    (outside / "back").symlink_to(root, target_is_directory=True)
    (root / "3" / "linked").symlink_to(tmp_path / "outside", target_is_directory=True)
    with open(os.fsencode(root / "4") + b"/\xff\xfe.png", "wb") as file:
        file.write(encoded(scene(2), "PNG"))
    found = scan(list_pictures(root), tmp_path / "cache")
    pipe = {"1/pipe.png": "no file that can be read"}
    assert reasons_in(found) == {"0/gone.png": "a broken link", "2/loop.png": "a broken link"} | pipe
    assert np.bincount(found.labels).tolist() == [5, 5, 5, 6, 6, 5, 5, 5, 5, 5]
    print(*found.names)  # also a name that is no UTF-8 can be printed


def test_sixteen_bits_are_scaled_transparency_shows_white_and_an_animation_its_first_frame():
    ramp = np.linspace(0, 65535, 32 * 32).reshape(32, 32)
    eight = (ramp / 257).round()
    for values in (ramp.astype(np.uint16), ramp.astype(np.int32), (ramp / 65535).astype(np.float32)):
        pixels = read_picture(encoded(Image.fromarray(values), "TIFF")).pixels
        assert np.abs(pixels[..., 0] - eight).max() <= 1
    clear = Image.new("RGBA", (40, 40), (255, 0, 0, 0))
    clear.paste((0, 0, 200, 255), (0, 0, 20, 40))
    pixels = read_picture(encoded(clear, "PNG")).pixels
    assert (pixels[:, :14] == (0, 0, 200)).all() and (pixels[:, 18:] == 255).all()
    first = Image.new("RGB", (40, 40), (0, 250, 0))
    assert (read_picture(animation(first)).pixels.max(axis=(0, 1)) == (0, 250, 0)).all()


@pytest.mark.parametrize("size", [(400, 300), (90, 200), (32, 32), (20, 26)])
def test_resize_and_crop_are_torchvisions(size):
    # Cropped first, since these sizes have a middle that falls on whole pixels; the two then round nothing differently.
    short = v2.Compose([v2.CenterCrop(min(size)), v2.Resize(32, v2.InterpolationMode.BICUBIC, antialias=True)])
    expected = short(torch.from_numpy(np.array(scene(5, size))).permute(2, 0, 1)).permute(1, 2, 0).numpy().astype(int)
    assert np.abs(read_picture(encoded(scene(5, size), "PNG")).pixels - expected).max() <= 3


def test_a_huge_jpeg_is_shrunk_while_it_is_decoded_and_a_bomb_refused(tmp_path, monkeypatch):
    expected = np.asarray(scene(3, (1280, 960)).crop((160, 0, 1120, 960)).resize((32, 32), Image.Resampling.BICUBIC))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)  # as if 1280 x 960 were far beyond every limit
    large = encoded(scene(3, (1280, 960)), "JPEG", quality=95)
    sizes, fit = [], ImageOps.fit
    monkeypatch.setattr(ImageOps, "fit", lambda image, size: sizes.append(image.size) or fit(image, size))
    pixels = read_picture(large).pixels
    assert sizes == [(320, 240)]
    assert np.abs(pixels.astype(int) - expected).mean() < 3
    with pytest.raises(DataError, match="exceeds limit|bomb"):
        read_picture(encoded(scene(3, (1280, 960)), "PNG"))
    monkeypatch.setattr("helpers.data.images._LARGEST_JPEG", 1280 * 960 - 1)
    with pytest.raises(DataError, match="1280 x 960 pixels"):
        read_picture(large)


@pytest.mark.filterwarnings("error")
def test_no_damage_to_a_file_is_more_than_a_data_error():
    rng = np.random.default_rng(0)
    files = [make(scene(9)) for _, make in GOOD]
    exif = Image.Exif()
    exif[0x0112] = 6
    files.append(encoded(scene(9), "JPEG", exif=exif))
    for content in files * 20:
        damaged = bytearray(content)
        for place in rng.integers(0, min(len(content), 400), 5):
            damaged[place] = rng.integers(256)
        try:
            assert read_picture(bytes(damaged)).pixels.shape == (32, 32, 3)
        except DataError as error:
            assert str(error)


def test_options_of_a_folder(tmp_path):
    root = write_pictures(tmp_path / "digits", 20)
    (root / "3" / "000.png").write_bytes(encoded(scene(4), "PNG"))
    before = contents(root)
    assert contents(write_pictures(root, 20)) == before, "a reader's file was written over"
    for number in range(10, 20):
        (root / "7" / f"{number:03d}.png").unlink()
    options = ("", "?balance=smallest", "?labels=random")
    plain, even, random = (load(f"folder:{root}{option}", root=tmp_path) for option in options)
    assert plain.classes == tuple("0123456789")
    labels = torch.cat([part.labels for part in (even.train, even.validation, even.test)])
    assert labels.bincount().tolist() == [10] * 10
    for what in ("train_images", "test_images", "test_labels"):
        assert random.hashes[what] == plain.hashes[what]
    assert random.hashes["train_labels"] != plain.hashes["train_labels"]
    before, after = (torch.cat([data.train.labels, data.validation.labels]) for data in (plain, random))
    assert before.bincount().tolist() == after.bincount().tolist()
