"""A report's conclusion is confirmed, contradicted or left open by the interval alone, whichever way it points."""

import pytest
from synthetic import synthetic_run

from helpers.figures import agreement, scales_table
from helpers.record import Difference, Runs, Verdict


def found(*differences: Difference) -> Verdict:
    return Verdict("validation_accuracy", 3, 0.95, differences)


HIGHER = Difference("Adam", "SGD", 0.03, 0.01, 0.05)
LOWER = Difference("Adam", "SGD", -0.03, -0.05, -0.01)
OPEN = Difference("Adam", "SGD", 0.03, -0.01, 0.07)


@pytest.mark.parametrize(
    ("pair", "expected", "words"),
    [
        (HIGHER, "above", "agrees: Adam above SGD by 3.00 points"),
        (HIGHER, "below", "contradicts this: Adam above SGD by 3.00 points"),
        (LOWER, "above", "contradicts this: SGD above Adam by 3.00 points"),
        (LOWER, "below", "agrees: SGD above Adam by 3.00 points"),
        (OPEN, "above", "cannot tell: Adam and SGD: not separable with 3 seeds"),
        (OPEN, "below", "cannot tell: Adam and SGD: not separable with 3 seeds"),
    ],
)
def test_the_interval_decides(pair, expected, words):
    said = agreement("R2 has {a} before {b}", found(pair), expected)
    assert said.startswith(f"R2 has Adam before SGD. Our record {words}")


def test_a_line_for_each_pair():
    lines = agreement("a claim", found(HIGHER, OPEN)).splitlines()
    assert ["agrees" in line for line in lines] == [True, False]


def test_a_claim_points_somewhere():
    with pytest.raises(ValueError, match="expected='better'.*above or below"):
        agreement("a claim", found(HIGHER), "better")


def test_the_scale_is_read_from_the_runs():
    arms = {"R2": ("r2", 12), "R4": ("r4", 15)}
    runs = Runs(None, [synthetic_run(a, m, 0.7, s, epochs=e) for a, (m, e) in arms.items() for s in (0, 1)])
    table = scales_table({"which net?": runs})
    assert table.loc["which net?"].to_dict() == {
        "network": "r2, r4",
        "training pictures": "4,500",
        "batch size": "64",
        "learning rate": "0.001",
        "epochs": "12 to 15",
        "seeds": "2",
    }
