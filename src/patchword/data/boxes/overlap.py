"""Overlap of boxes as arrays."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def iou(one: Array, other: Array) -> Array:
    """Corners [n, 4] and [m, 4] → intersection over union [n, m]; 0 where both have no area."""
    low = np.maximum(one[:, None, :2], other[None, :, :2])
    high = np.minimum(one[:, None, 2:], other[None, :, 2:])
    shared = (high - low).clip(min=0).prod(axis=2)
    areas = [(part[:, 2:] - part[:, :2]).prod(axis=1) for part in (one, other)]
    union = areas[0][:, None] + areas[1][None, :] - shared
    share: Array = np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)
    return share


def pairs_above(corners: Array, least: float) -> Iterator[tuple[int, int, float]]:
    """Pairs i < j of the boxes [n, 4] of an image whose IoU is at least `least`."""
    if len(corners) < 2:
        return
    overlaps = np.triu(iou(corners, corners), 1)
    for i, j in zip(*np.nonzero(overlaps >= least), strict=True):
        yield int(i), int(j), float(overlaps[i, j])
