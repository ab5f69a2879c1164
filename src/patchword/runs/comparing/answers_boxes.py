"""What a detector answers for each evaluation image, as rows of numbers."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from patchword.data.box_targets import Boxes
from patchword.data.dataset import Dataset
from patchword.data.loader import from_split
from patchword.errors import escape_surrogates
from patchword.settings import to_json

if TYPE_CHECKING:
    from patchword.inference.detector import Detector

# A true box: x0, y0, x1, y1 in pixels, class, area, whether it is a crowd. A detection: the same corners, class, score.
BoxRow = tuple[float, ...]
BoxRows = tuple[BoxRow, ...]


def boxes_of(detector: "Detector", dataset: Dataset, classes: Sequence[str]) -> list[BoxRows | None]:
    """The detections in each image of the evaluation split, of all scores; None where it was not scored.

    classes: what the rows' classes index; detections of others are left out, as they have no precision.
    """
    from patchword.inference.evaluate import without_trained
    from patchword.inference.evaluate_boxes import match_classes

    split = dataset.evaluation
    scored, _ = without_trained(dataset, split, detector, keep=False)
    place = {int(row): index for index, row in enumerate(split.rows)}
    to_data, _, _ = match_classes(detector, dataset)
    number = [classes.index(dataset.classes[label]) if label >= 0 else -1 for label in to_data.tolist()]
    given: list[BoxRows | None] = [None] * len(split)
    found = detector.detect_each(from_split(scored), count=len(scored), max_pixels=scored.max_pixels)
    for index, answer in enumerate(found):
        if answer.found is None:
            continue
        labels = [number[label] for label in answer.found.labels.tolist()]
        rows = zip(answer.found.boxes.tolist(), labels, answer.found.scores.tolist(), strict=True)
        given[place[int(scored.rows[index])]] = tuple((*box, k, score) for box, k, score in rows if k >= 0)
    return given


def true_boxes(dataset: Dataset, classes: Sequence[str]) -> list[BoxRows]:
    """The boxes of each image of the evaluation split."""
    targets = dataset.evaluation.targets
    assert isinstance(targets, Boxes)
    found = []
    for index in range(len(targets)):
        one = targets.image(index)
        names = [float(classes.index(dataset.classes[label])) for label in one.labels]
        rows = zip(one.corners.tolist(), names, one.areas.tolist(), one.crowd.tolist(), strict=True)
        found.append(tuple((*box, k, area, float(crowd)) for box, k, area, crowd in rows))
    return found


def write_rows(path: Path, head: dict[str, Any], rows: Sequence[dict[str, Any]]) -> None:
    """Write JSON lines, complete or not at all. Raises: OutputError."""
    from patchword.inference.output import whole_file

    with whole_file(path, text=True) as file:
        for row in (head, *rows):
            file.write(escape_surrogates(to_json(row)) + "\n")
