"""Evaluate a detector on images with boxes: COCO's scores of all its answers, whatever their score."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from patchword.data.align import LABELLED, unknown_classes
from patchword.data.box_targets import Boxes
from patchword.data.dataset import Dataset, Split
from patchword.data.loader import from_split
from patchword.data.request import OpenRequest
from patchword.errors import DataError, plural
from patchword.inference.box_scores import WORST, BoxEvaluation, WorstImage
from patchword.inference.detect import Answer
from patchword.inference.detections import Found, name_of
from patchword.inference.engine import SameAnswers
from patchword.inference.evaluate import (
    NOT_RECORDED,
    EvaluationRequest,
    refuse_unassigned,
    without_trained,
)
from patchword.inference.sources import choose_split, open_as_trained
from patchword.metrics import detection as metrics
from patchword.weights.card import broken_notes

if TYPE_CHECKING:
    from patchword.inference.detector import Detector


def open_boxes_for(
    detector: "Detector", data: str | Path, request: OpenRequest, split_seed: int | None = None
) -> Dataset:
    """Open a data set with boxes for scoring this detector on it; see `evaluate.open_for`.

    Raises: DataError, also for data without boxes.
    """
    opened = open_as_trained(detector.provenance, data, replace(request, boxes=True), split_seed)
    if opened.task_kind != "boxes":
        raise DataError(
            f"{opened.path} has {LABELLED[opened.task_kind]}, but a detector is scored on boxes",
            "give data with boxes: COCO JSON, Pascal VOC, YOLO or a table",
        )
    return refuse_unassigned(opened)


def evaluate_boxes(
    detector: "Detector", dataset: Dataset, request: EvaluationRequest | None = None
) -> BoxEvaluation:
    """Score the detector on one split of the data, without a threshold of the scores.

    Classes are matched by name; a class of the detector without a name by its number. Images that the detector was trained on
    are skipped and counted.
    Raises: DataError if classes with boxes are unknown to the detector, the split does not exist, or none of its images is
    readable or new to the detector.
    """
    request = request or EvaluationRequest()
    to_data, how, unknown = match_classes(detector, dataset)
    refuse_unknown_classes(detector, dataset, unknown, ignore=request.ignore_unknown_classes)
    chosen = choose_split(dataset, request.split)
    keep = request.include_trained or request.split == "train"
    split, overlap = without_trained(dataset, chosen, detector, keep=keep)
    tally = _Tally(split, to_data, unknown)
    for done, answer in enumerate(
        detector.detect_each(
            from_split(split),
            value_range=request.value_range,
            batch_size=request.batch_size,
            max_pixels=split.max_pixels,
            count=len(split),
        ),
        1,
    ):
        tally.add(answer)
        if request.progress is not None:
            request.progress(done, len(split))
    if not tally.rows:
        why = f"; {tally.unreadable[0]['name']}: {tally.unreadable[0]['reason']}" if tally.unreadable else ""
        raise DataError(
            f"{dataset.path}: cannot read any of the {plural(len(split), 'image')} of {split.name}{why}",
            "fix the images, or choose another split",
        )
    found = tally.evaluation(dataset, str(detector.report.path))
    notes = [*broken_notes(detector.provenance), *(problem.message for problem in dataset.problems)]
    if overlap is None and detector.provenance.data_hash and split.name in ("all", "train"):
        notes.append(NOT_RECORDED)
    if tally.left_out:
        notes.append(
            f"{plural(tally.left_out, 'box', 'boxes')} of classes unknown to the detector left out: "
            f"{', '.join(map(repr, unknown))}"
        )
    return replace(found, matched=how, notes=tuple(notes), trained_on=overlap)


def match_classes(detector: "Detector", dataset: Dataset) -> tuple[NDArray[np.int64], str, tuple[str, ...]]:
    """For each class of the detector that of the data, or -1; how they were matched; and the data's other classes.

    By name. A class of the detector without a name is matched by its number, as files of DETR state numbers only.
    """
    index = {name: label for label, name in enumerate(dataset.classes)}
    boxes = next(iter(dataset.splits.values())).targets
    assert isinstance(boxes, Boxes)
    by_number = {one: label for label, one in enumerate(boxes.class_ids)}
    to_data = np.full(len(detector.classes), -1, dtype=np.int64)
    numbers = 0
    for output, one in enumerate(detector.classes):
        if one.name:
            to_data[output] = index.get(one.name, -1)
        elif one.id in by_number:
            to_data[output] = by_number[one.id]
            numbers += 1
    unknown = tuple(name for name, label in index.items() if label not in to_data)
    how = "classes matched by name"
    if numbers:
        some = "" if numbers == len(index) - len(unknown) else f" {numbers} of"
        how = f"{some} classes matched by their numbers, because the detector's file has no names".strip()
    return to_data, how, unknown


def refuse_unknown_classes(
    detector: "Detector", dataset: Dataset, unknown: Sequence[str], *, ignore: bool
) -> None:
    """Raises: DataError if boxes have classes that the detector lacks, unless they are ignored and others are left."""
    labels = {name: label for label, name in enumerate(dataset.classes)}
    counts = np.zeros(len(dataset.classes), dtype=np.int64)
    for split in dataset.splits.values():
        if isinstance(split.targets, Boxes):
            counts += np.array(split.targets.box_counts(len(counts)), dtype=np.int64)
    used = [name for name in unknown if counts[labels[name]]]
    all_of_them = len(used) == int((counts > 0).sum())
    if used and (not ignore or all_of_them):
        raise unknown_classes(
            dataset.path,
            used,
            tuple(map(name_of, detector.classes)),
            all_of_them=all_of_them,
            to="the detector",
        )


class _Tally:
    """Collects detections and true boxes image by image. to_data: the data's class of each class of the detector."""

    def __init__(self, split: Split, to_data: NDArray[np.int64], unknown: Sequence[str]) -> None:
        self.split, self.to_data = split, to_data
        assert isinstance(split.targets, Boxes)
        self.boxes = split.targets
        self.known = set(to_data[to_data >= 0].tolist())
        self.rows: list[int] = []
        self.found: list[Found] = []
        self.unreadable: list[dict[str, str]] = []
        self.foreign = self.left_out = self._next = 0
        self.same = SameAnswers()

    def add(self, answer: Answer) -> None:
        row, self._next = self._next, self._next + 1
        if answer.found is None:
            assert answer.error is not None
            reason = answer.error.about(answer.image.name)
            self.unreadable.append({"name": answer.image.name, "reason": reason})
            return
        self.same.add(answer.output)
        labels = self.to_data[answer.found.labels]
        self.foreign += int((labels < 0).sum())
        kept = answer.found.taken(labels >= 0)
        self.rows.append(row)
        self.found.append(replace(kept, labels=labels[labels >= 0]))

    def evaluation(self, dataset: Dataset, weights: str) -> BoxEvaluation:
        truths = [self._truths(row) for row in self.rows]
        scores = metrics.evaluate(
            metrics.joined_truths(truths),
            metrics.joined_detections(
                [metrics.detections(one.boxes, one.labels, one.scores) for one in self.found]
            ),
            images=len(self.rows),
            names=dataset.classes,
        )
        best = scores.best.score if scores.best is not None else 0.0
        return BoxEvaluation(
            data=dataset.path,
            split=self.split.name,
            weights=weights,
            images=len(self.split),
            scored=len(self.rows),
            unreadable=self.unreadable,
            class_names=dataset.classes,
            scores=scores,
            names=tuple(self.split.names[row] for row in self.rows),
            worst=tuple(self._worst(one.image, best) for one in scores.worst(WORST)),
            foreign=self.foreign,
            notice=self.same.notice,
            images_of=self.split,
        )

    def _truths(self, row: int) -> metrics.Truths:
        boxes = self.boxes.image(row)
        kept = np.isin(boxes.labels, list(self.known))
        self.left_out += int((~kept).sum())
        return metrics.truths(
            boxes.corners[kept],
            boxes.labels[kept],
            areas=boxes.areas[kept],
            crowd=boxes.crowd[kept],
            difficult=boxes.difficult[kept],
        )

    def _worst(self, place: int, best: float) -> WorstImage:
        row, found = self.rows[place], self.found[place]
        return WorstImage(
            index=row,
            name=self.split.names[row],
            truths=self.boxes.image(row),
            found=found.taken(found.scores >= best),
        )
