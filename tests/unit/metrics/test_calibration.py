"""Calibration on predictions whose true probabilities are known."""

import numpy as np
import pytest
from numpy.typing import NDArray

from patchword import metrics
from patchword.metrics.calibration import (
    FEWEST_IMAGES,
    bins,
    calibration,
    confidences,
    expected_calibration_error,
    fit_temperature,
)


def _drawn(number: int, sharper: float, seed: int = 0) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Logits `sharper` times those that the labels were drawn from."""
    chance = np.random.default_rng(seed)
    logits = 2 * chance.normal(size=(number, 5))
    shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    labels = np.array([chance.choice(5, p=row) for row in shares])
    return sharper * logits, labels


@pytest.mark.parametrize("sharper", [0.5, 1.0, 3.0])
def test_the_temperature_is_how_much_too_sharp_the_logits_are(sharper: float) -> None:
    assert fit_temperature(*_drawn(4000, sharper)) == pytest.approx(sharper, rel=0.08)


def test_no_other_temperature_has_a_lower_loss() -> None:
    logits, labels = _drawn(500, 2.5)
    best = fit_temperature(logits, labels)
    losses = [metrics.cross_entropy(logits / t, labels).mean() for t in (best, 0.97 * best, 1.03 * best)]
    assert losses[0] == min(losses)


def test_overconfident_logits_are_calibrated_by_the_temperature_of_the_other_half() -> None:
    sharp, right = calibration(*_drawn(4000, 3.0)), calibration(*_drawn(4000, 1.0))
    assert sharp.ece > 0.1 and right.ece < 0.03
    assert sharp.ece_after is not None and sharp.ece_after < 0.03
    assert sharp.nll_after is not None and sharp.nll_after < sharp.nll


def test_noise_gains_nothing_from_its_own_temperature() -> None:
    logits = np.random.default_rng(1).normal(size=(200, 4))
    found = calibration(logits, np.random.default_rng(2).integers(0, 4, 200))
    # Random labels are best predicted by equal shares, and no better than that.
    assert found.nll_after is not None and found.nll_after >= np.log(4) - 0.01


def test_bins_have_equal_mass_and_every_image_is_in_one() -> None:
    found = bins(*confidences(*_drawn(1003, 1.0)))
    assert len(found) == 15 and sum(b.images for b in found) == 1003
    assert {b.images for b in found} <= {66, 67}
    assert [b.confidence for b in found] == sorted(b.confidence for b in found)


def test_the_error_is_the_mean_gap_between_confidence_and_accuracy() -> None:
    confidence = np.array([0.6] * 20 + [0.9] * 20)
    correct = np.array([True] * 10 + [False] * 10 + [True] * 20)
    assert expected_calibration_error(bins(confidence, correct)) == pytest.approx(0.5 * 0.1 + 0.5 * 0.1)


def test_few_images_get_no_temperature() -> None:
    assert calibration(*_drawn(FEWEST_IMAGES - 1, 3.0)).temperature is None
    assert calibration(*_drawn(FEWEST_IMAGES, 3.0)).temperature is not None


def test_labels_that_are_always_right_give_the_lowest_temperature() -> None:
    labels = np.arange(200) % 4
    assert fit_temperature(np.eye(4)[labels], labels) == pytest.approx(0.05)
    assert fit_temperature(-np.eye(4)[labels], labels) == pytest.approx(20)
