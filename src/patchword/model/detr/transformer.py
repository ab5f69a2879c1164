"""DETR's encoder and decoder. Positions are added to queries and keys of attention in every layer, never to values.

Shapes: B images, N cells, Q queries, D dim, L decoder layers. `padding` [B, N] is true for cells that are padding, or None.
Source: Carion et al. 2020 (arXiv 2005.12872), section 3.2 and appendix A.3; facebookresearch/detr, models/transformer.py.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from patchword.model.attention import attend
from patchword.model.detr.config import DetrConfig
from patchword.model.linear import Linear


class DetrAttention(nn.Module):
    """Multi-head attention whose queries, keys and values come from different tokens.

    `qkv.weight` [3 D, D] holds the rows for queries, then keys, then values.
    """

    def __init__(self, dim: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.dim, self.num_heads, self.dropout = dim, num_heads, dropout
        self.qkv = Linear(dim, 3 * dim)
        self.proj = Linear(dim, dim)

    def forward(self, queries: Tensor, keys: Tensor, values: Tensor, padding: Tensor | None) -> Tensor:
        """queries [B, n, D], keys and values [B, N, D] → [B, n, D]. padding [B, N]: keys that are not read."""
        if queries is keys:
            q, k = self._heads(queries, 0, 2).chunk(2, dim=1)
        else:
            q, k = self._heads(queries, 0, 1), self._heads(keys, 1, 2)
        v = self._heads(values, 2, 3)
        bias = None
        if padding is not None:
            bias = torch.zeros_like(padding, dtype=q.dtype).masked_fill(padding, float("-inf"))[:, None, None]
        out = attend(q, k, v, bias, self.dropout if self.training else 0.0)
        projected: Tensor = self.proj(out.transpose(1, 2).flatten(2))
        return projected

    def weights_and_values(
        self, queries: Tensor, keys: Tensor, values: Tensor, padding: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """What `forward` computes with: weights [B, H, n, N], whose rows sum to 1, and values [B, H, N, d]."""
        q, k, v = self._heads(queries, 0, 1), self._heads(keys, 1, 2), self._heads(values, 2, 3)
        scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)
        if padding is not None:
            scores = scores.masked_fill(padding[:, None, None], float("-inf"))
        return scores.softmax(-1), v

    def _heads(self, x: Tensor, first: int, last: int) -> Tensor:
        """Parts `first` to `last` of queries, keys and values: x [B, n, D] → [B, parts · heads, n, d]."""
        part = slice(first * self.dim, last * self.dim)
        found = self.qkv.outputs(x, self.qkv.bias[part], part)
        return found.view(*x.shape[:2], (last - first) * self.num_heads, -1).transpose(1, 2)


class FeedForward(nn.Module):
    """fc2(relu(fc1 x))."""

    def __init__(self, dim: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.fc1, self.fc2 = Linear(dim, hidden), Linear(hidden, dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.fc2(self.dropout(F.relu(self.fc1(x))))
        return out


class EncoderLayer(nn.Module):
    """Self-attention over the cells, then an MLP."""

    def __init__(self, config: DetrConfig) -> None:
        super().__init__()
        self.pre = config.order == "pre"
        self.attention = DetrAttention(config.dim, config.num_heads, config.dropout)
        self.mlp = FeedForward(config.dim, config.hidden, config.dropout)
        self.norm1 = nn.LayerNorm(config.dim, eps=config.eps)
        self.norm2 = nn.LayerNorm(config.dim, eps=config.eps)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, positions: Tensor, padding: Tensor | None) -> Tensor:
        """x, positions [B, N, D] → [B, N, D]."""
        if self.pre:
            y = self.norm1(x)
            x = x + self._attend(y, positions, padding)
            return x + self._mlp(self.norm2(x))
        x = self.norm1(x + self._attend(x, positions, padding))
        normed: Tensor = self.norm2(x + self._mlp(x))
        return normed

    def _attend(self, x: Tensor, positions: Tensor, padding: Tensor | None) -> Tensor:
        placed = x + positions
        branch: Tensor = self.dropout(self.attention(placed, placed, x, padding))
        return branch

    def _mlp(self, x: Tensor) -> Tensor:
        branch: Tensor = self.dropout(self.mlp(x))
        return branch


class DecoderLayer(nn.Module):
    """Self-attention over the queries, attention from the queries to the cells, then an MLP."""

    def __init__(self, config: DetrConfig) -> None:
        super().__init__()
        self.pre = config.order == "pre"
        heads = config.decoder_heads or config.num_heads
        self.attention = DetrAttention(config.dim, heads, config.dropout)
        self.cross_attention = DetrAttention(config.dim, heads, config.dropout)
        self.mlp = FeedForward(config.dim, config.decoder_hidden or config.hidden, config.dropout)
        self.norm1 = nn.LayerNorm(config.dim, eps=config.eps)
        self.norm2 = nn.LayerNorm(config.dim, eps=config.eps)
        self.norm3 = nn.LayerNorm(config.dim, eps=config.eps)
        self.dropout = nn.Dropout(config.dropout)

    def forward(
        self, x: Tensor, queries: Tensor, keys: Tensor, memory: Tensor, padding: Tensor | None
    ) -> Tensor:
        """x, queries [B, Q, D]: content and learned positions of the queries; keys, memory [B, N, D] with and without positions."""
        if self.pre:
            x = x + self._self(self.norm1(x), queries)
            x = x + self._cross(self.norm2(x), queries, keys, memory, padding)
            return x + self._mlp(self.norm3(x))
        x = self.norm1(x + self._self(x, queries))
        x = self.norm2(x + self._cross(x, queries, keys, memory, padding))
        normed: Tensor = self.norm3(x + self._mlp(x))
        return normed

    def _self(self, x: Tensor, queries: Tensor) -> Tensor:
        placed = x + queries
        branch: Tensor = self.dropout(self.attention(placed, placed, x, None))
        return branch

    def _cross(
        self, x: Tensor, queries: Tensor, keys: Tensor, memory: Tensor, padding: Tensor | None
    ) -> Tensor:
        branch: Tensor = self.dropout(self.cross_attention(x + queries, keys, memory, padding))
        return branch

    def _mlp(self, x: Tensor) -> Tensor:
        branch: Tensor = self.dropout(self.mlp(x))
        return branch


class Encoder(nn.Module):
    """Layers over the cells; a norm at the end only with the order "pre"."""

    def __init__(self, config: DetrConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(EncoderLayer(config) for _ in range(config.encoder_depth))
        ends = config.order == "pre" and config.encoder_depth
        self.norm = nn.LayerNorm(config.dim, eps=config.eps) if ends else nn.Identity()

    def forward(self, x: Tensor, positions: Tensor, padding: Tensor | None) -> Tensor:
        """x, positions [B, N, D] → the memory that the decoder reads [B, N, D]."""
        for layer in self.layers:
            x = layer(x, positions, padding)
        memory: Tensor = self.norm(x)
        return memory


class Decoder(nn.Module):
    """Layers over the queries, which start from zeros. One norm serves the output of every layer."""

    def __init__(self, config: DetrConfig) -> None:
        super().__init__()
        self.between = config.decoder_norm == "between"
        self.layers = nn.ModuleList(DecoderLayer(config) for _ in range(config.decoder_depth))
        self.norm = nn.LayerNorm(config.dim, eps=config.eps)

    def forward(self, queries: Tensor, memory: Tensor, positions: Tensor, padding: Tensor | None) -> Tensor:
        """queries [Q, D]; memory, positions [B, N, D] → the output of every layer [L, B, Q, D]."""
        queries = queries.to(memory.dtype).expand(len(memory), -1, -1)
        keys, x = memory + positions, torch.zeros_like(queries)
        outputs = []
        for layer in self.layers:
            x = layer(x, queries, keys, memory, padding)
            if self.between:
                x = self.norm(x)
            outputs.append(x)
        if self.between:
            return torch.stack((*outputs[:-1], self.norm(x)))
        normed: Tensor = self.norm(torch.stack(outputs))
        return normed
