"""Scores of models that say for each class whether an image has it, as pure functions on arrays.

Shapes: N images, C classes. scores [N, C] rank the images of a class: probabilities or logits. truth, named [N, C] bool:
the classes that images have, and those that a model says.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from patchword.metrics import Floats

REPEATS = 200
# At most this many counts of samples are handled at once.
_AT_ONCE = 4_000_000
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
    prepared = _ranked(scores, truth)
    ones = np.ones((1, len(scores)), np.int64)
    values = [_number(ranked.average_precisions(ones)[0]) for ranked in prepared]
    there = [value for value in values if value is not None]
    if not there:
        return AveragePrecision(macro=None, per_class=tuple(values), interval=None)
    drawn = _macro(prepared, times_drawn(len(scores), repeats, seed)) if repeats else np.zeros(0)
    means = drawn[~np.isnan(drawn)]
    ends = [float(end) for end in np.percentile(means, (_LOW, _HIGH))] if len(means) else None
    interval = (ends[0], ends[1]) if ends else None
    return AveragePrecision(macro=float(np.mean(there)), per_class=tuple(values), interval=interval)


def macro_precisions(scores: Floats, truth: Bools, times: NDArray[np.int64]) -> NDArray[np.float64]:
    """The mean average precision of samples of the images, [R]; NaN for a sample without an image of any class.

    times [R, N]: how often each sample holds each image (`times_drawn`).
    """
    _check(scores, truth)
    return _macro(_ranked(scores, truth), times)


def times_drawn(images: int, repeats: int, seed: int) -> NDArray[np.int64]:
    """How often each of `repeats` bootstrap samples holds each image, [R, N]."""
    rng = np.random.default_rng(seed)
    drawn = [np.bincount(rng.integers(0, images, images), minlength=images) for _ in range(repeats)]
    return np.stack(drawn)


def _ranked(scores: Floats, truth: Bools) -> list["_Ranked"]:
    return [_Ranked(s, t) for s, t in zip(scores.T, truth.T, strict=True)]


def _macro(classes: "list[_Ranked]", times: NDArray[np.int64]) -> NDArray[np.float64]:
    """The mean over the classes that a sample has, [R]."""
    total, count = np.zeros(len(times)), np.zeros(len(times))
    for ranked in classes:
        values = ranked.average_precisions(times)
        there = ~np.isnan(values)
        total[there] += values[there]
        count += there
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


class _Ranked:
    """The images of one class by falling score, so that no bootstrap sample needs sorting.

    Precision counts only where an image of the class is reached, so images are taken together up to each of these.
    """

    def __init__(self, scores: Floats, truth: Bools) -> None:
        order = np.argsort(-scores, kind="stable")
        ranked, there = scores[order], truth[order]
        # The last image of each group of equal scores, if the group has an image of the class.
        ends = np.append(np.flatnonzero(ranked[1:] != ranked[:-1]), len(ranked) - 1) if len(order) else order
        starts = np.append(0, ends[:-1] + 1)
        hit = np.add.reduceat(there, starts) > 0 if len(order) else np.zeros(0, bool)
        self.starts = np.append(0, ends[hit][:-1] + 1)
        self.order = order[: ends[hit][-1] + 1] if hit.any() else order[:0]
        self.truth = there[: len(self.order)]

    def average_precisions(self, times: NDArray[np.int64]) -> NDArray[np.float64]:
        """times [R, N]: how often each image is in each sample. [R], NaN for a sample without an image of the class."""
        found = np.full(len(times), np.nan)
        if not len(self.order):
            return found
        size = max(_AT_ONCE // len(self.order), 1)
        for low in range(0, len(times), size):
            part = times[low : low + size, self.order]
            named = np.cumsum(np.add.reduceat(part, self.starts, axis=1), axis=1)
            new = np.add.reduceat(part * self.truth, self.starts, axis=1)
            hits = np.cumsum(new, axis=1)
            known = hits[:, -1] > 0
            sums = (new * (hits / np.maximum(named, 1))).sum(axis=1)
            found[low : low + size][known] = sums[known] / hits[known, -1]
        return found


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
