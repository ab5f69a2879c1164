"""What the head reads: which tokens, after which block, and how much of each."""

import torch
from torch import Tensor

from patchword.explaining.methods.base import Maps
from patchword.explaining.methods.record import Record
from patchword.model.kinds import (
    AttentionPool,
    ClassPool,
    FirstPool,
    JoinedPool,
    MaxPool,
    MeanPool,
    PrefixPool,
)
from patchword.model.positions.layout import TokenLayout
from patchword.model.vit import ViT


def read_rows(
    vit: ViT, images: Tensor, record: Record, pool_weights: Tensor | None = None
) -> dict[int, Tensor]:
    """{block: [B, N]}: how much the head reads of each token after that block. All blocks together sum to 1.

    The class token alone is read with 1, the mean of n tokens with 1/n each; a maximum reads a token by the share
    of channels that are largest there; an attention pool by its weights, mean over heads, or by `pool_weights` [B, n]
    of the tokens it selects.
    """
    layout, last = record.layout, vit.config.depth - 1
    rows = record.answer.new_zeros(len(images), layout.num_tokens)
    rows = rows.to(torch.promote_types(rows.dtype, torch.float32))
    match vit.config.head.pool:
        case ClassPool() | FirstPool():
            rows[:, : 2 if vit.config.head.distilled else 1] = 0.5 if vit.config.head.distilled else 1.0
            return {last: rows}
        case MeanPool(over=over):
            selected = _selected(layout, over)
            rows[:, selected] = 1 / (selected.stop - selected.start)
            return {last: rows}
        case MaxPool(over=over):
            selected = _selected(layout, over)
            tokens = vit.encode(images, [last])[last][:, selected]
            winners = tokens.argmax(dim=1)  # [B, D]
            ones = torch.full_like(winners, 1 / winners.shape[1], dtype=rows.dtype)
            rows[:, selected] = rows[:, selected].scatter_add(1, winners, ones)
            return {last: rows}
        case AttentionPool(over=over):
            weights = record.seen[vit.config.depth].weights().mean(1)[:, 0]
            rows[:, _selected(layout, over)] = weights if pool_weights is None else pool_weights
            return {last: rows}
        case PrefixPool(tokens=places):
            for place in places:
                rows[:, place] += 1 / len(places)
            return {last: rows}
        case JoinedPool() as pool:
            return _joined(pool, rows, layout, vit.config.depth)


def _joined(pool: JoinedPool, rows: Tensor, layout: TokenLayout, depth: int) -> dict[int, Tensor]:
    """Every joined part counts the same."""
    share = 1 / (pool.class_layers + pool.mean)
    found = {}
    for layer in pool.layers(depth):
        found[layer] = rows.clone()
        found[layer][:, 0] = share
    if pool.mean:
        found[depth - 1][:, _selected(layout, "patches")] += share / layout.num_patches
    return found


def _selected(layout: TokenLayout, over: str) -> slice:
    if over == "all":
        return slice(0, layout.num_tokens)
    if over == "prefix":
        return slice(0, layout.num_prefix)
    return slice(layout.num_prefix, layout.num_prefix + layout.num_patches)


def final_row(rows: dict[int, Tensor]) -> Tensor:
    """What is read after the last block alone, as shares that sum to 1: [B, N]."""
    row = rows[max(rows)]
    return row / row.sum(1, keepdim=True)


def over_patches(vit: ViT, tokens: Tensor, layout: TokenLayout, label: str, *, shares: bool = True) -> Maps:
    """A value of every token [B, N] as a map of the patches, with the shares of the other tokens by name."""
    parts = vit.split(tokens[..., None], layout)
    values = parts.pop("patches")[..., 0]
    total = tokens.abs().sum(1).clamp(min=torch.finfo(tokens.dtype).tiny)
    elsewhere = {name: part.abs().sum((1, 2)) / total for name, part in parts.items()} if shares else {}
    return Maps(label=label, values=values, elsewhere=elsewhere)
