"""Boxes that are none: outside the image, without area, twice. What is changed is counted and listed.

Shapes: M boxes.
"""

from collections import defaultdict
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from patchword.data.dataset import Problem
from patchword.errors import plural

# Corners that leave the image by less are rounding.
_OVER_EDGE = 0.5
_LISTED = 8


@dataclass(frozen=True)
class _Kind:
    """one, more: the end of "1 box ..." and of "2 boxes ..."."""

    one: str
    more: str
    fix: str
    is_dropped: bool = True


KINDS = {
    "no area": _Kind("has no area and is left out", "have no area and are left out", "draw or remove them"),
    "outside": _Kind(
        "lies outside its image and is left out",
        "lie outside their images and are left out",
        "check that the annotations belong to these images",
    ),
    "duplicate": _Kind(
        "repeats another of the same class and is left out",
        "repeat others of the same class and are left out",
        "remove the repetitions",
    ),
    "over the edge": _Kind(
        "reaches over the edge of its image and is cut off there",
        "reach over the edge of their images and are cut off there",
        "check the annotations if they were not meant to",
        is_dropped=False,
    ),
    "corners swapped": _Kind(
        "has its right or bottom edge before its left or top one, which is swapped",
        "have their right or bottom edge before their left or top one, which is swapped",
        "write the smaller coordinate first",
        is_dropped=False,
    ),
}


@dataclass
class Faults:
    """Boxes by kind of fault, as messages name them."""

    found: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))

    def add(self, kind: str, where: str) -> None:
        self.found[kind].append(where)

    def problems(self) -> list[Problem]:
        problems = []
        for kind, about in KINDS.items():
            places = self.found.get(kind, [])
            if places:
                more = " …" if len(places) > _LISTED else ""
                message = (
                    f"{plural(len(places), 'box', 'boxes')} {about.one if len(places) == 1 else about.more}: "
                    f"{'; '.join(places[:_LISTED])}{more}"
                )
                problems.append(Problem(severity="warning", message=message, fix=about.fix))
        return problems

    def dropped(self) -> dict[str, int]:
        """Boxes that were left out, counted by reason."""
        names = {
            "no area": "boxes without area",
            "outside": "boxes outside the image",
            "duplicate": "repeated boxes",
        }
        return {name: len(self.found[kind]) for kind, name in names.items() if self.found.get(kind)}


def clean(
    corners: NDArray[np.float64],
    labels: NDArray[np.int64],
    crowd: NDArray[np.bool_],
    image: NDArray[np.int64],
    frames: NDArray[np.int64],
    places: list[str],
    faults: Faults,
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return corners inside the images, and which boxes to keep [M].

    corners [M, 4] upright; image [M]; frames [M, 2]: (h, w) of the image of each box; places [M]: for messages.
    """
    low, high = np.minimum(corners[:, :2], corners[:, 2:]), np.maximum(corners[:, :2], corners[:, 2:])
    swapped = (corners[:, 2:] < corners[:, :2]).any(axis=1)
    ends = frames[:, ::-1].astype(np.float64)
    empty = (high - low <= 0).any(axis=1)
    outside = ~empty & ((high <= 0).any(axis=1) | (low >= ends).any(axis=1))
    over = ((low < -_OVER_EDGE) | (high > ends + _OVER_EDGE)).any(axis=1) & ~outside & ~empty
    inside = np.concatenate([np.clip(low, 0.0, ends), np.clip(high, 0.0, ends)], axis=1)
    kept = np.asarray(~empty & ~outside, np.bool_)
    twice = _repeated(inside, labels, crowd, image, kept)
    for kind, rows in (
        ("no area", empty),
        ("outside", outside),
        ("duplicate", twice),
        ("over the edge", over & ~twice),
        ("corners swapped", swapped & ~empty & ~outside),
    ):
        for row in np.flatnonzero(rows).tolist():
            faults.add(kind, places[row])
    return inside, kept & ~twice


def _repeated(
    corners: NDArray[np.float64],
    labels: NDArray[np.int64],
    crowd: NDArray[np.bool_],
    image: NDArray[np.int64],
    kept: NDArray[np.bool_],
) -> NDArray[np.bool_]:
    """[M]: whether an earlier box has the same image and class, and corners equal to a hundredth of a pixel."""
    rows = np.flatnonzero(kept)
    table = np.column_stack([image[rows], labels[rows], crowd[rows], np.round(corners[rows] * 100)]).astype(
        np.int64
    )
    twice = np.zeros(len(kept), dtype=np.bool_)
    if len(rows):
        first = np.unique(table, axis=0, return_index=True)[1]
        twice[rows] = True
        twice[rows[first]] = False
    return twice
