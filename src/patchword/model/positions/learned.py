"""Learned positions: one row per patch of the stored grid, and rows for prefix tokens."""

import torch
from torch import Tensor, nn

from patchword.model.config import ViTConfig
from patchword.model.kinds import Learned
from patchword.model.positions.layout import Grid
from patchword.model.resample import resample_grid


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
