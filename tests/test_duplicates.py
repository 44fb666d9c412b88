"""Copies are found, all of them, stay on one side of a split, and different pictures are left alone."""

import numpy as np
import pytest
from PIL import Image
from scenes import encoded, scene
from scipy.cluster.hierarchy import fcluster, linkage
from sklearn.utils.class_weight import compute_sample_weight

from helpers.data import DataError, class_weights, grouped_split, list_pictures, load, scan, stratified_split
from helpers.data.folder import duplicate_groups
from helpers.data.images import balanced, read_picture

COPIES = {
    **{f"quality {q}": lambda image, q=q: encoded(image, "JPEG", quality=q) for q in (20, 30, 50, 70, 90)},
    **{f"{n} px": lambda image, n=n: encoded(image.resize((n, n)), "PNG") for n in (32, 48, 100, 200)},
    "small and poor": lambda image: encoded(image.resize((40, 40)), "JPEG", quality=40),
    "squashed": lambda image: encoded(image.resize((90, 50)), "PNG"),
    "grey": lambda image: encoded(image.convert("L"), "PNG"),
    "webp": lambda image: encoded(image, "WEBP", quality=40),
    "64 colours": lambda image: encoded(image.quantize(64), "GIF"),
    "brighter": lambda image: encoded(image.point(lambda value: 60 + value // 2), "PNG"),
    "the same": lambda image: encoded(image, "PNG"),
}


def groups_of(files: list[bytes]) -> np.ndarray:
    pictures = [read_picture(content) for content in files]
    return duplicate_groups(np.stack([p.thumbnail for p in pictures]), np.array([p.digest for p in pictures]))


def test_every_copy_is_found_and_nothing_else():
    scenes = [scene(seed) for seed in range(30)]
    mirrored = [each.transpose(Image.Transpose.FLIP_LEFT_RIGHT) for each in scenes]
    copies = [copy(each) for each in scenes for copy in COPIES.values()]
    expected = [*range(60), *np.repeat(np.arange(30), len(COPIES))]
    assert groups_of([encoded(each, "PNG") for each in scenes + mirrored] + copies).tolist() == expected
    # Plain surfaces are copies only where their pixels are equal.
    shades = [Image.new("RGB", (40, 40), (shade, 0, 0)) for shade in (100, 101, 100, 200)]
    assert groups_of([encoded(shade, "PNG") for shade in shades]).tolist() == [0, 1, 0, 3]


def test_groups_are_those_of_the_correlation_matrix():
    rng = np.random.default_rng(0)
    thumbnails = rng.integers(0, 256, (60, 16, 16))
    thumbnails[30:] = np.clip(thumbnails[:30] + rng.normal(0, np.arange(30)[:, None, None], (30, 16, 16)), 0, 255)
    thumbnails = thumbnails.astype(np.uint8)
    # Single linkage joins whatever is near to any of a group; SciPy's "correlation" is 1 - the correlation.
    expected = fcluster(linkage(thumbnails.reshape(60, -1), "single", "correlation"), 0.02, "distance")
    found = duplicate_groups(thumbnails, np.arange(60))
    assert 35 < len(set(found)) < 55
    assert np.array_equal(found[:, None] == found, expected[:, None] == expected)
    assert (found == [np.flatnonzero(expected == label)[0] for label in expected]).all()


def test_no_group_stands_on_both_sides_and_classes_keep_their_shares():
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1, 2], [300, 200, 100])
    groups = np.arange(600)
    copies = rng.choice(600, 150, replace=False)
    groups[copies[:100]] = groups[copies[100]]  # one large group, across classes
    groups[copies[101:]] = groups[copies[101:]] // 4 * 4
    kept, held = grouped_split(labels, groups, 120)
    assert sorted([*kept, *held]) == list(range(600))
    assert not set(groups[kept]) & set(groups[held])
    first = np.unique(groups, return_index=True)[1]
    taken = labels[first[np.isin(groups[first], groups[held])]]
    assert np.allclose(np.bincount(taken) / np.bincount(labels[first]), 0.2, atol=0.01)
    # Without groups it is the plain split; a class of copies alone cannot be split.
    labels = np.repeat([0, 1], 20)
    for one, two in zip(grouped_split(labels, np.arange(40), 8), stratified_split(labels, 8), strict=True):
        assert one.tolist() == two.tolist()
    with pytest.raises(DataError, match="cannot be split"):
        grouped_split(labels, np.where(labels == 1, 20, np.arange(40)), 8)


def test_balancing_cuts_to_the_smallest_class_and_weights_count_every_class_alike():
    labels = np.random.default_rng(0).permutation(np.repeat([0, 1, 2], [50, 20, 7]))
    index = np.arange(3, 77)
    part = balanced(labels, index)
    assert np.bincount(labels[part]).tolist() == [np.bincount(labels[index]).min()] * 3
    assert len(set(part)) == len(part) and set(part) <= set(index) and part.tolist() == sorted(part)
    assert balanced(labels, index).tolist() == part.tolist()
    weights = np.array(class_weights(labels))
    assert np.allclose(weights[labels], compute_sample_weight("balanced", labels))
    assert np.allclose(weights * [50, 20, 7], 77 / 3)


def test_no_planted_copy_stands_in_two_splits_and_the_summary_counts_them(tmp_path):
    root = tmp_path / "trees"
    for label, name in enumerate(("ash", "birch", "cedar")):
        (root / name).mkdir(parents=True)
        for number in range(40):
            (root / name / f"{number}.png").write_bytes(encoded(scene(1000 * label + number), "PNG"))
        for number in range(10):
            copy = list(COPIES.values())[(number + 5 * label) % len(COPIES)]
            (root / name / f"copy {number}").write_bytes(copy(scene(1000 * label + number)))
    found, data = scan(list_pictures(root), tmp_path / "cache"), load(f"folder:{root}", root=tmp_path)
    group = {image.tobytes(): own for image, own in zip(found.images, found.groups, strict=True)}
    parts = [split.images.permute(0, 2, 3, 1).numpy() for split in (data.train, data.validation, data.test)]
    sets = [{group[image.tobytes()] for image in part} for part in parts]
    assert sum(map(len, parts)) == 150 and sum(map(len, sets)) == len(set().union(*sets)) == 120
    assert abs(len(data.test) - 30) <= 6

    (root / "ash" / "from birch.png").write_bytes(encoded(scene(1020), "PNG"))
    (root / "ash" / "broken.png").write_bytes(b"")
    found = scan(list_pictures(root), tmp_path / "cache")
    table, copies = found.summary(), found.duplicates()
    assert table.index.tolist() == ["ash", "birch", "cedar", "all"]
    assert table.loc["ash", ["files", "left out", "images"]].tolist() == [52, 1, 51]
    assert table.loc["all", "identical"] + table.loc["all", "near-duplicates"] == 31
    assert table["also elsewhere"].tolist() == [1, 1, 0, 2]
    assert (copies["copy"] == "first").sum() == 31 and copies.groupby("group").size().tolist() == [2] * 31
    assert found.left_out.values.tolist() == [["ash/broken.png", "ash", "an empty file"]]


def test_from_given_splits_what_the_test_set_holds_is_taken_out_of_training(tmp_path):
    root = tmp_path / "given"
    for label, name in enumerate(("ash", "birch")):
        for split, seeds in (("train", range(20)), ("test", range(15, 25))):
            (root / split / name).mkdir(parents=True)
            for seed in seeds:
                poor = encoded(scene(100 * label + seed), "JPEG", quality=95 if split == "train" else 40)
                (root / split / name / f"{seed}.jpg").write_bytes(poor)
    data = load(f"folder:{root}", root=tmp_path)
    splits = (data.train, data.validation, data.test)
    assert [split.labels.bincount().tolist() for split in splits] == [[13, 14], [2, 1], [10, 10]]
