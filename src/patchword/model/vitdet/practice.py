"""Queries for practice: in training, each object also gives queries that start from its box, moved at random.

The decoder learns from them to move a box onto an object long before the cells propose good ones. Unlike DN-DETR's, they hold no
label: each has the content of the cell under its centre, as a proposal has, so nothing is left over at prediction.

Source of the idea: Li et al. 2022, DN-DETR (arXiv 2203.01305). Shapes: B images, M the most objects of an image, E = groups · M.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from patchword.model.boxes import to_centres, to_corners
from patchword.model.matching import Targets

# The centre moves by at most this share of the side, and a side is multiplied or divided by at most 1 + this.
NOISE = 0.5
# The least side, as a share of the image.
_LEAST = 1e-3


class Practice(NamedTuple):
    """boxes [B, E, 4]: where queries start. cell [B, E]: whose content they have. target [B, E]: their object's index in the targets;
    -1 for none. apart [B, Q + E, Q + E]: true where a query (row) may look at another."""

    boxes: Tensor
    cell: Tensor
    target: Tensor
    apart: Tensor


@torch.no_grad()
def practice(
    targets: Targets,
    grids: list[tuple[int, int]],
    groups: int,
    queries: int,
    generator: torch.Generator | None,
) -> Practice | None:
    """groups queries for each object; None if the batch has none.

    grids: rows and columns of each map, in the order of the cells. queries: those of the cells, which come first.
    """
    rows = targets.rows
    if not rows.shape[1]:
        return None
    device = rows.device
    count = torch.tensor(targets.counts, device=device)[:, None]
    real = torch.arange(rows.shape[1], device=device) < count
    target = torch.where(real, rows, -1).repeat(1, groups)
    boxes = targets.boxes[rows].repeat(1, groups, 1)
    drawn = torch.rand((*target.shape, 5), generator=generator).to(device)
    centre = boxes[..., :2] + (drawn[..., :2] - 0.5) * 2 * NOISE * boxes[..., 2:]
    side = boxes[..., 2:] * (1 + NOISE) ** (2 * drawn[..., 2:4] - 1)
    corners = to_corners(torch.cat((centre, side), -1)).clamp(0, 1)
    moved = to_centres(corners)
    moved = torch.cat((moved[..., :2], moved[..., 2:].clamp(min=_LEAST)), -1)
    cell = _cell(moved, drawn[..., 4], grids)
    group = torch.arange(groups, device=device).repeat_interleave(rows.shape[1])
    group = torch.cat((torch.full((queries,), -1, device=device), group))
    seen = torch.cat((real.new_ones(len(target), queries), target >= 0), 1)
    apart = (group[:, None] == group) & seen[:, None]
    # A row without anything to look at would be NaN.
    apart = apart | torch.eye(len(group), dtype=torch.bool, device=device)
    return Practice(moved, cell, target, apart)


def _cell(boxes: Tensor, which: Tensor, grids: list[tuple[int, int]]) -> Tensor:
    """The cell under each centre, on a map drawn by `which` (0 to 1)."""
    size = torch.tensor(grids, device=boxes.device)
    start = torch.cat((size.new_zeros(1), size.prod(1).cumsum(0)))[:-1]
    index = (which * len(grids)).long().clamp(max=len(grids) - 1)
    height, width = size[index].unbind(-1)
    x = (boxes[..., 0] * width).long().clamp(min=0)
    y = (boxes[..., 1] * height).long().clamp(min=0)
    return start[index] + torch.minimum(y, height - 1) * width + torch.minimum(x, width - 1)
