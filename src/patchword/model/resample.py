"""Resample what was trained for one size to another: patch kernels, position tables, tables of offsets."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from patchword.model.kinds import Resample, Size

DifferencesRule = Literal["bicubic", "bilinear", "cubic", "linear"]


def resample_kernel(weight: Tensor, size: Size, rule: Resample) -> Tensor:
    """Resample a patch kernel [D, C, h, w] to [D, C, rows, columns], so that a resized patch gives the same token.

    Let B be the matrix that resizes a patch. The kernel w' that minimises the difference between (B x)ᵀ w' and xᵀ w
    over all patches x is pinv(Bᵀ) w. Returned unchanged if the size is the same.

    rule: the resize that patches are assumed to undergo. Computed in float64, because the pseudo-inverse
    of a resize that shrinks one side and stretches the other is badly conditioned.
    Source: FlexiViT, Beyer et al. 2023 (arXiv 2212.08013), section 3.4.
    """
    if tuple(weight.shape[2:]) == size:
        return weight
    # Resizing is separable: one matrix per axis. So is its pseudo-inverse.
    down, across = (
        torch.linalg.pinv(_resize_matrix(old, new, rule).T)
        for old, new in zip(weight.shape[2:], size, strict=True)
    )
    resampled: Tensor = down @ weight.double() @ across.T
    return resampled.to(weight.dtype)


def _resize_matrix(old: int, new: int, rule: Resample) -> Tensor:
    """The matrix [new, old] that resizes a row of `old` values."""
    # One image whose columns are the unit vectors. A batch of one-column images would be wrong with antialias
    # in torch 2.15.
    units = torch.eye(old, dtype=torch.float64)[None, None]
    resized = F.interpolate(
        units,
        size=(new, old),
        mode=rule.interpolation,
        antialias=rule.antialias,
        align_corners=_corners(rule),
    )
    return resized[0, 0]


def _corners(rule: Resample) -> bool | None:
    """torch's setting, which it does not accept for the nearest value."""
    return None if rule.interpolation == "nearest" else rule.align_corners


def resample_grid(table: Tensor, grid: Size, rule: Resample) -> Tensor:
    """Resample a table [h, w, D] to [rows, columns, D]; return it unchanged if the grid is the same."""
    if table.shape[:2] == grid:
        return table
    # Keep the table's channels-last memory layout: in torch 2.15, antialias gives wrong results for a
    # channels-first grid of one column.
    x = table.float().contiguous().unsqueeze(0).permute(0, 3, 1, 2)  # [1, D, h, w]
    if rule.offset:
        x = _by_factor(x, grid, rule)
    else:
        size = (max(grid), max(grid)) if rule.keep_aspect else grid
        x = F.interpolate(
            x, size=size, mode=rule.interpolation, antialias=rule.antialias, align_corners=_corners(rule)
        )[:, :, : grid[0], : grid[1]]
    return x.squeeze(0).permute(1, 2, 0).to(table.dtype)


def _by_factor(x: Tensor, grid: Size, rule: Resample) -> Tensor:
    """Resample like DINO: the factor (target + offset) / old sets the sampling positions, not the sizes."""
    factors = [(target + rule.offset) / old for target, old in zip(grid, x.shape[2:], strict=True)]
    x = F.interpolate(
        x,
        scale_factor=factors,
        mode=rule.interpolation,
        align_corners=_corners(rule),
        recompute_scale_factor=False,
    )
    return x[:, :, : grid[0], : grid[1]]


def resample_differences(table: Tensor, old: Size, new: Size, rule: DifferencesRule) -> Tensor:
    """Resample a table [(2h - 1)(2w - 1), H] from the old grid to the new one."""
    if old == new:
        return table
    x = table.reshape(2 * old[0] - 1, 2 * old[1] - 1, -1).permute(2, 0, 1)
    if rule in ("bicubic", "bilinear"):
        sides = [2 * n - 1 for n in new]
        corners = rule == "bicubic"
        x = F.interpolate(x.unsqueeze(0).float(), size=sides, mode=rule, align_corners=corners).squeeze(0)
    else:
        down, across = (_between(a, b, rule, table.device) for a, b in zip(old, new, strict=True))
        x = down @ x.double() @ across.T
    return x.permute(1, 2, 0).flatten(0, 1).to(table.dtype)


def _between(old: int, new: int, rule: DifferencesRule, device: torch.device) -> Tensor:
    """The matrix [2 new - 1, 2 old - 1] that maps values at the old differences to the new ones, along one axis.

    Old differences are placed at 0, 1, 1 + q, 1 + q + q², … on both sides; q is chosen so that the farthest
    old one meets the farthest new one. Positions beyond take the last value. Source: microsoft/unilm, BEiT.
    """
    places = torch.tensor(_places(old, new), dtype=torch.float64)
    wanted = torch.arange(1 - new, new, dtype=torch.float64).clamp(places[0], places[-1])
    # A spline of degree 3 needs four points.
    degree = 3 if rule == "cubic" and len(places) > 3 else 1
    return interpolation_matrix(places, wanted, degree).to(device)


def _places(old: int, new: int) -> list[float]:
    low, high = 1.01, 1.5
    while high - low > 1e-6:
        q = (low + high) / 2
        if (1 - q ** (old - 1)) / (1 - q) > new - 1:
            high = q
        else:
            low = q
    q = (low + high) / 2
    side, at = [], 0.0
    for step in range(old - 1):
        at += q**step
        side.append(at)
    return [*(-place for place in reversed(side)), 0.0, *side]


def interpolation_matrix(points: Tensor, wanted: Tensor, degree: int) -> Tensor:
    """The matrix [wanted, points] that evaluates the spline through values at `points` at `wanted`.

    Degree 3 omits the second and the last but one of the knots, like FITPACK; degree 1 omits none.
    """
    if len(points) == 1:
        return torch.ones(len(wanted), 1, dtype=torch.float64)
    inner = points[2:-2] if degree == 3 else points[1:-1]
    ends = torch.ones(degree + 1, dtype=torch.float64)
    knots = torch.cat((points[0] * ends, inner, points[-1] * ends))
    at_points, at_wanted = (_basis(knots, x, degree) for x in (points, wanted))
    matrix: Tensor = at_wanted @ torch.linalg.inv(at_points)
    return matrix


def _basis(knots: Tensor, x: Tensor, degree: int) -> Tensor:
    """B-splines of these knots evaluated at x, [x, splines], by the Cox-de Boor recursion."""
    last = torch.nonzero(knots < knots[-1]).max()
    inside = (x[:, None] >= knots[:-1]) & (x[:, None] < knots[1:])
    # The end point belongs to the last interval that is not empty.
    inside[x == knots[-1]] = False
    inside[x == knots[-1], last] = True
    basis = inside.double()
    for k in range(1, degree + 1):
        left, right = knots[k:-1] - knots[: -k - 1], knots[k + 1 :] - knots[1:-k]
        rising = torch.where(left > 0, (x[:, None] - knots[: -k - 1]) / left, 0.0)
        falling = torch.where(right > 0, (knots[k + 1 :] - x[:, None]) / right, 0.0)
        basis = rising * basis[:, :-1] + falling * basis[:, 1:]
    return basis
