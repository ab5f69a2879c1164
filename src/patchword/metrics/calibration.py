"""Calibration: whether predicted probabilities are as often right as they say, and one temperature that corrects them.

Shapes: N images, C classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from patchword.metrics import Floats, Indices, cross_entropy

# With fewer images, the error of a perfectly calibrated model would look large, and a temperature would fit noise.
FEWEST_IMAGES = 100
_MOST_BINS, _IMAGES_PER_BIN = 15, 20
_LOWEST, _HIGHEST = 0.05, 20.0


@dataclass(frozen=True, kw_only=True)
class Bin:
    """Images of similar confidence: their number, mean confidence and share of correct predictions."""

    images: int
    confidence: float
    accuracy: float


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """The calibration of a model on N images.

    ece: expected calibration error over `bins` of equal mass. nll: mean negative log-likelihood.
    temperature: what the logits are to be divided by, fitted on all images; None with fewer than FEWEST_IMAGES.
    ece_after, nll_after: with a temperature for each half of the images that was fitted on the other half, so that no
    image is scored with a temperature that it helped to choose.
    """

    images: int
    ece: float
    nll: float
    bins: tuple[Bin, ...]
    temperature: float | None = None
    ece_after: float | None = None
    nll_after: float | None = None
    bins_after: tuple[Bin, ...] = ()


def calibration(logits: Floats, labels: Indices) -> Calibration:
    """Measure the calibration of logits [N, C] against labels [N], N at least 1."""
    before = bins(*confidences(logits, labels))
    losses = cross_entropy(logits, labels)
    measured = Calibration(
        images=len(labels), ece=expected_calibration_error(before), nll=float(losses.mean()), bins=before
    )
    if len(labels) < FEWEST_IMAGES:
        return measured
    # Images are listed class by class, so every second one has all classes.
    first = np.arange(len(labels)) % 2 == 0
    scaled = logits.astype(np.float64)
    for half in (first, ~first):
        scaled[half] /= fit_temperature(logits[~half], labels[~half])
    after = bins(*confidences(scaled, labels))
    return Calibration(
        images=len(labels),
        ece=measured.ece,
        nll=measured.nll,
        bins=before,
        temperature=round(fit_temperature(logits, labels), 4),
        ece_after=expected_calibration_error(after),
        nll_after=float(cross_entropy(scaled, labels).mean()),
        bins_after=after,
    )


def confidences(logits: Floats, labels: Indices) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """The probability of the predicted class, [N], and whether it is the true one, [N]."""
    predicted = logits.argmax(axis=1)
    return np.exp(-cross_entropy(logits, predicted)), predicted == labels


def bins(confidence: NDArray[np.float64], correct: NDArray[np.bool_]) -> tuple[Bin, ...]:
    """Bins with the same number of images each (within one), from the least confident to the most.

    15 bins, or fewer if one would have less than 20 images. Bins of equal width, as in Guo et al. 2017, would leave most
    of them nearly empty, because most predictions are confident (Nixon et al. 2019, "Measuring calibration in deep
    learning", section 4.1).
    """
    number = min(max(len(confidence) // _IMAGES_PER_BIN, 1), _MOST_BINS)
    parts = np.array_split(np.argsort(confidence, kind="stable"), number)
    return tuple(
        Bin(images=len(p), confidence=float(confidence[p].mean()), accuracy=float(correct[p].mean()))
        for p in parts
        if len(p)
    )


def expected_calibration_error(found: Sequence[Bin]) -> float:
    """The mean distance between confidence and accuracy, weighted by images (Guo et al. 2017, equation 3)."""
    total = sum(b.images for b in found)
    return sum(b.images * abs(b.confidence - b.accuracy) for b in found) / total if total else 0.0


def fit_temperature(logits: Floats, labels: Indices) -> float:
    """The temperature from 0.05 to 20 that minimises the negative log-likelihood of logits [N, C] divided by it.

    Source: Guo et al. 2017, "On calibration of modern neural networks", section 4.2. In 1/T the loss is convex, so its
    slope has one zero, which bisection finds.
    """
    wide = logits.astype(np.float64)
    wide -= wide.max(axis=1, keepdims=True)
    true = np.take_along_axis(wide, labels[:, None], axis=1)[:, 0]

    def slope(inverse: float) -> float:
        weights = np.exp(wide * inverse)
        return float(((weights * wide).sum(axis=1) / weights.sum(axis=1) - true).mean())

    low, high = 1 / _HIGHEST, 1 / _LOWEST
    if slope(low) >= 0:
        return _HIGHEST
    if slope(high) <= 0:
        return _LOWEST
    for _ in range(50):
        middle = (low * high) ** 0.5
        low, high = (low, middle) if slope(middle) > 0 else (middle, high)
    return float(1 / (low * high) ** 0.5)
