"""PACS by its two questions: names with one spelling, the right pictures on each side, and clear refusals."""

import tarfile

import numpy as np
import pytest
from scenes import scene

from helpers.data import DataError, DataMissing, load, parse
from helpers.data import folder as pictures
from helpers.data.images import read_picture
from helpers.settings import DATA
from helpers.training import Experiment

COUNTS = {"art_painting": (8,) * 7, "cartoon": (9,) * 7, "photo": (7,) * 7, "sketch": (12, 10, 10, 10, 10, 5, 6)}
COPY = ("cartoon/dog/0.png", "cartoon/house/8.png")


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """Return a root with a small PACS: the red of the top left corner is the style, the green the content."""
    root = tmp_path_factory.mktemp("root")
    for a, style in enumerate(pictures.STYLES):
        for b, content in enumerate(pictures.CONTENTS):
            folder = root / "pacs" / style / content
            folder.mkdir(parents=True)
            for number in range(COUNTS[style][b]):
                image = scene(10_000 * a + 100 * b + number)
                image.paste((60 * a, 30 * b, 0), (0, 0, 8, 8))
                image.save(folder / f"{number}.png")
    (root / "pacs" / COPY[1]).write_bytes((root / "pacs" / COPY[0]).read_bytes())
    return root


@pytest.fixture(autouse=True)
def counts(monkeypatch):
    monkeypatch.setattr(pictures, "PACS_COUNTS", COUNTS)
    yield
    pictures._whole_pacs.cache_clear()


def kinds(split):
    """Return the style and the content that each image of a split shows, (N,) each."""
    corner = split.images[:, :2, 0, 0].numpy().astype(float)
    return (corner[:, 0] / 60).round().astype(int), (corner[:, 1] / 30).round().astype(int)


def parts_of(name, root):
    data = load(name, root=root)
    return data, [data.train, data.validation, data.test]


def test_the_label_is_the_style_or_the_content(small):
    for question, which in (("style", 0), ("content", 1)):
        data, parts = parts_of(f"pacs:{question}", small)
        assert data.classes == pictures.QUESTIONS[question] and data.source == "pacs"
        assert sum(map(len, parts)) == sum(map(sum, COUNTS.values()))
        for split in parts:
            # The copy that stands among the houses shows the corner of a dog.
            assert (split.labels.numpy() != kinds(split)[which]).sum() <= (question == "content")
        assert len(data.test) == pytest.approx(0.2 * sum(map(len, parts)), abs=1)


def test_styles_and_contents_are_restricted_and_classes_cut_to_the_smallest(small):
    data, parts = parts_of("pacs:style?styles=sketch,cartoon&contents=horse,dog", small)
    assert data.classes == ("cartoon", "sketch")
    style, content = np.concatenate([kinds(split) for split in parts], axis=1)
    labels = np.concatenate([split.labels for split in parts])
    assert (np.where(labels == 0, 1, 3) == style).all() and set(content) == {0, 4}
    assert len(labels) == 9 + 9 + 12 + 10
    _, parts = parts_of("pacs:style?balance=smallest", small)
    assert np.bincount(np.concatenate([s.labels for s in parts])).tolist() == [49] * 4
    held, _ = parts_of("pacs:style?balance=smallest&held_out=house", small)
    assert held.test.labels.bincount().tolist() == [5] * 4


@pytest.mark.parametrize("held_out", (*pictures.CONTENTS, *pictures.STYLES))
def test_a_content_or_a_style_is_held_out(small, held_out):
    asked = "content" if held_out in pictures.STYLES else "style?styles=art_painting,cartoon,photo"
    data, parts = parts_of(f"pacs:{asked}{'&' if '?' in asked else '?'}held_out={held_out}", small)
    which, own_names = (0, pictures.STYLES) if held_out in pictures.STYLES else (1, pictures.CONTENTS)
    own = [kinds(split)[which] == own_names.index(held_out) for split in parts]
    assert not own[0].any() and not own[1].any()
    if which == 0:
        assert own[2].all() and len(own[2]) == sum(COUNTS[held_out])
    else:  # a dog has a copy among the houses: with either held out, the other's copy does not train
        assert own[2].sum() >= 23 and len(own[2]) == 8 + 9 + 7
        assert sum(map(len, parts)) == 7 * (8 + 9 + 7) - (held_out in ("dog", "house"))


def test_a_copy_is_never_in_two_splits_and_an_archive_gives_the_same_as_the_folder(small, tmp_path):
    copy = read_picture(small / "pacs" / COPY[0]).pixels
    for name in ("pacs:content", "pacs:style", "pacs:content?balance=smallest"):
        images = [split.images.permute(0, 2, 3, 1).numpy() for split in parts_of(name, small)[1]]
        assert sum((part == copy).all(axis=(1, 2, 3)).any() for part in images) <= 1, name
    with tarfile.open(tmp_path / "pacs-64.tar.gz", "w:gz") as tar:
        tar.add(small / "pacs", "pacs")
    assert load("pacs:style", root=tmp_path).hashes == load("pacs:style", root=small).hashes


def test_what_is_missing_or_broken_is_named(small, tmp_path):
    data = load("pacs:style", root=tmp_path)
    assert not data.available() and data.classes == pictures.STYLES
    with pytest.raises(DataMissing, match="pacs/<style>/<content>"):
        _ = data.train
    (tmp_path / "pacs").mkdir()
    for style in pictures.STYLES[:3]:
        (tmp_path / "pacs" / style).symlink_to(small / "pacs" / style)
    with pytest.raises(DataError, match="0 pictures of sketch/dog; PACS has 12"):
        _ = load("pacs:style", root=tmp_path).train
    folder = tmp_path / "pacs" / "sketch" / "dog"
    folder.mkdir(parents=True)
    (folder / "1.png").write_bytes(b"")
    with pytest.raises(DataError, match="1.png is no readable image .an empty file"):
        _ = load("pacs:style", root=tmp_path).train


@pytest.mark.parametrize(
    ("name", "spelling"),
    [
        *((name, name) for name in ("cifar10", "digits", "folder:/a/b c", "folder:why?", "pacs:style")),
        ("folder:a?labels=random&balance=smallest", "folder:a?balance=smallest&labels=random"),
        ("pacs:style?styles=sketch, photo,cartoon,art_painting", "pacs:style"),
        ("pacs:style?held_out=dog&styles=photo,cartoon", "pacs:style?styles=cartoon,photo&held_out=dog"),
        ("pacs:content?balance=smallest&held_out=sketch", "pacs:content?held_out=sketch&balance=smallest"),
    ],
)
def test_a_name_has_one_spelling(name, spelling):
    assert str(parse(name)) == spelling == str(parse(spelling))
    assert Experiment(dataset=name).key == Experiment(dataset=spelling).key
    assert Experiment(dataset=name).dataset == spelling


@pytest.mark.parametrize(
    ("name", "says"),
    [
        *((name, 'choose "cifar10", "digits", "folder:PATH"') for name in ("mnist", "folder:", "folder", "digits:x")),
        ("pacs:", "pacs:style"),
        ("digits?labels=random", "unknown"),
        ("pacs:colour", "style or content"),
        ("pacs:style?", "no option"),
        ("pacs:style?style=photo", "styles, contents, held_out"),
        ("pacs:style?styles=photos,sketch", "'photos' is unknown; choose among: art_painting"),
        ("pacs:style?styles=photo", "nothing to tell apart"),
        ("pacs:style?held_out=photo", "dog, elephant"),
        ("pacs:content?held_out=dog", "art_painting, cartoon"),
        ("pacs:style?contents=dog,horse&held_out=house", "among the 2 that can be: dog, horse"),
        ("pacs:style?contents=dog&held_out=dog", "nothing to train on"),
        ("pacs:style?held_out=dog&held_out=house", "one value"),
        ("pacs:style?balance=largest", "smallest"),
        ("pacs:style?balance=smallest,smallest", "smallest"),
        ("folder:a?styles=photo", "balance, labels"),
    ],
)
def test_nonsense_is_refused_with_the_choices(name, says):
    for use in (parse, load, lambda dataset: Experiment(dataset=dataset)):
        with pytest.raises(ValueError, match=says):
            use(name)


@pytest.mark.skipif(not pictures.find_pacs(DATA), reason="PACS is not in data/")
def test_of_the_real_pacs_seven_pairs_are_surely_copies(monkeypatch):
    monkeypatch.undo()
    arrays = pictures._whole_pacs(tuple(pictures.find_pacs(DATA)), DATA)
    sizes = np.bincount(arrays["groups"], minlength=9991)
    # Counted and looked at, one by one: data/README.md.
    assert len(arrays["labels"]) == 9991 and (sizes > 1).sum() <= 30 and sizes.max() <= 3
    labels = arrays["labels"]
    assert (labels == labels[arrays["groups"]]).all(), "copies across styles or contents"
