"""Score predictions of several classes, or of numbers, against a table; `score` takes any predictions."""

import dataclasses
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from patchword.data.align import unknown_classes
from patchword.data.targets import TaskKind
from patchword.data.truth import Matched, match
from patchword.data.truth_targets import TargetTruth
from patchword.errors import DataError, plural
from patchword.inference.overlap import Overlap
from patchword.inference.prediction import Prediction
from patchword.inference.target_scores import (
    DEFAULT_THRESHOLD,
    TargetScores,
    Thresholds,
    scores_of_classes,
    scores_of_numbers,
)


@dataclass(frozen=True, kw_only=True)
class TargetScore(TargetScores):
    """The score of predictions: `scored` of the `images` have a prediction and a label.

    labels: the table. thresholds: from which a class counts as present. unreadable: images without a prediction, with the
    reason. matched: what has no row, label or image. unknown: images with classes unknown to the model, by class, and
    skipped: how many those are. trained_on: how many of the images the model was trained on, if that was checked. predictions: each with its
    truth; not in `to_dict`. The other fields as in `TargetScores`.
    """

    labels: str
    images: int
    scored: int
    unreadable: tuple[dict[str, str], ...]
    matched: Matched
    unknown: dict[str, int]
    skipped: int = 0
    thresholds: Thresholds = DEFAULT_THRESHOLD
    notice: str = ""
    trained_on: Overlap | None = None
    predictions: tuple[Prediction, ...] = field(default=(), repr=False)

    @property
    def named_at(self) -> str:
        return "the best thresholds" if self.thresholds == "best" else f"{self.thresholds:g}"

    @property
    def notes(self) -> tuple[str, ...]:
        """What is not scored, one line for each reason, with the number and the first few."""
        found = self.matched.notes(self.labels)
        if self.unknown:
            names = ", ".join(map(repr, list(self.unknown)[:8]))
            found.append(
                f"skipped {plural(self.skipped, 'image')} with classes unknown to the model ({names})"
            )
        return tuple(found)

    def __repr__(self) -> str:
        return f"TargetScore({self.scored} of {plural(self.images, 'image')} against {self.labels!r}: {self.headline})"

    def to_dict(self) -> dict[str, Any]:
        """Return a dict for JSON; the images and rows that are not scored are listed by name."""
        plain = dataclasses.asdict(dataclasses.replace(self, predictions=()))
        matched = plain.pop("matched")
        plain.pop("predictions")
        if self.task == "number":
            plain.pop("thresholds")
        plain |= {
            "headline": self.headline,
            "unreadable": list(self.unreadable),
            "images_without_row": list(matched["no_row"]),
            "images_without_label": list(matched["no_label"]),
            "rows_without_image": list(matched["no_image"]),
            "ambiguous_rows": list(matched["ambiguous"]),
        }
        for optional in ("notice", "trained_on", "unknown", "skipped"):
            if not plain[optional]:
                plain.pop(optional)
        return plain


class TargetScorer:
    """Compares predictions, in the order of `names`, with the rows of a table, as they are made.

    outputs: the classes or numbers of the model. thresholds: from which a class counts as present.
    Raises: DataError if no row names an image, or a row has classes unknown to the model
        (unless ignore_unknown, which skips and counts those images).
    """

    def __init__(
        self,
        table: TargetTruth,
        names: Sequence[str],
        outputs: Sequence[str],
        *,
        ignore_unknown: bool = False,
        thresholds: Thresholds = DEFAULT_THRESHOLD,
    ) -> None:
        self.table, self.path, self.outputs, self.thresholds = (
            table,
            table.truth.path,
            tuple(outputs),
            thresholds,
        )
        self.matched = match(table.truth, names)
        there = {label: table.unknown(label, outputs) for label in self.matched.labels if label}
        foreign = Counter(name for label in self.matched.labels if label for name in there[label])
        self.unknown = dict(sorted(foreign.items()))
        self.usable = {label for label, names_of in there.items() if not names_of}
        if self.unknown and (not ignore_unknown or not self.usable):
            raise unknown_classes(self.path, list(self.unknown), self.outputs, all_of_them=not self.usable)
        self.count = 0
        self.rows: list[str] = []
        self.predicted: list[NDArray[Any]] = []
        self.best: tuple[float, ...] = ()
        self.unreadable: list[dict[str, str]] = []

    @property
    def kind(self) -> TaskKind:
        return self.table.targets.kind

    def add(self, prediction: Prediction) -> Prediction:
        """Count the next prediction, and return it with its true classes or numbers."""
        label = self.matched.labels[self.count]
        self.count += 1
        values: NDArray[Any] | None = prediction.probabilities
        if prediction.numbers is not None:
            values = np.array([prediction.numbers[name] for name in self.outputs])
        if values is None:
            self.unreadable.append({"name": prediction.name, "reason": prediction.error})
        elif label in self.usable:
            self.rows.append(str(label))
            self.predicted.append(values)
            self.best = prediction.thresholds or ()
        if label is None:
            return prediction
        if self.kind == "number":
            numbers = self.table.values([label], self.outputs)[0].tolist()
            return dataclasses.replace(
                prediction, true_numbers=dict(zip(self.outputs, map(float, numbers), strict=True))
            )
        return dataclasses.replace(prediction, true_classes=self.table.targets.sets[int(label)])

    def score(self) -> TargetScore:
        """Raises: DataError if no image has both a prediction and a known label."""
        if not self.rows:
            bad = self.unreadable[0] if self.unreadable else None
            raise DataError(
                f"{self.path}: none of the {plural(self.count, 'image')} has both a prediction and a label"
                + (f"; {bad['name']}: {bad['reason']}" if bad else ""),
                "fix the images, or give the table that labels them",
            )
        return TargetScore(
            **vars(self._scores()),
            labels=self.path,
            images=self.count,
            scored=len(self.rows),
            unreadable=tuple(self.unreadable),
            matched=self.matched,
            unknown=self.unknown,
            skipped=sum(bool(label) and label not in self.usable for label in self.matched.labels),
            thresholds=self.thresholds,
        )

    def _scores(self) -> TargetScores:
        truth, predicted = self.table.values(self.rows, self.outputs), np.stack(self.predicted)
        if self.kind == "number":
            return scores_of_numbers(self.outputs, predicted, truth.astype(np.float64))
        at = self.best if self.thresholds == "best" else self.thresholds
        return scores_of_classes(self.outputs, predicted, predicted, truth.astype(bool), at)
