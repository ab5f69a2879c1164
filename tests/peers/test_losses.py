"""Losses against those of timm and torch."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from patchword.training import losses

timm_loss = pytest.importorskip("timm.loss")
LOGITS, LABELS = 3 * torch.randn(16, 7), torch.arange(16) % 7
HARD = F.one_hot(LABELS, 7).float()


def test_smoothed_cross_entropy_is_timms_and_torchs() -> None:
    ours = losses.cross_entropy(LOGITS, losses.smoothed(HARD, 0.1)) / 16
    torch.testing.assert_close(ours, timm_loss.LabelSmoothingCrossEntropy(0.1)(LOGITS, LABELS))
    torch.testing.assert_close(ours, F.cross_entropy(LOGITS, LABELS, label_smoothing=0.1))


@pytest.mark.parametrize("threshold", [None, 0.2])
def test_binary_cross_entropy_is_timms(threshold: float | None) -> None:
    theirs = timm_loss.BinaryCrossEntropy(smoothing=0.1, target_threshold=threshold)(LOGITS, LABELS)
    targets = losses.smoothed(HARD, 0.1)
    targets = targets if threshold is None else losses.above(targets, threshold)
    torch.testing.assert_close(losses.binary_cross_entropy(LOGITS, targets) / 16, theirs)


def test_weighted_cross_entropy_is_torchs_for_probabilities() -> None:
    weights = losses.class_weights(torch.from_numpy(np.array([9, 1, 4, 2, 2, 7, 3])), 1.0)
    ours = losses.cross_entropy(LOGITS, HARD, HARD @ weights) / 16
    torch.testing.assert_close(ours, F.cross_entropy(LOGITS, HARD, weight=weights))
