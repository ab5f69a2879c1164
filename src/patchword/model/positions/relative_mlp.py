"""A bias for each head, told by a small MLP from how many rows and columns lie between two patches."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from patchword.model.config import ViTConfig
from patchword.model.kinds import RelativeMLP
from patchword.model.positions.layout import AttentionPositions, Grid, TokenLayout
from patchword.model.positions.relative_bias import relative_index


class RelativeMLPPositions(nn.Module):
    """`mlps.i`, one a block or one in all: (row, column) → fc2(relu(fc1 ·)), a number for each head.

    The differences enter as sign(x) · log(1 + |x|), so that another grid needs no resampling.
    forward(layout, depth) → the bias of each block; scores of tokens that are no patches get zero.
    """

    def __init__(self, config: RelativeMLP, model: ViTConfig) -> None:
        super().__init__()
        heads = model.attention.num_heads
        count = 1 if config.shared else model.depth
        self.mlps = nn.ModuleList(_LogMLP(config.hidden, heads) for _ in range(count))

    def forward(self, layout: TokenLayout, depth: int) -> list[AttentionPositions]:
        differences = log_differences(layout.grid, layout.device)
        index = relative_index(layout.grid, layout.device)
        places = [AttentionPositions(bias=_bias(mlp(differences), index, layout)) for mlp in self.mlps]
        return places * depth if len(places) == 1 else places


class _LogMLP(nn.Module):
    """[differences, 2] → [differences, H]"""

    def __init__(self, hidden: int, heads: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(2, hidden)
        self.fc2 = nn.Linear(hidden, heads)

    def forward(self, differences: Tensor) -> Tensor:
        answer: Tensor = self.fc2(F.relu(self.fc1(differences.to(self.fc1.weight.dtype))))
        return answer


def log_differences(grid: Grid, device: torch.device) -> Tensor:
    """[(2h - 1)(2w - 1), 2]: row and column differences, as `relative_index` counts them."""
    row, column = torch.meshgrid(
        *(torch.arange(1 - n, n, device=device, dtype=torch.float32) for n in grid), indexing="ij"
    )
    differences = torch.stack((row, column), -1).flatten(0, 1)
    return differences.sign() * differences.abs().log1p()


def _bias(table: Tensor, index: Tensor, layout: TokenLayout) -> Tensor:
    """table [differences, H] → [H, N, N]"""
    before, behind = layout.num_prefix, layout.num_suffix
    return F.pad(table[index].permute(2, 0, 1), (before, behind, before, behind)).contiguous()
