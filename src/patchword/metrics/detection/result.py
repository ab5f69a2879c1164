"""What an evaluation of detections says, as plain dataclasses; a score is None if no box exists that it could count."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from patchword.metrics.detection.precision import Operating

# Of COCO: the detections of an image and class that its protocol counts.
COCO_DETECTIONS = 100


@dataclass(frozen=True, kw_only=True)
class Recall:
    """Average recall with at most `detections` of each image and class, over overlaps of 0.50 to 0.95."""

    detections: int
    value: float | None


@dataclass(frozen=True, kw_only=True)
class SizeScore:
    """Scores of boxes with an area of least² to most² square pixels (most None: no end); boxes of others are ignored."""

    name: str
    least: int
    most: int | None
    truths: int
    ap: float | None
    ar: float | None


@dataclass(frozen=True, kw_only=True)
class Curve:
    """Precision at the recalls 0, 0.01 … 1 with this overlap, the mean of all classes with a true box."""

    overlap: float
    precision: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class ClassScore:
    """Scores of one class. detections: those that count. precision: at the recalls 0, 0.01 … 1 and an overlap of 0.5."""

    name: str
    truths: int
    detections: int
    ap: float | None
    ap50: float | None
    ap75: float | None
    ar: float | None
    best: Operating | None
    precision: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class ErrorType:
    """One kind of error. count: with any score. shown: with at least the best score. dap: what AP50 would gain without it."""

    name: str
    count: int
    shown: int
    dap: float | None


@dataclass(frozen=True, kw_only=True)
class ImageScore:
    """One image at the best score and an overlap of 0.5. image: its index. f1: 1 if nothing is wrong or missed."""

    image: int
    truths: int
    right: int
    wrong: int
    missed: int
    f1: float


@dataclass(frozen=True, kw_only=True)
class DetectionScores:
    """COCO's scores of detections, why they are not higher, and where.

    truths: boxes to be found; ignored: crowds, ignored and difficult boxes; without_area: those of `truths` that no detection can
    overlap. detections: those that count; dropped: those beyond `max_detections` of an image and class. most_truths: boxes
    to be found of one class in one image, at most. best: the score from which detections are best shown, over all classes.
    """

    images: int
    truths: int
    ignored: int
    without_area: int
    detections: int
    dropped: int
    max_detections: int
    most_truths: int
    ap: float | None
    ap50: float | None
    ap75: float | None
    ar: tuple[Recall, ...]
    sizes: tuple[SizeScore, ...]
    classes: tuple[ClassScore, ...]
    curves: tuple[Curve, ...]
    best: Operating | None
    errors: tuple[ErrorType, ...]
    per_image: tuple[ImageScore, ...]

    def worst(self, most: int) -> tuple[ImageScore, ...]:
        """The images with an error: lowest F1 first, of equal ones the one with more errors."""
        wrong = [i for i in self.per_image if i.wrong or i.missed]
        return tuple(sorted(wrong, key=lambda i: (i.f1, -i.wrong - i.missed, i.image))[:most])

    def to_dict(self, *, names: Sequence[str] | None = None, worst: int = 12) -> dict[str, Any]:
        """For JSON and the report: all fields, but only the `worst` images. names: of the images, by index."""
        plain = dataclasses.asdict(self)
        del plain["per_image"]
        plain["coco_detections"] = COCO_DETECTIONS
        plain["worst"] = [
            dataclasses.asdict(i) | ({"name": names[i.image]} if names is not None else {})
            for i in self.worst(worst)
        ]
        return plain
