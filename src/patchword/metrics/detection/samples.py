"""Average precision of bootstrap samples of the images. Shapes: S samples, N images, R ranked detections, T overlaps."""

import numpy as np
from numpy.typing import NDArray

from patchword.metrics.detection.boxes import Detections, Doubles, Truths
from patchword.metrics.detection.precision import RECALLS, RIGHT, WRONG, States
from patchword.metrics.detection.scores import ranked_states


def precision_of_samples(
    true: Truths, found: Detections, times: NDArray[np.int64], *, classes: int
) -> Doubles:
    """COCO's average precision of each sample, [S]; NaN for a sample without a box to find.

    times [S, N]: how often each sample holds each image. Which detection finds which box is decided within an image, so it is
    decided once. A sample of every image once has the precision of `evaluate`.
    """
    order, states = ranked_states(true, found, classes)
    images, labels, scores = found.images[order], found.classes[order], found.scores[order]
    counted = true.counted
    total, number = np.zeros(len(times)), np.zeros(len(times))
    for k in range(classes):
        owners = true.images[counted & (true.classes == k)]
        positives = times[:, owners].sum(axis=1)
        rows = np.flatnonzero(labels == k)
        rows = rows[np.argsort(-scores[rows], kind="stable")]
        for s in np.flatnonzero(positives).tolist():
            total[s] += _precision(states[rows], times[s, images[rows]], int(positives[s]))
            number[s] += 1
    return np.where(number > 0, total / np.maximum(number, 1), np.nan)


def _precision(states: States, times: NDArray[np.int64], positives: int) -> float:
    """The mean over overlaps and recalls. states [R, T] by falling score; times [R]: how often each detection is there."""
    there = times > 0
    states, times = states[there], times[there]
    if not len(states):
        return 0.0
    right = np.cumsum((states == RIGHT) * times[:, None], axis=0)
    wrong = np.cumsum((states == WRONG) * times[:, None], axis=0)
    precision = right / np.maximum(right + wrong, 1)
    precision = np.maximum.accumulate(precision[::-1], axis=0)[::-1]
    mean = 0.0
    for t in range(states.shape[1]):
        at = np.searchsorted(right[:, t] / positives, RECALLS, side="left")
        mean += float(precision[at[at < len(states)], t].sum()) / len(RECALLS)
    return float(mean / states.shape[1])
