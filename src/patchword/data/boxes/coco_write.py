"""COCO JSON from boxes: annotations with the ids they were read with, and predictions for any COCO evaluation.

Format: https://cocodataset.org/#format-data and #format-results.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from patchword.data.box_targets import Boxes, Id
from patchword.data.dataset import Split
from patchword.errors import DataError

Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class ImagePredictions:
    """What a detector found in one image. corners [n, 4] in pixels of the upright image, labels [n], scores [n]."""

    corners: Array
    labels: NDArray[np.int64]
    scores: Array


def annotations_of(split: Split, classes: Sequence[str]) -> dict[str, Any]:
    """A split as the content of a COCO file: its images with upright sizes, and its boxes as they are used.

    Ids are those of the file. Annotation ids that are no numbers, that are 0 or that occur twice are counted anew, because
    COCO's own evaluation takes 0 for "no match".
    Raises: DataError for a split without boxes.
    """
    boxes = _boxes(split)
    numbers = [one for one in boxes.ids if isinstance(one, int) and one > 0]
    ids: Sequence[Id] = boxes.ids if len(set(numbers)) == len(boxes.ids) else range(1, len(boxes.ids) + 1)
    owners = boxes.owners().tolist()
    return {
        "images": [
            {"id": one, "file_name": name, "width": width, "height": height}
            for one, name, (height, width) in zip(
                boxes.image_ids, split.names, boxes.sizes.tolist(), strict=True
            )
        ],
        "annotations": [
            {
                "id": one,
                "image_id": boxes.image_ids[owner],
                "category_id": boxes.class_ids[label],
                "bbox": box,
                "area": area,
                "iscrowd": int(crowd),
                **({"ignore": 1} if difficult else {}),
            }
            for one, owner, label, box, area, crowd, difficult in zip(
                ids,
                owners,
                boxes.labels.tolist(),
                as_xywh(boxes.corners),
                boxes.areas.tolist(),
                boxes.crowd.tolist(),
                boxes.difficult.tolist(),
                strict=True,
            )
        ],
        "categories": categories(boxes.class_ids, classes),
    }


def predictions_of(
    found: Sequence[ImagePredictions], image_ids: Sequence[Id], class_ids: Sequence[Id]
) -> list[dict[str, Any]]:
    """Predictions as COCO's list of results, every one of them: a threshold would lower the average precision.

    image_ids: of each image. class_ids [C]: of each class, so that they are those of the annotations.
    """
    return [
        {"image_id": image, "category_id": class_ids[label], "bbox": box, "score": score}
        for one, image in zip(found, image_ids, strict=True)
        for label, box, score in zip(
            one.labels.tolist(), as_xywh(one.corners), one.scores.tolist(), strict=True
        )
    ]


def categories(class_ids: Sequence[Id], classes: Sequence[str]) -> list[dict[str, Any]]:
    """In the order of the ids, as other programs expect them."""
    pairs = zip(class_ids, classes, strict=True)
    ordered = sorted(pairs, key=lambda pair: (isinstance(pair[0], str), pair[0]))
    return [{"id": one, "name": name} for one, name in ordered]


def as_xywh(corners: Array) -> list[list[float]]:
    """Corners [n, 4] → left, top, width, height."""
    pairs: list[list[float]] = np.concatenate(
        [corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1
    ).tolist()
    return pairs


def write_json(content: Any, stream: IO[str]) -> None:
    """Raises: ValueError for NaN, which is no JSON."""
    json.dump(content, stream, ensure_ascii=False, allow_nan=False)


def _boxes(split: Split) -> Boxes:
    if not isinstance(split.targets, Boxes):
        raise DataError(f"the split {split.name} has no boxes", "give data with boxes around objects")
    return split.targets
