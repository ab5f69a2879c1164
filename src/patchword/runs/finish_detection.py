"""The result of training a detector: COCO's scores of the last weights, on the path of any prediction, and the worst images drawn."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from patchword.data.dataset import Dataset

if TYPE_CHECKING:
    from patchword.inference.box_scores import BoxEvaluation
    from patchword.training.config import TrainSettings

# AP50 below which a detector finds almost nothing.
NOTHING = 0.01


def detection_evaluation(folder: Path, settings: "TrainSettings", dataset: Dataset) -> "BoxEvaluation":
    """Score last.safetensors on the evaluation images that it was not trained on. Raises: DataError if there are none."""
    from patchword.inference.detector import load_detector
    from patchword.inference.evaluate_boxes import evaluate_boxes
    from patchword.training.runfolder import LAST

    device = None if settings.run.device == "auto" else settings.run.device
    found = evaluate_boxes(load_detector(folder / LAST, device=device), dataset)
    if found.notice or found.scores.ap50 is None or found.scores.ap50 >= NOTHING:
        return found
    return replace(
        found,
        notice="the detector finds almost nothing; `patchword train DATA --sanity` names the cause",
    )


def with_pictures(found: "BoxEvaluation") -> dict[str, Any]:
    """The evaluation as `evaluation.json` holds it, with the worst images drawn."""
    from patchword.reports.box_evaluation import thumbnails

    plain = found.to_dict()
    for entry, picture in zip(plain["detection"]["worst"], thumbnails(found), strict=True):
        entry["thumbnail"] = picture
    return plain
