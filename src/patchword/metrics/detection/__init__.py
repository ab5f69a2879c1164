"""Scores of detected boxes as pure functions on arrays: COCO's, the kinds of errors, and what to draw.

Fill `truths` and `detections` for each image, join them, and call `evaluate`; `matched` says what each box is.
"""

from patchword.metrics.detection.boxes import (
    Detections,
    Truths,
    detections,
    joined_detections,
    joined_truths,
    truths,
)
from patchword.metrics.detection.errors import KINDS, Matched, matched
from patchword.metrics.detection.precision import Operating
from patchword.metrics.detection.result import (
    ClassScore,
    Curve,
    DetectionScores,
    ErrorType,
    ImageScore,
    Recall,
    SizeScore,
)
from patchword.metrics.detection.samples import precision_of_samples
from patchword.metrics.detection.scores import evaluate

__all__ = [
    "KINDS",
    "ClassScore",
    "Curve",
    "DetectionScores",
    "Detections",
    "ErrorType",
    "ImageScore",
    "Matched",
    "Operating",
    "Recall",
    "SizeScore",
    "Truths",
    "detections",
    "evaluate",
    "joined_detections",
    "joined_truths",
    "matched",
    "precision_of_samples",
    "truths",
]
