"""Precision by recall, its mean, and the score that gives the best compromise. Shapes: R detections, T thresholds."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from patchword.metrics.detection.boxes import Doubles

# What a detection is in an evaluation.
WRONG, RIGHT, IGNORED = 0, 1, 2
RECALLS = np.linspace(0.0, 1.0, 101)
States = NDArray[np.int8]


@dataclass(frozen=True, kw_only=True)
class Operating:
    """Scores if only detections with at least `score` are shown, with an overlap of at least 0.5."""

    score: float
    precision: float
    recall: float
    f1: float


def curve(states: States, positives: int) -> Doubles:
    """Precision at the 101 recalls of RECALLS: [T, 101]. states [R, T] by falling score; positives at least 1.

    Precision at a recall is the highest at that recall or a higher one; 0 at recalls that are not reached (COCO API).
    """
    right, wrong = np.cumsum(states == RIGHT, axis=0), np.cumsum(states == WRONG, axis=0)
    precision = right / np.maximum(right + wrong, 1)
    precision = np.maximum.accumulate(precision[::-1], axis=0)[::-1]
    found = np.zeros((states.shape[1], len(RECALLS)))
    for t in range(states.shape[1]):
        at = np.searchsorted(right[:, t] / positives, RECALLS, side="left")
        reached = at < len(states)
        found[t, reached] = precision[at[reached], t]
    return found


def best(scores: Doubles, states: States, positives: int) -> Operating | None:
    """The lowest score to show for the highest F1; None if nothing is right. scores, states [R] by falling score.

    Detections with equal scores are shown together; ignored ones do not count. Of equal F1, the highest score.
    """
    scores, right = scores[states != IGNORED], states[states != IGNORED] == RIGHT
    if not right.any():
        return None
    hits, shown = np.cumsum(right), np.arange(1, len(right) + 1)
    f1 = np.where(np.append(scores[1:] != scores[:-1], True), 2 * hits / (shown + positives), -1)
    i = int(f1.argmax())
    return Operating(
        score=float(scores[i]),
        precision=float(hits[i] / shown[i]),
        recall=float(hits[i] / positives),
        f1=float(f1[i]),
    )
