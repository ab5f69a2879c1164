"""Thresholds of multi-label scores against a search over all of them."""

import numpy as np
import pytest

from patchword.metrics.thresholds import best_threshold, choose_thresholds, f1


def test_no_threshold_has_a_higher_f1() -> None:
    chance = np.random.default_rng(0)
    for _ in range(20):
        truth = chance.random(60) < 0.3
        scores = np.round(np.clip(0.3 * truth + chance.random(60) * 0.7, 0, 1), 1)
        found = f1(scores >= best_threshold(scores, truth), truth)
        every = [f1(scores >= t, truth) or 0 for t in [*np.unique(scores), 0.05, 0.55]]
        assert found == pytest.approx(max(every))


def test_a_class_with_low_scores_gets_a_low_threshold() -> None:
    truth = np.zeros((100, 2), bool)
    truth[:30, 0] = truth[50:, 1] = True
    scores = np.where(truth, [[0.3, 0.9]], [[0.1, 0.2]])
    low, high = choose_thresholds(scores, truth)
    assert low.threshold == pytest.approx(0.2) and low.f1_default == 0
    assert low.f1 == low.precision == low.recall == low.f1_held_out == 1
    assert high.f1_default == high.f1 == 1


def test_a_threshold_chosen_on_noise_does_not_look_better_held_out() -> None:
    chance = np.random.default_rng(3)
    truth, scores = chance.random((60, 40)) < 0.3, chance.random((60, 40))
    found = [c for c in choose_thresholds(scores, truth) if c.f1 is not None]
    gain = np.mean([(c.f1 or 0) - (c.f1_held_out or 0) for c in found])
    assert len(found) > 30 and gain > 0.02


def test_a_rare_class_gets_no_threshold() -> None:
    truth = np.zeros((100, 1), bool)
    truth[:5] = True
    (found,) = choose_thresholds(truth * 0.9, truth)
    assert found.threshold is None and found.images == 5 and found.f1_default == 1


def test_scores_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match=r"both must be \[N, C\]"):
        choose_thresholds(np.zeros((3, 2)), np.zeros((3, 1), bool))
    with pytest.raises(ValueError, match="NaN"):
        choose_thresholds(np.full((3, 1), np.nan), np.zeros((3, 1), bool))
