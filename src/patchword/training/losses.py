"""Training losses. Each is a sum over the images of a batch, so that micro-batches and processes add up."""

import torch.nn.functional as F
from torch import Tensor


def soft_targets(labels: Tensor, num_classes: int, smoothing: float) -> Tensor:
    """labels [B] → [B, C] summing to 1: `smoothing` spread over all classes, the rest on the label.

    Source: Szegedy et al. 2016 (arXiv 1512.00567), section 7.
    """
    hard = F.one_hot(labels, num_classes).float()
    return hard * (1 - smoothing) + smoothing / num_classes


def soft_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Sum over the batch of -Σ target · log softmax, in float32 whatever the logits are in."""
    return F.cross_entropy(logits.float(), targets, reduction="sum")
