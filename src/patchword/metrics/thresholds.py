"""Thresholds for multi-label models: from which score on a class counts as present.

Shapes: N images, C classes.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from patchword.metrics import Floats

# With fewer images of a class, its best threshold is chosen by chance.
FEWEST_OF_A_CLASS = 10


@dataclass(frozen=True, kw_only=True)
class Threshold:
    """The threshold of a class with the highest F1 on these images, and the F1 at 0.5 and at `threshold`.

    images: those with the class. Every number except `images` and `f1_default` is None if fewer than FEWEST_OF_A_CLASS
    images have the class, or lack it.
    f1_held_out: each half of the images scored with the threshold that is best on the other half; unlike `f1`, it is not
    optimistic.
    """

    images: int
    f1_default: float | None
    threshold: float | None = None
    f1: float | None = None
    precision: float | None = None
    recall: float | None = None
    f1_held_out: float | None = None


def choose_thresholds(scores: Floats, truth: NDArray[np.bool_], default: float = 0.5) -> list[Threshold]:
    """For each class, the threshold of scores [N, C] in 0..1 that gives the highest F1 against truth [N, C].

    A class is present if its score is at least the threshold, which lies halfway between two scores that occur.
    Raises: ValueError if the shapes differ or a score is not finite.
    """
    if scores.shape != truth.shape or scores.ndim != 2:
        raise ValueError(
            f"scores have shape {scores.shape}, but truth has {truth.shape}; both must be [N, C]"
        )
    if not np.isfinite(scores).all():
        raise ValueError("a score is NaN or infinite")
    return [_of_class(s, t, default) for s, t in zip(scores.T, truth.astype(bool).T, strict=True)]


def _of_class(scores: Floats, truth: NDArray[np.bool_], default: float) -> Threshold:
    images = int(truth.sum())
    at_default = f1(scores >= default, truth)
    if min(images, len(truth) - images) < FEWEST_OF_A_CLASS:
        return Threshold(images=images, f1_default=at_default)
    threshold = best_threshold(scores, truth)
    named = scores >= threshold
    hits = int((named & truth).sum())
    # Positive and negative images are dealt out in turn, so that both halves have as many of each.
    order = np.argsort(~truth, kind="stable")
    first = np.zeros(len(truth), bool)
    first[order[::2]] = True
    crossed = np.empty_like(truth)
    for half in (first, ~first):
        crossed[half] = scores[half] >= best_threshold(scores[~half], truth[~half])
    return Threshold(
        images=images,
        f1_default=at_default,
        threshold=threshold,
        f1=f1(named, truth),
        precision=hits / int(named.sum()),
        recall=hits / images,
        f1_held_out=f1(crossed, truth),
    )


def best_threshold(scores: Floats, truth: NDArray[np.bool_]) -> float:
    """The threshold with the highest F1 of scores [N] against truth [N]; the highest such one."""
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order].astype(np.float64)
    hits = np.cumsum(truth[order])
    values = 2 * hits / (np.arange(1, len(ranked) + 1) + truth.sum())
    # A threshold cannot separate equal scores.
    values[:-1][ranked[:-1] == ranked[1:]] = -1
    best = int(values.argmax())
    return float(ranked[best] if best + 1 == len(ranked) else (ranked[best] + ranked[best + 1]) / 2)


def f1(named: NDArray[np.bool_], truth: NDArray[np.bool_]) -> float | None:
    """F1 of predictions [N] against truth [N]; None if neither has a positive."""
    total = int(named.sum()) + int(truth.sum())
    return 2 * int((named & truth).sum()) / total if total else None
