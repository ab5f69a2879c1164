"""Classification metrics, as pure functions on arrays.

Shapes: N images, C classes. Labels and predictions are indices of classes.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]
Indices = NDArray[np.int64]


def ranks(scores: Floats, labels: Indices) -> Indices:
    """The number of classes ranked before the true one, [N]: 0 is correct, < 5 is correct in the top five.

    scores [N, C]. Ties are ranked in the order of the classes, as in predictions. If any score of an image is
    NaN, all C classes count as ranked before the true one.
    """
    true = np.take_along_axis(scores, labels[:, None], axis=1)
    before = np.arange(scores.shape[1]) < labels[:, None]
    # Every comparison with NaN is false, which would count a broken model as always correct.
    has_nan = np.isnan(scores).any(axis=1, keepdims=True)
    rank: Indices = ((scores > true) | ((scores == true) & before) | has_nan).sum(axis=1)
    return rank


def cross_entropy(logits: Floats, labels: Indices) -> NDArray[np.float64]:
    """-log of the true class's probability, [N], in float64."""
    wide = logits.astype(np.float64)
    shifted = wide - wide.max(axis=1, keepdims=True)
    true = np.take_along_axis(shifted, labels[:, None], axis=1)[:, 0]
    loss: NDArray[np.float64] = np.log(np.exp(shifted).sum(axis=1)) - true
    return loss


def softmax(logits: Floats) -> NDArray[np.float32]:
    """Turn logits [..., classes] into probabilities, in float64 so that their sum is 1 to the last digit."""
    shifted = np.exp(logits.astype(np.float64) - logits.max(-1, keepdims=True))
    shares: NDArray[np.float32] = (shifted / shifted.sum(-1, keepdims=True)).astype(np.float32)
    return shares


def confusion(labels: Indices, predicted: Indices, num_classes: int) -> Indices:
    """[C, C] counts: true rows, predicted columns."""
    flat = np.bincount(labels * num_classes + predicted, minlength=num_classes**2)
    return flat.reshape(num_classes, num_classes)


@dataclass(frozen=True, kw_only=True)
class ClassScore:
    """Scores of one class. precision: None if it was never predicted; recall: None if it has no images."""

    images: int
    precision: float | None
    recall: float | None
    f1: float | None


def per_class(counts: Indices) -> list[ClassScore]:
    """Scores of each class from the confusion matrix [C, C]."""
    right, true, predicted = counts.diagonal(), counts.sum(axis=1), counts.sum(axis=0)
    scores = []
    for hit, images, named in zip(right.tolist(), true.tolist(), predicted.tolist(), strict=True):
        scores.append(
            ClassScore(
                images=images,
                precision=hit / named if named else None,
                recall=hit / images if images else None,
                f1=2 * hit / (images + named) if images + named else None,
            )
        )
    return scores


def wilson_interval(right: int, total: int, z: float = 1.959963984540054) -> tuple[float, float]:
    """The 95 % interval of a share, `right` of `total`; (0, 1) if `total` is 0.

    Source: Wilson 1927; unlike the normal interval, it is valid near 0 and 1 and for few images.
    """
    if total == 0:
        return 0.0, 1.0
    share, square = right / total, z * z
    centre = (share + square / (2 * total)) / (1 + square / total)
    half = z / (1 + square / total) * math.sqrt(share * (1 - share) / total + square / (4 * total**2))
    # Rounding must not move an end outside 0..1.
    low = 0.0 if right == 0 else max(0.0, centre - half)
    high = 1.0 if right == total else min(1.0, centre + half)
    return low, high


def t_interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Mean of shares, and the 95 % interval of the mean by Student's t with one degree of freedom less than values.

    The interval is cut to 0..1. Raises: ValueError for fewer than two values.
    """
    if len(values) < 2:
        raise ValueError(f"an interval needs two values, not {len(values)}")
    from scipy.special import stdtrit

    mean = float(np.mean(values))
    half = float(stdtrit(len(values) - 1, 0.975)) * float(np.std(values, ddof=1)) / math.sqrt(len(values))
    return mean, max(0.0, mean - half), min(1.0, mean + half)


@dataclass(frozen=True, kw_only=True)
class Majority:
    """The most frequent class among the scored images, and the top-1 of always predicting it."""

    name: str
    top1: float

    def verdict(self, top1: float, low: float) -> str:
        """Compare a top-1, with the lower end `low` of its interval, to this baseline; "" if it is clearly better."""
        if self.top1 == 1:  # images of one class only: nothing to distinguish
            return ""
        always = f"always predicting {self.name!r}, the most frequent class, scores {percent(self.top1)}"
        if top1 <= self.top1:
            return f"no better than the majority class: top-1 is {percent(top1)}, and {always}"
        if low <= self.top1:
            return f"not clearly better than the majority class: {always}, which lies in the 95 % interval"
        return ""


def majority(images: Sequence[int], names: Sequence[str]) -> Majority | None:
    """The majority baseline, or None without images. images: number scored of each class."""
    if not sum(images):
        return None
    most = max(range(len(images)), key=lambda i: (images[i], -i))
    return Majority(name=names[most], top1=images[most] / sum(images))


def percent(share: float) -> str:
    """0.549 as "54.9 %"."""
    return f"{100 * share:.1f} %"
