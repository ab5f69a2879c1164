"""Learned positions of every token, in front of the first block and between the blocks (YOLOS).

Source: Fang et al. 2021 (arXiv 2106.00666); hustvl/YOLOS, models/backbone.py.
"""

import torch
from torch import Tensor, nn

from patchword.model.config import ViTConfig
from patchword.model.kinds import LearnedBetween, LearnedTokens, Resample
from patchword.model.kinds.positions import ResampledBy
from patchword.model.positions.layout import AttentionPositions, Grid, TokenLayout
from patchword.model.resample import resample_grid

RULE = Resample(interpolation="bicubic", antialias=False)


class LearnedTokensPositions(nn.Module):
    """Learned rows `grid` [h, w, D] of the patches, `prefix` and `suffix` [n, D] of the tokens before and behind them.

    forward(grid) → [rows · columns, D].
    """

    prefix: nn.Parameter | None
    suffix: nn.Parameter | None

    def __init__(self, config: LearnedTokens, model: ViTConfig) -> None:
        super().__init__()
        self.config = config
        shapes = config.shapes(model)
        self.grid = nn.Parameter(torch.empty(shapes["grid"]))
        self.prefix = nn.Parameter(torch.empty(shapes["prefix"])) if "prefix" in shapes else None
        self.suffix = nn.Parameter(torch.empty(shapes["suffix"])) if "suffix" in shapes else None

    def reset(self, generator: torch.Generator | None) -> None:
        for rows in (self.grid, self.prefix, self.suffix):
            if rows is not None:
                nn.init.trunc_normal_(rows, std=0.02, generator=generator)

    def forward(self, grid: Grid) -> Tensor:
        return _resampled(self.grid, grid, self.config.resampled_by)


class LearnedBetweenPositions(nn.Module):
    """`tables` [depth - 1, tokens, D], each ordered as the tokens: (layout, depth) → one `AttentionPositions` per block."""

    def __init__(self, config: LearnedBetween, model: ViTConfig) -> None:
        super().__init__()
        self.config = config
        self.num_prefix = model.tokens.num_prefix
        self.tables = nn.Parameter(torch.empty(config.shapes(model)["tables"]))

    def reset(self, generator: torch.Generator | None) -> None:
        nn.init.trunc_normal_(self.tables, std=0.02, generator=generator)

    def forward(self, layout: TokenLayout, depth: int) -> list[AttentionPositions]:
        rows, columns = self.config.grid
        first, last = self.num_prefix, self.num_prefix + rows * columns
        places = [AttentionPositions()]
        for table in self.tables:
            patches = table[first:last].reshape(rows, columns, -1)
            placed = _resampled(patches, layout.grid, self.config.resampled_by)
            places.append(AttentionPositions(added=torch.cat((table[:first], placed, table[last:]))))
        return places


def _resampled(table: Tensor, grid: Grid, by: ResampledBy) -> Tensor:
    """A table [h, w, D] for a grid: [rows · columns, D]."""
    if by == "count" and table.shape[0] * table.shape[1] == grid[0] * grid[1]:
        return table.flatten(0, 1)
    return resample_grid(table, grid, RULE).flatten(0, 1)
