"""Made-up true boxes, and what a detector of a given quality could find in them."""

from typing import Any

import numpy as np

from patchword.metrics.detection import Detections, Truths, detections, truths


def scene(
    seed: int, *, images: int = 12, classes: int = 5, objects: int = 6, guesses: int = 10, ties: bool = False,
    regions: float = 0.1, outlines: bool = True, size: int = 300,
) -> tuple[Truths, Detections]:  # fmt: skip
    """True boxes with crowds and ignored boxes, and detections: near ones, some of the wrong class, twice, and anywhere.

    outlines: areas are smaller than those of the boxes. ties: few different scores.
    """
    rng = np.random.default_rng(seed)
    number = images * objects
    boxes = _boxes(rng, number, size)
    there = truths(
        boxes,
        rng.integers(0, classes, number),
        np.sort(rng.integers(0, images, number)),
        areas=(boxes[:, 2:] - boxes[:, :2]).prod(axis=1) * (rng.uniform(0.5, 1, number) if outlines else 1),
        crowd=rng.random(number) < regions,
        ignored=rng.random(number) < regions,
    )
    near = rng.integers(0, number, images * guesses)
    moved = there.boxes[near] + rng.normal(0, 6, (len(near), 4)) * (rng.random((len(near), 1)) < 0.8)
    wrong_class = rng.random(len(near)) < 0.2
    kinds = np.where(wrong_class, rng.integers(0, classes, len(near)), there.classes[near])
    far = images * guesses // 3
    placed = np.concatenate([np.sort(moved.reshape(-1, 2, 2), axis=1).reshape(-1, 4), _boxes(rng, far, size)])
    numbers = np.concatenate([there.images[near], rng.integers(0, images, far)])
    order = np.argsort(numbers, kind="stable")
    scores = rng.random(len(placed))
    found = detections(
        placed[order],
        np.concatenate([kinds, rng.integers(0, classes, far)])[order],
        np.ceil(scores * 6) / 8 if ties else scores,
        numbers[order],
    )
    return there, found


def fed_back(there: Truths, score: float = 1.0) -> Detections:
    """The true boxes to be found, as detections."""
    kept = there.counted
    return detections(there.boxes[kept], there.classes[kept], np.full(kept.sum(), score), there.images[kept])


def _boxes(rng: np.random.Generator, number: int, size: int) -> Any:
    start = rng.uniform(0, size * 0.8, (number, 2))
    return np.concatenate(
        [start, start + rng.uniform(4, size * 0.5, (number, 2)) ** rng.uniform(0.6, 1, (number, 1))], axis=1
    )
