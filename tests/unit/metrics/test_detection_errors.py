"""What each detection is, and what each kind of error costs."""

import itertools

import numpy as np
import pytest

from patchword.metrics.detection import KINDS, detections, evaluate, matched, truths
from patchword.metrics.detection.errors import CORRECT
from support.boxes import scene

DOG, CAT = 0, 1
THERE = [0.0, 0.0, 100.0, 100.0]
# Of boxes with one side moved: the overlap is what is left of it.
HALF, NEAR, FAR = [0.0, 0.0, 100.0, 40.0], [0.0, 0.0, 100.0, 80.0], [300.0, 300.0, 400.0, 400.0]


def _kinds(boxes: list[list[float]], classes: list[int], scores: list[float], **more: float) -> list[str]:
    there = truths([THERE], [DOG])
    result = matched(there, detections(boxes, classes, scores), **more)  # type: ignore[arg-type]
    return [KINDS[k] for k in result.kinds]


@pytest.mark.parametrize(
    ("box", "label", "kind"),
    [
        (NEAR, DOG, "correct"),
        (NEAR, CAT, "class"),
        (HALF, DOG, "place"),
        (HALF, CAT, "both"),
        (FAR, DOG, "background"),
    ],
)
def test_one_detection_of_each_kind(box: list[float], label: int, kind: str) -> None:
    assert _kinds([box], [label], [0.5]) == [kind]


def test_the_less_sure_of_two_is_the_duplicate_whatever_overlaps_more() -> None:
    assert _kinds([THERE, NEAR], [DOG, DOG], [0.5, 0.9]) == ["duplicate", "correct"]


def test_a_detection_in_a_crowd_and_one_not_shown_are_no_errors() -> None:
    there = truths([[0, 0, 500, 500], THERE], [DOG, DOG], crowd=[True, False])
    found = detections(
        [[210, 210, 250, 250], [220, 220, 250, 250], THERE, THERE], [DOG] * 4, [0.9, 0.8, 0.7, 0.1]
    )
    result = matched(there, found, score=0.5)
    assert [KINDS[k] for k in result.kinds] == ["ignored", "ignored", "correct", "dropped"]
    assert result.truths.tolist() == [0, 0, 1, -1] and result.found.tolist() == [-1, 2]
    assert result.overlaps.tolist() == [1.0, 1.0, 1.0, 0.0]
    assert _kinds([NEAR, NEAR], [DOG, DOG], [0.9, 0.8], max_detections=1) == ["correct", "dropped"]


def test_errors_name_the_box_they_are_about_and_stay_in_their_image() -> None:
    there = truths([FAR, THERE, THERE], [DOG, CAT, DOG], [0, 0, 1])
    result = matched(there, detections([NEAR, NEAR, FAR], [DOG, CAT, DOG], [0.9, 0.8, 0.7], [0, 1, 1]))
    assert [KINDS[k] for k in result.kinds] == ["class", "class", "background"]
    assert result.truths.tolist() == [1, 2, -1] and result.overlaps.tolist() == [0.8, 0.8, 0.0]
    assert result.found.tolist() == [-1, -1, -1]


def _errors(
    boxes: list[list[float]], classes: list[int], scores: list[float]
) -> dict[str, tuple[int, float]]:
    """Count and gain of each kind for one dog and one cat, of which the cat is found."""
    there = truths([THERE, FAR], [DOG, CAT])
    found = detections([FAR, *boxes], [CAT, *classes], [0.99, *scores])
    rows = evaluate(there, found, images=1, names=["dog", "cat"]).errors
    return {e.name: (e.count, e.dap or 0.0) for e in rows if e.count}


def test_the_gain_of_a_kind_is_what_correcting_it_gives() -> None:
    # AP50 is 1 for cats and 0 for dogs; what makes the dog found gains one half.
    assert _errors([], [], []) == {"missed": (1, pytest.approx(0.5))}
    assert _errors([NEAR], [CAT], [0.5]) == {"class": (1, pytest.approx(0.5))}
    assert _errors([HALF], [DOG], [0.5]) == {"place": (1, pytest.approx(0.5))}
    found = _errors([NEAR, [0.0, 200.0, 50.0, 250.0]], [DOG, DOG], [0.5, 0.9])
    assert found == {"background": (1, pytest.approx(0.25))}
    assert _errors([NEAR, NEAR], [DOG, DOG], [0.9, 0.5]) == {"duplicate": (1, 0.0)}


def test_of_several_errors_about_one_box_the_surest_becomes_right_and_the_others_disappear() -> None:
    found = _errors([HALF, HALF, HALF], [DOG] * 3, [0.5, 0.9, 0.7])
    assert found == {"place": (3, pytest.approx(0.5))}


@pytest.mark.parametrize("seed", range(3))
def test_every_detection_and_every_box_is_counted_once(seed: int) -> None:
    there, found = scene(seed, ties=True)
    result = matched(there, found)
    scores = evaluate(there, found, images=12, names=list("abcde"))
    counts = {e.name: e.count for e in scores.errors}
    for kind, name in enumerate(KINDS):
        assert counts.get(name, (result.kinds == kind).sum()) == (result.kinds == kind).sum()
    right = np.flatnonzero(result.kinds == CORRECT)
    assert sorted(result.found[result.found >= 0]) == right.tolist()
    assert (found.classes[right] == there.classes[result.truths[right]]).all()
    assert (found.images[right] == there.images[result.truths[right]]).all()
    assert (result.overlaps[right] >= 0.5).all() and there.counted[result.truths[right]].all()
    assert all(
        (e.dap is not None and e.dap >= -1e-12 and e.shown <= e.count) or e.name == "missed"
        for e in scores.errors
    )


def test_the_images_add_up_to_the_shown_detections() -> None:
    there, found = scene(8)
    scores = evaluate(there, found, images=13, names=list("abcde"))
    assert scores.best is not None and len(scores.per_image) == 13
    right, wrong = (sum(getattr(i, name) for i in scores.per_image) for name in ("right", "wrong"))
    assert right == round(scores.best.recall * scores.truths)
    assert right / (right + wrong) == pytest.approx(scores.best.precision)
    worst = scores.worst(13)
    assert all(a.f1 <= b.f1 for a, b in itertools.pairwise(worst)) and scores.per_image[12].f1 == 1.0
