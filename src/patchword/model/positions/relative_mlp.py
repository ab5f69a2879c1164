"""A bias per head, computed by a small MLP from the row and column offset between two patches."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from patchword.model.config import ViTConfig
from patchword.model.kinds import RelativeMLP
from patchword.model.positions.layout import AttentionPositions, Grid, TokenLayout
from patchword.model.positions.relative_bias import relative_index


class RelativeMLPPositions(nn.Module):
    """MLPs `mlps.i`, one per block or one shared: (row, column) → fc2(relu(fc1 ·)), one value per head.

    Their inputs are sign(x) · log(1 + |x|) of the differences, so another grid needs no resampling.
    forward(layout, depth) → the bias of each block; it is zero for tokens other than patches.
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
        bias: Tensor = self.fc2(F.relu(self.fc1(differences.to(self.fc1.weight.dtype))))
        return bias


def log_differences(grid: Grid, device: torch.device) -> Tensor:
    """Log-scaled row and column differences [(2h - 1)(2w - 1), 2], in the order of `relative_index`."""
    row, column = torch.meshgrid(
        *(torch.arange(1 - n, n, device=device, dtype=torch.float32) for n in grid), indexing="ij"
    )
    differences = torch.stack((row, column), -1).flatten(0, 1)
    return differences.sign() * differences.abs().log1p()


def _bias(table: Tensor, index: Tensor, layout: TokenLayout) -> Tensor:
    """Expand a table [differences, H] to the bias [H, N, N]."""
    before, behind = layout.num_prefix, layout.num_suffix
    return F.pad(table[index].permute(2, 0, 1), (before, behind, before, behind)).contiguous()
