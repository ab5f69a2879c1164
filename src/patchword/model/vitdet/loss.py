"""The losses of the detector: cells one to many, queries one to one.

Each returns sums; the caller divides by the number of objects of the batch. Shapes as in model.py; T objects of an image.
Sources: TOOD's assignment (Feng et al. 2021, arXiv 2108.07755); varifocal loss (Zhang et al. 2021, arXiv 2008.13367);
Carion et al. 2020 (arXiv 2005.12872) for matching.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from patchword.model.boxes import giou, iou, pairs, to_corners
from patchword.model.vitdet.model import Found

# Weights of the losses and matching costs: those of Deformable DETR and its successors.
CLASS, L1, GIOU = 1.0, 5.0, 2.0
MATCH_CLASS = 2.0
# Cells for each object, and how strongly score and overlap count in choosing them.
CELLS, SCORE_POWER, OVERLAP_POWER = 10, 1.0, 6.0


class Objects(NamedTuple):
    """The objects of an image: labels [T] int64; boxes [T, 4]."""

    labels: Tensor
    boxes: Tensor


def losses(found: Found, targets: Sequence[Objects]) -> dict[str, Tensor]:
    """Sums over the batch: "class", "l1" and "giou" of all decoder layers, and the same of the cells with "cell_" in front."""
    sums = _zeros(found.logits, ("class", "l1", "giou", "cell_class", "cell_l1", "cell_giou"))
    logits, boxes = found.logits.float(), found.boxes
    for layer in range(len(logits)):
        wanted = torch.zeros_like(logits[layer])
        image, query, box = matched(logits[layer], boxes[layer], targets)
        labels = torch.cat([t.labels for t in targets])
        truth = torch.cat([t.boxes for t in targets])
        picked, right = boxes[layer][image, query], truth[box]
        overlap = iou(to_corners(picked.detach()), to_corners(right)).clamp(0)
        wanted[image, query, labels[box]] = overlap.to(wanted.dtype)
        _add(sums, "", logits[layer], wanted, picked, right)
    _cells(sums, found, targets)
    return sums


def _add(
    sums: dict[str, Tensor],
    prefix: str,
    logits: Tensor,
    wanted: Tensor,
    picked: Tensor,
    right: Tensor,
    weight: Tensor | None = None,
) -> None:
    """weight: of each box; None for 1."""
    sums[f"{prefix}class"] = sums[f"{prefix}class"] + CLASS * varifocal(logits, wanted).sum()
    each = torch.ones(len(picked), device=picked.device) if weight is None else weight
    sums[f"{prefix}l1"] = sums[f"{prefix}l1"] + L1 * ((picked - right).abs().sum(-1) * each).sum()
    apart = 1 - giou(to_corners(picked), to_corners(right))
    sums[f"{prefix}giou"] = sums[f"{prefix}giou"] + GIOU * (apart * each).sum()


def _zeros(like: Tensor, names: Sequence[str]) -> dict[str, Tensor]:
    return {name: like.new_zeros((), dtype=torch.float32) for name in names}


def varifocal(logits: Tensor, wanted: Tensor) -> Tensor:
    """Binary cross-entropy with the overlap as the target; where it is 0, weighted by 0.75 · probability².

    Source: Zhang et al. 2021, equation 2.
    """
    share = logits.sigmoid().detach()
    weight = torch.where(wanted > 0, wanted, 0.75 * share.square())
    return F.binary_cross_entropy_with_logits(logits, wanted, reduction="none") * weight


@torch.no_grad()
def matched(logits: Tensor, boxes: Tensor, targets: Sequence[Objects]) -> tuple[Tensor, Tensor, Tensor]:
    """One query for each object at the least cost: image, query and object (counted over the batch), [k] each."""
    share = logits.sigmoid()
    positive = 0.25 * (1 - share).square() * -(share + 1e-8).log()
    negative = 0.75 * share.square() * -(1 - share + 1e-8).log()
    costs = positive - negative
    rows: list[Tensor] = []
    start = 0
    for index, target in enumerate(targets):
        if len(target.labels):
            cost = MATCH_CLASS * costs[index][:, target.labels]
            cost = cost + L1 * torch.cdist(boxes[index], target.boxes, p=1.0)
            cost = cost - GIOU * giou(*pairs(to_corners(boxes[index]), to_corners(target.boxes)))
            query, box = linear_sum_assignment(cost.nan_to_num(1e6, 1e6, -1e6).cpu().numpy())
            found = torch.stack(
                [torch.full((len(query),), index), torch.from_numpy(query), torch.from_numpy(box) + start]
            )
            rows.append(found)
        start += len(target.labels)
    joined = torch.cat(rows, 1) if rows else torch.zeros(3, 0, dtype=torch.int64)
    image, query_of, box_of = joined.to(logits.device)
    return image, query_of, box_of


def _cells(sums: dict[str, Tensor], found: Found, targets: Sequence[Objects]) -> None:
    """Each object teaches the cells inside it that fit best so far: as many as CELLS, weighted by their fit."""
    logits = found.cell_logits.float()
    wanted = torch.zeros_like(logits)
    centres = found.cells[:, :2]
    picked, right, weights = [], [], []
    for index, target in enumerate(targets):
        if not len(target.labels):
            continue
        with torch.no_grad():
            corners = to_corners(target.boxes)
            inside = (
                (centres[:, None] > corners[None, :, :2]) & (centres[:, None] < corners[None, :, 2:])
            ).all(-1)
            overlap = iou(*pairs(to_corners(found.cell_boxes[index]), corners)).clamp(0)
            share = logits[index].sigmoid()[:, target.labels]
            fit = share.pow(SCORE_POWER) * overlap.pow(OVERLAP_POWER)
            # An object smaller than a cell takes the nearest.
            apart = (centres[:, None] - target.boxes[None, :, :2]).abs().amax(-1)
            inside |= apart == apart.amin(0)
            fit = torch.where(inside, fit + 1e-9, -1.0)
            best = fit.topk(min(CELLS, len(fit)), 0).indices
            chosen = torch.zeros_like(inside).scatter_(0, best, True) & inside
            # A cell belongs to the object that it overlaps most.
            owner = torch.where(chosen, overlap + 1e-6, -1.0).max(1)
            cell = (owner.values > 0).nonzero()[:, 0]
            box = owner.indices[cell]
            fits, overlaps = fit[cell, box], overlap[cell, box]
            # The best cell of each object is taught its overlap, the others in proportion to their fit.
            most_fit = torch.zeros(len(target.labels), device=fit.device).scatter_reduce_(
                0, box, fits, "amax"
            )
            most = torch.zeros_like(most_fit).scatter_reduce_(0, box, overlaps, "amax")
            aim = fits / most_fit[box].clamp(min=1e-9) * most[box]
            wanted[index, cell, target.labels[box]] = aim.to(wanted.dtype)
        picked.append(found.cell_boxes[index][cell])
        right.append(target.boxes[box])
        weights.append(aim.clamp(min=0.05))
    if picked:
        _add(sums, "cell_", logits, wanted, torch.cat(picked), torch.cat(right), torch.cat(weights))
    else:
        sums["cell_class"] = sums["cell_class"] + CLASS * varifocal(logits, wanted).sum()
