"""Collects what a detector finds in evaluation images, and scores it as COCO does."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from patchword.data.box_targets import ImageBoxes
from patchword.images.frame import Frame
from patchword.images.preprocess import Preprocess
from patchword.metrics.detection import (
    Detections,
    DetectionScores,
    Truths,
    detections,
    evaluate,
    joined_detections,
    joined_truths,
    truths,
)
from patchword.model.boxes import to_centres
from patchword.training.task import Batch, Scores
from patchword.training.tasks.detect_targets import objects_of
from patchword.training.tasks.detectors import Answering

# Below this score everywhere, a detector finds nothing: on a ViT it starts at 0.01 for every class (`model/vitdet/model.py`).
NOTHING = 0.05
# Surest objects of an image whose scores and places tell whether images have different answers, and by how much these differ at least.
COMPARED, SAME = 10, 1e-3
# Of an image: COCO's, or more if the detector has more queries.
LEAST_ANSWERS = 100


@dataclass(frozen=True, kw_only=True)
class Scored:
    """One image. number: its place in the split. surest [k, 5]: score and corners, as shares, of its surest objects."""

    number: int
    true: Truths
    found: Detections
    surest: NDArray[np.float64]


class DetectTally:
    """The answers to evaluation images, in pixels of the images. classes: names in the order of the head."""

    def __init__(self, preprocess: Preprocess, classes: Sequence[str]) -> None:
        self.preprocess, self.classes = preprocess, classes
        self.images: list[Scored] = []
        self.losses: dict[str, float] = {}
        self.counts: dict[str, float] = {}

    def add(self, module: nn.Module, batch: Batch) -> None:
        detector = cast(Answering, module)
        output = detector.predict(batch.images)
        objects = objects_of([self.shares(one, batch.images.device) for one in batch.targets])
        _add(self.losses, {name: float(sum_) for name, sum_ in detector.losses(output, objects).items()})
        _add(self.counts, detector.counts(objects.counts))
        answers = detector.answers(output, LEAST_ANSWERS)
        for number, one, found in zip(batch.draws.samples.tolist(), batch.targets, answers, strict=True):
            scores, labels, corners = (part.double().cpu().numpy() for part in found)
            if not (np.isfinite(scores).all() and np.isfinite(corners).all()):
                # The loop stops a run whose loss is not finite.
                self.losses = dict.fromkeys(self.losses, np.nan)
                scores, labels, corners = scores[:0], labels[:0], corners[:0]
            placed = self._frame(one).shares_to_pixels(corners)
            # As in prediction: a box beside the image, or without area, is none.
            real = (placed[:, 2:] > placed[:, :2]).all(axis=1)
            self.images.append(
                Scored(
                    number=number,
                    true=truths(
                        one.corners, one.labels, areas=one.areas, crowd=one.crowd, difficult=one.difficult
                    ),
                    found=detections(placed[real], labels[real].astype(np.int64), scores[real]),
                    surest=np.column_stack([scores, corners])[:COMPARED],
                )
            )

    def state(self) -> Any:
        return self.images, self.losses, self.counts

    def merged(self, states: Sequence[tuple[list[Scored], dict[str, float], dict[str, float]]]) -> Scores:
        images = [one for state in states for one in state[0]]
        losses: dict[str, float] = {}
        counts: dict[str, float] = {}
        for _, sums, numbers in states:
            _add(losses, sums)
            _add(counts, numbers)
        found = scored(images, self.classes)
        surest = max((float(one.surest[0, 0]) for one in images if len(one.surest)), default=0.0)
        ap50 = found.ap50 or 0.0
        constant = ""
        if surest < NOTHING and ap50 < NOTHING:
            constant = f"no object is found in any held-out image (highest score {surest:.3f})"
        elif _is_constant(images):
            constant = "all held-out images get the same boxes"
        return Scores(
            values={
                "val_loss": sum(losses[name] / max(counts[name], 1.0) for name in losses),
                "val_ap": found.ap or 0.0,
                "val_ap50": ap50,
                "val_ap75": found.ap75 or 0.0,
            },
            best="val_ap",
            constant=bool(constant),
            what=constant,
        )

    def _frame(self, one: ImageBoxes) -> Frame:
        return Frame.of(self.preprocess.plan(one.size), one.size)

    def shares(self, one: ImageBoxes, device: torch.device) -> dict[str, torch.Tensor]:
        """The objects as shares of the model's input, as in training."""
        frame = self._frame(one)
        height, width = frame.output
        shares = frame.forward(one.corners[~one.crowd]) / [width, height, width, height]
        return {
            "labels": torch.from_numpy(one.labels[~one.crowd]).to(device),
            "boxes": to_centres(torch.from_numpy(shares)).float().to(device),
        }


def _add(sums: dict[str, float], more: Mapping[str, float]) -> None:
    for name, value in more.items():
        sums[name] = sums.get(name, 0.0) + value


def scored(images: Sequence[Scored], classes: Sequence[str]) -> DetectionScores:
    """COCO's scores; image i of the result is the i-th by number."""
    ordered = sorted(images, key=lambda one: one.number)
    return evaluate(
        joined_truths([one.true for one in ordered]),
        joined_detections([one.found for one in ordered]),
        images=len(ordered),
        names=list(classes),
    )


def _is_constant(images: Sequence[Scored]) -> bool:
    """Whether all images get the same scores and boxes, as of a model that does not look at them."""
    if len(images) < 2:
        return False
    if len({one.surest.shape for one in images}) > 1:
        return False
    surest = np.stack([one.surest for one in images])
    return bool((np.ptp(surest, axis=0) < SAME).all())
