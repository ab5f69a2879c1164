"""The result of training a detector: COCO's scores of the last weights, and the worst images drawn."""

import base64
import io
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from patchword.data.dataset import Dataset, Split
from patchword.errors import ImageError
from patchword.inference.detection_result import WORST, DetectionEvaluation

if TYPE_CHECKING:
    from patchword.training.config import TrainSettings
    from patchword.training.tasks.detect import Detect
    from patchword.training.tasks.detect_tally import Scored


def detection_evaluation(folder: Path, settings: "TrainSettings", dataset: Dataset) -> DetectionEvaluation:
    """Score last.safetensors on the evaluation images that it was not trained on. Raises: DataError if there are none."""
    from patchword.training.run_data import unreadable_by_name
    from patchword.training.runfolder import LAST, RunFolder
    from patchword.training.tasks.detect_tally import scored
    from patchword.training.train import read_run

    task, split = _task_of(folder, settings, dataset)
    images = sorted(_answers(task), key=lambda one: one.number)
    scores = scored(images, dataset.classes)
    _, facts = read_run(RunFolder(folder))
    pictures = {
        one.image: _picture(split, images[one.image], dataset.classes, scores.best and scores.best.score)
        for one in scores.worst(WORST)
    }
    return DetectionEvaluation(
        data=dataset.path,
        split=split.name,
        weights=str(folder / LAST),
        images=len(split),
        scored=len(images),
        scores=scores,
        names=tuple(split.names[one.number] for one in images),
        pictures=pictures,
        unreadable=tuple({"name": n, "reason": r} for n, r in unreadable_by_name(facts, split)),
    )


def _task_of(folder: Path, settings: "TrainSettings", dataset: Dataset) -> "tuple[Detect, Split]":
    """The task with the last weights, and the images to score."""
    from patchword import machine
    from patchword.checkpoints.native import read_detector
    from patchword.data.contents import unpack
    from patchword.training.run_data import unseen
    from patchword.training.runfolder import LAST
    from patchword.training.tasks.detect import Detect, filled_detector

    card, tensors = read_detector(folder / LAST)
    device = machine.find_device(settings.run.device)
    module = filled_detector(settings, tensors, str(folder / LAST)).to(device)
    split = unseen(dataset, unpack(card.provenance.trained_on), lambda _: None)
    return Detect(settings, module, dataset.training, split, dataset.classes, machine.granted_cores()), split


def _answers(task: "Detect") -> "list[Scored]":
    import torch

    from patchword.training.ranks import Ranks
    from patchword.training.tasks.detect_tally import DetectTally

    tally = task.tally()
    assert isinstance(tally, DetectTally)
    device = next(task.module.parameters()).device
    with torch.inference_mode():
        for batch in task.evaluation(Ranks()):
            tally.add(task.module, batch.to(device))
    return tally.images


def _picture(split: Split, one: "Scored", classes: tuple[str, ...], score: float | None) -> str:
    """The annotated image beside the detected one, as a JPEG in a data: URL; "" if it cannot be read any more."""
    from patchword.images.decode import decode
    from patchword.reports.box_pictures import Annotated, draw_annotated

    name = split.names[one.number]
    try:
        pixels = decode(split.source(one.number), name=name, max_pixels=split.max_pixels)
    except ImageError:
        return ""
    shown = one.found.scores >= (1.0 if score is None else score)
    annotated = Annotated(
        name="annotated",
        pixels=pixels,
        corners=one.true.boxes,
        labels=one.true.classes,
        crowd=one.true.crowd,
    )
    found = Annotated(
        name="detected",
        pixels=pixels,
        corners=one.found.boxes[shown],
        labels=one.found.classes[shown],
        crowd=np.zeros(int(shown.sum()), np.bool_),
        scores=one.found.scores[shown],
    )
    picture = io.BytesIO()
    draw_annotated([annotated, found], classes, (name,)).convert("RGB").save(picture, "JPEG", quality=85)
    return f"data:image/jpeg;base64,{base64.b64encode(picture.getvalue()).decode()}"
