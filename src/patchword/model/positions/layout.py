"""Positional information passed to attention."""

from typing import NamedTuple

import torch
from torch import Tensor

Grid = tuple[int, int]


class TokenLayout(NamedTuple):
    """The order of the sequence: `num_prefix` tokens, rows × columns patches, `num_suffix` tokens."""

    grid: Grid
    num_prefix: int
    num_suffix: int
    device: torch.device

    @property
    def num_patches(self) -> int:
        return self.grid[0] * self.grid[1]

    @property
    def num_tokens(self) -> int:
        return self.num_prefix + self.num_patches + self.num_suffix

    def select(self, tokens: Tensor, over: str) -> Tensor:
        """Select from tokens [B, N, D] those of the patches, those in front of them (over="prefix"), or all (over="all")."""
        if over == "all" or not self.num_prefix + self.num_suffix:
            return tokens
        if over == "prefix":
            return tokens[:, : self.num_prefix]
        return tokens[:, self.num_prefix : self.num_prefix + self.num_patches]


class AttentionPositions(NamedTuple):
    """Positions for one block: a bias on the scores, a rotation of queries and keys, rows added to the tokens, or nothing.

    bias: [H, N, N], or [B, H, N, N] if it differs between images; added to the scaled scores.
    cos, sin: [N, d] or [H, N, d], or [B, 1 or H, N, d] if they differ between images. Tokens other than patches have cos 1 and sin 0. `sin` already
    includes the sign of the rotated channel.
    neighbours: rotate channel 2i with 2i + 1; otherwise i with i + d/2.
    added: [N, D], or [B, N, D] if it differs between images; added to the tokens that enter the block.
    """

    bias: Tensor | None = None
    cos: Tensor | None = None
    sin: Tensor | None = None
    neighbours: bool = False
    added: Tensor | None = None

    def enter(self, x: Tensor) -> Tensor:
        """The tokens x [B, N, D] as the block takes them."""
        return x if self.added is None else x + self.added.to(x.dtype)

    def turn(self, x: Tensor) -> Tensor:
        """Rotate x [B, H, n, d], the first n tokens; keeps the dtype of x."""
        if self.cos is None or self.sin is None:
            return x
        cos, sin = self.cos[..., : x.shape[-2], :], self.sin[..., : x.shape[-2], :]
        if self.neighbours:
            other = x.reshape(*x.shape[:-1], -1, 2).flip(-1).flatten(-2)
        else:
            other = x.roll(x.shape[-1] // 2, dims=-1)
        # Under autocast q and k are bfloat16: the angles need float32, the result does not.
        turned: Tensor = (x * cos + other * sin).to(x.dtype)
        return turned

    def bias_for(self, num_queries: int) -> Tensor | None:
        """The bias for the first queries: [H, n, N], or [B, H, n, N]."""
        return None if self.bias is None else self.bias[..., :num_queries, :]

    def select(self, rows: Tensor) -> "AttentionPositions":
        """The positions of some tokens, other ones in each image. rows [B, n]: their indices in the sequence."""
        bias = self.bias
        if bias is not None:
            bias = bias[:, rows[:, :, None], rows[:, None, :]].transpose(0, 1)
        cos, sin = (None if table is None else _rows_of(table, rows) for table in (self.cos, self.sin))
        added = None if self.added is None else self.added[rows]
        return self._replace(bias=bias, cos=cos, sin=sin, added=added)


def _rows_of(table: Tensor, rows: Tensor) -> Tensor:
    """Rows [B, n] of a table [N, d] or [H, N, d], as [B, 1 or H, n, d]."""
    return table[rows][:, None] if table.ndim == 2 else table[:, rows].transpose(0, 1)


def rotation(
    angles: Tensor, layout: TokenLayout, neighbours: bool, first: Tensor | None = None
) -> AttentionPositions:
    """Build the rotation of channel pairs by angles [..., patches, d/2].

    first: angles [d/2] of the first token, if it is rotated. Other tokens are not.
    """
    unturned = layout.num_prefix
    if first is not None:
        front = angles.new_zeros(*angles.shape[:-2], unturned, angles.shape[-1])
        front[..., 0, :] = 1.0
        angles, unturned = torch.cat((front * first, angles), -2), 0
    cos, sin = angles.cos(), angles.sin()
    if neighbours:
        cos = cos.repeat_interleave(2, -1)
        sin = torch.stack((-sin, sin), -1).flatten(-2)
    else:
        cos = torch.cat((cos, cos), -1)
        sin = torch.cat((-sin, sin), -1)
    pad = (0, 0, unturned, layout.num_suffix)
    cos = torch.nn.functional.pad(cos, pad, value=1.0)
    sin = torch.nn.functional.pad(sin, pad)
    return AttentionPositions(cos=cos, sin=sin, neighbours=neighbours)
