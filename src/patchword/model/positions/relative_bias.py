"""BEiT's relative bias: a learned value for each head and each offset between patches."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from patchword.model.config import ViTConfig
from patchword.model.kinds import RelativeBias
from patchword.model.positions.layout import AttentionPositions, Grid, TokenLayout

Rule = Literal["bicubic", "bilinear", "cubic", "linear"]


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


def resample_differences(table: Tensor, old: Grid, new: Grid, rule: Rule) -> Tensor:
    """Resample a table [(2h - 1)(2w - 1), H] from the old grid to the new one."""
    if old == new:
        return table
    x = table.reshape(2 * old[0] - 1, 2 * old[1] - 1, -1).permute(2, 0, 1)
    if rule in ("bicubic", "bilinear"):
        sides = [2 * n - 1 for n in new]
        corners = rule == "bicubic"
        x = F.interpolate(x.unsqueeze(0).float(), size=sides, mode=rule, align_corners=corners).squeeze(0)
    else:
        down, across = (_between(a, b, rule, table.device) for a, b in zip(old, new, strict=True))
        x = down @ x.double() @ across.T
    return x.permute(1, 2, 0).flatten(0, 1).to(table.dtype)


def _between(old: int, new: int, rule: Rule, device: torch.device) -> Tensor:
    """The matrix [2 new - 1, 2 old - 1] that maps values at the old differences to the new ones, along one axis.

    Old differences are placed at 0, 1, 1 + q, 1 + q + q², … on both sides; q is chosen so that the farthest
    old one meets the farthest new one. Positions beyond take the last value. Source: microsoft/unilm, BEiT.
    """
    places = torch.tensor(_places(old, new), dtype=torch.float64)
    wanted = torch.arange(1 - new, new, dtype=torch.float64).clamp(places[0], places[-1])
    # A spline of degree 3 needs four points.
    degree = 3 if rule == "cubic" and len(places) > 3 else 1
    return interpolation_matrix(places, wanted, degree).to(device)


def _places(old: int, new: int) -> list[float]:
    low, high = 1.01, 1.5
    while high - low > 1e-6:
        q = (low + high) / 2
        if (1 - q ** (old - 1)) / (1 - q) > new - 1:
            high = q
        else:
            low = q
    q = (low + high) / 2
    side, at = [], 0.0
    for step in range(old - 1):
        at += q**step
        side.append(at)
    return [*(-place for place in reversed(side)), 0.0, *side]


def interpolation_matrix(points: Tensor, wanted: Tensor, degree: int) -> Tensor:
    """The matrix [wanted, points] that evaluates the spline through values at `points` at `wanted`.

    Degree 3 omits the second and the last but one of the knots, like FITPACK; degree 1 omits none.
    """
    if len(points) == 1:
        return torch.ones(len(wanted), 1, dtype=torch.float64)
    inner = points[2:-2] if degree == 3 else points[1:-1]
    ends = torch.ones(degree + 1, dtype=torch.float64)
    knots = torch.cat((points[0] * ends, inner, points[-1] * ends))
    at_points, at_wanted = (_basis(knots, x, degree) for x in (points, wanted))
    matrix: Tensor = at_wanted @ torch.linalg.inv(at_points)
    return matrix


def _basis(knots: Tensor, x: Tensor, degree: int) -> Tensor:
    """B-splines of these knots evaluated at x, [x, splines], by the Cox-de Boor recursion."""
    last = torch.nonzero(knots < knots[-1]).max()
    inside = (x[:, None] >= knots[:-1]) & (x[:, None] < knots[1:])
    # The end point belongs to the last interval that is not empty.
    inside[x == knots[-1]] = False
    inside[x == knots[-1], last] = True
    basis = inside.double()
    for k in range(1, degree + 1):
        left, right = knots[k:-1] - knots[: -k - 1], knots[k + 1 :] - knots[1:-k]
        rising = torch.where(left > 0, (x[:, None] - knots[: -k - 1]) / left, 0.0)
        falling = torch.where(right > 0, (knots[k + 1 :] - x[:, None]) / right, 0.0)
        basis = rising * basis[:, :-1] + falling * basis[:, 1:]
    return basis
