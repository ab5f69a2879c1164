"""The scores of several classes, or of numbers, and how they read; `evaluate` and `score` share them.

Shapes: N images, C classes, T numbers.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from patchword.errors import plural
from patchword.metrics.multilabel import exact_match, f1_scores, mean_average_precision
from patchword.metrics.regression import number_scores
from patchword.metrics.thresholds import choose_thresholds

# One threshold for all classes, or the one with the best F1 of each class on held-out images.
Thresholds = Literal["best"] | float
DEFAULT_THRESHOLD = 0.5


@dataclass(frozen=True, kw_only=True)
class TargetScores:
    """task: "multi" or "number". scores: over all classes, by name ("map", "f1_micro", …), or empty. intervals: 95 %, of those
    that have one. outputs: the scores of each class or number, each with its "name".
    """

    task: str
    scores: dict[str, float | None]
    intervals: dict[str, tuple[float, float]]
    outputs: list[dict[str, Any]]

    @property
    def named_at(self) -> str:
        """The threshold from which a class counts as present, for people."""
        return f"{DEFAULT_THRESHOLD:g}"

    @property
    def headline(self) -> str:
        """The main score with its interval."""
        if self.task == "multi":
            value = self.scores["map"]
            if value is None:
                return "no mean average precision: no image has a class"
            low, high = self.intervals["map"]
            return f"mAP {100 * value:.1f} % (95 % interval {100 * low:.1f} to {100 * high:.1f})"
        first = self.outputs[0]
        low, high = first["mae_interval"]
        more = f" ({len(self.outputs) - 1} more below)" if len(self.outputs) > 1 else ""
        return (
            f"mean error of {first['name']} {first['mae']:.4g} (95 % interval {low:.4g} to {high:.4g}){more}"
        )

    @property
    def lines(self) -> list[str]:
        """The other scores, a line each."""
        if self.task == "multi":
            at = self.named_at
            named = {"f1_micro": f"F1 at {at}, all pairs", "f1_macro": f"F1 at {at}, mean of classes"}
            shown = [f"{text}  {_percent(self.scores[key])}" for key, text in named.items()]
            shown.append(f"all classes right  {_percent(self.scores['exact_match'])}")
            return shown + [
                f"{o['name']}: AP {_percent(o['ap'])}, F1 {_percent(o['f1'])}, {plural(o['images'], 'image')}"
                + (f", best threshold {o['threshold']:.3g}" if o["threshold"] is not None else "")
                for o in self.outputs
            ]
        return [
            f"{o['name']}: MAE {o['mae']:.4g}, RMSE {o['rmse']:.4g}, R2 "
            + ("not defined (all numbers are equal)" if o["r2"] is None else f"{o['r2']:.3f}")
            for o in self.outputs
        ]


def _percent(share: float | None) -> str:
    return "none" if share is None else f"{100 * share:.1f} %"


def scores_of_classes(
    names: Sequence[str],
    ranking: NDArray[np.float32],
    shares: NDArray[np.float32],
    truth: NDArray[np.bool_],
    thresholds: Sequence[float] | float = DEFAULT_THRESHOLD,
) -> TargetScores:
    """The scores of probabilities `shares` [N, C] against truth [N, C].

    ranking [N, C]: in the order of `shares`; logits also tell apart probabilities that are rounded to 1. thresholds: one
    for all classes, or one for each, from which a class counts as present.
    """
    present = above(shares, thresholds)
    precision, f1 = mean_average_precision(ranking, truth), f1_scores(present, truth)
    best = choose_thresholds(shares, truth)
    each = [
        {
            "name": name,
            "images": t.images,
            "ap": ap,
            "f1": own,
            "threshold": t.threshold,
            "f1_best": t.f1_held_out,
        }
        for name, ap, own, t in zip(names, precision.per_class, f1.per_class, best, strict=True)
    ]
    scores = {
        "map": precision.macro,
        "f1_micro": f1.micro,
        "f1_macro": f1.macro,
        "exact_match": exact_match(present, truth),
    }
    intervals = {} if precision.interval is None else {"map": precision.interval}
    return TargetScores(task="multi", scores=scores, intervals=intervals, outputs=each)


def scores_of_numbers(
    names: Sequence[str], numbers: NDArray[np.float64], truth: NDArray[np.floating]
) -> TargetScores:
    """The scores of numbers [N, T] against truth [N, T], in their units."""
    found = number_scores(numbers, truth.astype(np.float64))
    each = [{"name": n, **dataclasses.asdict(score)} for n, score in zip(names, found, strict=True)]
    return TargetScores(task="number", scores={}, intervals={}, outputs=each)


def above(shares: NDArray[np.float32], thresholds: Sequence[float] | float) -> NDArray[np.bool_]:
    """Whether probabilities [..., C] reach the threshold of their class."""
    found: NDArray[np.bool_] = shares.astype(np.float64) >= np.asarray(thresholds, np.float64)
    return found
