"""Boxes as flat arrays: those that are there and those that a model found, and which of them may belong together.

Shapes: N true boxes, D detections. Boxes are [.., 4]: x0, y0, x1, y1 in pixels of the original image, so that sizes are
comparable. Images and classes are indices from 0.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from patchword.metrics import Indices

Doubles = NDArray[np.float64]
Bools = NDArray[np.bool_]
# Pairs of boxes in memory at a time.
_PAIRS = 1_000_000
_T = TypeVar("_T", bound=np.generic)


@dataclass(frozen=True, kw_only=True, eq=False)
class Truths:
    """The true boxes of a data set; made by `truths` and `joined_truths`.

    boxes [N, 4]; classes, images [N]. areas [N]: in square pixels, what decides the size. crowd [N]: a region with many
    objects; any number of detections inside it is neither right nor wrong. ignored [N]: one object that need not be found, and
    takes one detection (COCO API). difficult [N]: one that need not be found, and takes any number of detections (VOC).
    """

    boxes: Doubles
    classes: Indices
    images: Indices
    areas: Doubles
    crowd: Bools
    ignored: Bools
    difficult: Bools

    def __len__(self) -> int:
        return len(self.boxes)

    @property
    def counted(self) -> Bools:
        """[N]: whether a box must be found."""
        return ~(self.crowd | self.ignored | self.difficult)

    @property
    def shared(self) -> Bools:
        """[N]: whether any number of detections may belong to a box."""
        return self.crowd | self.difficult


@dataclass(frozen=True, kw_only=True, eq=False)
class Detections:
    """The boxes that a model found; made by `detections` and `joined_detections`.

    boxes [D, 4]; classes, images [D]; scores [D]: higher is surer, on one scale for all images.
    """

    boxes: Doubles
    classes: Indices
    images: Indices
    scores: Doubles

    def __len__(self) -> int:
        return len(self.boxes)


def truths(
    boxes: ArrayLike,
    classes: ArrayLike,
    images: ArrayLike | None = None,
    *,
    areas: ArrayLike | None = None,
    crowd: ArrayLike | None = None,
    ignored: ArrayLike | None = None,
    difficult: ArrayLike | None = None,
) -> Truths:
    """Check and convert true boxes. images: all 0 by default, for one image. areas: of the boxes by default; COCO's own
    `area` is that of the outline, and decides there.

    Raises: ValueError if lengths differ, a number is not finite, or a corner lies before the other.
    """
    placed, kinds, numbers = _placed(boxes, classes, images)
    length = len(placed)
    sizes = _area(placed) if areas is None else _numbers(areas, length, "areas")
    none = np.zeros(length, dtype=np.bool_)
    return Truths(
        boxes=placed,
        classes=kinds,
        images=numbers,
        areas=sizes,
        crowd=none if crowd is None else _flags(crowd, length, "crowd"),
        ignored=none if ignored is None else _flags(ignored, length, "ignored"),
        difficult=none if difficult is None else _flags(difficult, length, "difficult"),
    )


def detections(
    boxes: ArrayLike, classes: ArrayLike, scores: ArrayLike, images: ArrayLike | None = None
) -> Detections:
    """Check and convert detections. images: all 0 by default, for one image. Raises: ValueError as `truths`."""
    placed, kinds, numbers = _placed(boxes, classes, images)
    return Detections(
        boxes=placed, classes=kinds, images=numbers, scores=_numbers(scores, len(placed), "scores")
    )


def joined_truths(parts: Sequence[Truths]) -> Truths:
    """The true boxes of many images, one part each; image i is parts[i]."""
    return Truths(
        boxes=_stacked([part.boxes for part in parts]),
        classes=_appended([part.classes for part in parts], np.int64),
        images=_image_of([len(part) for part in parts]),
        areas=_appended([part.areas for part in parts], np.float64),
        crowd=_appended([part.crowd for part in parts], np.bool_),
        ignored=_appended([part.ignored for part in parts], np.bool_),
        difficult=_appended([part.difficult for part in parts], np.bool_),
    )


def joined_detections(parts: Sequence[Detections]) -> Detections:
    """The detections in many images, one part each; image i is parts[i]."""
    return Detections(
        boxes=_stacked([part.boxes for part in parts]),
        classes=_appended([part.classes for part in parts], np.int64),
        images=_image_of([len(part) for part in parts]),
        scores=_appended([part.scores for part in parts], np.float64),
    )


def overlaps(found: Doubles, true: Doubles, crowd: Bools) -> Doubles:
    """Intersection over union of box i of `found` [P, 4] and box i of `true` [P, 4], in [P].

    In a crowd, the union is the detection alone, so a box inside it has 1 (as in pycocotools). 0 if a box has no area.
    """
    sides = np.minimum(found[:, 2:], true[:, 2:]) - np.maximum(found[:, :2], true[:, :2])
    shared = sides.clip(min=0).prod(axis=1)
    own = _area(found)
    union = np.where(crowd, own, own + _area(true) - shared)
    ratio: Doubles = np.divide(shared, union, out=np.zeros_like(shared), where=shared > 0)
    return ratio


def together(first: Indices, second: Indices) -> Iterator[tuple[Indices, Indices]]:
    """All pairs (i, j) with first[i] == second[j], as two arrays, some at a time; i ascends, and j for each i."""
    order = np.argsort(second, kind="stable")
    ranked = second[order]
    starts = np.searchsorted(ranked, first, side="left")
    counts = np.searchsorted(ranked, first, side="right") - starts
    ends = np.cumsum(counts)
    begin = 0
    while begin < len(first):
        done = int(ends[begin - 1]) if begin else 0
        # At least one i, however many pairs it has.
        stop = max(int(np.searchsorted(ends, done + _PAIRS, side="right")), begin + 1)
        some = counts[begin:stop]
        within = np.arange(some.sum()) - np.repeat(np.cumsum(some) - some, some)
        yield (
            np.repeat(np.arange(begin, stop), some),
            order[np.repeat(starts[begin:stop], some) + within],
        )
        begin = stop


def _area(boxes: Doubles) -> Doubles:
    area: Doubles = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    return area


def _placed(
    boxes: ArrayLike, classes: ArrayLike, images: ArrayLike | None
) -> tuple[Doubles, Indices, Indices]:
    placed = np.asarray(boxes, dtype=np.float64)
    placed = placed.reshape(0, 4) if not placed.size else placed
    if placed.ndim != 2 or placed.shape[1] != 4:
        raise ValueError(f"boxes have the shape {placed.shape}; it must be [N, 4]")
    if not np.isfinite(placed).all():
        raise ValueError(f"box {_first(~np.isfinite(placed).all(axis=1))} has a NaN or infinite coordinate")
    reversed_ = (placed[:, 2:] < placed[:, :2]).any(axis=1)
    if reversed_.any():
        i = _first(reversed_)
        raise ValueError(
            f"box {i}, {placed[i].tolist()}, is not x0, y0, x1, y1: its end lies before its start"
        )
    kinds = _whole(classes, len(placed), "classes")
    numbers = (
        np.zeros(len(placed), dtype=np.int64) if images is None else _whole(images, len(placed), "images")
    )
    return placed, kinds, numbers


def _numbers(values: ArrayLike, length: int, name: str) -> Doubles:
    array = np.asarray(values, dtype=np.float64)
    _check_length(array, length, name)
    if not np.isfinite(array).all():
        raise ValueError(f"{name}[{_first(~np.isfinite(array))}] is NaN or infinite")
    return array


def _whole(values: ArrayLike, length: int, name: str) -> Indices:
    array = np.asarray(values)
    _check_length(array, length, name)
    if array.size and (array.dtype.kind not in "iu" or (array < 0).any()):
        raise ValueError(f"{name} must be indices from 0")
    return array.astype(np.int64)


def _flags(values: ArrayLike, length: int, name: str) -> Bools:
    array = np.asarray(values)
    _check_length(array, length, name)
    return array.astype(np.bool_)


def _check_length(array: NDArray[np.generic], length: int, name: str) -> None:
    if array.shape != (length,):
        raise ValueError(f"{name} have the shape {array.shape}, for {length} boxes")


def _first(flags: Bools | np.bool_) -> int:
    return int(np.flatnonzero(flags)[0])


def _stacked(parts: Sequence[Doubles]) -> Doubles:
    return np.concatenate([np.zeros((0, 4)), *parts])


def _appended(parts: Sequence[NDArray[_T]], dtype: type[_T]) -> NDArray[_T]:
    return np.concatenate([np.zeros(0, dtype), *parts])


def _image_of(lengths: Sequence[int]) -> Indices:
    return np.repeat(np.arange(len(lengths), dtype=np.int64), np.asarray(lengths, dtype=np.int64))
