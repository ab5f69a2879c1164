"""Boxes as tensors [..., 4]: corners (x0, y0, x1, y1), or centres (centre x, centre y, width, height).

Every function works on any number of leading axes, which broadcast. Units are free: pixels, or shares of the image.
"""

import torch
from torch import Tensor

# Two boxes without area have no union to divide by.
_SMALLEST_AREA = 1e-12


def to_corners(boxes: Tensor) -> Tensor:
    """Centres → corners."""
    x, y, width, height = boxes.unbind(-1)
    return torch.stack((x - width / 2, y - height / 2, x + width / 2, y + height / 2), dim=-1)


def to_centres(boxes: Tensor) -> Tensor:
    """Corners → centres."""
    x0, y0, x1, y1 = boxes.unbind(-1)
    return torch.stack(((x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0), dim=-1)


def area(boxes: Tensor) -> Tensor:
    """Area of corners [..., 4]: [...]."""
    return (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])


def iou(a: Tensor, b: Tensor) -> Tensor:
    """Intersection over union of corners [..., 4]: [...], from 0 to 1; 0 for two boxes without area."""
    return _iou_and_union(a, b)[0]


def giou(a: Tensor, b: Tensor) -> Tensor:
    """Generalised IoU of corners [..., 4]: [...], from -1 to 1.

    The IoU less the share of the smallest box around both that neither covers (Rezatofighi et al. 2019, arXiv 1902.09630).
    """
    overlap, union = _iou_and_union(a, b)
    hull = _area_between(torch.minimum(a[..., :2], b[..., :2]), torch.maximum(a[..., 2:], b[..., 2:]))
    return overlap - (hull - union) / hull.clamp(min=_SMALLEST_AREA)


def pairs(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Views of a [..., n, 4] and b [..., m, 4] that broadcast to every pair [..., n, m, 4]."""
    return a[..., :, None, :], b[..., None, :, :]


def _iou_and_union(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    common = _area_between(torch.maximum(a[..., :2], b[..., :2]), torch.minimum(a[..., 2:], b[..., 2:]))
    union = area(a) + area(b) - common
    return common / union.clamp(min=_SMALLEST_AREA), union


def _area_between(low: Tensor, high: Tensor) -> Tensor:
    """Area between two corners [..., 2], 0 if they are in the wrong order."""
    sides = (high - low).clamp(min=0)
    return sides[..., 0] * sides[..., 1]
