"""data/published.json holds what the reports' tables hold, and an interval where the number of pictures is known."""

import itertools
import math
from decimal import Decimal

import numpy as np
import pytest
from scipy import stats
from synthetic import CLASSES

from helpers.record import published, published_figures, published_for

SPLITS = ("train", "validation", "test")
# Copied from the reports' tables, not from the file: train/validation of the ten classes in R1's order.
R1 = {
    "lr/1e-3": "82.14/72.60 87.92/80.70 71.26/55.40 74.60/62.70 75.06/60.40 69.04/60.10 81.90/76.80 84.82/74.50 "
    "94.16/86.30 89.22/82.20",
    "lr/1e-6": "43.58/43.10 31.26/31.60 0.64/0.30 8.08/7.30 2.02/2.10 21.94/22.00 56.70/58.30 44.36/43.50 "
    "40.56/40.60 41.30/42.90",
    "schedule/StepLR": "68.44/63.50 84.20/79.40 48.94/42.80 41.44/39.40 51.42/43.70 53.06/51.10 76.28/72.70 "
    "66.72/65.00 81.84/76.30 74.98/70.70",
}
# R2's rows: train / validation / test, best epoch.
R2 = {
    "kernels/7-5-3": ("84.25", "80.59", "80.03", 18),
    "kernels/3-3-3": ("89.60", "83.37", "83.00", 28),
    "dropout/with": ("84.85", "81.07", "80.43", 34),
    "dropout/without": ("87.52", "82.40", "82.10", 36),
    "batch-norm/without": ("79.49", "79.72", "79.10", 41),
    "batch-size/16": ("86.60", "82.41", "81.97", 31),
    "optimizer/adagrad": ("75.20", "72.62", "71.92", 43),
    "optimizer/rmsprop": ("88.24", "82.58", "82.06", 25),
}
TWICE = (
    ("kernels/3-3-3", "batch-size/64"),
    ("kernels/3-3-3", "optimizer/adam"),
    ("batch-norm/with", "dropout/with"),
    ("augmentation/with", "batch-size/16"),
)


def texts(report: str) -> dict[str, str]:
    return {key.removeprefix(f"{report}/"): f.text for key, f in published_figures().items() if f.report == report}


def row(setting: str) -> tuple[str, ...]:
    return tuple(texts("R2")[f"{setting}/{split}-accuracy"] for split in SPLITS)


def test_r1_has_both_accuracies_of_every_class_in_each_of_its_settings_and_they_stand_as_printed():
    settings = ("numpy", "lr/1e-6", "lr/1e-3", "lr/5e-3", "schedule/constant", "schedule/StepLR")
    pairs = itertools.product(settings, CLASSES, ("train", "validation"))
    expected = {f"{setting}/{name}/{split}-accuracy" for setting, name, split in pairs}
    found = texts("R1")
    assert {key for key in found if key.endswith("accuracy")} == expected and len(expected) == 100 + 20
    for setting, printed in R1.items():
        pairs = ["/".join(found[f"{setting}/{name}/{split}-accuracy"] for split in SPLITS[:2]) for name in CLASSES]
        assert pairs == printed.split()
    # All are shares of 5,000 and of 1,000 pictures, so most slips of the pen would leave a share that cannot be.
    for key, text in found.items():
        if key.startswith(("lr", "schedule")) and key.endswith("accuracy"):
            pictures = 5000 if key.endswith("train-accuracy") else 1000
            assert (Decimal(text) * pictures / 100) % 1 == 0, key


def test_r2_has_twelve_different_rows_each_with_its_time_and_they_stand_as_printed():
    settings = [key.rpartition("/")[0] for key in texts("R2") if key.endswith("test-accuracy")]
    assert len(settings) == 16 and len({row(setting) for setting in settings}) == 12
    assert all("runs stop at different epochs" in published(f"R2/{name}/minutes").note for name in settings)
    for setting, (*accuracies, epoch) in R2.items():
        assert row(setting) == tuple(accuracies) and published(f"R2/{setting}/best-epoch").value == epoch
    for one, other in TWICE:
        assert row(one) == row(other)
        for quantity in ("best-epoch", "minutes"):
            values = {texts("R2").get(f"{setting}/{quantity}") for setting in (one, other)} - {None}
            # R2 itself prints two times for its batches of 16, and both are kept.
            assert values == {"13", "16"} if (other, quantity) == ("batch-size/16", "minutes") else len(values) == 1


def test_r4_has_both_accuracies_of_every_class_and_its_art_and_their_means():
    found = {key for key in texts("R4") if key.endswith("accuracy")}
    of_classes = {f"{name}/{split}-accuracy" for name in CLASSES for split in ("train", "test")}
    of_art = {"train", "test", "chance", "cartoon/test", "cyberpunk/test", "noir/test"}
    assert found == of_classes | {f"art/{name}-accuracy" for name in of_art} | {"train-accuracy", "test-accuracy"}
    art = ("art/cartoon", "art/cyberpunk", "art/noir")
    for figure, classes in (("train", CLASSES), ("test", CLASSES), ("art/test", art)):
        values = [published(f"R4/{name}/{figure.split('/')[-1]}-accuracy").value for name in classes]
        assert np.mean(values) == pytest.approx(published(f"R4/{figure}-accuracy").value, abs=0.005)


def test_the_pictures_of_a_figure_are_known_for_r4_alone():
    known = {key: figure.pictures for key, figure in published_figures().items() if figure.pictures}
    # Two pictures of each batch of 32.
    whole = {"R4/test-accuracy": 2 * math.ceil(10_000 / 32), "R4/art/test-accuracy": 2 * math.ceil(2_142 / 32)}
    right_of = {"cartoon": (32, 57), "cyberpunk": (20, 33), "noir": (21, 44)}
    assert known == whole | {f"R4/art/{name}/test-accuracy": of for name, (_, of) in right_of.items()}
    assert sum(of for _, of in right_of.values()) == whole["R4/art/test-accuracy"]
    for name, (right, of) in right_of.items():
        assert published(f"R4/art/{name}/test-accuracy").text == f"{100 * right / of:.2f}"


@pytest.mark.parametrize(("key", "stated"), [("R4/test-accuracy", 3.7), ("R4/art/test-accuracy", 8.4)])
def test_r4_s_intervals_are_those_stated(key, stated):
    figure = published(key)
    share, z = figure.value / 100, stats.norm.ppf(0.975)
    assert round(100 * z * math.sqrt(share * (1 - share) / figure.pictures), 1) == stated
    # Wilson's ends are the shares that lie just z of their own standard errors from what was seen.
    seen = round(share * figure.pictures) / figure.pictures
    for side, end in zip((-1, 1), figure.interval(), strict=True):
        reach = z * math.sqrt(end / 100 * (1 - end / 100) / figure.pictures)
        assert end / 100 - seen == pytest.approx(side * reach, rel=1e-6)


def test_a_figure_is_found_by_its_key_or_its_setting_and_lacks_an_interval_where_its_pictures_are_unknown():
    plain = published("R2/kernels/3-3-3/test-accuracy")
    assert plain.interval() is None and plain.with_interval == "83.00"
    assert published_for("R0/final", "test_accuracy").report == "R0"
    assert published_for("R0/base", "validation_accuracy") is None
    with pytest.raises(KeyError, match="R4/parameters"):
        published("R4/none")
    assert {"R0", "R1", "R2", "R3", "R4"} <= {figure.report for figure in published_figures().values()}
    for figure in published_figures().values():
        assert figure.unit != "percent" or 0 < figure.value < 100, figure
