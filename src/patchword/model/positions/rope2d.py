"""Rotary positions in two dimensions: rotate the queries and keys of the patches."""

import math

import torch
from torch import Tensor, nn

from patchword.model.config import ViTConfig
from patchword.model.kinds import CentreCoordinates, IndexCoordinates, Rope2d, RopeMixed
from patchword.model.positions.layout import AttentionPositions, Grid, TokenLayout, rotation


class Rope2dPositions(nn.Module):
    """The same rotation for every block and head, for any grid: forward(layout, depth) → rotations.

    The angle of channel pair k is coordinate / period_k. The first half of the pairs uses one axis,
    the second half the other. `periods` [d/4] is a buffer in the weights file if the config has
    `stored_periods`. `class_angles` [d/2] are learned and rotate the class token, if the config has them. Sources: DINOv3
    (Siméoni et al. 2025), EVA-02 (Fang et al. 2023), MLCD (An et al. 2024).
    """

    periods: Tensor | None
    class_angles: nn.Parameter | None

    def __init__(self, config: Rope2d, model: ViTConfig) -> None:
        super().__init__()
        self.config, self.head_dim = config, model.head_dim
        stored = torch.empty(self.head_dim // 4) if config.stored_periods else None
        self.register_buffer("periods", stored)
        self.class_angles = nn.Parameter(torch.empty(self.head_dim // 2)) if config.class_angles else None

    def reset(self, generator: torch.Generator | None) -> None:
        if self.periods is not None:
            self.periods.copy_(self._formula(self.periods.device))
        if self.class_angles is not None:
            nn.init.normal_(self.class_angles, std=(self.head_dim // 2) ** -0.5, generator=generator)

    def forward(self, layout: TokenLayout, depth: int) -> list[AttentionPositions]:
        device = layout.device
        periods = self._formula(device) if self.periods is None else self.periods.float()
        row, column = (_coordinates(self.config.coordinates, layout.grid, axis, device) for axis in (0, 1))
        turns_row = (row[:, None] / periods).unsqueeze(1).expand(*layout.grid, -1)
        turns_column = (column[:, None] / periods).unsqueeze(0).expand(*layout.grid, -1)
        axes = (turns_row, turns_column) if self.config.first_axis == "row" else (turns_column, turns_row)
        angles = torch.cat(axes, -1).flatten(0, 1)  # [patches, d/2]
        first = None if self.class_angles is None else self.class_angles.float()
        return [rotation(angles, layout, self.config.pairing == "neighbours", first)] * depth

    def _formula(self, device: torch.device) -> Tensor:
        quarter = self.head_dim // 4
        exponents = torch.arange(quarter, device=device, dtype=torch.float32) / quarter
        return exponents.mul(math.log(self.config.theta)).exp()


class RopeMixedPositions(nn.Module):
    """Learned `frequencies` [2, depth, H, d/2], columns first: angle = column · f[0] + row · f[1].

    Source: RoPE-ViT, Heo et al. 2024 (arXiv 2403.13298).
    """

    def __init__(self, config: RopeMixed, model: ViTConfig) -> None:
        super().__init__()
        self.theta = config.theta
        shape = 2, model.depth, model.attention.num_heads, model.head_dim // 2
        self.frequencies = nn.Parameter(torch.empty(shape))

    def reset(self, generator: torch.Generator | None) -> None:
        """Random directions for each head and magnitudes theta^(-4k/d), as in the paper's code."""
        _, depth, heads, half = self.frequencies.shape
        quarter = max(half // 2, 1)
        magnitude = self.theta ** (-torch.arange(quarter) / quarter)
        start = torch.rand(depth, heads, 1, generator=generator) * 2 * math.pi
        turned = torch.cat([start + turn * math.pi / 2 for turn in range(2)], -1)  # [L, H, 2]
        angle = turned.repeat_interleave(quarter, -1)[..., :half]
        sizes = magnitude.repeat(2)[:half]
        with torch.no_grad():
            self.frequencies.copy_(torch.stack((sizes * angle.cos(), sizes * angle.sin())))

    def forward(self, layout: TokenLayout, depth: int) -> list[AttentionPositions]:
        device = layout.device
        row, column = torch.meshgrid(
            *(torch.arange(n, device=device, dtype=torch.float32) for n in layout.grid), indexing="ij"
        )
        across, down = self.frequencies.float().unsqueeze(-2)  # each [L, H, 1, d/2]
        angles = column.reshape(-1, 1) * across + row.reshape(-1, 1) * down  # [L, H, patches, d/2]
        return [rotation(angles[layer], layout, neighbours=True) for layer in range(depth)]


def _coordinates(
    config: CentreCoordinates | IndexCoordinates, grid: Grid, axis: int, device: torch.device
) -> Tensor:
    """The coordinates along one axis, in radians per unit period."""
    length = grid[axis]
    index = torch.arange(length, device=device, dtype=torch.float32)
    if isinstance(config, CentreCoordinates):
        return 2 * math.pi * (2 * (index + 0.5) / length - 1)
    index = index + config.offset
    return index if config.reference is None else index * (config.reference[axis] / length)
