"""Predictions as COCO's list of results, written as they are made. Format: https://cocodataset.org/#format-results."""

from pathlib import Path
from typing import Any

from patchword.data.boxes.coco_ids import ImageIds, class_ids
from patchword.data.boxes.coco_write import as_xywh
from patchword.inference.detections import Detections, name_of
from patchword.inference.output import NewFile, check_place
from patchword.settings import to_json
from patchword.weights.detector_card import DetectionClass


class CocoResults:
    """A file of results with the ids of the data, which any COCO evaluation reads. Close it, or discard it.

    ids: of the images. classes: of the detector. left_out: images that the annotations do not list. lacking: classes that
    the annotations do not have, with the number of their boxes, which are left out.
    Raises: OutputError if the file cannot be written.
    """

    def __init__(self, path: Path, ids: ImageIds, classes: tuple[DetectionClass, ...]) -> None:
        check_place(path)
        self.ids, self.classes = ids, classes
        self.category = class_ids([c.name for c in classes], [c.id for c in classes], ids.categories)
        self.left_out: list[str] = []
        self.lacking: dict[str, int] = {}
        self.file = NewFile(path, text=True)
        self._begun = False
        self.count = 0

    def add(self, found: Detections) -> None:
        """Append the boxes of an image; of one that could not be read there are none. Raises: DataError; OutputError."""
        if found.size is None:
            return
        image = self.ids.of(found.name)
        if image is None:
            self.left_out.append(found.name)
            return
        rows = zip(found.labels.tolist(), as_xywh(found.boxes), found.scores.tolist(), strict=True)
        for label, box, score in rows:
            category = self.category[label]
            if category is None:
                name = name_of(self.classes[label])
                self.lacking[name] = self.lacking.get(name, 0) + 1
            else:
                self._write({"image_id": image, "category_id": category, "bbox": box, "score": score})

    def _write(self, entry: dict[str, Any]) -> None:
        self.file.stream.write((",\n" if self._begun else "[\n") + to_json(entry))
        self._begun = True
        self.count += 1

    def close(self) -> None:
        self.file.stream.write("\n]\n" if self._begun else "[]\n")
        self.file.close()

    def discard(self) -> None:
        """Delete the file unless it was closed."""
        self.file.discard()
