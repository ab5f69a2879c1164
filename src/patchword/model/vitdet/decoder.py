"""Queries look at a few places of the maps, at each other, and move their boxes, layer by layer.

Shapes: B images, Q queries, d channels, H heads, M maps, P points. Boxes are centre x, centre y, width, height as shares of the image.
Sources: Zhu et al. 2021, Deformable DETR (arXiv 2010.04159); Liu et al. 2022, DAB-DETR (arXiv 2201.12329).
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from patchword.model.linear import Linear
from patchword.model.norms import LayerNorm
from patchword.model.vitdet.config import VitDetConfig


class SampledAttention(nn.Module):
    """Each query reads P places on each map, near its box, with weights that sum to 1 over all of them."""

    def __init__(self, config: VitDetConfig) -> None:
        super().__init__()
        dim, self.heads, self.points, self.maps = (
            config.width,
            config.num_heads,
            config.num_points,
            len(config.scales),
        )
        count = self.heads * self.maps * self.points
        self.value, self.proj = Linear(dim, dim), Linear(dim, dim)
        self.offset, self.weight = Linear(dim, 2 * count), Linear(dim, count)

    @torch.no_grad()
    def reset(self, generator: torch.Generator | None) -> None:
        """Each head begins by looking into its own direction, its points at growing distances."""
        for linear in (self.offset, self.weight):
            nn.init.zeros_(linear.weight)
            nn.init.zeros_(linear.bias)
        angles = torch.arange(self.heads) * (2 * math.pi / self.heads)
        ways = torch.stack((angles.cos(), angles.sin()), -1)
        ways = ways / ways.abs().amax(-1, keepdim=True)
        steps = torch.arange(1, self.points + 1) / self.points
        places = ways[:, None, None] * steps[None, None, :, None]
        self.offset.bias.copy_(places.expand(-1, self.maps, -1, -1).flatten())

    def forward(self, queries: Tensor, boxes: Tensor, maps: Sequence[Tensor]) -> Tensor:
        """queries [B, Q, d], boxes [B, Q, 4], maps [B, d, h, w] each → [B, Q, d]."""
        batch, count, dim = queries.shape
        shape = (batch, count, self.heads, self.maps, self.points)
        offsets = self.offset(queries).view(*shape, 2)
        weights = self.weight(queries).view(*shape[:3], -1).softmax(-1).view(shape)
        # An offset of 1 is half of the box's side.
        centre, size = boxes[:, :, None, None, None, :2], boxes[:, :, None, None, None, 2:]
        places = 2 * (centre + 0.5 * offsets * size) - 1
        read = []
        for index, feature in enumerate(maps):
            values = self.value(feature.flatten(2).transpose(1, 2)).transpose(1, 2)
            values = values.reshape(batch * self.heads, dim // self.heads, *feature.shape[-2:])
            at = places[:, :, :, index].transpose(1, 2).reshape(batch * self.heads, count, self.points, 2)
            sampled = F.grid_sample(values, at.to(values.dtype), align_corners=False, padding_mode="zeros")
            share = weights[:, :, :, index].transpose(1, 2).reshape(batch * self.heads, 1, count, self.points)
            read.append((sampled * share).sum(-1))
        summed = torch.stack(read).sum(0).view(batch, dim, count).transpose(1, 2)
        out: Tensor = self.proj(summed)
        return out


class DecoderLayer(nn.Module):
    """Self-attention, sampled attention, MLP; the norm after each (as in DETR)."""

    def __init__(self, config: VitDetConfig) -> None:
        super().__init__()
        dim = config.width
        self.heads = config.num_heads
        self.qk, self.v, self.out = Linear(dim, 2 * dim), Linear(dim, dim), Linear(dim, dim)
        self.cross = SampledAttention(config)
        self.fc1, self.fc2 = Linear(dim, 4 * dim), Linear(4 * dim, dim)
        self.norm1, self.norm2, self.norm3 = (LayerNorm(dim, eps=1e-6) for _ in range(3))
        self.dropout = nn.Dropout(config.dropout)

    def forward(
        self, x: Tensor, place: Tensor, boxes: Tensor, maps: Sequence[Tensor], apart: Tensor | None = None
    ) -> Tensor:
        """x, place [B, Q, d]: the queries and the encoding of their boxes. apart [B, Q, Q]: which see each other; None for all."""
        q, k = self.qk(x + place).chunk(2, -1)
        q, k, v = (t.view(*t.shape[:2], self.heads, -1).transpose(1, 2) for t in (q, k, self.v(x)))
        seen = None if apart is None else apart[:, None]
        read = F.scaled_dot_product_attention(q, k, v, attn_mask=seen).transpose(1, 2).flatten(2)
        x = self.norm1(x + self.dropout(self.out(read)))
        x = self.norm2(x + self.dropout(self.cross(x + place, boxes, maps)))
        x = self.norm3(x + self.dropout(self.fc2(F.gelu(self.fc1(x)))))
        return x


class BoxHead(nn.Module):
    """Three layers; the last starts at zero, so that boxes start where they are."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.fc1, self.fc2, self.fc3 = Linear(dim, dim), Linear(dim, dim), Linear(dim, 4)

    def reset(self, generator: torch.Generator | None) -> None:
        nn.init.zeros_(self.fc3.weight)
        nn.init.zeros_(self.fc3.bias)

    def forward(self, x: Tensor) -> Tensor:
        moved: Tensor = self.fc3(F.relu(self.fc2(F.relu(self.fc1(x)))))
        return moved


def box_encoding(boxes: Tensor, dim: int) -> Tensor:
    """Sines of the four numbers of a box [..., 4] → [..., 4 · (dim // 4)], as in DAB-DETR."""
    each = dim // 4
    frequency = 20.0 ** (-torch.arange(each // 2, device=boxes.device, dtype=torch.float32) / (each / 2))
    angle = boxes.float()[..., None] * (2 * math.pi) / frequency
    # Frequencies rise from one period over the image to twenty.
    waves = torch.cat((angle.sin(), angle.cos()), -1)
    return waves.flatten(-2)


def logit(shares: Tensor, eps: float = 1e-4) -> Tensor:
    shares = shares.clamp(eps, 1 - eps)
    return (shares / (1 - shares)).log()
