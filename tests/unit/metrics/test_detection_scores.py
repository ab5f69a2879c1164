"""Scores of detected boxes: COCO's numbers, and what must hold for any."""

import json
import time
from pathlib import Path

import numpy as np
import pytest

from patchword.metrics.detection import (
    Detections,
    DetectionScores,
    Truths,
    detections,
    evaluate,
    joined_detections,
    joined_truths,
    truths,
)
from support.boxes import fed_back, scene

REFERENCE = Path(__file__).parents[2] / "data" / "coco-scores.json"
NAMES = list("abcde")
SQUARE = [10.0, 10.0, 50.0, 50.0]


def score(there: Truths, found: Detections, images: int = 12, limit: int | None = None) -> DetectionScores:
    return evaluate(there, found, images=images, names=NAMES, max_detections=limit)


def twelve(scores: DetectionScores) -> list[float | None]:
    """The numbers that COCO prints, in its order."""
    return [
        scores.ap, scores.ap50, scores.ap75, *(s.ap for s in scores.sizes),
        *(r.value for r in scores.ar), *(s.ar for s in scores.sizes),
    ]  # fmt: skip


@pytest.mark.parametrize("case", json.loads(REFERENCE.read_text()), ids=lambda case: case["name"])
def test_the_numbers_are_those_of_pycocotools(case: dict[str, dict[str, list[float]]]) -> None:
    there, found = truths(**case["truths"]), detections(**case["detections"])
    for ours, theirs in zip(twelve(score(there, found)), case["expected"], strict=True):
        assert ours == pytest.approx(theirs, abs=1e-6) if theirs is not None else ours is None


def test_the_errors_are_those_of_tidecv() -> None:
    case = next(case for case in json.loads(REFERENCE.read_text()) if "errors" in case)
    errors = score(truths(**case["truths"]), detections(**case["detections"])).errors
    assert {e.name: e.count for e in errors} == {name: count for name, (count, _) in case["errors"].items()}
    # Its 101 recalls are rounded another way than COCO's, which may move one of them by a detection.
    assert [e.dap for e in errors] == pytest.approx([case["errors"][e.name][1] for e in errors], abs=5e-4)


@pytest.mark.parametrize("seed", range(3))
def test_true_boxes_fed_back_score_exactly_one(seed: int) -> None:
    there, _ = scene(seed, images=20, objects=15, outlines=False)
    scores = score(there, fed_back(there, 0.01), images=20)
    assert (scores.ap, scores.ap50, scores.ap75, scores.ar[-1].value) == (1.0, 1.0, 1.0, 1.0)
    assert all(c.ap == 1.0 and c.best and c.best.f1 == 1.0 for c in scores.classes if c.truths)
    assert all(e.count == 0 and e.dap == 0 for e in scores.errors) and not scores.worst(5)
    assert all(curve.precision == (1.0,) * 101 for curve in scores.curves)


def test_equal_boxes_are_each_found_once() -> None:
    there = truths([SQUARE] * 3, [0] * 3)
    assert score(there, fed_back(there)).ap == 1.0
    fewer = detections([SQUARE] * 2, [0] * 2, [0.5] * 2)
    assert score(there, fewer).ar[-1].value == pytest.approx(2 / 3)


def test_the_number_of_detections_follows_the_data() -> None:
    boxes = np.arange(150)[:, None] * [10, 0, 10, 0] + [0, 0, 8, 8]
    there = truths(boxes, np.zeros(150, dtype=int))
    scores = score(there, fed_back(there))
    assert scores.ap == 1.0 and (scores.max_detections, scores.most_truths, scores.dropped) == (200, 150, 0)
    assert [r.detections for r in scores.ar] == [1, 10, 100, 200]
    assert [r.value for r in scores.ar] == pytest.approx([1 / 150, 10 / 150, 100 / 150, 1])
    as_coco = score(there, fed_back(there), limit=100)
    assert as_coco.dropped == 50 and as_coco.ar[-1].value == pytest.approx(2 / 3)
    assert score(*scene(0)).max_detections == 100


def test_nothing_to_find_is_no_score_and_nothing_found_is_zero() -> None:
    there, found = scene(4)
    no_boxes, no_detections = truths([], []), detections([], [], [])
    for scores in (score(no_boxes, found), score(no_boxes, no_detections)):
        assert scores.ap is None and scores.best is None and not scores.curves
        assert all(c.ap is None and c.best is None for c in scores.classes)
    empty = score(there, no_detections)
    assert empty.ap == 0.0 and empty.best is None
    assert {e.name: e.dap for e in empty.errors}["missed"] == 1.0
    images = score(no_boxes, found).per_image
    assert all(i.f1 == (0.0 if i.wrong else 1.0) for i in images) and sum(i.wrong for i in images) == len(
        found
    )


def test_a_class_without_boxes_does_not_count() -> None:
    there = truths([SQUARE], [0])
    found = detections([SQUARE, SQUARE], [0, 1], [0.5, 0.9])
    scores = score(there, found)
    assert scores.ap == 1.0 and [c.ap for c in scores.classes] == [1.0, None, None, None, None]


def test_detections_in_a_crowd_are_neither_right_nor_wrong() -> None:
    crowd, one = [0.0, 100.0, 200.0, 200.0], SQUARE
    there = truths([crowd, one], [0, 0], crowd=[True, False])
    inside = [[10.0 * i, 110.0, 10.0 * i + 8, 130.0] for i in range(5)]
    found = detections([*inside, one], [0] * 6, [0.9] * 5 + [0.1])
    scores = score(there, found)
    assert scores.ap == 1.0 and (scores.truths, scores.ignored) == (1, 1)
    without = score(truths([one], [0]), found)
    assert without.ap == pytest.approx(1 / 6)


def test_an_ignored_box_takes_one_detection() -> None:
    there = truths([SQUARE, [100, 100, 150, 150]], [0, 0], ignored=[True, False])
    found = detections([SQUARE, SQUARE, [100, 100, 150, 150]], [0] * 3, [0.9, 0.8, 0.7])
    assert score(there, found).ap == pytest.approx(0.5)
    assert score(there, detections([SQUARE, [100, 100, 150, 150]], [0, 0], [0.9, 0.7])).ap == 1.0


def test_a_difficult_box_takes_any_number_of_detections() -> None:
    there = truths([SQUARE, [100, 100, 150, 150]], [0, 0], difficult=[True, False])
    found = detections([SQUARE, SQUARE, [100, 100, 150, 150]], [0] * 3, [0.9, 0.8, 0.7])
    scores = score(there, found)
    assert scores.ap == 1.0 and (scores.truths, scores.ignored) == (1, 1)
    assert not any(kind.count for kind in scores.errors), "neither a duplicate nor missed"
    assert score(there, detections([SQUARE], [0], [0.9])).ap == 0.0


def test_the_area_decides_the_size_and_may_be_that_of_an_outline() -> None:
    small = score(truths([SQUARE], [0], areas=[500.0]), detections([SQUARE], [0], [1.0]))
    assert [s.truths for s in small.sizes] == [1, 0, 0] and [s.ap for s in small.sizes] == [1.0, None, None]
    medium = score(truths([SQUARE], [0]), detections([SQUARE], [0], [1.0]))
    assert [s.truths for s in medium.sizes] == [0, 1, 0]


@pytest.mark.parametrize("seed", range(3))
def test_order_of_boxes_and_unit_of_scores_change_nothing(seed: int) -> None:
    there, found = scene(seed)
    rng = np.random.default_rng(seed)
    t, d = rng.permutation(len(there)), rng.permutation(len(found))
    mixed = score(
        truths(there.boxes[t], there.classes[t], there.images[t], areas=there.areas[t], crowd=there.crowd[t], ignored=there.ignored[t]),
        detections(found.boxes[d], found.classes[d], found.scores[d] * 7 - 20, found.images[d]),
    )  # fmt: skip
    assert twelve(mixed) == pytest.approx(twelve(score(there, found)))


def test_the_best_score_is_where_f1_is_highest() -> None:
    boxes = [[20.0 * i, 0, 20.0 * i + 10, 10] for i in range(6)]
    there = truths(boxes[:4], [0] * 4)
    # Right, right, right, wrong with an equal score, wrong.
    found = detections([*boxes[:3], boxes[4], boxes[5]], [0] * 5, [0.9, 0.8, 0.4, 0.4, 0.2])
    best = score(there, found).best
    assert best is not None
    assert (best.score, best.precision, best.recall, best.f1) == (0.4, 0.75, 0.75, 0.75)


def test_images_are_joined_in_their_order_with_those_without_boxes() -> None:
    there = joined_truths([truths([], []), truths([SQUARE], [1]), truths([SQUARE, SQUARE], [0, 1])])
    found = joined_detections([detections([SQUARE], [0], [0.5]), detections([], [], [])])
    assert there.images.tolist() == [1, 2, 2] and found.images.tolist() == [0]
    assert len(joined_truths([])) == len(joined_detections([])) == 0
    scores = score(there, found, images=3)
    assert [(i.image, i.missed, i.wrong) for i in scores.worst(9)] == [(2, 2, 0), (0, 0, 1), (1, 1, 0)]


def test_a_box_without_area_is_counted_and_cannot_be_found() -> None:
    there = truths([SQUARE, [5, 5, 5, 9]], [0, 0])
    scores = score(there, fed_back(there))
    assert scores.without_area == 1 and scores.ap50 == pytest.approx(51 / 101)


def test_the_dict_is_json_with_the_worst_images_by_name() -> None:
    scores = score(*scene(1))
    plain = scores.to_dict(names=[f"{i}.jpg" for i in range(12)], worst=3)
    assert len(json.loads(json.dumps(plain, allow_nan=False))["curves"][0]["precision"]) == 101
    assert [w["name"] for w in plain["worst"]] == [f"{i.image}.jpg" for i in scores.worst(3)]
    assert plain["ap"] == scores.ap and len(plain["classes"]) == 5 and "per_image" not in plain


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: truths([[0, 0, 1]], [0]), r"shape \(1, 3\)"),
        (lambda: truths([SQUARE, [0, 0, np.nan, 1]], [0, 0]), "box 1 has a NaN"),
        (lambda: truths([[5, 5, 2, 9]], [0]), r"box 0, \[5.0, 5.0, 2.0, 9.0\], is not x0, y0, x1, y1"),
        (lambda: truths([SQUARE], [0, 1]), r"classes have the shape \(2,\), for 1 box"),
        (lambda: truths([SQUARE], [0.5]), "classes must be indices"),
        (lambda: detections([SQUARE], [-1], [1.0]), "classes must be indices"),
        (lambda: detections([SQUARE], [0], [np.inf]), r"scores\[0\] is NaN or infinite"),
        (lambda: score(truths([SQUARE], [5]), fed_back(truths([], []))), "true boxes have classes up to 5, but there are 5"),
        (lambda: score(truths([], []), detections([SQUARE], [0], [1], [12])), "detections have images up to 12"),
        (lambda: score(truths([], []), detections([], [], []), limit=0), "max_detections is 0"),
    ],
)  # fmt: skip
def test_arrays_that_do_not_fit_are_refused(call: object, words: str) -> None:
    assert callable(call)
    with pytest.raises(ValueError, match=words):
        call()


@pytest.mark.slow
def test_five_thousand_images_of_eighty_classes_take_seconds() -> None:
    there, found = scene(0, images=5000, classes=80, objects=7, guesses=75, size=600)
    start = time.perf_counter()
    evaluate(there, found, images=5000, names=[str(k) for k in range(80)])
    assert time.perf_counter() - start < 30
