"""Pooling: from tokens to one vector per image.

Each module receives the token layout and the normed tokens [B, N, D] of the blocks listed by its
kind's `layers`, first to last. Most read only the last block.
"""

from collections.abc import Callable, Sequence
from typing import assert_never

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from patchword.model.attention import Attended
from patchword.model.config import ViTConfig
from patchword.model.kinds import (
    AttentionPool,
    ClassPool,
    FirstPool,
    JoinedPool,
    MaxPool,
    MeanPool,
    PrefixPool,
)
from patchword.model.linear import Linear
from patchword.model.mlp import MLP
from patchword.model.norms import make_norm
from patchword.model.positions.layout import TokenLayout


class FirstToken(nn.Module):
    """The first token; the class token if the model has one."""

    def forward(self, layers: Sequence[Tensor], layout: TokenLayout) -> Tensor:
        return layers[-1][:, 0]


class Average(nn.Module):
    """The mean over the patches, the tokens in front of them, or all tokens."""

    def __init__(self, over: str) -> None:
        super().__init__()
        self.over = over

    def forward(self, layers: Sequence[Tensor], layout: TokenLayout) -> Tensor:
        return layout.select(layers[-1], self.over).mean(dim=1)


class Largest(nn.Module):
    """The maximum of each channel over the patches, the tokens in front of them, or all tokens."""

    def __init__(self, over: str) -> None:
        super().__init__()
        self.over = over

    def forward(self, layers: Sequence[Tensor], layout: TokenLayout) -> Tensor:
        return layout.select(layers[-1], self.over).amax(dim=1)


class AttentionPooling(nn.Module):
    """MAP: a learned probe attends to the tokens, which gives y; the output is y + mlp(norm y).

    There is no residual connection to the probe and no final norm, and the MLP is not gated. A plain pool is y alone, and
    its probe is the query. Sources: Zhai et al. 2022 (arXiv 2106.04560), big_vision `MAPHead`; El-Nouby et al. 2024
    (AIMv2, arXiv 2411.14402).
    """

    def __init__(self, config: AttentionPool, model: ViTConfig) -> None:
        super().__init__()
        self.over = config.over
        self.num_heads = config.num_heads or model.attention.num_heads
        self.probe = nn.Parameter(torch.empty(model.dim))
        self.plain = config.plain
        if not config.plain:
            self.q = Linear(model.dim, model.dim)
        self.kv = Linear(model.dim, 2 * model.dim, bias=not config.plain or model.attention.bias == "qkv")
        self.proj = Linear(model.dim, model.dim)
        if not config.plain:
            self.norm = make_norm(model.norm, model.dim)
            self.mlp = MLP(model, config.hidden or model.mlp_dim, gated=False)

    def reset(self, generator: torch.Generator | None) -> None:
        nn.init.trunc_normal_(self.probe, std=0.02, generator=generator)

    def forward(
        self,
        layers: Sequence[Tensor],
        layout: TokenLayout,
        watch: Callable[[Attended], None] | None = None,
    ) -> Tensor:
        """watch: sees the probe's attention to the selected tokens."""
        x = layout.select(layers[-1], self.over)
        k, v = self.kv(x).view(*x.shape[:2], 2, self.num_heads, -1).permute(2, 0, 3, 1, 4)
        probe = self.probe.to(k.dtype) if self.plain else self.q(self.probe)
        q = probe.view(1, self.num_heads, 1, -1).expand(len(x), -1, -1, -1)
        y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)  # [B, 1, D]
        if watch is not None:
            watch(Attended(x, q, k, v, None, y))
        y = self.proj(y[:, 0])
        pooled: Tensor = y if self.plain else y + self.mlp(self.norm(y))
        return pooled


class Joined(nn.Module):
    """Class tokens of the last blocks, first to last, followed by the mean of the last block's patches."""

    def __init__(self, config: JoinedPool) -> None:
        super().__init__()
        self.config = config

    def forward(self, layers: Sequence[Tensor], layout: TokenLayout) -> Tensor:
        parts = [tokens[:, 0] for tokens in layers]
        if self.config.mean:
            parts.append(layout.select(layers[-1], "patches").mean(dim=1))
        return torch.stack(parts, -1).flatten(1) if self.config.interleaved else torch.cat(parts, -1)


class PrefixTokens(nn.Module):
    """The tokens in these places, joined."""

    def __init__(self, places: tuple[int, ...]) -> None:
        super().__init__()
        self.places = list(places)

    def forward(self, layers: Sequence[Tensor], layout: TokenLayout) -> Tensor:
        return layers[-1][:, self.places].flatten(1)


def make_pool(config: ViTConfig) -> nn.Module:
    """Build the pooling module of the config."""
    match config.head.pool:
        case ClassPool() | FirstPool():
            return FirstToken()
        case MeanPool(over=over):
            return Average(over)
        case MaxPool(over=over):
            return Largest(over)
        case AttentionPool() as pool:
            return AttentionPooling(pool, config)
        case JoinedPool() as pool:
            return Joined(pool)
        case PrefixPool(tokens=places):
            return PrefixTokens(places)
        case _:
            assert_never(config.head.pool)
