"""The score of a detector on a split, and its worst images."""

from dataclasses import dataclass, field
from typing import Any

from patchword.data.box_targets import ImageBoxes
from patchword.data.dataset import Split
from patchword.errors import plural
from patchword.inference.detections import Found
from patchword.inference.overlap import Overlap
from patchword.metrics.detection import DetectionScores

# Images kept for drawing.
WORST = 12


@dataclass(frozen=True, kw_only=True)
class WorstImage:
    """An image with errors. found: labels index the classes of the data; only what is shown from the best score on.

    index: in the split.
    """

    index: int
    name: str
    truths: ImageBoxes
    found: Found


@dataclass(frozen=True, kw_only=True)
class BoxEvaluation:
    """The score of a detector on a split: `scored` of its `images` were readable.

    scores: of all detections. class_names: of the data. matched: how its classes were matched to the detector's. foreign:
    detections of classes that the data do not have, which are not scored. worst: images with the lowest F1. names: of the
    scored images. unreadable, notice, notes, trained_on: as in `Evaluation`.
    """

    data: str
    split: str
    weights: str
    images: int
    scored: int
    unreadable: list[dict[str, str]]
    class_names: tuple[str, ...]
    scores: DetectionScores
    names: tuple[str, ...]
    worst: tuple[WorstImage, ...] = ()
    matched: str = ""
    foreign: int = 0
    notice: str = ""
    notes: tuple[str, ...] = ()
    trained_on: Overlap | None = None
    images_of: Split | None = field(default=None, repr=False)

    @property
    def headline(self) -> str:
        return "no boxes to find" if self.scores.ap is None else f"AP {100 * self.scores.ap:.1f} %"

    def __repr__(self) -> str:
        return f"BoxEvaluation({self.weights!r} on {self.scored} of {plural(self.images, 'image')}: {self.headline})"

    def to_dict(self) -> dict[str, Any]:
        """Return a dict like `evaluation.json` of a run folder."""
        return {
            "task": "detect",
            "headline": self.headline,
            "data": self.data,
            "split": self.split,
            "weights": self.weights,
            "images": self.images,
            "scored": self.scored,
            "unreadable": self.unreadable,
            "matched": self.matched,
            "foreign": self.foreign,
            "trained_on": None
            if self.trained_on is None
            else {
                "images": self.trained_on.images,
                "of": self.trained_on.of,
                "scored": self.trained_on.scored,
            },
            "notice": self.notice,
            "notes": list(self.notes),
            "detection": self.scores.to_dict(names=self.names, worst=WORST),
        }
