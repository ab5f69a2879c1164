"""The losses of the detector: cells one to many, queries one to one, queries for practice by construction.

Each returns sums; the caller divides by the number of objects of the batch. Shapes: L layers, B images, N cells, Q queries, C classes,
M the most objects of an image, k pairs.
Sources: TOOD's assignment (Feng et al. 2021, arXiv 2108.07755); varifocal loss (Zhang et al. 2021, arXiv 2008.13367);
Carion et al. 2020 (arXiv 2005.12872) for matching; DN-DETR (Li et al. 2022, arXiv 2203.01305) for practice.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from patchword.model.boxes import giou, iou, pairs, to_corners
from patchword.model.matching import Matches, Targets, assign, check_labels, costs
from patchword.model.vitdet.found import Found

# Weights of the losses and matching costs: those of Deformable DETR and its successors.
CLASS, L1, GIOU = 1.0, 5.0, 2.0
MATCH_CLASS = 2.0
# Cells for each object, and how strongly score and overlap count in choosing them.
CELLS, SCORE_POWER, OVERLAP_POWER = 10, 1.0, 6.0
# The least weight of a chosen cell in the losses of boxes.
LEAST_AIM = 0.05


def losses(found: Found, targets: Targets) -> dict[str, Tensor]:
    """Sums over the batch: "class", "l1" and "giou" of all decoder layers, the same of the cells with "cell_" in front, and of
    practice with "practice_".

    Raises: SettingsError for labels that are not classes.
    """
    check_labels(targets, found.logits.shape[-1], found.logits.shape[1])
    targets = targets.to(found.logits.device)
    sums = _queries(found.logits.float(), found.boxes.float(), targets)
    sums |= {f"cell_{name}": value for name, value in _cells(found, targets).items()}
    if found.practice is not None:
        sums |= {f"practice_{name}": value for name, value in _practised(found, targets).items()}
    return sums


def _queries(logits: Tensor, boxes: Tensor, targets: Targets) -> dict[str, Tensor]:
    image, query, target = matched(logits, boxes, targets)
    layer = torch.arange(len(logits), device=logits.device)[:, None]
    at = (layer, image, query)
    return _of_pairs(logits, boxes[at].flatten(0, 1), at, target, targets)


def _practised(found: Found, targets: Targets) -> dict[str, Tensor]:
    """Each query has the object from which it was made. The mean of the groups, so that their number only steadies it."""
    practice = found.practice
    assert practice is not None
    logits = practice.logits.float()
    image, query = (practice.target >= 0).nonzero(as_tuple=True)
    layer = torch.arange(len(logits), device=logits.device)[:, None]
    at = (layer, image.expand(len(logits), -1), query.expand(len(logits), -1))
    target = practice.target[image, query].expand(len(logits), -1)
    sums = _of_pairs(logits, practice.boxes[at].flatten(0, 1), at, target, targets)
    return {name: value / practice.groups for name, value in sums.items()}


def _of_pairs(
    logits: Tensor, picked: Tensor, at: tuple[Tensor, Tensor, Tensor], target: Tensor, targets: Targets
) -> dict[str, Tensor]:
    """logits [L, B, Q, C]; at: layer, image and query of each pair, together [L, k]; picked [L · k, 4]; target [L, k]."""
    right = targets.boxes[target].flatten(0, 1)
    overlap = iou(to_corners(picked.detach()), to_corners(right)).view(target.shape)
    places = (*at, targets.labels[target])
    return _sums(logits, places, overlap, picked, right, torch.ones((), device=logits.device))


def _sums(
    logits: Tensor, at: tuple[Tensor, ...], wanted: Tensor, picked: Tensor, right: Tensor, weight: Tensor
) -> dict[str, Tensor]:
    """weight: of each box, or of all."""
    apart = 1 - giou(to_corners(picked), to_corners(right))
    return {
        "class": CLASS * varifocal(logits, at, wanted),
        "l1": L1 * ((picked - right).abs().sum(-1) * weight).sum(),
        "giou": GIOU * (apart * weight).sum(),
    }


def varifocal(logits: Tensor, at: tuple[Tensor, ...], wanted: Tensor) -> Tensor:
    """Sum of the binary cross-entropies of all logits with the overlap as the target.

    Those `at` some places are to become `wanted` [k], and count in proportion to it; the others are to become 0, and
    count 0.75 · probability². Source: Zhang et al. 2021, equation 2.
    """
    # The cross-entropy is softplus(x) - x · wanted, and wanted is 0 almost everywhere: logits of all cells make this the
    # largest part of the losses.
    weight = logits.detach().sigmoid().square_().mul_(0.75)
    weight[at] = torch.where(wanted > 0, wanted, weight[at])
    everywhere = torch.dot(F.softplus(logits).flatten(), weight.flatten())
    return everywhere - (logits[at] * wanted * weight[at]).sum()


@torch.no_grad()
def matched(logits: Tensor, boxes: Tensor, targets: Targets) -> Matches:
    """One query for each object at the least cost, in each layer: logits [L, B, Q, C], boxes [L, B, Q, 4].

    The cost of a class is Deformable DETR's: the focal loss if it were right less that if it were wrong.
    """
    share = logits.sigmoid()
    positive = 0.25 * (1 - share).square() * -(share + 1e-8).log()
    negative = 0.75 * share.square() * -(1 - share + 1e-8).log()
    return assign(costs(MATCH_CLASS * (positive - negative), boxes, targets, L1, GIOU), targets)


def _cells(found: Found, targets: Targets) -> dict[str, Tensor]:
    """Each object teaches the cells inside it that fit best so far: as many as CELLS, weighted by their fit."""
    logits, boxes = found.cell_logits.float(), found.cell_boxes.float()
    image, cell, target, aim = chosen_cells(logits, boxes, found.cells, targets)
    picked, right = boxes[image, cell], targets.boxes[target]
    at = (image, cell, targets.labels[target])
    return _sums(logits, at, aim, picked, right, aim.clamp(min=LEAST_AIM))


@torch.no_grad()
def chosen_cells(
    logits: Tensor, boxes: Tensor, cells: Tensor, targets: Targets
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Image, cell, object (index in the targets) and the score to be taught of the chosen cells, [k] each.

    logits [B, N, C], boxes [B, N, 4]: what the cells propose. cells [N, 4]: where they are.
    """
    if not len(targets.labels):
        none = targets.labels
        return none, none, none, boxes.new_zeros(0)
    rows = targets.rows
    real = (
        torch.arange(rows.shape[1], device=rows.device)
        < torch.tensor(targets.counts, device=rows.device)[:, None]
    )
    truth, labels = targets.boxes[rows], targets.labels[rows]
    corners = to_corners(truth)[:, :, None]  # [B, M, 1, 4]
    x, y = cells[:, 0], cells[:, 1]
    inside = (
        (x > corners[..., 0]) & (x < corners[..., 2]) & (y > corners[..., 1]) & (y < corners[..., 3])
    )  # [B, M, N]
    # An object smaller than a cell takes the nearest.
    apart = torch.maximum((x - truth[..., :1]).abs(), (y - truth[..., 1:2]).abs())
    inside = (inside | (apart == apart.amin(2, keepdim=True))) & real[:, :, None]
    overlap = iou(*pairs(to_corners(truth), to_corners(boxes)))
    share = logits.transpose(1, 2).gather(1, labels[:, :, None].expand(-1, -1, logits.shape[1])).sigmoid()
    fit = share.pow(SCORE_POWER) * overlap.pow(OVERLAP_POWER)
    best = torch.where(inside, fit + 1e-9, -1.0).topk(min(CELLS, fit.shape[2]), 2).indices
    chosen = torch.zeros_like(inside).scatter_(2, best, True) & inside
    # A cell belongs to the object that it overlaps most.
    owner = torch.where(chosen, overlap + 1e-6, -1.0).max(1)
    image, cell = (owner.values > 0).nonzero(as_tuple=True)
    place = owner.indices[image, cell]
    target = rows[image, place]
    fits, overlaps = fit[image, place, cell], overlap[image, place, cell]
    # The best cell of each object is taught its overlap, the others in proportion to their fit.
    most_fit = fits.new_zeros(len(targets.labels)).scatter_reduce_(0, target, fits, "amax")
    most = torch.zeros_like(most_fit).scatter_reduce_(0, target, overlaps, "amax")
    return image, cell, target, fits / most_fit[target].clamp(min=1e-9) * most[target]
