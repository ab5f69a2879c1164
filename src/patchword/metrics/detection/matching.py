"""Which detection finds which true box, by COCO's rule, for many images, classes and thresholds at once.

In each image and class, detections choose in the order of their scores: the free true box with the highest overlap of at
least the threshold, and one to be ignored only if there is no other; of equal ones, the last. A crowd is never used up, nor is a
difficult box.
Source: Lin et al. 2014 and the evaluation of the COCO API; for difficult boxes Everingham et al. 2010, section 4.2.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from patchword.metrics import Indices
from patchword.metrics.detection.boxes import Bools, Detections, Doubles, Truths, overlaps, together

# A threshold of 1 accepts what rounding makes of an equal box, as in pycocotools.
_BELOW_ONE = 1 - 1e-10


@dataclass(frozen=True, kw_only=True, eq=False)
class Ranked:
    """The detections that count, by image, class and falling score.

    order [R]: their indices. groups [R]: one number for each image and class. ranks [R]: 0 for the surest of its group.
    """

    order: Indices
    groups: Indices
    ranks: Indices


@dataclass(frozen=True, kw_only=True, eq=False)
class Pairs:
    """A ranked detection and a true box of the same image and class that overlap enough: three arrays of length P."""

    ranked: Indices
    truth: Indices
    overlap: Doubles


def rank(found: Detections, most: int, classes: int) -> Ranked:
    """Rank detections and drop all but the `most` surest of each image and class. Equal scores keep their order."""
    groups = found.images * classes + found.classes
    order = np.lexsort((-found.scores, groups))
    groups = groups[order]
    ranks = np.arange(len(order)) - np.searchsorted(groups, groups, side="left")
    kept = ranks < most
    return Ranked(order=order[kept], groups=groups[kept], ranks=ranks[kept])


def pairs(true: Truths, found: Detections, ranked: Ranked, least: float, classes: int) -> Pairs:
    """All pairs of the same image and class with an overlap of at least `least`."""
    parts: list[tuple[Indices, Indices, Doubles]] = []
    for i, j in together(ranked.groups, true.images * classes + true.classes):
        overlap = overlaps(found.boxes[ranked.order[i]], true.boxes[j], true.crowd[j])
        near = overlap >= min(least, _BELOW_ONE)
        parts.append((i[near], j[near], overlap[near]))
    none = np.zeros(0, dtype=np.int64)
    return Pairs(
        ranked=np.concatenate([none, *(part[0] for part in parts)]),
        truth=np.concatenate([none, *(part[1] for part in parts)]),
        overlap=np.concatenate([np.zeros(0), *(part[2] for part in parts)]),
    )


def match(
    near: Pairs, true: Truths, ranked: Ranked, ignored: Bools, thresholds: Doubles
) -> NDArray[np.int32]:
    """The true box of each ranked detection at each threshold, or -1: [R, T]. ignored [N]: boxes that need not be found.

    Detections of the same rank belong to different images or classes, so they choose at the same time.
    """
    chosen = np.full((len(ranked.order), len(thresholds)), -1, dtype=np.int32)
    shared = true.shared
    used = np.zeros((len(true), len(thresholds)), dtype=np.bool_)
    rounds = _rounds(near, ranked)
    # In each detection's pairs, the best come last.
    order = np.lexsort((near.truth, near.overlap, ~ignored[near.truth], near.ranked, rounds))
    rounds, detection, truth = rounds[order], near.ranked[order], near.truth[order]
    enough = near.overlap[order, None] >= np.minimum(thresholds, _BELOW_ONE)
    ends = np.searchsorted(rounds, np.arange(rounds[-1] + 1 if len(rounds) else 0), side="right")
    begin = 0
    for end in ends:
        these = truth[begin:end]
        free = enough[begin:end] & ~(used[these] & ~shared[these, None])
        at = np.where(free, np.arange(len(these))[:, None], -1)
        firsts = np.flatnonzero(np.diff(detection[begin:end], prepend=-1))
        best = np.maximum.reduceat(at, firsts, axis=0)
        taken = these[best]
        row, column = np.nonzero(best >= 0)
        chosen[detection[begin + firsts[row]], column] = taken[row, column]
        used[taken[row, column], column] = True
        begin = end
    return chosen


def _rounds(near: Pairs, ranked: Ranked) -> Indices:
    """The round in which each pair's detection chooses: its rank among those of its group that have a pair at all."""
    detection, at = np.unique(near.ranked, return_inverse=True)
    groups = ranked.groups[detection]
    rounds = np.arange(len(detection)) - np.searchsorted(groups, groups, side="left")
    return np.asarray(rounds[at], dtype=np.int64)
