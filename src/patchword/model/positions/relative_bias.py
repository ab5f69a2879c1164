"""BEiT's relative bias: a learned value for each head and each offset between patches."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from patchword.model.config import ViTConfig
from patchword.model.kinds import RelativeBias
from patchword.model.positions.layout import AttentionPositions, Grid, TokenLayout
from patchword.model.resample import resample_differences


class RelativeBiasPositions(nn.Module):
    """Tables `tables.i` [(2h - 1)(2w - 1) + 3, H], one per block or one shared; 3 rows less without prefix rows.

    The row for query patch (i, j) and key patch (k, l) is (i - k + h - 1)(2w - 1) + (j - l + w - 1).
    The last three rows are prefix → patch, patch → prefix and prefix → prefix.
    forward(layout, depth) → the bias of each block. For another grid, the table of differences is
    resampled by the config's rule; the prefix rows are unchanged.
    Source: Bao et al. 2022 (arXiv 2106.08254), microsoft/unilm `modeling_finetune.py`.
    """

    def __init__(self, config: RelativeBias, model: ViTConfig) -> None:
        super().__init__()
        self.grid, self.prefix_rows, self.rule = model.grid_size, config.prefix_rows, config.rule
        rows = (2 * self.grid[0] - 1) * (2 * self.grid[1] - 1) + 3 * config.prefix_rows
        shape = rows, model.attention.num_heads
        count = 1 if config.shared else model.depth
        self.tables = nn.ParameterList(nn.Parameter(torch.empty(shape)) for _ in range(count))

    def reset(self, generator: torch.Generator | None) -> None:
        for table in self.tables:
            nn.init.trunc_normal_(table, std=0.02, generator=generator)

    def forward(self, layout: TokenLayout, depth: int) -> list[AttentionPositions]:
        index = relative_index(layout.grid, self.tables[0].device)
        places = [AttentionPositions(bias=self._bias(table, index, layout)) for table in self.tables]
        return places * depth if len(places) == 1 else places

    def _bias(self, table: Tensor, index: Tensor, layout: TokenLayout) -> Tensor:
        """The bias [H, N, N] of one block."""
        differences = resample_differences(
            table[: -3 if self.prefix_rows else None], self.grid, layout.grid, self.rule
        )
        patches = differences[index].permute(2, 0, 1)  # [H, patches, patches]
        before, behind = layout.num_prefix, layout.num_suffix
        if not before + behind:
            return patches.contiguous()
        bias = F.pad(patches, (before, behind, before, behind))
        if self.prefix_rows:
            is_patch = torch.zeros(layout.num_tokens, dtype=torch.bool, device=table.device)
            is_patch[before : before + layout.num_patches] = True
            from_prefix, to_prefix, both = (row[:, None, None] for row in table[-3:])
            bias = torch.where(~is_patch[:, None] & is_patch, from_prefix, bias)
            bias = torch.where(is_patch[:, None] & ~is_patch, to_prefix, bias)
            bias = torch.where(~is_patch[:, None] & ~is_patch, both, bias)
        return bias.contiguous()


def relative_index(grid: Grid, device: torch.device) -> Tensor:
    """Indices [patches, patches] into a table of (2h - 1)(2w - 1) differences."""
    row, column = torch.meshgrid(*(torch.arange(n, device=device) for n in grid), indexing="ij")
    row, column = row.flatten(), column.flatten()
    rows = row[:, None] - row + grid[0] - 1
    columns = column[:, None] - column + grid[1] - 1
    return rows * (2 * grid[1] - 1) + columns
