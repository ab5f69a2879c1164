"""How runs are scored and compared: one measure for each kind of labels, all shares of at most 1, higher is better.

Shapes: N images, K outputs of a model (classes or numbers), D detections, S bootstrap samples of the images.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from patchword.errors import DataError
from patchword.metrics.detection import (
    detections,
    joined_detections,
    joined_truths,
    precision_of_samples,
    truths,
)
from patchword.metrics.differences import FEWER_RESAMPLES, Difference, bootstrap, of_samples, over_images
from patchword.metrics.multilabel import macro_precisions, times_drawn

Doubles = NDArray[np.float64]
# Assumed before the first run: the spread over seeds of paired differences in top-1 of small runs, and the share of answers that two
# models of similar accuracy give differently (both measured on digits and photographs of flowers).
ASSUMED_SPREAD, ASSUMED_CHANGED = 0.007, 0.05
# Each sample ranks every image of every class once more.
SAMPLES, BOX_SAMPLES = FEWER_RESAMPLES // 2, FEWER_RESAMPLES // 4


@dataclass(frozen=True, kw_only=True, eq=False)
class Given:
    """What a run answers to the images that it was scored on. keys [N]: of the images' content. truth, values: N arrays.

    Of one class for each image, values are [1], 1 where the answer is right, and truth is 1; of several, logits [K]; of numbers, [K] in
    their units. Of boxes, truth [n, 7]: x0, y0, x1, y1, class, area, crowd; values [D, 6]: x0, y0, x1, y1, class, score.
    """

    keys: tuple[str, ...]
    truth: tuple[Doubles, ...]
    values: tuple[Doubles, ...]

    def of(self, keys: Sequence[str]) -> "Given":
        """The same for these images, in this order."""
        if tuple(keys) == self.keys:
            return self
        place = {key: index for index, key in enumerate(self.keys)}
        rows = [place[key] for key in keys]
        return Given(
            keys=tuple(keys),
            truth=tuple(self.truth[row] for row in rows),
            values=tuple(self.values[row] for row in rows),
        )

    def equals(self, other: "Given") -> bool:
        """Whether all answers are the same."""
        return len(self.values) == len(other.values) and all(map(np.array_equal, self.values, other.values))

    @cached_property
    def table(self) -> tuple[Doubles, Doubles]:
        """truth and values as [N, K], of answers that are no boxes."""
        return np.stack(self.truth), np.stack(self.values)


class Measure(Protocol):
    """A score. name: in tables. recorded: what the curve of a run calls it. assumed: (spread over seeds, share of changed answers)
    of a comparison that has not begun, None if unknown.
    """

    name: str
    recorded: str
    assumed: tuple[float, float] | None

    def written(self, evaluation: Mapping[str, Any]) -> float:
        """The score that a run wrote into evaluation.json; NaN if it has none."""

    def score(self, given: Given) -> float:
        """The score of one run."""

    def prepared(self, runs: Sequence[Given]) -> Doubles:
        """What `over_images` needs of the runs of one setting, all on the same images."""

    def over_images(self, first: Doubles, second: Doubles, mean: float, images: int) -> Difference:
        """Second minus first, as if other images had been drawn. mean: of the scores on the images themselves."""

    def changed(self, first: Given, second: Given) -> float | None:
        """The share of images that two runs answer differently; None where answers are never equal."""

    def refuse(self, truth: Sequence[Doubles], path: str) -> None:
        """Raises: DataError if images with these labels have no such score."""


class Top1:
    """The share of images whose class is right. `prepared` is [R, N]."""

    name, recorded = "top-1", "val_top1"
    assumed: tuple[float, float] | None = (ASSUMED_SPREAD, ASSUMED_CHANGED)

    def written(self, evaluation: Mapping[str, Any]) -> float:
        return float(evaluation["top1"])

    def score(self, given: Given) -> float:
        right = given.table[1]
        return float(right.sum()) / len(right)

    def prepared(self, runs: Sequence[Given]) -> Doubles:
        return np.stack([run.table[1][:, 0] for run in runs])

    def over_images(self, first: Doubles, second: Doubles, mean: float, images: int) -> Difference:
        return over_images(first, second)

    def changed(self, first: Given, second: Given) -> float | None:
        return float(np.mean(first.table[1] != second.table[1]))

    def refuse(self, truth: Sequence[Doubles], path: str) -> None:
        pass


class MeanPrecision:
    """The mean over classes of average precision. `prepared` is its mean over the runs on each sample, [S]."""

    name, recorded = "mAP", "val_map"
    assumed: tuple[float, float] | None = None

    def written(self, evaluation: Mapping[str, Any]) -> float:
        found = evaluation["scores"]["map"]
        return math.nan if found is None else float(found)

    def score(self, given: Given) -> float:
        return float(_macro(given, np.ones((1, len(given.keys)), np.int64))[0])

    def prepared(self, runs: Sequence[Given]) -> Doubles:
        times = times_drawn(len(runs[0].keys), SAMPLES, 0)
        found: Doubles = np.mean([_macro(run, times) for run in runs], axis=0)
        return found

    def over_images(self, first: Doubles, second: Doubles, mean: float, images: int) -> Difference:
        return of_samples(mean, second - first, images)

    def changed(self, first: Given, second: Given) -> float | None:
        return float(np.mean(((first.table[1] >= 0) != (second.table[1] >= 0)).any(axis=1)))

    def refuse(self, truth: Sequence[Doubles], path: str) -> None:
        if not np.stack(truth).any():
            raise DataError(
                f"{path}: no evaluation image has a class, so no average precision can be compared",
                "evaluate on images with classes (--val)",
            )


def _macro(given: Given, times: NDArray[np.int64]) -> Doubles:
    truth, logits = given.table
    return macro_precisions(logits, truth > 0, times)


class Explained:
    """R², the mean over the numbers: 1 - Σ(p - y)² / Σ(y - ȳ)². `prepared` is each image's share of it, [N].

    ȳ and the denominator are those of the evaluation images, also in a sample of them.
    """

    name, recorded = "R²", "val_r2"
    assumed: tuple[float, float] | None = None

    def written(self, evaluation: Mapping[str, Any]) -> float:
        found = [each["r2"] for each in evaluation["outputs"] if each["r2"] is not None]
        return float(np.mean(found)) if found else math.nan

    def score(self, given: Given) -> float:
        return float(_explained(given).mean())

    def prepared(self, runs: Sequence[Given]) -> Doubles:
        found: Doubles = np.mean([_explained(run) for run in runs], axis=0)
        return found

    def over_images(self, first: Doubles, second: Doubles, mean: float, images: int) -> Difference:
        return bootstrap(second - first)

    def changed(self, first: Given, second: Given) -> float | None:
        return None

    def refuse(self, truth: Sequence[Doubles], path: str) -> None:
        if not _varying(np.stack(truth)).any():
            raise DataError(
                f"{path}: all evaluation images have the same number, so R² is not defined",
                "evaluate on images with different numbers (--val)",
            )


def _explained(given: Given) -> Doubles:
    """[N], whose mean is R² of the numbers that are not equal for all images."""
    truth, numbers = given.table
    there = _varying(truth)
    errors = (numbers[:, there] - truth[:, there]) ** 2
    found: Doubles = (1 - errors / truth[:, there].var(axis=0)).mean(axis=1)
    return found


def _varying(truth: Doubles) -> NDArray[np.bool_]:
    return np.asarray(truth.max(axis=0, initial=-np.inf) > truth.min(axis=0, initial=np.inf))


class BoxPrecision:
    """COCO's average precision of boxes. `prepared` is its mean over the runs on each sample, [S]."""

    name, recorded = "AP", "val_ap"
    assumed: tuple[float, float] | None = None

    def written(self, evaluation: Mapping[str, Any]) -> float:
        found = evaluation["detection"]["ap"]
        return math.nan if found is None else float(found)

    def score(self, given: Given) -> float:
        return float(_box_precision(given, np.ones((1, len(given.keys)), np.int64))[0])

    def prepared(self, runs: Sequence[Given]) -> Doubles:
        times = times_drawn(len(runs[0].keys), BOX_SAMPLES, 0)
        found: Doubles = np.mean([_box_precision(run, times) for run in runs], axis=0)
        return found

    def over_images(self, first: Doubles, second: Doubles, mean: float, images: int) -> Difference:
        return of_samples(mean, second - first, images)

    def changed(self, first: Given, second: Given) -> float | None:
        return None

    def refuse(self, truth: Sequence[Doubles], path: str) -> None:
        if not any((rows[:, 6] == 0).any() for rows in truth):
            raise DataError(
                f"{path}: no evaluation image has a box to find, so no average precision can be compared",
                "evaluate on images with boxes (--val)",
            )


def _box_precision(given: Given, times: NDArray[np.int64]) -> Doubles:
    truth = [truths(t[:, :4], t[:, 4].astype(int), areas=t[:, 5], crowd=t[:, 6] > 0) for t in given.truth]
    found = [detections(v[:, :4], v[:, 4].astype(int), v[:, 5]) for v in given.values]
    classes = int(max((t[:, 4].max(initial=-1) for t in (*given.truth, *given.values)), default=-1)) + 1
    return precision_of_samples(joined_truths(truth), joined_detections(found), times, classes=classes)


MEASURES: Mapping[str, Measure] = {
    "single": Top1(),
    "multi": MeanPrecision(),
    "number": Explained(),
    "boxes": BoxPrecision(),
}
