"""One call, three sources: the same arrays and split from any copy of CIFAR-10, and nothing from a bad one."""

import hashlib
import http.server
import io
import pickle
import re
import tarfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from PIL import Image
from scenes import contents, encoded
from sklearn.datasets import load_digits
from torchvision.datasets import CIFAR10

from helpers.data import DataError, DataMissing, channel_statistics, cifar10, load, split_hash, stratified_split, subset
from helpers.data.images import cached_arrays
from helpers.settings import DATA

COUNTS = {"train": 120, "test": 30}
CIFAR10_SPLIT = "613b5b3489db7db8534e9012d470f8b6cd2dfe87b1f39c3d99017e4febccd982"


def make(split: str) -> tuple[np.ndarray, np.ndarray]:  # random images and labels, in the order of some copy
    rng = np.random.default_rng(len(split))
    images = rng.integers(0, 256, (COUNTS[split], 32, 32, 3), dtype=np.uint8)
    images[:, 0, :30] = 7  # so that the order is decided late in the row, and by more than one byte
    return images, rng.permutation(COUNTS[split]) % 10


ORIGINAL = {split: make(split) for split in COUNTS}


def batch_pickle(images: np.ndarray, labels: np.ndarray) -> bytes:
    """Return a batch as NumPy 1 pickled it: module numpy.core, and integers for dtype's flags."""
    rows = np.ascontiguousarray(images.transpose(0, 3, 1, 2)).reshape(len(images), -1)
    data = pickle.dumps({b"data": rows, b"labels": labels.tolist()}, protocol=2)
    data = data.replace(b"numpy._core", b"numpy.core")
    old, flags = re.subn(rb"(?<=u1q.)\x89\x88(?=\x87)", b"K\x00K\x01", data, flags=re.DOTALL)
    assert b"numpy.core" in old and flags == 1, "not what NumPy 1 wrote"
    return old


def entry(name: str, content: bytes = b"", kind: bytes = tarfile.REGTYPE, link: str = "") -> tuple:
    info = tarfile.TarInfo(name)
    info.size, info.type, info.linkname = len(content), kind, link
    return info, content


def tar_of(entries: list[tuple]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for info, content in entries:
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


# Copies, as the content of each file by its name.
BATCHES = {f"data_batch_{i + 1}": batch_pickle(*(part[i::5] for part in ORIGINAL["train"])) for i in range(5)}
BATCHES["test_batch"] = batch_pickle(*ORIGINAL["test"])
OFFICIAL = {f"cifar-10-batches-py/{name}": content for name, content in BATCHES.items()}
IMAGES = {
    f"{split}/{cifar10.CLASSES[label]}/{number}.png": encoded(Image.fromarray(pixels), "PNG")
    for split, pairs in ORIGINAL.items()
    for number, (pixels, label) in enumerate(zip(*pairs, strict=True))
}
FOLDER = {f"cifar10/{name}": content for name, content in IMAGES.items()}
FIRST = next(iter(FOLDER))


def in_tar(files: dict[str, bytes]) -> dict[str, bytes]:
    return {"cifar-10-python.tar.gz": tar_of([entry(*item) for item in files.items()])}


def in_archives(*extra: tuple, prefix: str = "") -> dict[str, bytes]:
    entries = [entry(prefix + name, content) for name, content in sorted(IMAGES.items(), key=lambda item: item[1])]
    return {f"cifar10-{i}.tar.gz": tar_of(entries[i::3] + [*extra] * (i == 1)) for i in range(3)}


def put(root: Path, files: dict[str, bytes]) -> None:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)


COPIES = {
    "batches": OFFICIAL,
    "batches in a tar": in_tar(OFFICIAL),
    "folder": FOLDER,
    "archives": in_archives(),
    "archives of cifar10/": in_archives(prefix="cifar10/"),
    "archives of ./": in_archives(prefix="./"),
    "with more": in_archives(entry("README.md", b"hello"), entry("train/cat/._1.png", b"from a Mac")),
}


def sorted_bytes(split: str) -> tuple[bytes, bytes]:
    """Return the canonical images and labels, as bytes, by a sort that shares nothing with the code's."""
    images, labels = ORIGINAL[split]
    pairs = sorted((int(y), x.tobytes()) for x, y in zip(images, labels, strict=True))
    return b"".join(x for _, x in pairs), bytes(y for y, _ in pairs)


SHA256 = {
    f"{split}_{name}": hashlib.sha256(content).hexdigest()
    for split in COUNTS
    for name, content in zip(("images", "labels"), sorted_bytes(split), strict=True)
}
SUMS = [[name, hashlib.md5(content).hexdigest()] for name, content in BATCHES.items()]


@pytest.fixture(autouse=True)
def small_cifar10(monkeypatch):
    monkeypatch.setattr(cifar10, "COUNTS", COUNTS)
    monkeypatch.setattr(cifar10, "SHA256", SHA256)
    monkeypatch.setattr(CIFAR10, "train_list", SUMS[:5])
    monkeypatch.setattr(CIFAR10, "test_list", SUMS[5:])
    monkeypatch.setattr(cifar10, "MIRRORS", ("http://127.0.0.1:1/cifar-10-python.tar.gz",))


@pytest.mark.parametrize("copy", COPIES)
def test_every_copy_gives_the_same_arrays_split_and_hashes(tmp_path, copy):
    put(tmp_path, COPIES[copy])
    before = contents(tmp_path)
    data = load("cifar10", root=tmp_path)
    assert data.available() and data.classes == cifar10.CLASSES
    assert [len(split) for split in (data.train, data.validation, data.test)] == [108, 12, 30]
    images, labels = sorted_bytes("train")
    canonical = np.frombuffer(images, np.uint8).reshape(120, 32, 32, 3)
    for split in (data.train, data.validation):
        assert split.images.dtype == torch.uint8 and split.labels.dtype == torch.int64
        assert split.images.is_contiguous() and split.images.shape[1:] == (3, 32, 32)
        assert np.array_equal(split.images.permute(0, 2, 3, 1).numpy(), canonical[split.index])
        assert split.labels.tolist() == [labels[position] for position in split.index]
    assert data.test.images.permute(0, 2, 3, 1).numpy().tobytes() == sorted_bytes("test")[0]
    split = {"split": split_hash(data.train.index.numpy(), data.validation.index.numpy())}
    assert data.hashes == SHA256 | split
    assert data.source == ", ".join(sorted(path.name for path in tmp_path.iterdir() if path.name != "cache"))
    assert contents(tmp_path) == before, "somebody's files were touched"


def test_images_are_decoded_once(tmp_path, monkeypatch):
    put(tmp_path, FOLDER)
    first = cifar10.load_arrays(tmp_path)
    monkeypatch.setattr(cifar10, "_decode", lambda *_: pytest.fail("decoded again"))
    again = cifar10.load_arrays(tmp_path)
    assert again.keys() == first.keys() and all(np.array_equal(first[name], again[name]) for name in first)
    monkeypatch.undo()
    with pytest.raises(DataError, match="images at train"):  # those of other hashes are no longer CIFAR-10
        cifar10.load_arrays(tmp_path)


@pytest.mark.parametrize("damage", ["one bit", "half", "empty", "text"])
def test_a_damaged_cache_is_built_again(tmp_path, damage):
    put(tmp_path, FOLDER)
    first = cifar10.load_arrays(tmp_path)
    cache = tmp_path / "cache" / "cifar10.npz"
    content = bytearray(cache.read_bytes())
    content[len(content) // 2] ^= 1
    cache.write_bytes({"one bit": content, "half": two_thirds(content), "empty": b"", "text": b"hello"}[damage])
    with pytest.warns(UserWarning, match="damaged"):
        again = cifar10.load_arrays(tmp_path)
    assert all(np.array_equal(first[name], again[name]) for name in first)
    cifar10.load_arrays(tmp_path, download=False)


def test_without_a_place_for_the_cache_the_data_still_come(tmp_path):
    put(tmp_path, FOLDER)
    (tmp_path / "cache").write_text("a file where the folder should be")
    with pytest.warns(UserWarning, match="nothing is cached"):
        assert len(cifar10.load_arrays(tmp_path)["train_labels"]) == 120


def test_several_at_once_build_once(tmp_path):
    build = Mock(side_effect=lambda: time.sleep(0.1) or {"x": np.arange(3)})
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: cached_arrays(tmp_path / "c.npz", "k", build)["x"].sum(), range(4)))
    assert found == [3] * 4 and build.call_count == 1


def changed(files: dict[str, bytes], name: str, content: bytes | None = None) -> dict[str, bytes]:
    """Return ``files`` without those at ``name``, or with other content there."""
    rest = {path: own for path, own in files.items() if not path.startswith(name)}
    return rest if content is None else rest | {name: content}


def two_thirds(content: bytes) -> bytes:
    return content[: len(content) * 2 // 3]


class Trap:  # runs code when it is unpickled
    def __reduce__(self):
        return pytest.fail, ("a pickle ran code",)


PIXELS = np.array(Image.open(io.BytesIO(FOLDER[FIRST])))
LOSSY, ANOTHER_SIZE = encoded(Image.fromarray(PIXELS), "JPEG"), encoded(Image.new("RGB", (32, 33)), "PNG")
PIXELS[31, 31, 2] ^= 1
ONE_OTHER_BIT = encoded(Image.fromarray(PIXELS), "PNG")
BATCH, ARCHIVE, (WHOLE, CONTENT) = "cifar-10-batches-py/data_batch_3", "cifar10-1.tar.gz", *in_tar(OFFICIAL).items()
BAD_COPIES = {
    "truncated archive": (changed(in_archives(), ARCHIVE, two_thirds(in_archives()[ARCHIVE])), f"{ARCHIVE}.*damaged"),
    "truncated official archive": ({WHOLE: two_thirds(CONTENT)}, f"{WHOLE}.*damaged"),
    "no archive": (changed(in_archives(), ARCHIVE, b"<html>404</html>"), f"{ARCHIVE}.*damaged"),
    "a path that climbs out": (in_archives(entry("../../evil.png", b"x")), "evil.*leads out"),
    "a path that climbs out halfway": (in_archives(entry("train/../../evil.png", b"x")), "evil.*leads out"),
    "an absolute path": (in_archives(entry("/etc/evil.png", b"x")), "evil.*leads out"),
    "a Windows path": (in_archives(entry("..\\evil.png", b"x")), "evil.*leads out"),
    "a drive": (in_archives(entry("C:\\evil.png", b"x")), "evil.*leads out"),
    "a symbolic link": (in_archives(entry("train/cat/l.png", b"", tarfile.SYMTYPE, "/etc/passwd")), "is a link"),
    "a hard link": (in_archives(entry("train/cat/l.png", b"", tarfile.LNKTYPE, "train/cat/1.png")), "is a link"),
    "a device": (in_archives(entry("train/cat/l.png", b"", tarfile.CHRTYPE)), "is a link or a device"),
    "a file far too large": (in_archives(entry("train/cat/l.png", bytes(1 << 21))), "2,097,152 bytes"),
    "no image in an archive": (in_archives(entry("train/cat/n.png", b"no")), "cat/n.png is no readable image"),
    "no image": (changed(FOLDER, FIRST, b"no"), f"{FIRST} is no readable image"),
    "half an image": (changed(FOLDER, FIRST, two_thirds(FOLDER[FIRST])), f"{FIRST} is no readable image"),
    "an image of another size": (changed(FOLDER, FIRST, ANOTHER_SIZE), "are not CIFAR-10's.*resized"),
    "one other bit": (changed(FOLDER, FIRST, ONE_OTHER_BIT), "train images of cifar10 are not CIFAR-10's"),
    "a lossy image": (changed(FOLDER, FIRST, LOSSY), "are not CIFAR-10's.*JPEG"),
    "an unknown class": (FOLDER | {"cifar10/train/boat/x.png": FOLDER[FIRST]}, "'boat' is no class of CIFAR-10"),
    "a missing class": (changed(FOLDER, "cifar10/train/ship/"), "train split has 108 .*expected 120"),
    "a missing split": (changed(FOLDER, "cifar10/test/"), "test split has 0 images"),
    "an empty folder": ({"cifar10/README.md": b""}, "train split has 0 images"),
    "a missing image": (changed(FOLDER, FIRST), "train split has 119 images .*expected 120"),
    "an image too many": (in_archives(entry("train/cat/x.png", FOLDER[FIRST])), "121 images .*expected 120"),
    "a missing archive": (changed(in_archives(), ARCHIVE), "images .*expected"),
    "a missing batch": (changed(OFFICIAL, BATCH), "data_batch_3 is missing"),
    "missing batches in the tar": (in_tar({"cifar-10-batches-py/test_batch": b""}), "data_batch_1 is missing"),
    "a batch with a wrong sum": (changed(OFFICIAL, BATCH, BATCHES["data_batch_1"]), "data_batch_3 has MD5"),
    "a batch that runs code": (changed(OFFICIAL, BATCH, pickle.dumps(Trap())), "data_batch_3 has MD5"),
}


@pytest.mark.parametrize("case", BAD_COPIES)
def test_a_bad_copy_gives_one_clear_error_and_no_data(tmp_path, case):
    files, says = BAD_COPIES[case]
    put(tmp_path, files)
    before = contents(tmp_path)
    data = load("cifar10", root=tmp_path)
    assert data.available()
    for _ in range(2):
        with pytest.raises(DataError, match=says):
            _ = data.train
    assert contents(tmp_path) == before, "somebody's files were touched"
    assert not list(tmp_path.glob("cache/*.npz")), "a bad copy was cached"


@pytest.mark.parametrize("download", [False, True])
def test_without_a_copy_the_error_lists_three_ways_on(tmp_path, download):
    data = load("cifar10", root=tmp_path, download=download)
    assert data.name == "cifar10" and len(data.classes) == 10 and not data.available()
    for question in ("train", "test", "mean", "hashes", "source"):
        with pytest.raises(DataMissing) as caught:
            getattr(data, question)
        message = str(caught.value)
        assert str(tmp_path) in message and all(f"\n  {way}. " in message for way in (1, 2, 3))
        assert "digits" in message and "folder:PATH" in message
        assert ("127.0.0.1:1/" in message) == download
    put(tmp_path, FOLDER)
    assert len(data.train) == 108, "the copy that was put there is not found"


def test_it_is_downloaded_where_there_is_no_copy(tmp_path, monkeypatch):
    put(tmp_path / "served", {WHOLE: CONTENT})
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=tmp_path / "served")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}/"
        monkeypatch.setattr(cifar10, "MIRRORS", (address + "nowhere", address + WHOLE))
        monkeypatch.setattr(cifar10, "ARCHIVE", {"size": len(CONTENT), "md5": hashlib.md5(CONTENT).hexdigest()})
        data = load("cifar10", root=tmp_path / "data")
        assert not data.available() and len(data.train) == 108 and data.available()
        server.shutdown()
    assert data.source == WHOLE


def test_digits_are_the_real_ones_and_need_nothing(tmp_path):
    data = load("digits", root=tmp_path)
    assert data.available() and data.classes == tuple("0123456789")
    assert [len(split) for split in (data.train, data.validation, data.test)] == [1350, 150, 297]
    assert data.hashes["split"] == "98cd3e59f9ee82db5517a182baa800832059bec1c122783713c8741a71eec14b"
    found = []
    for split in (data.train, data.validation, data.test):
        assert split.images.dtype == torch.uint8 and split.images.shape[1:] == (3, 32, 32)
        assert (split.images == split.images[:, :1]).all()
        shares = split.labels.bincount().float() / len(split)
        assert shares.min() > 0.09 and shares.max() < 0.11
        small = (split.images[:, 0, 1::4, 2::4].float() * 16 / 255).round().int()
        found += [(int(y), x.numpy().astype(int).tobytes()) for x, y in zip(small, split.labels, strict=True)]
    digits = load_digits()
    original = [(int(y), x.astype(int).tobytes()) for x, y in zip(digits.images, digits.target, strict=True)]
    assert sorted(found) == sorted(original)
    assert not list(tmp_path.iterdir())
    pixels = data.train.images.numpy() / 255
    assert np.allclose(data.mean, pixels.mean((0, 2, 3)), rtol=0, atol=1e-7)
    assert np.allclose(data.std, pixels.std((0, 2, 3)), rtol=0, atol=1e-7)
    assert data.mean.dtype == data.std.dtype == torch.float32


def test_a_subset_is_stratified_and_always_the_same_and_the_real_split_known_without_images():
    train = load("digits").train
    first, again, other = subset(train, 135, 3), subset(train, 135, 3), subset(train, 135, 4)
    assert len(first) == 135 and torch.equal(first.index, again.index)
    assert not torch.equal(first.index, other.index)
    assert (first.labels.bincount() - train.labels.bincount() / 10).abs().max() < 1
    rows = torch.searchsorted(train.index, first.index)
    assert torch.equal(train.index[rows], first.index) and torch.equal(train.images[rows], first.images)
    assert torch.equal(train.labels[rows], first.labels)
    assert subset(train, len(train)) is train
    for size, error in ((0, ValueError), (1351, ValueError), (5, DataError), (1345, DataError)):
        with pytest.raises(error, match=str(size)):
            subset(train, size)
    train, validation = stratified_split(np.repeat(np.arange(10), 5000), 5000)
    assert split_hash(train, validation) == CIFAR10_SPLIT


@pytest.mark.skipif(not cifar10.is_available(DATA), reason="no copy of CIFAR-10 under data/ (see data/README.md)")
def test_the_real_cifar10(monkeypatch):
    monkeypatch.undo()
    data = load("cifar10", download=False)
    known = cifar10.SHA256 | {"split": CIFAR10_SPLIT}
    assert data.hashes == known and known["train_images"].startswith("0d87276e")
    splits = (data.train, data.validation, data.test)
    assert [split.labels.bincount().tolist() for split in splits] == [[n] * 10 for n in (4500, 500, 1000)]
    assert torch.equal(torch.cat([data.train.index, data.validation.index]).sort().values, torch.arange(50_000))
    mean, std = channel_statistics(torch.cat([data.train.images, data.validation.images]))
    assert np.allclose(mean, (0.49140, 0.48216, 0.44653), atol=6e-6)
    assert np.allclose(std, (0.24703, 0.24349, 0.26159), atol=6e-6)
    seen = {image.numpy().tobytes() for split in splits for image in split.images}
    assert len(seen) == 60_000, "an image is in two splits"
