"""Why a detection is wrong or a true box is not found, and what each kind of error costs.

Source: Bolya et al. 2020, "TIDE: A general toolbox for identifying object detection errors", sections 2 and 3; where the
definitions of two kinds hold, the order is that of its repository: place, class, duplicate, background, both.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from patchword.metrics import Indices
from patchword.metrics.detection.boxes import Bools, Detections, Doubles, Truths, overlaps, together
from patchword.metrics.detection.matching import match, pairs, rank
from patchword.metrics.detection.precision import IGNORED, RIGHT, WRONG, curve
from patchword.metrics.detection.result import COCO_DETECTIONS, ErrorType

OVERLAP, BACKGROUND = 0.5, 0.1
KINDS = ("correct", "class", "place", "both", "duplicate", "background", "ignored", "dropped")
CORRECT, CLASS, PLACE, BOTH, DUPLICATE, BACK, IGNORE, DROPPED = range(8)
ERRORS = (CLASS, PLACE, BOTH, DUPLICATE, BACK)


@dataclass(frozen=True, kw_only=True, eq=False)
class Matched:
    """What each detection and each true box is.

    kinds [D]: index of KINDS. truths [D]: the true box that it found, or that its error is about; -1 if there is none.
    overlaps [D]: with that box. found [N]: the detection that found the box, or -1.
    """

    kinds: NDArray[np.int8]
    truths: Indices
    overlaps: Doubles
    found: Indices


def matched(
    true: Truths,
    found: Detections,
    *,
    overlap: float = OVERLAP,
    background: float = BACKGROUND,
    score: float = -np.inf,
    max_detections: int = COCO_DETECTIONS,
) -> Matched:
    """Match detections with at least `score` to true boxes, and name the errors.

    A detection that is not correct is about "class": a box of another class with at least `overlap`; "place": one of its
    own class with at least `background`; "both": one of another class with at least `background`; "duplicate": one that a
    surer detection found; "background": none. "ignored": it lies in a crowd or found an ignored box. "dropped": its score is
    too low, or it is not among the `max_detections` surest of its image and class.
    """
    classes = int(max(true.classes.max(initial=-1), found.classes.max(initial=-1))) + 1
    ranked = rank(found, max_detections, classes)
    near = pairs(true, found, ranked, overlap, classes)
    chosen = match(near, true, ranked, ~true.counted, np.array([overlap]))[:, 0].astype(np.int64)
    kinds = np.full(len(found), DROPPED, dtype=np.int8)
    box, size = np.full(len(found), -1, dtype=np.int64), np.zeros(len(found))
    hit = chosen >= 0
    there, what = ranked.order[hit], chosen[hit]
    kinds[there] = np.where(true.counted[what], CORRECT, IGNORE)
    box[there], size[there] = what, overlaps(found.boxes[there], true.boxes[what], true.crowd[what])
    missed = ranked.order[~hit]
    kinds[missed], box[missed], size[missed] = _errors(true, found, missed, overlap, background)
    low = found.scores < score
    kinds[low], box[low], size[low] = DROPPED, -1, 0.0
    by = np.full(len(true), -1, dtype=np.int64)
    right = np.flatnonzero(kinds == CORRECT)
    by[box[right]] = right
    return Matched(kinds=kinds, truths=box, overlaps=size, found=by)


def _errors(
    true: Truths, found: Detections, wrong: Indices, overlap: float, background: float
) -> tuple[NDArray[np.int8], Indices, Doubles]:
    """Kind, box and overlap of each detection of `wrong`, which found no box."""
    own_size, own = np.zeros(len(wrong)), np.full(len(wrong), -1, dtype=np.int64)
    other_size, other = own_size.copy(), own.copy()
    counted = np.flatnonzero(true.counted)
    none = np.zeros(1, dtype=np.bool_)
    for i, j in together(found.images[wrong], true.images[counted]):
        j = counted[j]
        size = overlaps(found.boxes[wrong[i]], true.boxes[j], none)
        same = found.classes[wrong[i]] == true.classes[j]
        for sizes, boxes, kept in ((own_size, own, same), (other_size, other, ~same)):
            _largest(sizes, boxes, i[kept], j[kept], size[kept])
    rules = (
        (PLACE, (own_size >= background) & (own_size < overlap), own, own_size),
        (CLASS, other_size >= overlap, other, other_size),
        (DUPLICATE, own_size >= overlap, own, own_size),
        (BOTH, other_size >= background, other, other_size),
    )
    kinds = np.full(len(wrong), BACK, dtype=np.int8)
    box, largest = np.full(len(wrong), -1, dtype=np.int64), np.zeros(len(wrong))
    for kind, holds, boxes, sizes in rules:
        holds = holds & (kinds == BACK)
        kinds[holds], box[holds], largest[holds] = kind, boxes[holds], sizes[holds]
    return kinds, box, largest


def _largest(sizes: Doubles, boxes: Indices, i: Indices, j: Indices, size: Doubles) -> None:
    """Write the largest overlap of each i, and the first j that has it; i ascends."""
    if not len(i):
        return
    firsts = np.flatnonzero(np.diff(i, prepend=-1))
    largest = np.maximum.reduceat(size, firsts)
    of = np.repeat(largest, np.diff(np.append(firsts, len(i))))
    at = np.minimum.reduceat(np.where(size == of, np.arange(len(i)), len(i)), firsts)
    sizes[i[firsts]], boxes[i[firsts]] = largest, j[at]


def error_types(
    true: Truths, found: Detections, result: Matched, score: float, classes: int
) -> tuple[ErrorType, ...]:
    """The kinds of errors of `result`, which has detections of all scores, with counts and with what AP50 would gain.

    The gain is that of an oracle: a detection of the wrong class or place becomes right if it is the surest about a box that
    was not found, else it disappears, as all other wrong detections do; missed boxes need not be found. As in the
    authors' tidecv, one box is corrected in one detection only, be its error the class or the place.
    """
    shown = found.scores >= score
    base = _ap(true, found, result, classes, kind=None)
    rows = [
        ErrorType(
            name=KINDS[kind],
            count=int((result.kinds == kind).sum()),
            shown=int(((result.kinds == kind) & shown).sum()),
            dap=_gain(base, _ap(true, found, result, classes, kind=kind)),
        )
        for kind in ERRORS
    ]
    missed = not_covered(true, result, np.ones(len(found), dtype=np.bool_))
    rows.append(
        ErrorType(
            name="missed",
            count=int(missed.sum()),
            shown=int(not_covered(true, result, shown).sum()),
            dap=_gain(base, _ap(true, found, result, classes, kind=None, missed=missed)),
        )
    )
    return tuple(rows)


def not_covered(true: Truths, result: Matched, shown: Bools) -> Bools:
    """[N]: the boxes that no shown detection [D] found, not even in the wrong place or class: the missed ones."""
    near = np.isin(result.kinds, (CORRECT, CLASS, PLACE)) & shown
    covered = np.zeros(len(true), dtype=np.bool_)
    covered[result.truths[near]] = True
    return true.counted & ~covered


def _gain(base: float | None, fixed: float | None) -> float | None:
    return None if base is None or fixed is None else fixed - base


def _ap(
    true: Truths,
    found: Detections,
    result: Matched,
    classes: int,
    *,
    kind: int | None,
    missed: Bools | None = None,
) -> float | None:
    """AP at one overlap with the errors of `kind` corrected, or without the `missed` boxes; None without boxes."""
    states = np.full(len(found), WRONG, dtype=np.int8)
    states[result.kinds == CORRECT] = RIGHT
    states[(result.kinds == IGNORE) | (result.kinds == DROPPED) | (result.kinds == kind)] = IGNORED
    labels = found.classes
    if kind in (CLASS, PLACE):
        promoted = _surest(found, result, kind)
        states[promoted] = RIGHT
        labels = labels.copy()
        labels[promoted] = true.classes[result.truths[promoted]]
    whole = np.bincount(true.classes[true.counted], minlength=classes)
    left = whole if missed is None else whole - np.bincount(true.classes[missed], minlength=classes)
    order = np.lexsort((found.images, -found.scores, labels))
    ends = np.searchsorted(labels[order], np.arange(classes + 1))
    values: Sequence[float] = [
        _one(states[order[ends[k] : ends[k + 1]], None], int(left[k])) for k in range(classes) if whole[k]
    ]
    return float(np.mean(values)) if values else None


def _one(states: NDArray[np.int8], positives: int) -> float:
    if not positives:
        # All boxes of the class were missed and do not count: only what was detected in vain is left.
        return 0.0 if (states == WRONG).any() else 1.0
    return float(curve(states, positives).mean())


def _surest(found: Detections, result: Matched, kind: int) -> Indices:
    """Of the errors of class and place about a box that was not found, those of `kind` that are the surest for their box."""
    about = np.flatnonzero(np.isin(result.kinds, (CLASS, PLACE)))
    about = about[result.found[result.truths[about]] < 0]
    about = about[np.argsort(-found.scores[about], kind="stable")]
    surest = about[np.unique(result.truths[about], return_index=True)[1]]
    return np.asarray(surest[result.kinds[surest] == kind], dtype=np.int64)
