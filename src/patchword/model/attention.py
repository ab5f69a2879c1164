"""Multi-head self-attention with torch's fused kernel, and its weights on request."""

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from patchword.model.config import ViTConfig
from patchword.model.linear import Linear
from patchword.model.norms import LayerNorm, RMSNorm, make_norm
from patchword.model.positions.layout import AttentionPositions


class Attended(NamedTuple):
    """What one attention computed, for code that looks on.

    tokens [B, N, D]: as attention reads them. queries [B, H, n, d] of the first n tokens; keys, values [B, H, N, d].
    bias: on the scores, [H, n, N] or [B, H, n, N]. heads [B, n, H d]: the joined heads, before `out_norm` and projection.
    """

    tokens: Tensor
    queries: Tensor
    keys: Tensor
    values: Tensor
    bias: Tensor | None
    heads: Tensor

    def weights(self) -> Tensor:
        """The softmax weights [B, H, n, N], which the fused kernel does not store; at least float32."""
        return softmax_weights(self.queries, self.keys, self.bias)


# Called with the index of a block, or the depth for an attention pool.
Watch = Callable[[int, Attended], None]


def softmax_weights(queries: Tensor, keys: Tensor, bias: Tensor | None) -> Tensor:
    """softmax(q kᵀ / sqrt(d) + bias): queries [B, H, n, d], keys [B, H, N, d] → [B, H, n, N]."""
    scores = (queries * queries.shape[-1] ** -0.5) @ keys.transpose(-2, -1)
    if bias is not None:
        scores = scores + bias
    weights: Tensor = scores.softmax(dim=-1, dtype=torch.promote_types(scores.dtype, torch.float32))
    return weights


class Attention(nn.Module):
    """Compute softmax(q kᵀ / sqrt(d) + bias) v in each head, join the heads and project them.

    With `out_norm`, the joined heads are normalised before the projection. `qkv.weight` [3 H d, D]
    holds all queries, then all keys, then all values, each ordered by head. With bias "qv" the
    bias parameters are `q_bias` and `v_bias`.

    Shapes: x [B, N, D] → [B, N, D].
    """

    q_bias: nn.Parameter | None
    v_bias: nn.Parameter | None

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        part = config.attention
        self.num_heads, self.head_dim = part.num_heads, config.head_dim
        self.width = config.attention_dim
        self.qkv = Linear(config.dim, 3 * self.width, bias=part.bias == "qkv")
        with_two = part.bias == "qv"
        self.q_bias = nn.Parameter(torch.zeros(self.width)) if with_two else None
        self.v_bias = nn.Parameter(torch.zeros(self.width)) if with_two else None
        self.q_norm, self.k_norm = self._head_norm(config), self._head_norm(config)
        self.out_norm = make_norm(config.norm, self.width) if part.out_norm else nn.Identity()
        self.proj = Linear(self.width, config.dim, bias=part.out_bias)
        self.attention_dropout = part.dropout
        self.dropout = nn.Dropout(config.block.dropout)

    def reset(self, generator: torch.Generator | None) -> None:
        for bias in (self.q_bias, self.v_bias):
            if bias is not None:
                nn.init.zeros_(bias)

    def _head_norm(self, config: ViTConfig) -> nn.Module:
        match config.attention.qk_norm:
            case "layer":
                return LayerNorm(self.head_dim, eps=config.norm.eps)
            case "rms":
                return RMSNorm(self.head_dim, eps=config.norm.eps)
            case "none":
                return nn.Identity()

    def forward(
        self,
        x: Tensor,
        place: AttentionPositions,
        rows: int | None = None,
        watch: Callable[[Attended], None] | None = None,
    ) -> Tensor:
        """rows: compute only the first `rows` tokens; they still attend to all tokens. watch: sees what was computed."""
        q, k, v = self._queries_keys_values(x, place, rows)
        bias = _as(place.bias_for(q.shape[2]), q)
        out = attend(q, k, v, bias, self.attention_dropout if self.training else 0.0)
        out = out.transpose(1, 2).flatten(2)  # [B, n, H d]
        if watch is not None:
            watch(Attended(x, q, k, v, bias, out))
        projected: Tensor = self.dropout(self.proj(self.out_norm(out)))
        return projected

    def weights(self, x: Tensor, place: AttentionPositions) -> Tensor:
        """Weights [B, H, N, N]: how much each token (row) reads from each other; rows sum to 1."""
        q, k, _ = self._queries_keys_values(x, place, None)
        return softmax_weights(q, k, place.bias)

    def _queries_keys_values(
        self, x: Tensor, place: AttentionPositions, rows: int | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """q [B, H, n, d]; k, v [B, H, N, d]; q and k are normed and rotated."""
        bias = self._bias()
        if rows is None:
            qkv = self.qkv.outputs(x, bias)
            q, k, v = qkv.view(*x.shape[:2], 3, self.num_heads, self.head_dim).unbind(2)
        else:
            first, others = slice(self.width), slice(self.width, None)
            q = self.qkv.outputs(x[:, :rows], None if bias is None else bias[first], first)
            kv = self.qkv.outputs(x, None if bias is None else bias[others], others)
            q = q.view(*q.shape[:2], self.num_heads, self.head_dim)
            k, v = kv.view(*x.shape[:2], 2, self.num_heads, self.head_dim).unbind(2)
        q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
        return place.turn(self.q_norm(q)), place.turn(self.k_norm(k)), v

    def _bias(self) -> Tensor | None:
        if self.q_bias is None or self.v_bias is None:
            return self.qkv.bias
        return torch.cat((self.q_bias, torch.zeros_like(self.q_bias), self.v_bias))


def attend(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, dropout: float) -> Tensor:
    """Attend with the fused kernel, or with two explicit matrix products.

    The explicit form is used only when training in bfloat16 on a CPU. There, the backward pass of
    torch's fused kernel takes half of a training step; two plain products take a fifth of that
    (docs/decisions/0005). The results agree up to bfloat16 rounding.

    Shapes: q [B, H, n, d], k and v [B, H, N, d] → [B, H, n, d].
    """
    training_in_bfloat16 = q.dtype == torch.bfloat16 and q.requires_grad and torch.is_grad_enabled()
    if not (training_in_bfloat16 and q.device.type == "cpu"):
        return F.scaled_dot_product_attention(q, k, v, attn_mask=bias, dropout_p=dropout)
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)
    if bias is not None:
        scores = scores + bias
    weights = F.dropout(scores.softmax(dim=-1), dropout)
    return weights.to(v.dtype) @ v


def _as(bias: Tensor | None, like: Tensor) -> Tensor | None:
    return None if bias is None else bias.to(like.dtype)
