"""Learned positions: one row per patch of the stored grid, and rows for prefix tokens."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from patchword.model.config import ViTConfig
from patchword.model.kinds import Learned, Resample
from patchword.model.positions.layout import Grid


class LearnedPositions(nn.Module):
    """Learned rows `grid` [h, w, D] and, if prefix tokens have positions, `prefix` [n, D].

    forward(grid) → [rows · columns, D], resampled by the config's rule if the grid differs.
    """

    prefix: nn.Parameter | None

    suffix: nn.Parameter | None = None

    def __init__(self, config: Learned, model: ViTConfig) -> None:
        super().__init__()
        self.resample = config.resample
        self.grid = nn.Parameter(torch.empty(*model.grid_size, model.dim))
        rows = model.num_prefix_positions
        self.prefix = nn.Parameter(torch.empty(rows, model.dim)) if rows else None

    def reset(self, generator: torch.Generator | None) -> None:
        nn.init.trunc_normal_(self.grid, std=0.02, generator=generator)
        if self.prefix is not None:
            nn.init.trunc_normal_(self.prefix, std=0.02, generator=generator)

    def forward(self, grid: Grid) -> Tensor:
        return resample_grid(self.grid, grid, self.resample).flatten(0, 1)


def resample_grid(table: Tensor, grid: Grid, rule: Resample) -> Tensor:
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
        corners = None if rule.interpolation == "nearest" else rule.align_corners
        x = F.interpolate(
            x, size=size, mode=rule.interpolation, antialias=rule.antialias, align_corners=corners
        )[:, :, : grid[0], : grid[1]]
    return x.squeeze(0).permute(1, 2, 0).to(table.dtype)


def _by_factor(x: Tensor, grid: Grid, rule: Resample) -> Tensor:
    """Resample like DINO: the factor (target + offset) / old sets the sampling positions, not the sizes."""
    factors = [(target + rule.offset) / old for target, old in zip(grid, x.shape[2:], strict=True)]
    x = F.interpolate(
        x,
        scale_factor=factors,
        mode=rule.interpolation,
        align_corners=None if rule.interpolation == "nearest" else rule.align_corners,
        recompute_scale_factor=False,
    )
    return x[:, :, : grid[0], : grid[1]]
