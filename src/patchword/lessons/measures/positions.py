"""How alike the positions of two patches are.

Shapes: N patches in a grid of h rows and w columns, D channels.
Source: Dosovitskiy et al. 2021 (arXiv 2010.11929), figure 7 and section 4.5; Su et al. 2021 (arXiv 2104.09864) for rotations.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from patchword.model.positions.layout import AttentionPositions, Grid
from patchword.model.positions.sincos import sincos_1d, sincos_2d
from patchword.model.vit import ViT


@torch.no_grad()
def position_table(vit: ViT, grid: Grid) -> Tensor | None:
    """The rows [N, D] that the model adds to its patches; None if it adds none."""
    table: Tensor | None = None if vit.positions is None else vit.positions(grid).detach().float()
    return table


def sines(grid: Grid, dim: int, axes: int) -> Tensor:
    """Fixed positions [N, dim] of the original Transformer (axes 1) or of MAE (axes 2). dim: a multiple of 4."""
    return sincos_1d(grid, dim, 10_000.0) if axes == 1 else sincos_2d(grid, dim, 10_000.0, False)


def cosine_table(rows: Tensor) -> Tensor:
    """Cosine similarity of each row [N, D] with each other: [N, N]."""
    unit = F.normalize(rows.double(), dim=1)
    return unit @ unit.T


def row_column_share(table: Tensor, grid: Grid) -> tuple[float, float]:
    """Shares of the variance of a table [N, N] that the two rows alone, and the two columns alone, explain.

    They are the main effects of an analysis of variance over (row, row') and (column, column'). The rest depends on both.
    """
    cells = table.reshape(*grid, *grid).permute(0, 2, 1, 3)  # row, row', column, column'
    total = cells.var(correction=0)
    if total == 0:
        return 0.0, 0.0
    rows, columns = cells.mean(dim=(2, 3)), cells.mean(dim=(0, 1))
    return float(rows.var(correction=0) / total), float(columns.var(correction=0) / total)


@torch.no_grad()
def rotated_products(place: AttentionPositions, head_dim: int, grid: Grid, num_prefix: int) -> list[float]:
    """q · k / d along the first row of patches, for q = k = 1 before rotation: one value per distance in patches.

    Raises: ValueError if the positions rotate nothing.
    """
    if place.cos is None:
        raise ValueError("these positions rotate nothing")
    count = num_prefix + grid[0] * grid[1]
    turned = place.turn(torch.ones(1, 1, count, head_dim))[0, 0]
    first = turned[num_prefix : num_prefix + grid[1]]
    return [float(value) for value in first @ first[0] / head_dim]
