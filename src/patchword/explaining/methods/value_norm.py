"""Attention weighted by the size of what it moves.

Source: Kobayashi et al. 2020 (arXiv 2004.10102), section 3.
"""

import torch
from torch import Tensor

from patchword.errors import SettingsError
from patchword.explaining.methods.base import Job, Maps, Method, chosen
from patchword.explaining.methods.reading import final_row, over_patches, read_rows
from patchword.model.attention import Attended, Attention
from patchword.model.norms import LayerNorm, RMSNorm
from patchword.model.vit import Block, LayerScale, ViT


def value_norm(job: Job) -> list[Maps]:
    """‖Σ_h A_h[i, j] v_h[j] W_O,h‖ for the rows i that the head reads, by block.

    The vectors of all j add up to the output of the attention, less the bias of its projection. LayerScale is included.
    """
    vit = job.vit
    record = job.recorded()
    row = final_row(read_rows(vit, job.images, record))
    found = []
    for layer in chosen(job.settings.layers, vit.config.depth, "layer", vit.config.depth - 1):
        attended = record.seen[layer]
        sizes = vector_norms(attended, moved(vit, layer, attended)) * row_scale(vit, layer, attended)
        tokens = (row[:, None, : sizes.shape[1]] @ sizes)[:, 0]
        found.append(over_patches(vit, tokens, record.layout, f"value-norm, block {layer}"))
    return found


def moved(vit: ViT, layer: int, attended: Attended) -> Tensor:
    """v_h[j] W_O,h for every head h and token j: [B, N, H, D], after LayerScale.

    Raises: SettingsError for a norm over the joined heads, which makes the vectors depend on the row that asks.
    """
    block = vit.blocks[layer]
    assert isinstance(block, Block)
    attention = block.attention
    weight = attention.proj.weight
    if isinstance(block.scale1, LayerScale):
        weight = weight * block.scale1.weight[:, None]
    per_head = weight.view(len(weight), attention.num_heads, attention.head_dim)  # [D, H, d]
    if isinstance(attention.out_norm, LayerNorm | RMSNorm):
        per_head = _through_norm(attention, per_head)
    elif attention.out_norm.__class__ is not torch.nn.Identity:
        raise SettingsError(
            "value-norm is not defined for attention.out_norm with this norm, which mixes tokens",
            "use rollout or relevance",
        )
    return torch.einsum("bhjd,chd->bjhc", attended.values.to(per_head.dtype), per_head)


def _through_norm(attention: Attention, per_head: Tensor) -> Tensor:
    """The norm's centring and weight folded into the projection; its division, row by row, is `row_scale`."""
    norm = attention.out_norm
    joined = per_head.flatten(1)
    if norm.weight is not None:
        joined = joined * norm.weight  # type: ignore[operator]
    if isinstance(norm, LayerNorm):
        joined = joined - joined.mean(1, keepdim=True)
    return joined.view_as(per_head)


def row_scale(vit: ViT, layer: int, attended: Attended) -> Tensor:
    """1 over the deviation by which a norm over the joined heads divides each row: [B, n, 1]; 1 without such a norm."""
    norm = vit.blocks[layer].attention.out_norm  # type: ignore[union-attr]
    heads = attended.heads
    if not isinstance(norm, LayerNorm | RMSNorm):
        return heads.new_ones(1)
    centred = heads - heads.mean(2, keepdim=True) if isinstance(norm, LayerNorm) else heads
    eps = norm.eps or torch.finfo(heads.dtype).eps
    return (centred.square().mean(2, keepdim=True) + eps).rsqrt()


def vector_norms(attended: Attended, vectors: Tensor) -> Tensor:
    """‖Σ_h A_h[i, j] u_h[j]‖: [B, n, N]; vectors u [B, N, H, D].

    By the products of the heads' vectors, so that no [n, N, D] is made: ‖Σ_h a_h u_h‖² = Σ_hk a_h a_k u_h·u_k.
    """
    weights = attended.weights()
    products = vectors @ vectors.transpose(2, 3)  # [B, N, H, H]
    mixed = torch.einsum("bkij,bjhk->bhij", weights, products.to(weights.dtype))
    return (weights * mixed).sum(1).clamp(min=0).sqrt()


METHOD = Method(
    name="value-norm",
    title="attention weighted by the size of what it moves",
    class_aware=False,
    run=value_norm,
    passes=lambda config, settings: 1,
    uses=frozenset({"layers"}),
)
