"""Scores of several classes and of numbers, against values worked out by hand."""

import numpy as np
import pytest

from patchword.metrics.multilabel import exact_match, f1_scores, mean_average_precision
from patchword.metrics.regression import number_scores

TRUTH = np.array([[1, 0, 0], [0, 1, 0], [1, 1, 0], [0, 0, 0]], bool)


def test_average_precision_is_the_sum_over_steps_of_recall() -> None:
    scores = np.array([[0.9, 0.1, 0.5], [0.8, 0.9, 0.5], [0.7, 0.5, 0.5], [0.1, 0.5, 0.5]])
    found = mean_average_precision(scores, TRUTH)
    # Class 0: hits at ranks 1 and 3: (1/1 + 2/3) / 2. Class 1: at rank 1, then a tie of ranks 2 and 3: (1 + 2/3) / 2.
    assert found.per_class == (pytest.approx(5 / 6), pytest.approx(5 / 6), None)
    assert found.macro == pytest.approx(5 / 6) and found.interval is not None
    assert mean_average_precision(scores, np.zeros_like(TRUTH)).macro is None
    with pytest.raises(ValueError, match="NaN"):
        mean_average_precision(scores * np.nan, TRUTH)


def test_a_constant_score_has_the_average_precision_of_the_share_of_the_class() -> None:
    truth = np.arange(40)[:, None] % 4 == 0
    assert mean_average_precision(np.zeros((40, 1)), truth).macro == pytest.approx(0.25)


def test_f1_counts_pairs_in_micro_and_classes_in_macro() -> None:
    named = np.array([[1, 0, 0], [1, 1, 0], [1, 0, 0], [0, 0, 0]], bool)
    found = f1_scores(named, TRUTH)
    # Class 0: TP 2, FP 1, FN 0: 4/5. Class 1: TP 1, FP 0, FN 1: 2/3. Together TP 3, FP 1, FN 1: 6/8.
    assert found.per_class == (0.8, pytest.approx(2 / 3), None)
    assert found.micro == 0.75 and found.macro == pytest.approx((0.8 + 2 / 3) / 2)
    assert exact_match(named, TRUTH) == 0.5


def test_errors_of_numbers_are_in_their_unit() -> None:
    truth = np.array([[1.0, 5.0], [2.0, 5.0], [3.0, 5.0], [6.0, 5.0]])
    first, second = number_scores(truth + np.array([[1, 0], [-1, 0], [1, 0], [3, 2]]), truth)
    # Errors 1, 1, 1, 3: mean 1.5, squares 12 of 4. Around the mean 3 the squares are 4 + 1 + 0 + 9 = 14.
    assert (first.mae, first.rmse, first.r2) == pytest.approx((1.5, 3**0.5, 1 - 12 / 14))
    assert first.mae_interval[0] < 1.5 < first.mae_interval[1]
    assert second.r2 is None and second.r2_interval is None and second.mae == 0.5
    mean = number_scores(np.full((4, 1), 3.0), truth[:, :1])[0]
    assert mean.r2 == pytest.approx(0)
    years = number_scores(truth[:, :1] + 1e9 + 1, truth[:, :1] + 1e9)[0]
    assert years.r2 == pytest.approx(1 - 4 / 14)


def test_the_interval_holds_the_true_error_nineteen_times_in_twenty() -> None:
    rng, inside = np.random.default_rng(1), 0
    for seed in range(100):
        errors = rng.normal(size=(200, 1))
        low, high = number_scores(errors, np.zeros((200, 1)), repeats=300, seed=seed)[0].rmse_interval
        inside += low < 1 < high
    assert 87 <= inside <= 100, inside
