"""Reliability curves against scikit-learn, their error against sums by hand and probabilities that are right."""

import numpy as np
import pytest
from sklearn.calibration import calibration_curve

from helpers.record.recorder import BINS, expected_calibration_error, reliability


def draw(count, off=0.0, seed=0):
    """Return confidences, and predictions that are right as often as those say, less ``off``."""
    rng = np.random.default_rng(seed)
    confidence = rng.uniform(0.3, 1, count)
    return confidence, rng.random(count) < confidence - off


@pytest.mark.parametrize("bins", [1, 7, BINS])
def test_the_curve_is_that_of_scikit_learn(bins):
    confidence, right = draw(3000)
    curve = reliability(confidence, right, bins)
    filled = np.array(curve["count"]) > 0
    accuracy, mean = calibration_curve(right, confidence, n_bins=bins, strategy="uniform")
    np.testing.assert_allclose(np.array(curve["accuracy"])[filled], accuracy)
    np.testing.assert_allclose(np.array(curve["confidence"])[filled], mean)
    assert curve["count"] == np.histogram(confidence, bins, (0, 1))[0].tolist()
    assert all(len(values) == bins for values in curve.values())


def test_the_error_is_the_one_by_hand():
    confidence = [0.95, 0.97, 0.95, 0.93, 0.55, 0.57, 0.05]
    right = [True, True, False, False, True, False, False]
    curve = reliability(np.array(confidence), np.array(right), bins=10)
    assert curve["count"] == [1, 0, 0, 0, 0, 2, 0, 0, 0, 4]
    assert curve["confidence"] == pytest.approx([0.05, 0, 0, 0, 0, 0.56, 0, 0, 0, 0.95])
    assert curve["accuracy"] == pytest.approx([0, 0, 0, 0, 0, 0.5, 0, 0, 0, 0.5])
    assert expected_calibration_error(curve) == pytest.approx((1 * 0.05 + 2 * 0.06 + 4 * 0.45) / 7)


def test_a_network_that_knows_has_almost_no_error_and_one_that_boasts_has_its_boast():
    assert expected_calibration_error(reliability(*draw(200_000))) < 0.01
    assert expected_calibration_error(reliability(*draw(200_000, off=0.2))) == pytest.approx(0.2, abs=0.01)
    assert expected_calibration_error(reliability(*draw(200_000, off=-0.1))) > 0.05


def test_certainty_and_its_opposite_fall_into_the_outer_ranges():
    curve = reliability(np.array([0.0, 1.0, 1.0]), np.array([0, 1, 0]), bins=4)
    assert curve["count"] == [1, 0, 0, 2] and curve["accuracy"] == [0, 0, 0, 0.5]


def test_a_curve_of_nothing_is_plain_zeros():
    nothing = reliability(np.array([]), np.array([]))
    assert nothing["count"] == [0] * BINS and expected_calibration_error(nothing) == 0
