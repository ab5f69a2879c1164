"""Positions of DETR's features: `padding` [B, h, w] (true where padded) → [B, h · w, D].

Source: Carion et al. 2020 (arXiv 2005.12872), appendix A.4; facebookresearch/detr, models/position_encoding.py.
"""

import math

import torch
from torch import Tensor, nn

from patchword.errors import SettingsError

TEMPERATURE = 10_000.0
# Added to an image's number of rows or columns before dividing by it, as in the source.
COUNT_EPS = 1e-6
TABLE = 50


class SinePositions(nn.Module):
    """Sines and cosines of row and column, each counted over the image's own cells and scaled to 2 π.

    The first half of the channels is for the row. Channel pair i of n / 2 has the wavelength 2 π · temperature^(2 i / n).
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, padding: Tensor) -> Tensor:
        real = (~padding).float()
        per_axis = self.dim // 2
        pair = torch.arange(per_axis // 2, device=padding.device, dtype=torch.float32)
        wavelength = TEMPERATURE ** (2 * pair / per_axis)
        parts = []
        for axis in (1, 2):
            count = real.cumsum(axis)
            last = count.select(axis, -1).unsqueeze(axis)
            angles = (count / (last + COUNT_EPS) * (2 * math.pi))[..., None] / wavelength
            parts.append(torch.stack((angles.sin(), angles.cos()), dim=-1).flatten(-2))
        return torch.cat(parts, dim=-1).flatten(1, 2)


class LearnedPositions(nn.Module):
    """A table of rows and one of columns [50, D / 2]; the first half of the channels is for the column."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.rows = nn.Parameter(torch.empty(TABLE, dim // 2))
        self.columns = nn.Parameter(torch.empty(TABLE, dim // 2))

    @torch.no_grad()
    def reset(self, generator: torch.Generator | None) -> None:
        """Uniform from 0 to 1, as the source."""
        for table in (self.rows, self.columns):
            nn.init.uniform_(table, generator=generator)

    def forward(self, padding: Tensor) -> Tensor:
        batch, height, width = padding.shape
        if max(height, width) > TABLE:
            raise SettingsError(
                f"the features have {height} rows and {width} columns, but learned positions exist for {TABLE}",
                f"use images with at most {TABLE} cells per side, or sine positions",
            )
        x = self.columns[:width].expand(height, -1, -1)
        y = self.rows[:height, None].expand(-1, width, -1)
        return torch.cat((x, y), dim=-1).flatten(0, 1).expand(batch, -1, -1)
