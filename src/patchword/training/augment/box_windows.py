"""Where a view lies in its image, for pixels and boxes alike: a scale, a shift and a flip.

Corners are [left, top, right, bottom] in pixels; the edge of the first pixel is 0. Sizes are (h, w).
"""

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from patchword.data.box_targets import ImageBoxes
from patchword.images.geometry import Capped
from patchword.training.augment.box_settings import BoxAugmentSettings
from patchword.training.augment.geometry import between
from patchword.training.chance import Draws

Array = NDArray[np.float64]
# The shorter side of an image before a part is cut out of it, and the shortest and longest side of the part.
# Source: facebookresearch/detr, datasets/coco.py.
_BEFORE_CUT, _CUT = (400, 500, 600), (384, 600)
# A view never shows less of an object than this, in pixels of the view.
_SMALLEST = 1.0
DRAWN, SIDES_DRAWN = 6, 7


@dataclass(frozen=True, kw_only=True)
class Window:
    """view x = (image x - left) * scale_x, then width of the view - x if flipped; likewise y, without a flip.

    image, view: (h, w) in pixels.
    """

    image: tuple[int, int]
    view: tuple[int, int]
    left: float
    top: float
    scale_x: float
    scale_y: float
    flip: bool = False

    def forward(self, corners: Array) -> Array:
        """Corners [n, 4] of the image → of the view; they may lie outside it."""
        moved: Array = (corners - [self.left, self.top] * 2) * ([self.scale_x, self.scale_y] * 2)
        return self._flipped(moved) if self.flip else moved

    def back(self, corners: Array) -> Array:
        """Corners [n, 4] of the view → of the image."""
        moved = self._flipped(corners) if self.flip else corners
        return moved / [self.scale_x, self.scale_y, self.scale_x, self.scale_y] + [self.left, self.top] * 2

    def _flipped(self, corners: Array) -> Array:
        width = self.view[1]
        return np.stack([width - corners[:, 2], corners[:, 1], width - corners[:, 0], corners[:, 3]], axis=1)

    def shown(self) -> Array:
        """[1, 4]: the part of the view that the image covers."""
        height, width = self.image
        return clipped(self.forward(np.array([[0.0, 0.0, width, height]])), self.view)

    def matrix(self, size: tuple[int, int]) -> Tensor:
        """The affine map [1, 2, 3] for `geometry.warp`, from the view to an image of `size`, both in -1..1."""
        (height, width), (h, w) = size, self.view
        sign = -1.0 if self.flip else 1.0
        across, down = w / (self.scale_x * width), h / (self.scale_y * height)
        centre_x = 2.0 * (self.left + w / (2.0 * self.scale_x)) / width - 1.0
        centre_y = 2.0 * (self.top + h / (2.0 * self.scale_y)) / height - 1.0
        return torch.tensor([[[sign * across, 0.0, centre_x], [0.0, down, centre_y]]], dtype=torch.float32)


def letterbox(image: tuple[int, int], view: tuple[int, int]) -> Window:
    """The complete image in the middle of the view, as large as fits."""
    scale = min(view[0] / image[0], view[1] / image[1])
    return _centred(image, view, scale, scale)


def squashed(image: tuple[int, int], view: tuple[int, int]) -> Window:
    """The complete image in the complete view; of one aspect but for the rounding of sides, as evaluation resizes it."""
    return Window(
        image=image, view=view, left=0.0, top=0.0, scale_x=view[1] / image[1], scale_y=view[0] / image[0]
    )


def _centred(image: tuple[int, int], view: tuple[int, int], scale_x: float, scale_y: float) -> Window:
    return Window(
        image=image,
        view=view,
        left=(image[1] - view[1] / scale_x) / 2.0,
        top=(image[0] - view[0] / scale_y) / 2.0,
        scale_x=scale_x,
        scale_y=scale_y,
    )


def view_of(image: tuple[float, float], shorter: int, settings: BoxAugmentSettings) -> tuple[int, int]:
    """The size (h, w) of a view in the aspect of an image."""
    whole = max(round(image[0]), 1), max(round(image[1]), 1)
    return Capped(shorter=shorter, longest=settings.longest).plan(whole, whole).output


def draw_sides(
    boxes: list[ImageBoxes], settings: BoxAugmentSettings, draws: Draws
) -> list[tuple[int, Window | None]]:
    """For each image the shorter side of its view, and the window if it is cut; `settings.shorter` is not empty."""
    found: list[tuple[int, Window | None]] = []
    for one, drawn in zip(boxes, draws.uniform(SIDES_DRAWN).tolist(), strict=True):
        shorter = settings.shorter[int(drawn[0] * len(settings.shorter))]
        window = _cut(one.size, shorter, drawn[2:], settings) if drawn[1] < settings.crop else None
        found.append((shorter, window))
    return found


def _cut(image: tuple[int, int], shorter: int, drawn: list[float], settings: BoxAugmentSettings) -> Window:
    """A part of the image, enlarged to a view of its own aspect."""
    # In pixels of the image.
    pixel = min(image) / _BEFORE_CUT[int(drawn[0] * len(_BEFORE_CUT))]
    sides = []
    for side, chance in zip(image, drawn[1:3], strict=True):
        low, high = (min(side, part * pixel) for part in _CUT)
        sides.append(low + chance * (high - low))
    view = view_of((sides[0], sides[1]), shorter, settings)
    return Window(
        image=image,
        view=view,
        left=drawn[4] * (image[1] - sides[1]),
        top=drawn[3] * (image[0] - sides[0]),
        scale_x=view[1] / sides[1],
        scale_y=view[0] / sides[0],
    )


def draw_windows(
    boxes: list[ImageBoxes], view: tuple[int, int], settings: BoxAugmentSettings, draws: Draws
) -> list[Window]:
    """A window for each image [B], of the size `view`, or of its own with `settings.shorter`.

    Where it is a crop by `settings.scale`, one object of the image, drawn at random, is completely inside.
    """
    drawn = draws.uniform(DRAWN)
    low, high = (tuple(math.log(v) for v in pair) for pair in (settings.scale, settings.stretch))
    scales = between(drawn[:, 0], (low[0], low[1])).exp().tolist()
    stretches = between(drawn[:, 1], (high[0], high[1])).div(2.0).exp().tolist()
    rests = drawn[:, 2:].tolist()
    if not settings.shorter:
        return [
            _window(one, view, scale, stretch, tuple(rest), flip=rest[3] < settings.flip)
            for one, scale, stretch, rest in zip(boxes, scales, stretches, rests, strict=True)
        ]
    found = []
    sides = draw_sides(boxes, settings, draws.stream("sides"))
    for one, scale, stretch, rest, (shorter, cut) in zip(boxes, scales, stretches, rests, sides, strict=True):
        flip = rest[3] < settings.flip
        if cut is not None:
            found.append(replace(cut, flip=flip))
            continue
        own = view_of(one.size, shorter, settings)
        if scale == stretch == 1.0:
            found.append(replace(squashed(one.size, own), flip=flip))
        else:
            found.append(_window(one, own, scale, stretch, tuple(rest), flip=flip))
    return found


def _window(
    boxes: ImageBoxes,
    view: tuple[int, int],
    scale: float,
    stretch: float,
    drawn: tuple[float, ...],
    *,
    flip: bool,
) -> Window:
    fit = min(view[0] / boxes.size[0], view[1] / boxes.size[1])
    scale_x, scale_y = fit * scale * stretch, fit * scale / stretch
    objects = boxes.corners[~boxes.crowd]
    anchor = objects[int(drawn[0] * len(objects))] if len(objects) else None
    if anchor is not None:
        # A large object is not enlarged until it leaves the view.
        across, down = (max(float(anchor[2 + i] - anchor[i]), 1e-6) for i in (0, 1))
        scale_x, scale_y = min(scale_x, view[1] / across), min(scale_y, view[0] / down)
    window = _centred(boxes.size, view, scale_x, scale_y)
    if scale == stretch == 1.0:
        return replace(window, flip=flip)
    left = _start(boxes.size[1], view[1] / scale_x, None if anchor is None else anchor[[0, 2]], drawn[1])
    top = _start(boxes.size[0], view[0] / scale_y, None if anchor is None else anchor[[1, 3]], drawn[2])
    return replace(window, left=left, top=top, flip=flip)


def _start(length: int, span: float, anchor: Array | None, drawn: float) -> float:
    """Where a window of `span` begins along an image of `length`: inside it, or around it, with the anchor inside."""
    low, high = min(0.0, length - span), max(0.0, length - span)
    if anchor is not None:
        low, high = max(low, float(anchor[1]) - span), min(high, float(anchor[0]))
    return low + drawn * (high - low)


def clipped(corners: Array, size: tuple[int, int]) -> Array:
    """Corners [n, 4] cut off at the edges of an image of (h, w)."""
    height, width = size
    return np.clip(corners, 0.0, [width, height, width, height])


def moved(boxes: ImageBoxes, window: Window, keep: float) -> ImageBoxes:
    """The boxes that are in the view, in its pixels and cut off at its edges.

    keep: least share of an object's area inside. Groups (crowd) stay with any part: they only tell what to ignore.
    """
    whole = window.forward(boxes.corners)
    inside = clipped(whole, window.view)
    before, after = ((part[:, 2:] - part[:, :2]).prod(axis=1) for part in (whole, inside))
    share = after / np.maximum(before, 1e-12)
    large = ((inside[:, 2:] - inside[:, :2]) >= _SMALLEST).all(axis=1)
    kept = large & ((share >= keep) | (boxes.crowd & (share > 0)))
    rows = np.flatnonzero(kept)
    return ImageBoxes(
        corners=inside[rows],
        labels=boxes.labels[rows],
        crowd=boxes.crowd[rows],
        difficult=boxes.difficult[rows],
        areas=(boxes.areas * window.scale_x * window.scale_y * share)[rows],
        ids=tuple(boxes.ids[i] for i in rows.tolist()),
        size=window.view,
        image_id=boxes.image_id,
    )
