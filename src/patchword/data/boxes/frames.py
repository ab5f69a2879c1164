"""Which picture the boxes were drawn on: as displayed, as stored, or in another size.

A phone stores a picture lying on its side and notes in EXIF how to turn it. Labelling tools show it turned, programs
may not. The annotated width and height tell which of the two was annotated.
Shapes: N images, M boxes.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from patchword.data.boxes.headers import TURNED, Header
from patchword.errors import plural
from patchword.images.geometry import Size

Array = NDArray[np.float64]
Frame = Literal["displayed", "stored", "resized", "stored and resized", "unknown", "other"]
# Sides of a picture that was made smaller are rounded to whole pixels.
_SAME_SHAPE = 0.01


def frame_of(annotated: Size | None, header: Header) -> Frame:
    """unknown: both frames have the annotated size, or there is none. other: no frame has its shape."""
    turns = header.orientation != 1
    if annotated is None or header.reason:
        return "unknown" if turns else "displayed"
    if annotated == header.size:
        same = turns and header.stored == header.size
        return "unknown" if same else "displayed"
    if annotated == header.stored:
        return "stored"
    if _same_shape(annotated, header.size):
        return "resized"
    return "stored and resized" if turns and _same_shape(annotated, header.stored) else "other"


def _same_shape(one: Size, other: Size) -> bool:
    (h, w), (height, width) = one, other
    slack = _SAME_SHAPE + 1.0 / min(h, w, height, width)
    return abs(h * width / (w * height) - 1.0) <= slack


@dataclass(frozen=True, kw_only=True)
class Decided:
    """stored: whether the boxes of images of unknown frame are taken to lie in the picture as stored."""

    frames: list[Frame]
    stored: bool

    def is_stored(self, image: int) -> bool:
        frame = self.frames[image]
        return frame in ("stored", "stored and resized") or (frame == "unknown" and self.stored)


def decide(annotated: Sequence[Size | None], found: Sequence[Header]) -> Decided:
    """Images whose size does not tell follow the images of the data set that do; without any, the displayed picture."""
    frames = [frame_of(size, header) for size, header in zip(annotated, found, strict=True)]
    told = Counter(
        "stored" in frame
        for frame, header in zip(frames, found, strict=True)
        if header.orientation in TURNED and frame not in ("unknown", "other")
    )
    return Decided(frames=frames, stored=told[True] > told[False])


def upright(
    corners: Array,
    image: NDArray[np.int64],
    found: Sequence[Header],
    decided: Decided,
    annotated: Sequence[Size | None],
) -> Array:
    """Corners [M, 4] in the annotated frame → in the upright image. image [M]: the image of each box."""
    sizes = np.array([header.size for header in found], dtype=np.float64).reshape(-1, 2)
    scale, turn = np.ones((len(found), 2)), np.ones(len(found), dtype=np.int64)
    for i, (header, size) in enumerate(zip(found, annotated, strict=True)):
        is_stored = decided.is_stored(i)
        if "resized" in decided.frames[i] and size is not None:
            height, width = header.stored if is_stored else header.size
            scale[i] = width / size[1], height / size[0]
        if is_stored:
            turn[i] = header.orientation
    corners = corners * np.tile(scale, 2)[image]
    turns = turn[image]
    for orientation in np.unique(turns[turns != 1]).tolist():
        rows = turns == orientation
        corners[rows] = _turned(corners[rows], orientation, sizes[image[rows]])
    return corners


def _turned(corners: Array, orientation: int, sizes: Array) -> Array:
    """As `images.orientation.upright_array` turns pixels. sizes [n, 2]: (h, w) of the upright images."""
    height, width = sizes.T
    if orientation in TURNED:
        corners = corners[:, [1, 0, 3, 2]]
    if orientation in (2, 3, 6, 7):
        corners = np.stack([width - corners[:, 2], corners[:, 1], width - corners[:, 0], corners[:, 3]], 1)
    if orientation in (3, 4, 7, 8):
        corners = np.stack([corners[:, 0], height - corners[:, 3], corners[:, 2], height - corners[:, 1]], 1)
    return corners


def readings(found: Sequence[Header], decided: Decided) -> list[str]:
    """What was decided, in a line for `patchword check`; nothing if no image is turned."""
    turned = [i for i, header in enumerate(found) if header.orientation != 1]
    if not turned:
        return []
    stored = sum(decided.frames[i] in ("stored", "stored and resized") for i in turned)
    unknown = sum(decided.frames[i] == "unknown" for i in turned)
    shown = len(turned) - stored - unknown
    parts = [
        f"{shown} annotated as displayed" if shown else "",
        f"{stored} as stored (boxes turned)" if stored else "",
        f"{unknown} of unknown frame, taken as {'stored (boxes turned)' if decided.stored else 'displayed'}"
        if unknown
        else "",
    ]
    return [
        f"{plural(len(turned), 'image')} with an EXIF orientation: {', '.join(part for part in parts if part)}"
    ]
