"""How far attention reaches: the mean distance between the asking patch and those it reads.

Source: Dosovitskiy et al. 2021 (arXiv 2010.11929), figure 7 and appendix D.7.
"""

import torch
from torch import Tensor


def attention_distance(weights: Tensor, grid: tuple[int, int], patch: tuple[float, float] = (1, 1)) -> Tensor:
    """Mean over patches of Σ_j A_ij · distance of i and j, in pixels, of each head: weights [..., n, n] → [...].

    weights: over patches only; rows are normalised here, because extra tokens were cut off. patch: pixels per patch
    (rows, columns); the distance is that of centres.
    """
    apart = patch_distances(grid, patch).to(weights)
    shares = weights / weights.sum(-1, keepdim=True).clamp(min=torch.finfo(weights.dtype).tiny)
    return (shares * apart).sum(-1).mean(-1)


def uniform_distance(grid: tuple[int, int], patch: tuple[float, float] = (1, 1)) -> float:
    """The same of attention that reads every patch alike: what a head must be compared with."""
    return float(patch_distances(grid, patch).mean())


def patch_distances(grid: tuple[int, int], patch: tuple[float, float] = (1, 1)) -> Tensor:
    """Distances [n, n] of the centres of patches, in float64."""
    rows = torch.arange(grid[0], dtype=torch.float64) * patch[0]
    columns = torch.arange(grid[1], dtype=torch.float64) * patch[1]
    points = torch.stack((rows.repeat_interleave(grid[1]), columns.repeat(grid[0])), 1)
    return (points[:, None] - points).square().sum(-1).sqrt()
