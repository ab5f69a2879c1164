"""Large images in overlapping tiles, and the answers of the tiles as one.

A detector that answers with a set needs no suppression, so the boxes of one tile are never compared with each other. Two tiles
see the same object only where they overlap: there, their boxes of one class are matched one to one, by what of them lies in
the overlap.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from patchword.errors import SettingsError
from patchword.images.geometry import Size
from patchword.inference.detections import Found, joined_found

DEFAULT_OVERLAP, MOST_OVERLAP = 0.2, 0.9
# Two tiles see the same object if its parts in their overlap cover each other by this much (intersection over union).
SAME = 0.5
# Pixels: a box that ends so close to the edge of its tile may go on behind it.
_AT_EDGE = 2.0
Box = tuple[int, int, int, int]


@dataclass(frozen=True, kw_only=True)
class Tiling:
    """size: pixels per side of a tile. overlap: the share of a side that neighbours have in common, at least."""

    size: int
    overlap: float = DEFAULT_OVERLAP

    def __post_init__(self) -> None:
        if not isinstance(self.size, int) or self.size < 1:
            raise SettingsError(f"--tile is {self.size!r}", "give the pixels per side of a tile, such as 800")
        if not 0 <= self.overlap <= MOST_OVERLAP:
            raise SettingsError(
                f"--overlap is {self.overlap!r}",
                f"give a share of the tile from 0 to {MOST_OVERLAP}, such as 0.2",
            )


def make_tiling(tile: int | None, overlap: float | None) -> Tiling | None:
    """None without tiles. Raises: SettingsError for numbers out of range, or an overlap of nothing."""
    if tile is None:
        if overlap is not None:
            raise SettingsError(
                f"--overlap is {overlap:g}, but the images are not cut in tiles",
                "remove --overlap, or give the size of tiles with --tile",
            )
        return None
    return Tiling(size=tile, overlap=DEFAULT_OVERLAP if overlap is None else overlap)


def tiles_of(size: Size, tiling: Tiling) -> list[Box]:
    """The tiles (left, top, right, bottom) of an image of (h, w), row by row, evenly spaced; all have the same size."""
    tops, lefts = (_starts(side, tiling) for side in size)
    height, width = (min(side, tiling.size) for side in size)
    return [(left, top, left + width, top + height) for top in tops for left in lefts]


def _starts(side: int, tiling: Tiling) -> list[int]:
    if side <= tiling.size:
        return [0]
    step = max(tiling.size * (1 - tiling.overlap), 1)
    count = math.ceil((side - tiling.size) / step) + 1
    return [round(i * (side - tiling.size) / (count - 1)) for i in range(count)]


def merged(parts: Sequence[Found], tiles: Sequence[Box], size: Size) -> Found:
    """The answers of the tiles, whose boxes are in pixels of the image (h, w), each object once.

    Of an object that several tiles saw, the surest box that no tile cut off is kept, or else what all of them cover together;
    its score is the highest.
    """
    if len(tiles) == 1:
        return parts[0]
    whole = joined_found(parts)
    owner = np.concatenate([np.full(len(part.labels), i) for i, part in enumerate(parts)])
    owner = owner[np.argsort(-np.concatenate([part.scores for part in parts]), kind="stable")]
    groups = _Groups(owner)
    for first in range(len(tiles)):
        for second in range(first + 1, len(tiles)):
            for pair in _pairs(whole, owner, tiles, first, second):
                groups.join(*pair)
    cut = _cut_off(whole.boxes, np.array(tiles, np.float64)[owner], size)
    kept, boxes = [], []
    for rows in groups.members():
        uncut = [row for row in rows if not cut[row]]
        kept.append(rows[0])
        boxes.append(whole.boxes[uncut[0]] if uncut else _around(whole.boxes[rows]))
    return replace(whole.taken(kept), boxes=np.array(boxes).reshape(-1, 4))


def _pairs(
    whole: Found, owner: NDArray[np.int64], tiles: Sequence[Box], first: int, second: int
) -> list[tuple[int, int]]:
    """Rows of two tiles that are the same object, the best overlap first; each row once."""
    a, b = tiles[first], tiles[second]
    shared = np.array([max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3])], np.float64)
    if (shared[2:] <= shared[:2]).any():
        return []
    of_first, of_second = (_inside(whole, owner == tile, shared) for tile in (first, second))
    if not len(of_first) or not len(of_second):
        return []
    overlap = _iou(_clipped(whole.boxes[of_first], shared), _clipped(whole.boxes[of_second], shared))
    overlap[whole.labels[of_first][:, None] != whole.labels[of_second]] = 0
    rows, columns = np.nonzero(overlap >= SAME)
    order = np.argsort(-overlap[rows, columns], kind="stable")
    used: tuple[set[int], set[int]] = (set(), set())
    pairs = []
    for row, column in zip(of_first[rows[order]].tolist(), of_second[columns[order]].tolist(), strict=True):
        if row not in used[0] and column not in used[1]:
            used[0].add(row)
            used[1].add(column)
            pairs.append((row, column))
    return pairs


def _inside(whole: Found, of_tile: NDArray[np.bool_], shared: NDArray[np.float64]) -> NDArray[np.int64]:
    """The rows of a tile with a part in the overlap."""
    part = _clipped(whole.boxes, shared)
    return np.flatnonzero(of_tile & (part[:, 2:] > part[:, :2]).all(axis=1))


def _clipped(boxes: NDArray[np.float64], to: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.concatenate([np.maximum(boxes[:, :2], to[:2]), np.minimum(boxes[:, 2:], to[2:])], axis=1)


def _iou(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """[n, m] of boxes [n, 4] and [m, 4] with an area."""
    low, high = np.maximum(a[:, None, :2], b[None, :, :2]), np.minimum(a[:, None, 2:], b[None, :, 2:])
    common = (high - low).clip(0).prod(axis=-1)
    areas = [(x[:, 2:] - x[:, :2]).prod(axis=1) for x in (a, b)]
    return np.asarray(common / (areas[0][:, None] + areas[1] - common))


def _cut_off(boxes: NDArray[np.float64], tiles: NDArray[np.float64], size: Size) -> NDArray[np.bool_]:
    """[n]: whether a box reaches an edge of its tile that is not an edge of the image."""
    edges = np.array([0, 0, size[1], size[0]], np.float64)
    inner = tiles != edges
    return np.asarray((inner & (np.abs(boxes - tiles) <= _AT_EDGE)).any(axis=1))


def _around(boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.concatenate([boxes[:, :2].min(axis=0), boxes[:, 2:].max(axis=0)])


class _Groups:
    """Rows that are one object; a group never has two rows of one tile."""

    def __init__(self, owner: NDArray[np.int64]) -> None:
        self.of = list(range(len(owner)))
        self.rows: dict[int, list[int]] = {row: [row] for row in self.of}
        self.tiles = {row: {int(tile)} for row, tile in enumerate(owner)}

    def join(self, a: int, b: int) -> None:
        first, second = sorted((self.of[a], self.of[b]))
        if first == second or self.tiles[first] & self.tiles[second]:
            return
        for row in self.rows[second]:
            self.of[row] = first
        self.rows[first] = sorted(self.rows[first] + self.rows.pop(second))
        self.tiles[first] |= self.tiles.pop(second)

    def members(self) -> list[list[int]]:
        """In the order of their highest score."""
        return [self.rows[key] for key in sorted(self.rows)]
