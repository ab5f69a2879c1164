"""How runs are scored and compared: one measure for each kind of labels, all shares of at most 1, higher is better.

Shapes: N images, K outputs of a model (classes or numbers), S bootstrap samples of the images.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from patchword.errors import DataError
from patchword.metrics.differences import FEWER_RESAMPLES, Difference, bootstrap, of_samples, over_images
from patchword.metrics.multilabel import macro_precisions, times_drawn

Doubles = NDArray[np.float64]
# Assumed before the first run: the spread over seeds of paired differences in top-1 of small runs, and the share of answers that two
# models of similar accuracy give differently (both measured on digits and photographs of flowers).
ASSUMED_SPREAD, ASSUMED_CHANGED = 0.007, 0.05
# Each sample ranks every image of every class once more.
SAMPLES = FEWER_RESAMPLES // 2


@dataclass(frozen=True, kw_only=True, eq=False)
class Given:
    """What a run answers to the images that it was scored on. keys [N]: of the images' content. truth, values [N, K]: of one class
    for each image, values is 1 where the answer is right, and truth is 1; of several, values are logits; of numbers, in their unit.
    """

    keys: tuple[str, ...]
    truth: Doubles
    values: Doubles

    def of(self, keys: Sequence[str]) -> "Given":
        """The same for these images, in this order."""
        if tuple(keys) == self.keys:
            return self
        place = {key: index for index, key in enumerate(self.keys)}
        rows = [place[key] for key in keys]
        return replace(self, keys=tuple(keys), truth=self.truth[rows], values=self.values[rows])


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

    def refuse(self, truth: Doubles, path: str) -> None:
        """Raises: DataError if these labels [N, K] have no such score."""


class Top1:
    """The share of images whose class is right. `prepared` is [R, N]."""

    name, recorded = "top-1", "val_top1"
    assumed: tuple[float, float] | None = (ASSUMED_SPREAD, ASSUMED_CHANGED)

    def written(self, evaluation: Mapping[str, Any]) -> float:
        return float(evaluation["top1"])

    def score(self, given: Given) -> float:
        return float(given.values.sum()) / len(given.values)

    def prepared(self, runs: Sequence[Given]) -> Doubles:
        return np.stack([run.values[:, 0] for run in runs])

    def over_images(self, first: Doubles, second: Doubles, mean: float, images: int) -> Difference:
        return over_images(first, second)

    def changed(self, first: Given, second: Given) -> float | None:
        return float(np.mean(first.values != second.values))

    def refuse(self, truth: Doubles, path: str) -> None:
        pass


class MeanPrecision:
    """The mean over classes of average precision. `prepared` is its mean over the runs on each sample, [S]."""

    name, recorded = "mAP", "val_map"
    assumed: tuple[float, float] | None = None

    def written(self, evaluation: Mapping[str, Any]) -> float:
        found = evaluation["scores"]["map"]
        return math.nan if found is None else float(found)

    def score(self, given: Given) -> float:
        once = np.ones((1, len(given.values)), np.int64)
        return float(macro_precisions(given.values, given.truth > 0, once)[0])

    def prepared(self, runs: Sequence[Given]) -> Doubles:
        times = times_drawn(len(runs[0].values), SAMPLES, 0)
        found: Doubles = np.mean([macro_precisions(run.values, run.truth > 0, times) for run in runs], axis=0)
        return found

    def over_images(self, first: Doubles, second: Doubles, mean: float, images: int) -> Difference:
        return of_samples(mean, second - first, images)

    def changed(self, first: Given, second: Given) -> float | None:
        return float(np.mean(((first.values >= 0) != (second.values >= 0)).any(axis=1)))

    def refuse(self, truth: Doubles, path: str) -> None:
        if not truth.any():
            raise DataError(
                f"{path}: no evaluation image has a class, so no average precision can be compared",
                "evaluate on images with classes (--val)",
            )


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

    def refuse(self, truth: Doubles, path: str) -> None:
        if not _varying(truth).any():
            raise DataError(
                f"{path}: all evaluation images have the same number, so R² is not defined",
                "evaluate on images with different numbers (--val)",
            )


def _explained(given: Given) -> Doubles:
    """[N], whose mean is R² of the numbers that are not equal for all images."""
    there = _varying(given.truth)
    truth = given.truth[:, there]
    found: Doubles = (1 - (given.values[:, there] - truth) ** 2 / truth.var(axis=0)).mean(axis=1)
    return found


def _varying(truth: Doubles) -> NDArray[np.bool_]:
    return np.asarray(truth.max(axis=0, initial=-np.inf) > truth.min(axis=0, initial=np.inf))


MEASURES: Mapping[str, Measure] = {"single": Top1(), "multi": MeanPrecision(), "number": Explained()}
