"""Fixed sine and cosine positions in one or two dimensions, added to the patches; not learned, for any grid."""

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from patchword.model.config import ViTConfig
from patchword.model.kinds import SinCos1d, SinCos2d
from patchword.model.positions.layout import Grid


class SinCos1dPositions(nn.Module):
    """forward(grid) → [rows · columns, D]: sin and cos alternate, with frequency 10000^(-2i/D).

    The position is the row-major index of the patch. Source: Vaswani et al. 2017, section 3.5.
    """

    prefix: None = None
    suffix: None = None

    def __init__(self, config: SinCos1d, model: ViTConfig) -> None:
        super().__init__()
        self.dim, self.temperature = model.dim, config.temperature

    def forward(self, grid: Grid) -> Tensor:
        return _cached(sincos_1d, grid, self.dim, self.temperature)


class SinCos2dPositions(nn.Module):
    """forward(grid) → [rows · columns, D]: sin x, cos x, sin y, cos y, one quarter each.

    x is the column, y the row. Source: big_vision `posemb_sincos_2d`; MAE `pos_embed.py`.
    """

    prefix: None = None
    suffix: None = None

    def __init__(self, config: SinCos2d, model: ViTConfig) -> None:
        super().__init__()
        self.dim, self.temperature, self.last_included = model.dim, config.temperature, config.last_included

    def forward(self, grid: Grid) -> Tensor:
        return _cached(sincos_2d, grid, self.dim, self.temperature, self.last_included)


def sincos_1d(grid: Grid, dim: int, temperature: float) -> Tensor:
    index = torch.arange(grid[0] * grid[1], dtype=torch.float64, device="cpu")
    frequency = temperature ** (-torch.arange(0, dim, 2, dtype=torch.float64, device="cpu") / dim)
    angle = index[:, None] * frequency
    return torch.stack((angle.sin(), angle.cos()), -1).flatten(1).float()


def sincos_2d(grid: Grid, dim: int, temperature: float, last_included: bool) -> Tensor:
    quarter = dim // 4
    steps = max(quarter - 1, 1) if last_included else quarter
    frequency = temperature ** (-torch.arange(quarter, dtype=torch.float64, device="cpu") / steps)
    row, column = torch.meshgrid(
        *(torch.arange(n, dtype=torch.float64, device="cpu") for n in grid), indexing="ij"
    )
    x, y = column.reshape(-1, 1) * frequency, row.reshape(-1, 1) * frequency
    return torch.cat((x.sin(), x.cos(), y.sin(), y.cos()), 1).float()


# Recomputing the table costs 1 % of a ViT-Ti forward pass, so the last few are cached. A buffer is not
# possible: it would have no data when the model is built on `meta` and its weights are mapped in later.
@functools.lru_cache(maxsize=8)
def _cached_call(rule: Callable[..., Tensor], *facts: Any) -> Tensor:
    return rule(*facts)


def _cached(rule: Callable[..., Tensor], *facts: object) -> Tensor:
    if (
        torch.compiler.is_compiling()
    ):  # caching would break the graph, and the compiler folds constants anyway
        return rule(*facts)
    with torch.inference_mode(False):
        return _cached_call(rule, *facts)
