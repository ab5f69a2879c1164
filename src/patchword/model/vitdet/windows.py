"""Run a ViT's blocks in windows: most blocks look only within squares of the grid, a few at everything.

Full attention costs the square of the number of patches, windows cost a multiple of it. Tokens that are no patches (class, registers) have
a copy in each window; the copies are averaged where windows join for a block that sees everything.

Source: Li et al. 2022, ViTDet (arXiv 2203.16527), section 3. There, the edge is filled up with zeros that take part; here they do not.
Shapes: B images, W windows, n tokens of a window, N tokens of an image.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from patchword.model.positions.layout import AttentionPositions, TokenLayout
from patchword.model.vit import ViT


class Windows(NamedTuple):
    """rows [W, n]: which token of the sequence is where; first those that are no patches, in each window. real [W, n]: false where
    a window juts out of the grid. places [patches]: where each patch is in [W · n]. others: tokens that are no patches."""

    rows: Tensor
    real: Tensor
    places: Tensor
    others: int


def windows(layout: TokenLayout, side: int) -> Windows:
    """Cut the grid into windows of side x side patches, the last row and column of windows as large as what is left."""
    (height, width), device = layout.grid, layout.device
    down, across = -(-height // side), -(-width // side)
    patch = torch.arange(height * width, device=device).view(height, width)
    padded = patch.new_full((down * side, across * side), -1)
    padded[:height, :width] = patch
    cut = padded.view(down, side, across, side).transpose(1, 2).reshape(down * across, side * side)
    token = torch.arange(layout.num_tokens, device=device)
    first, last = layout.num_prefix, layout.num_prefix + layout.num_patches
    others = torch.cat((token[:first], token[last:]))
    rows = torch.cat((others.expand(len(cut), -1), torch.where(cut < 0, 0, cut + first)), 1)
    real = torch.cat((cut.new_ones(len(cut), len(others), dtype=torch.bool), cut >= 0), 1)
    places = torch.empty_like(token)
    flat = torch.arange(rows.numel(), device=device).view_as(rows)
    places[rows[:, len(others) :][cut >= 0]] = flat[:, len(others) :][cut >= 0]
    return Windows(rows, real, places[first:last], len(others))


def encode(vit: ViT, images: Tensor, side: int, num_global: int) -> Tensor:
    """The tokens [B, N, D] of `vit.forward_features`, with windows of `side` patches in all but `num_global` blocks.

    Those are evenly spaced, the last block among them. An image of one window has full attention throughout.
    """
    if max(vit.layout(images).grid) <= side:
        return vit.forward_features(images)
    x, layout = vit.embed_tokens(images)
    cut, inside = windows(layout, side), False
    everywhere = global_blocks(len(vit.blocks), num_global)
    selected: dict[int, AttentionPositions] = {}
    for index, (block, place) in enumerate(zip(vit.blocks, vit.places(layout), strict=True)):
        if index in everywhere:
            x, inside = join(x, cut, layout) if inside else x, False
            x = block(x, place)
        else:
            x, inside = x if inside else split(x, cut), True
            if id(place) not in selected:
                selected[id(place)] = _within(place, cut, len(images))
            x = block(x, selected[id(place)])
    normed: Tensor = vit.norm(join(x, cut, layout) if inside else x)
    return normed


def global_blocks(depth: int, count: int) -> set[int]:
    """The last block of each of `count` equal parts."""
    return {round((part + 1) * depth / count) - 1 for part in range(count)}


def split(x: Tensor, cut: Windows) -> Tensor:
    """[B, N, D] → [B · W, n, D]"""
    return x[:, cut.rows].flatten(0, 1)


def join(x: Tensor, cut: Windows, layout: TokenLayout) -> Tensor:
    """[B · W, n, D] → [B, N, D]"""
    x = x.view(-1, *cut.rows.shape, x.shape[-1])
    others = x[:, :, : cut.others].mean(1)
    patches = x.flatten(1, 2)[:, cut.places]
    return torch.cat((others[:, : layout.num_prefix], patches, others[:, layout.num_prefix :]), 1)


def _within(place: AttentionPositions, cut: Windows, images: int) -> AttentionPositions:
    """The positions of each window of each image; what juts out of the grid is not looked at."""
    chosen = place.select(cut.rows)
    bias = chosen.bias
    if not cut.real.all():
        hidden = torch.zeros(cut.real.shape, device=cut.real.device).masked_fill(~cut.real, -torch.inf)
        hidden = hidden[:, None, None].expand(-1, -1, cut.rows.shape[1], -1)
        bias = hidden if bias is None else bias + hidden
    tables = (bias, chosen.cos, chosen.sin, chosen.added)
    many = [None if t is None else t.repeat(images, *[1] * (t.ndim - 1)) for t in tables]
    return chosen._replace(bias=many[0], cos=many[1], sin=many[2], added=many[3])
