"""Scores of models that say for each class whether an image has it, as pure functions on arrays.

Shapes: N images, C classes. scores [N, C] rank the images of a class: probabilities or logits. truth, named [N, C] bool:
the classes that images have, and those that a model says.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from patchword.metrics import Floats

REPEATS = 200
_LOW, _HIGH = 2.5, 97.5
Bools = NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class AveragePrecision:
    """macro: the mean over the classes with an image, None if there are none. per_class: None for the other classes.

    interval: of the macro mean, 95 %, from bootstrap samples of the images; None without samples.
    """

    macro: float | None
    per_class: tuple[float | None, ...]
    interval: tuple[float, float] | None


def mean_average_precision(
    scores: Floats, truth: Bools, *, repeats: int = REPEATS, seed: int = 0
) -> AveragePrecision:
    """Average precision of each class: Σₖ (Rₖ - Rₖ₋₁) · Pₖ.

    Pₖ and Rₖ are precision and recall if the images with the k-th highest of the different scores, or a higher one, are
    said to have the class: equal scores count together, as in scikit-learn.
    Raises: ValueError if the shapes differ or a score is not finite.
    """
    _check(scores, truth)
    prepared = [_Ranked(s, t) for s, t in zip(scores.T, truth.T, strict=True)]
    ones = np.ones(len(scores))
    values = [ranked.average_precision(ones) for ranked in prepared]
    there = [value for value in values if value is not None]
    if not there:
        return AveragePrecision(macro=None, per_class=tuple(values), interval=None)
    rng, means = np.random.default_rng(seed), []
    for _ in range(repeats):
        weights = np.bincount(rng.integers(0, len(scores), len(scores)), minlength=len(scores)).astype(float)
        drawn = [v for ranked in prepared if (v := ranked.average_precision(weights)) is not None]
        if drawn:
            means.append(np.mean(drawn))
    ends = [float(end) for end in np.percentile(means, (_LOW, _HIGH))] if means else None
    interval = (ends[0], ends[1]) if ends else None
    return AveragePrecision(macro=float(np.mean(there)), per_class=tuple(values), interval=interval)


class _Ranked:
    """The images of one class by falling score, so that each bootstrap sample needs no sorting."""

    def __init__(self, scores: Floats, truth: Bools) -> None:
        self.order = np.argsort(-scores, kind="stable")
        ranked = scores[self.order]
        # The last image of each group of equal scores.
        self.ends = np.append(np.flatnonzero(ranked[1:] != ranked[:-1]), len(ranked) - 1)
        self.truth = truth[self.order]

    def average_precision(self, weights: NDArray[np.float64]) -> float | None:
        """weights [N]: how often each image is in the sample."""
        if not len(self.order):
            return None
        weights = weights[self.order]
        hits = np.cumsum(weights * self.truth)[self.ends]
        if not hits[-1]:
            return None
        named = np.cumsum(weights)[self.ends]
        precision = hits / np.maximum(named, 1)
        return float((np.diff(hits, prepend=0.0) * precision).sum() / hits[-1])


@dataclass(frozen=True, kw_only=True)
class F1:
    """micro: 2·TP / (2·TP + FP + FN) over all images and classes. macro: the mean of the classes' own.

    A class that no image has and that is never said counts in neither; None if that is so for all.
    """

    micro: float | None
    macro: float | None
    per_class: tuple[float | None, ...]


def f1_scores(named: Bools, truth: Bools) -> F1:
    """Raises: ValueError if the shapes differ."""
    _check(named, truth)
    hits, total = (named & truth).sum(axis=0), named.sum(axis=0) + truth.sum(axis=0)
    values = [2 * int(h) / int(t) if t else None for h, t in zip(hits, total, strict=True)]
    there = [value for value in values if value is not None]
    return F1(
        micro=2 * int(hits.sum()) / int(total.sum()) if total.sum() else None,
        macro=float(np.mean(there)) if there else None,
        per_class=tuple(values),
    )


def exact_match(named: Bools, truth: Bools) -> float:
    """The share of images all of whose classes are right. Raises: ValueError if the shapes differ or there are no images."""
    _check(named, truth)
    if not len(truth):
        raise ValueError("there are no images")
    return float((named == truth).all(axis=1).mean())


def _check(values: NDArray[np.generic], truth: Bools) -> None:
    if values.shape != truth.shape or truth.ndim != 2:
        raise ValueError(f"shapes {values.shape} and {truth.shape} differ; both must be [N, C]")
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise ValueError("a score is NaN or infinite")
