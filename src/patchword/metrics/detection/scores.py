"""COCO's scores of detections: average precision and recall over overlaps of 0.50 to 0.95, by class and by size.

Source: Lin et al. 2014, "Microsoft COCO", and the evaluation of the COCO API; equal to pycocotools, without its exceptions for
an annotation with the id 0 and for a precision of exactly 1.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from patchword.metrics import Indices
from patchword.metrics.detection.boxes import Bools, Detections, Doubles, Truths
from patchword.metrics.detection.errors import CORRECT, ERRORS, Matched, error_types, matched
from patchword.metrics.detection.matching import Pairs, Ranked, match, pairs, rank
from patchword.metrics.detection.precision import IGNORED, RIGHT, WRONG, States, best, curve
from patchword.metrics.detection.result import (
    COCO_DETECTIONS,
    ClassScore,
    Curve,
    DetectionScores,
    ImageScore,
    Recall,
    SizeScore,
)

OVERLAPS = np.linspace(0.5, 0.95, 10)
# Sides in pixels of a square with the smallest and the largest area of each size.
SIZES: tuple[tuple[str, int, int | None], ...] = (("small", 0, 32), ("medium", 32, 96), ("large", 96, None))
_FEW = (1, 10, COCO_DETECTIONS)
_AT_50, _AT_75 = 0, 5


class _Range(NamedTuple):
    """Scores of one range of sizes: precision [C, T, 101], recall [C, T], NaN for classes without a box; positives [C]."""

    precision: Doubles
    recall: Doubles
    positives: Indices


def evaluate(
    true: Truths, found: Detections, *, images: int, names: Sequence[str], max_detections: int | None = None
) -> DetectionScores:
    """Score detections against true boxes; no score is too low to count.

    images: their number, with those without boxes. names: of the classes. max_detections: of each image and class; by default
    100 as in COCO, or the next hundred that holds all boxes of a class in an image.
    True boxes fed back score exactly 1; by size they may score a little less where boxes of two sizes overlap, because boxes
    of the other size are ignored only if there is nothing else to find (COCO API).
    Raises: ValueError if an image or class is out of range, or max_detections is below 1.
    """
    _check(true, found, images, len(names), max_detections)
    most_truths, limit = _limit(true, len(names))
    limit = max_detections or limit
    ranked = rank(found, limit, len(names))
    near = pairs(true, found, ranked, float(OVERLAPS[0]), len(names))
    by_class = _ByClass(found, ranked, len(names))
    states = _states(true, found, ranked, near, 0.0, np.inf)
    whole = by_class.scores(states, true, true.counted)
    limits = sorted({few for few in _FEW if few <= limit} | {limit})
    result = matched(true, found, max_detections=limit)
    show = best(*by_class.all_at_50(states), int(whole.positives.sum()))
    score = show.score if show else -np.inf
    return DetectionScores(
        images=images,
        truths=int(whole.positives.sum()),
        ignored=int((~true.counted).sum()),
        without_area=int((true.counted & (true.boxes[:, 2:] == true.boxes[:, :2]).any(axis=1)).sum()),
        detections=len(ranked.order),
        dropped=len(found) - len(ranked.order),
        max_detections=limit,
        most_truths=most_truths,
        ap=_mean(whole.precision),
        ap50=_mean(whole.precision[:, _AT_50]),
        ap75=_mean(whole.precision[:, _AT_75]),
        ar=tuple(Recall(detections=n, value=_mean(by_class.recall(states, whole, n))) for n in limits),
        sizes=tuple(_size(name, low, high, by_class, true, found, near) for name, low, high in SIZES),
        classes=tuple(by_class.one(k, name, states, whole) for k, name in enumerate(names)),
        curves=tuple(
            Curve(overlap=overlap, precision=_curve(whole.precision[:, t]))
            for overlap, t in ((0.5, _AT_50), (0.75, _AT_75))
            if whole.positives.any()
        ),
        best=show,
        errors=error_types(true, found, result, score, len(names)),
        per_image=_per_image(true, found, result, score, images),
    )


def ranked_states(true: Truths, found: Detections, classes: int) -> tuple[Indices, States]:
    """The detections that count, by image, class and falling score, [R]; and what each is at each overlap, [R, T]."""
    _, limit = _limit(true, classes)
    ranked = rank(found, limit, classes)
    near = pairs(true, found, ranked, float(OVERLAPS[0]), classes)
    return ranked.order, _states(true, found, ranked, near, 0.0, np.inf)


def _limit(true: Truths, classes: int) -> tuple[int, int]:
    """The most boxes of one class in an image; and how many detections of each count: the next hundred that holds them."""
    groups = true.images * classes + true.classes
    most = int(np.unique(groups[true.counted], return_counts=True)[1].max(initial=0))
    return most, max(COCO_DETECTIONS, -(-most // COCO_DETECTIONS) * COCO_DETECTIONS)


class _ByClass:
    """The ranked detections sorted by class and falling score, and what is computed on them for each class."""

    def __init__(self, found: Detections, ranked: Ranked, classes: int) -> None:
        self.ranked, self.number = ranked, classes
        labels, self._scores = found.classes[ranked.order], found.scores[ranked.order]
        # Stable: equal scores stay in the order of the images.
        self._order = np.lexsort((-self._scores, labels))
        self._ends = np.searchsorted(labels[self._order], np.arange(classes + 1))

    def _rows(self, k: int) -> Indices:
        return self._order[self._ends[k] : self._ends[k + 1]]

    def scores(self, states: States, true: Truths, counted: Bools) -> _Range:
        positives = np.bincount(true.classes[counted], minlength=self.number)
        precision = np.full((self.number, states.shape[1], 101), np.nan)
        recall = np.full((self.number, states.shape[1]), np.nan)
        for k in np.flatnonzero(positives).tolist():
            rows = states[self._rows(k)]
            precision[k] = curve(rows, int(positives[k]))
            recall[k] = (rows == RIGHT).sum(axis=0) / positives[k]
        return _Range(precision, recall, positives)

    def recall(self, states: States, of: _Range, most: int) -> Doubles:
        """Recall [C, T] with the `most` surest detections of each image and class."""
        kept = self.ranked.ranks < most
        found = np.full(of.recall.shape, np.nan)
        for k in np.flatnonzero(of.positives).tolist():
            rows = self._rows(k)
            found[k] = (states[rows[kept[rows]]] == RIGHT).sum(axis=0) / of.positives[k]
        return found

    def all_at_50(self, states: States) -> tuple[Doubles, States]:
        """Scores and states of the detections of all classes, by falling score."""
        order = np.argsort(-self._scores, kind="stable")
        return self._scores[order], states[order, _AT_50]

    def one(self, k: int, name: str, states: States, whole: _Range) -> ClassScore:
        rows, precision = self._rows(k), whole.precision[k]
        there = int(whole.positives[k])
        return ClassScore(
            name=name,
            truths=there,
            detections=len(rows),
            ap=_mean(precision),
            ap50=_mean(precision[_AT_50]),
            ap75=_mean(precision[_AT_75]),
            ar=_mean(whole.recall[k]),
            best=best(self._scores[rows], states[rows, _AT_50], there) if there else None,
            precision=_curve(precision[None, _AT_50]) if there else (),
        )


def _states(true: Truths, found: Detections, ranked: Ranked, near: Pairs, low: float, high: float) -> States:
    """What each ranked detection is at each overlap, [R, T], if only boxes with an area of low to high count."""
    ignored = ~true.counted | (true.areas < low) | (true.areas > high)
    chosen = match(near, true, ranked, ignored, OVERLAPS)
    boxes = found.boxes[ranked.order]
    area = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    other = np.where((area < low) | (area > high), IGNORED, WRONG).astype(np.int8)
    if not len(true):
        return np.repeat(other[:, None], len(OVERLAPS), axis=1)
    hit = np.where(ignored, IGNORED, RIGHT).astype(np.int8)
    return np.asarray(np.where(chosen >= 0, hit[chosen], other[:, None]), dtype=np.int8)


def _size(
    name: str, least: int, most: int | None, by_class: _ByClass, true: Truths, found: Detections, near: Pairs
) -> SizeScore:
    low, high = float(least**2), np.inf if most is None else float(most**2)
    states = _states(true, found, by_class.ranked, near, low, high)
    part = by_class.scores(states, true, true.counted & (true.areas >= low) & (true.areas <= high))
    return SizeScore(
        name=name,
        least=least,
        most=most,
        truths=int(part.positives.sum()),
        ap=_mean(part.precision),
        ar=_mean(part.recall),
    )


def _per_image(
    true: Truths, found: Detections, result: Matched, score: float, images: int
) -> tuple[ImageScore, ...]:
    """The images at the given score, in their order."""
    shown = found.scores >= score
    there = np.bincount(true.images[true.counted], minlength=images)
    right = np.bincount(found.images[shown & (result.kinds == CORRECT)], minlength=images)
    wrong = np.bincount(found.images[shown & np.isin(result.kinds, ERRORS)], minlength=images)
    return tuple(
        ImageScore(
            image=i, truths=n, right=r, wrong=w, missed=n - r, f1=2 * r / (n + r + w) if n + r + w else 1.0
        )
        for i, (n, r, w) in enumerate(zip(there.tolist(), right.tolist(), wrong.tolist(), strict=True))
    )


def _mean(values: Doubles) -> float | None:
    """The mean of what is not NaN; None if nothing is."""
    there = values[~np.isnan(values)]
    return float(there.mean()) if len(there) else None


def _curve(values: Doubles) -> tuple[float, ...]:
    """The mean of curves [C, 101] over the classes that have one."""
    return tuple(np.nanmean(values, axis=0).round(5).tolist())


def _check(true: Truths, found: Detections, images: int, classes: int, most: int | None) -> None:
    for name, boxes in (("true boxes", true), ("detections", found)):
        for what, values, end in (("images", boxes.images, images), ("classes", boxes.classes, classes)):
            if values.max(initial=-1) >= end:
                raise ValueError(f"{name} have {what} up to {values.max()}, but there are {end}")
    if most is not None and most < 1:
        raise ValueError(f"max_detections is {most}; it must be at least 1")
