"""COCO's own evaluation gives the same scores."""

import numpy as np
import pytest

from patchword.metrics.detection import Detections, Truths, detections, evaluate, truths
from support.boxes import fed_back, scene
from support.coco_scores import coco_stats, mean

pytestmark = pytest.mark.peers


def same(there: Truths, found: Detections, images: int, classes: int, limit: int | None = None) -> None:
    ours = evaluate(there, found, images=images, names=[str(k) for k in range(classes)], max_detections=limit)
    theirs = coco_stats(there, found, images, classes, [r.detections for r in ours.ar])
    precision, recall = theirs["precision"], theirs["recall"]
    pairs = [
        (ours.ap, precision[..., 0, -1]), (ours.ap50, precision[0, ..., 0, -1]), (ours.ap75, precision[5, ..., 0, -1]),
        *((r.value, recall[:, :, 0, i]) for i, r in enumerate(ours.ar)),
        *((s.ap, precision[..., a + 1, -1]) for a, s in enumerate(ours.sizes)),
        *((s.ar, recall[..., a + 1, -1]) for a, s in enumerate(ours.sizes)),
        *((c.ap, precision[:, :, k, 0, -1]) for k, c in enumerate(ours.classes)),
        *((c.ap50, precision[0, :, k, 0, -1]) for k, c in enumerate(ours.classes)),
        *((c.ar, recall[:, k, 0, -1]) for k, c in enumerate(ours.classes)),
    ]  # fmt: skip
    for i, (mine, values) in enumerate(pairs):
        expected = mean(values)
        assert (mine is None) == (expected is None), i
        assert mine is None or mine == pytest.approx(expected, abs=1e-6), i


@pytest.mark.parametrize("seed", range(12))
def test_random_scenes_with_crowds_ignored_boxes_and_outlines(seed: int) -> None:
    same(*scene(seed, images=20), 20, 5)


@pytest.mark.parametrize("seed", range(12))
def test_equal_scores(seed: int) -> None:
    same(*scene(seed, ties=True, objects=10, guesses=25), 12, 5)


@pytest.mark.parametrize("seed", range(6))
def test_whole_pixels_and_dense_images(seed: int) -> None:
    there, found = scene(seed, images=3, classes=2, objects=60, guesses=200, size=120, ties=True)
    whole = (np.round(b / 8) * 8 for b in (there.boxes, found.boxes))
    first, second = whole
    second[:, 2:] = np.maximum(second[:, 2:], second[:, :2])
    there = truths(first, there.classes, there.images, crowd=there.crowd, ignored=there.ignored)
    same(there, detections(second, found.classes, found.scores, found.images), 3, 2)


@pytest.mark.parametrize("limit", [10, 20, 100, 300])
def test_another_number_of_detections(limit: int) -> None:
    same(*scene(3, images=3, classes=1, objects=150, guesses=300), 3, 1, limit)


def test_classes_without_boxes_without_detections_and_without_either() -> None:
    there, found = scene(5)
    kept = found.classes != 1
    less = detections(
        found.boxes[kept],
        found.classes[kept] + (found.classes[kept] == 4),
        found.scores[kept],
        found.images[kept],
    )
    same(there, less, 12, 8)


def test_no_detections_no_boxes_and_neither() -> None:
    there, found = scene(6)
    none, nothing = truths([], []), detections([], [], [])
    same(there, nothing, 12, 5)
    same(none, found, 12, 5)
    same(none, nothing, 12, 5)


def test_boxes_fed_back() -> None:
    there, _ = scene(7, images=40, objects=12)
    same(there, fed_back(there), 40, 5)
