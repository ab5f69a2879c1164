"""The score of a detector on a split, as a run's `evaluation.json` has it."""

import dataclasses
from dataclasses import dataclass
from typing import Any

from patchword.errors import plural
from patchword.metrics.detection import DetectionScores

# Images drawn, and classes listed, at most.
WORST, LISTED = 12, 12
# AP50 below which a detector finds almost nothing.
NOTHING = 0.01


@dataclass(frozen=True, kw_only=True)
class DetectionEvaluation:
    """COCO's scores of `scored` of the `images` of a split.

    names: of the scored images, as `scores` numbers them. pictures: of the worst ones, by index, as embedded images.
    """

    data: str
    split: str
    weights: str
    images: int
    scored: int
    scores: DetectionScores
    names: tuple[str, ...]
    pictures: dict[int, str] = dataclasses.field(default_factory=dict)
    unreadable: tuple[dict[str, str], ...] = ()
    task: str = "detect"

    @property
    def headline(self) -> str:
        found = self.scores
        if found.ap is None:
            return "no score (no box to be found)"
        return f"AP {100 * found.ap:.1f} %, AP50 {100 * (found.ap50 or 0):.1f} %, AP75 {100 * (found.ap75 or 0):.1f} %"

    @property
    def lines(self) -> list[str]:
        """The classes, lowest AP first, and the most costly kind of error."""
        classes = sorted(self.scores.classes, key=lambda one: (one.ap is None, one.ap or 0.0))
        shown = [
            f"{one.name}: AP {100 * one.ap:.1f} %, AP50 {100 * (one.ap50 or 0):.1f} % ({plural(one.truths, 'box', 'boxes')})"
            for one in classes[:LISTED]
            if one.ap is not None
        ]
        if len(classes) > LISTED:
            shown.append(f"and {len(classes) - LISTED} more classes, in the report")
        costly = max(self.scores.errors, key=lambda error: error.dap or 0.0, default=None)
        if costly is not None and costly.dap:
            shown.append(f"most costly errors: {costly.name} ({100 * costly.dap:.1f} points of AP50)")
        return shown

    @property
    def notice(self) -> str:
        if self.scores.ap50 is None or self.scores.ap50 >= NOTHING:
            return ""
        return "the detector finds almost nothing; `patchword train DATA --sanity` names the cause"

    def to_dict(self) -> dict[str, Any]:
        """As `evaluation.json`."""
        detection = self.scores.to_dict(names=self.names, worst=WORST)
        for one in detection["worst"]:
            one["thumbnail"] = self.pictures.get(one["image"], "")
        return {
            "task": self.task,
            "data": self.data,
            "split": self.split,
            "weights": self.weights,
            "images": self.images,
            "scored": self.scored,
            "unreadable": [dict(one) for one in self.unreadable],
            "headline": self.headline,
            "lines": self.lines,
            "notice": self.notice,
            "detection": detection,
        }
