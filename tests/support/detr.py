"""A DETR so small that a run takes seconds: a file of its weights, and settings for the command."""

from pathlib import Path

from patchword.weights.detector_card import DetectionClass
from support.detectors import write_detector_file

# Two classes of the cells, in another order and with other numbers, and one that the cells lack.
CLASSES = (DetectionClass(1, "WBC"), DetectionClass(5, "dog"), DetectionClass(9, "RBC"))
QUICK = ("--image-size", "64", "--batch-size", "4", "--threads", "1", "-o", "run.precision=float32")


def write_tiny(path: Path) -> Path:
    return write_detector_file(path, "detr", CLASSES)
