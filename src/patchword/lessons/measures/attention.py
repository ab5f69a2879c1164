"""Attention, by hand and as distances.

Shapes: B images, H heads, N tokens, d channels of a head, h x w grid of patches.
Sources: Vaswani et al. 2017 (arXiv 1706.03762), section 3.2; Dosovitskiy et al. 2021 (arXiv 2010.11929), figure 11;
Raghu et al. 2021 (arXiv 2108.08810), section 4.
"""

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from patchword.model.positions.layout import AttentionPositions, Grid
from patchword.model.vit import Block, ViT


class Entering(NamedTuple):
    """A block, and the tokens [B, N, D] and positions that enter it."""

    layer: int
    block: Block
    tokens: Tensor
    place: AttentionPositions


@torch.no_grad()
def entering(vit: ViT, images: Tensor) -> Iterator[Entering]:
    """Each block with what enters it, one at a time, so that the attention of one block alone is in memory."""
    x, layout = vit.embed_tokens(images)
    for index, (block, place) in enumerate(zip(vit.blocks, vit.places(layout), strict=True)):
        assert isinstance(block, Block)
        yield Entering(index, block, x, place)
        with torch.no_grad():
            x = block(x, place)


@dataclass(frozen=True, kw_only=True)
class Head:
    """One head's attention for one token (the query), in float64.

    q [d], keys [N, d]; scores [N] = q · k / sqrt(d) + bias; weights [N] = softmax(scores); unscaled [N]: the softmax without
    1 / sqrt(d). difference: of the weights from those that the model computes, at most.
    """

    q: Tensor
    keys: Tensor
    scores: Tensor
    weights: Tensor
    unscaled: Tensor
    difference: float


@torch.no_grad()
def head_by_hand(vit: ViT, images: Tensor, layer: int, head: int, token: int) -> Head:
    """Written out from the weights, for the first image. token: an index in the sequence (prefix tokens come first)."""
    _, block, tokens, place = next(one for one in entering(vit, images[:1]) if one.layer == layer)
    attention, dim = block.attention, block.attention.head_dim
    x = place.enter(tokens)
    normed = (block.norm1(x) if block.order == "pre" else x).double()
    first, bias = head * dim, _bias(vit, layer)
    vectors = []
    # Norms of heads and rotations, if the model has them, are its own.
    for start, norm in ((first, attention.q_norm), (attention.width + first, attention.k_norm)):
        rows = slice(start, start + dim)
        flat = normed @ attention.qkv.weight[rows].double().T + (0 if bias is None else bias[rows])
        vectors.append(_turned(place, copy.deepcopy(norm).double()(flat), head))
    q, k = vectors
    products = k[0] @ q[0, token]
    extra = (
        torch.zeros_like(products)
        if place.bias is None
        else place.bias[..., head, token, :].double().reshape(-1)
    )
    scores = products * dim**-0.5 + extra
    weights = scores.softmax(dim=0)
    reference = block.attention_weights(tokens, place)[0, head, token]
    return Head(
        q=q[0, token],
        keys=k[0],
        scores=scores,
        weights=weights,
        unscaled=(products + extra).softmax(dim=0),
        difference=float((weights - reference.double()).abs().max()),
    )


def _bias(vit: ViT, layer: int) -> Tensor | None:
    """[2 H d]: the biases of queries and keys; with bias "qv" keys have none."""
    block = vit.blocks[layer]
    assert isinstance(block, Block)
    attention = block.attention
    if attention.q_bias is not None:
        return torch.cat((attention.q_bias, torch.zeros_like(attention.q_bias))).double()
    return None if attention.qkv.bias is None else attention.qkv.bias[: 2 * attention.width].double()


def _turned(place: AttentionPositions, x: Tensor, head: int) -> Tensor:
    """Rotate x [1, N, d] of one head."""
    if place.cos is None or place.sin is None:
        return x
    cos, sin = (t[head] if t.ndim == 3 else t for t in (place.cos, place.sin))
    turned: Tensor = place._replace(cos=cos.double(), sin=sin.double()).turn(x)
    return turned


def entropy(weights: Tensor) -> Tensor:
    """Of weights [..., N] that sum to 1, in bits: 0 if one token has it all, log2 N if all have the same."""
    bits: Tensor = torch.special.entr(weights).sum(dim=-1) / torch.log(torch.tensor(2.0, dtype=weights.dtype))
    return bits


def distances(grid: Grid, span: tuple[int, int]) -> Tensor:
    """Distances between the centres of patches in pixels: [N, N] for N = h · w. span: height and width of a patch."""
    rows, columns = torch.meshgrid(
        torch.arange(grid[0], dtype=torch.float64) * span[0],
        torch.arange(grid[1], dtype=torch.float64) * span[1],
        indexing="ij",
    )
    centres = torch.stack((rows.flatten(), columns.flatten()), dim=1)
    return torch.cdist(centres, centres, compute_mode="donot_use_mm_for_euclid_dist")


def mean_distance(weights: Tensor, grid: Grid, span: tuple[int, int]) -> Tensor:
    """Mean distance in pixels over which patches attend: weights [..., N, N] of patches alone → [...].

    Rows are scaled to sum to 1, so attention to other tokens does not count.
    """
    weights = weights.double()
    shares = weights / weights.sum(dim=-1, keepdim=True)
    return (shares * distances(grid, span)).sum(dim=-1).mean(dim=-1)


def uniform_distance(grid: Grid, span: tuple[int, int]) -> float:
    """`mean_distance` of a head that attends to all patches alike: the mean over all pairs."""
    return float(distances(grid, span).mean())


@dataclass(frozen=True, kw_only=True)
class Heads:
    """Of each block and head, [L, H], mean over images: distance in pixels, entropy in bits, and the share of the patches'
    attention that goes to prefix and other tokens that are not patches."""

    distance: Tensor
    entropy: Tensor
    elsewhere: Tensor


@torch.no_grad()
def all_heads(vit: ViT, images: Tensor) -> Heads:
    """Measure all heads on images [B, C, H, W]."""
    layout = vit.layout(images)
    patches = slice(layout.num_prefix, layout.num_prefix + layout.num_patches)
    found: dict[str, list[Tensor]] = {"distance": [], "entropy": [], "elsewhere": []}
    for one in entering(vit, images):
        rows = one.block.attention_weights(one.tokens, one.place)[:, :, patches].double()
        inner = rows[..., patches]
        found["distance"].append(mean_distance(inner, layout.grid, vit.config.patch_span).mean(dim=0))
        found["entropy"].append(entropy(rows).mean(dim=(0, 2)))
        found["elsewhere"].append(1 - inner.sum(dim=-1).mean(dim=(0, 2)))
    return Heads(**{name: torch.stack(values) for name, values in found.items()})
