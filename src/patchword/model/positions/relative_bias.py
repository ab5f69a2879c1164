"""BEiT's relative bias: a learned number for each head and difference of places."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from patchword.model.config import ViTConfig
from patchword.model.kinds import RelativeBias
from patchword.model.positions.place import Grid, Layout, Place


class RelativeBiasPositions(nn.Module):
    """`tables.i` [(2h - 1)(2w - 1) + 3, H], one a block or one in all; 3 less without prefix rows.

    Index of query patch (i, j) to key (k, l): (i - k + h - 1)(2w - 1) + (j - l + w - 1).
    The last three rows: prefix → patch, patch → prefix, prefix → prefix.
    forward(layout, depth) → the bias of each block. At another grid the table of
    differences is resampled (bicubic, corners kept, so the farthest stays the farthest).
    Source: Bao et al. 2022 (arXiv 2106.08254), microsoft/unilm `modeling_finetune.py`.
    """

    def __init__(self, config: RelativeBias, model: ViTConfig) -> None:
        super().__init__()
        self.grid, self.prefix_rows = model.grid_size, config.prefix_rows
        rows = (2 * self.grid[0] - 1) * (2 * self.grid[1] - 1) + 3 * config.prefix_rows
        shape = rows, model.attention.num_heads
        count = 1 if config.shared else model.depth
        self.tables = nn.ParameterList(nn.Parameter(torch.empty(shape)) for _ in range(count))

    def reset(self, generator: torch.Generator | None) -> None:
        for table in self.tables:
            nn.init.trunc_normal_(table, std=0.02, generator=generator)

    def forward(self, layout: Layout, depth: int) -> list[Place]:
        index = relative_index(layout.grid, self.tables[0].device)
        places = [Place(bias=self._bias(table, index, layout)) for table in self.tables]
        return places * depth if len(places) == 1 else places

    def _bias(self, table: Tensor, index: Tensor, layout: Layout) -> Tensor:
        """[H, N, N]"""
        differences = resample_differences(table[: -3 if self.prefix_rows else None], self.grid, layout.grid)
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
    """[patches, patches] into a table of (2h - 1)(2w - 1) differences."""
    row, column = torch.meshgrid(*(torch.arange(n, device=device) for n in grid), indexing="ij")
    row, column = row.flatten(), column.flatten()
    rows = row[:, None] - row + grid[0] - 1
    columns = column[:, None] - column + grid[1] - 1
    return rows * (2 * grid[1] - 1) + columns


def resample_differences(table: Tensor, old: Grid, new: Grid) -> Tensor:
    """table [(2h - 1)(2w - 1), H] of the old grid → the same of the new one."""
    if old == new:
        return table
    x = table.reshape(2 * old[0] - 1, 2 * old[1] - 1, -1).permute(2, 0, 1).unsqueeze(0)
    x = F.interpolate(x.float(), size=[2 * n - 1 for n in new], mode="bicubic", align_corners=True)
    return x.squeeze(0).permute(1, 2, 0).flatten(0, 1).to(table.dtype)
