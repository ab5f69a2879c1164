"""Scores against counting by hand and against scikit-learn."""

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix, log_loss, precision_recall_fscore_support, top_k_accuracy_score

from patchword import metrics

DRAWN = np.random.default_rng(0)
SCORES = DRAWN.normal(size=(200, 7)).astype(np.float32)
LABELS = DRAWN.integers(0, 7, 200)


@pytest.mark.parametrize("k", [1, 5])
def test_ranks_give_top_k_as_scikit_learn_counts_it(k: int) -> None:
    expected = top_k_accuracy_score(LABELS, SCORES, k=k, labels=range(7))
    assert (metrics.ranks(SCORES, LABELS) < k).mean() == pytest.approx(expected)


def test_equal_scores_stand_in_the_order_of_the_classes() -> None:
    scores = np.zeros((3, 3), np.float32)
    assert metrics.ranks(scores, np.array([0, 1, 2])).tolist() == [0, 1, 2]


def test_scores_that_are_no_numbers_are_never_right() -> None:
    scores = np.array([[np.nan, np.nan, np.nan], [0.0, np.nan, 1.0]], np.float32)
    assert metrics.ranks(scores, np.array([0, 2])).tolist() == [3, 3]


def test_cross_entropy_is_the_log_loss_and_survives_large_logits() -> None:
    shares = np.exp(SCORES.astype(np.float64))
    shares /= shares.sum(1, keepdims=True)
    expected = log_loss(LABELS, shares, labels=range(7))
    assert metrics.cross_entropy(SCORES, LABELS).mean() == pytest.approx(expected)
    huge = np.array([[1e4, -1e4]], np.float32)
    assert metrics.cross_entropy(huge, np.array([1])).tolist() == [2e4]


def test_confusion_and_class_scores_are_scikit_learns() -> None:
    predicted = SCORES.argmax(1)
    counts = metrics.confusion(LABELS, predicted, 7)
    assert np.array_equal(counts, confusion_matrix(LABELS, predicted, labels=range(7)))
    precision, recall, f1, images = precision_recall_fscore_support(LABELS, predicted, labels=range(7))
    scores = metrics.per_class(counts)
    assert [s.precision for s in scores] == pytest.approx(precision)
    assert [s.recall for s in scores] == pytest.approx(recall)
    assert [s.f1 for s in scores] == pytest.approx(f1)
    assert [s.images for s in scores] == images.tolist()


def test_a_class_that_is_not_there_has_no_score() -> None:
    nobody = metrics.per_class(metrics.confusion(np.array([0]), np.array([0]), 2))[1]
    assert nobody == metrics.ClassScore(images=0, precision=None, recall=None, f1=None)


@pytest.mark.parametrize(
    ("right", "total", "interval"),
    # Values of the closed form, computed apart: Wilson's interval at 95 %.
    [(50, 100, (0.4038, 0.5962)), (10, 10, (0.7225, 1.0)), (0, 10, (0.0, 0.2775)), (0, 0, (0.0, 1.0))],
)
def test_the_interval_of_a_share(right: int, total: int, interval: tuple[float, float]) -> None:
    assert metrics.wilson_interval(right, total) == pytest.approx(interval, abs=1e-4)
