"""Score predictions against a table of true labels."""

import dataclasses
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from patchword import metrics
from patchword.data.align import unknown_classes
from patchword.data.contents import count_in, unpack
from patchword.data.request import OpenRequest
from patchword.data.targets import TaskKind
from patchword.data.truth import Matched, Truth, match, read_truth
from patchword.data.truth_targets import read_target_truth
from patchword.errors import DataError, plural
from patchword.inference.evaluate import TOP5_ABOVE, one_class_only
from patchword.inference.inputs import named
from patchword.inference.model import Model
from patchword.inference.overlap import Overlap
from patchword.inference.prediction import Prediction, without_thresholds
from patchword.inference.score_targets import TargetScore, TargetScorer
from patchword.inference.target_scores import DEFAULT_THRESHOLD, Thresholds
from patchword.python_words import in_python


@dataclass(frozen=True, kw_only=True)
class Score:
    """The score of predictions: `scored` of the `images` have a prediction and a label.

    labels: the table. top1_interval: 95 %. top5: None with five classes or fewer. confusion: rows are true
    classes, columns predicted ones. unreadable: images without a prediction, with the reason. matched: what has no
    row, label or image. unknown: images of classes unknown to the model, which are not scored, by class.
    majority: the most frequent class of the scored images, and the accuracy of always predicting it. notice: a
    warning about the model. trained_on: how many of the images the model was trained on, if that was checked.
    predictions: each with its true class; not in `to_dict`.
    """

    labels: str
    images: int
    scored: int
    unreadable: tuple[dict[str, str], ...]
    top1: float
    top1_interval: tuple[float, float]
    top5: float | None
    class_names: tuple[str, ...]
    classes: list[metrics.ClassScore]
    confusion: list[list[int]]
    matched: Matched
    unknown: dict[str, int]
    majority: metrics.Majority | None
    notice: str = ""
    trained_on: Overlap | None = None
    predictions: tuple[Prediction, ...] = field(default=(), repr=False)

    @property
    def notes(self) -> tuple[str, ...]:
        """What is not scored, one line for each reason, with the number and the first few."""
        found = self.matched.notes(self.labels)
        if self.unknown:
            names = ", ".join(map(repr, list(self.unknown)[:8]))
            skipped = plural(sum(self.unknown.values()), "image")
            found.append(f"skipped {skipped} of classes unknown to the model ({names})")
        return tuple(found)

    def __repr__(self) -> str:
        low, high = (100 * share for share in self.top1_interval)
        return (
            f"Score({self.scored} of {plural(self.images, 'image')} against {self.labels!r}: "
            f"top-1 {100 * self.top1:.1f} %, {low:.1f} to {high:.1f})"
        )

    def to_dict(self) -> dict[str, Any]:
        """Return a dict for JSON; the images and rows that are not scored are listed by name."""
        plain = dataclasses.asdict(dataclasses.replace(self, predictions=()))
        names, matched = plain.pop("class_names"), plain.pop("matched")
        plain.pop("predictions")
        plain["classes"] = [{"name": n, **c} for n, c in zip(names, plain["classes"], strict=True)]
        plain["top1_interval"] = list(self.top1_interval)
        plain |= {
            "unreadable": list(self.unreadable),
            "images_without_row": list(matched["no_row"]),
            "images_without_label": list(matched["no_label"]),
            "rows_without_image": list(matched["no_image"]),
            "ambiguous_rows": list(matched["ambiguous"]),
        }
        for optional in ("top5", "notice", "majority", "trained_on", "unknown"):
            if not plain[optional]:
                plain.pop(optional)
        return plain


class Scorer:
    """Compares predictions, in the order of `names`, with the labels of a table, as they are made.

    Raises: DataError if no row names an image, or a label is unknown to the model
        (unless ignore_unknown, which skips and counts those images).
    """

    def __init__(
        self,
        truth: Truth,
        names: Sequence[str],
        classes: Sequence[str],
        *,
        ignore_unknown: bool = False,
    ) -> None:
        self.path, self.classes = truth.path, tuple(classes)
        self.matched = match(truth, names)
        self.index = {name: i for i, name in enumerate(self.classes)}
        there = Counter(label for label in self.matched.labels if label)
        self.unknown = {label: count for label, count in sorted(there.items()) if label not in self.index}
        if self.unknown and (not ignore_unknown or len(self.unknown) == len(there)):
            every = len(self.unknown) == len(there)
            raise unknown_classes(self.path, list(self.unknown), self.classes, all_of_them=every)
        self.count = 0
        self.true: list[int] = []
        self.predicted: list[int] = []
        self.ranks: list[int] = []
        self.unreadable: list[dict[str, str]] = []

    def add(self, prediction: Prediction) -> Prediction:
        """Count the next prediction, and return it with its true class."""
        true = self.matched.labels[self.count]
        self.count += 1
        shares = prediction.probabilities
        if shares is None:
            self.unreadable.append({"name": prediction.name, "reason": prediction.error})
        elif true in self.index:
            label = self.index[true]
            self.true.append(label)
            self.predicted.append(prediction.ranked(1)[0][0])
            self.ranks.append(int(metrics.ranks(shares[None], np.array([label]))[0]))
        return dataclasses.replace(prediction, true=true)

    def score(self) -> Score:
        """Raises: DataError if no image has both a prediction and a known label."""
        scored, num_classes = len(self.true), len(self.classes)
        if not scored:
            bad = self.unreadable[0] if self.unreadable else None
            raise DataError(
                f"{self.path}: none of the {plural(self.count, 'image')} has both a prediction and a label"
                + (f"; {bad['name']}: {bad['reason']}" if bad else ""),
                "fix the images, or give the table that labels them",
            )
        ranks, true = np.array(self.ranks), np.array(self.true)
        counts = metrics.confusion(true, np.array(self.predicted), num_classes)
        right = int((ranks == 0).sum())
        interval = metrics.wilson_interval(right, scored)
        majority = metrics.majority(np.bincount(true, minlength=num_classes).tolist(), self.classes)
        worth = majority.verdict(right / scored, interval[0]) if majority else ""
        notices = (one_class_only(self.predicted, self.true, self.classes), worth)
        return Score(
            labels=self.path,
            images=self.count,
            scored=scored,
            unreadable=tuple(self.unreadable),
            top1=right / scored,
            top1_interval=interval,
            top5=float((ranks < 5).mean()) if num_classes > TOP5_ABOVE else None,
            class_names=self.classes,
            classes=metrics.per_class(counts),
            confusion=counts.tolist(),
            matched=self.matched,
            unknown=self.unknown,
            majority=majority,
            notice="; ".join(filter(None, notices)),
        )


@in_python
def score(
    predictions: Iterable[Prediction],
    labels: str | Path,
    *,
    image_column: str | None = None,
    label_column: str | None = None,
    label_separator: str | None = None,
    target_column: str | None = None,
    ignore_unknown_classes: bool = False,
    thresholds: Thresholds = DEFAULT_THRESHOLD,
) -> Score | TargetScore:
    """Score predictions against a table (CSV, TSV, JSON lines, Parquet) of image names and true classes or numbers.

    An image is found in the table by its path, else by its unique file name; images without a row, and rows without an
    image, are listed in `Score.notes`. The score covers every labelled image, also those that the model was trained
    on; `evaluate` excludes them. ignore_unknown_classes: skip images of classes that the model has not.
    label_separator, target_column: as `train` has them; without them, columns with the names of the model's classes or numbers
    are taken. thresholds: from which probability a class counts as present, or "best", of a model of several classes.
    Raises: DataError if the table cannot be used, names none of the images, or has unknown classes.
    """
    found = tuple(predictions)
    if not found:
        raise DataError("there are no predictions to score", "predict at least one image")
    request = OpenRequest(
        image_column=image_column,
        label_column=label_column,
        label_separator=label_separator,
        target_column=target_column,
    )
    scorer = make_scorer(
        labels,
        request,
        [prediction.name for prediction in found],
        _kind(found),
        found[0].classes,
        ignore_unknown=ignore_unknown_classes,
        thresholds=thresholds,
    )
    if thresholds == "best" and found[0].thresholds == ():
        raise without_thresholds()
    with_truth = tuple(map(scorer.add, found))
    return dataclasses.replace(scorer.score(), predictions=with_truth)


def _kind(predictions: Sequence[Prediction]) -> TaskKind:
    if any(prediction.numbers is not None for prediction in predictions):
        return "number"
    return "single" if predictions[0].thresholds is None else "multi"


def make_scorer(
    labels: str | Path,
    request: OpenRequest,
    names: Sequence[str],
    kind: TaskKind,
    outputs: Sequence[str],
    *,
    ignore_unknown: bool = False,
    thresholds: Thresholds = DEFAULT_THRESHOLD,
) -> Scorer | TargetScorer:
    """What scores predictions of this kind against the table `labels`. Raises: DataError if it cannot be used."""
    if kind != "single":
        table = read_target_truth(labels, request, kind, outputs)
        return TargetScorer(table, names, outputs, ignore_unknown=ignore_unknown, thresholds=thresholds)
    asked = {"--label-separator": request.label_separator, "--target-column": request.target_column}
    for option, value in asked.items():
        if value is not None:
            raise DataError(f"{option} {value}, but the model gives one class per image", f"remove {option}")
    return Scorer(read_truth(labels, request), names, outputs, ignore_unknown=ignore_unknown)


def trained_among(model: Model, sources: Sequence[Any], max_pixels: int) -> Overlap | None:
    """How many of the images the model was trained on, whatever their names; None if its file does not record it."""
    trained = unpack(model.provenance.trained_on)
    if not trained:
        return None
    seen = count_in(((item.name, item.fetch) for item in map(named, sources)), trained, max_pixels)
    return Overlap(images=seen, of=len(sources), scored=bool(seen))
