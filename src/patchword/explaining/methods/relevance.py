"""Generic relevance: attention times its gradient, propagated through all blocks.

Source: Chefer et al. 2021, "Generic Attention-model Explainability" (arXiv 2103.15679), equations 5 and 6.
"""

import torch
from torch import Tensor

from patchword.explaining.methods.base import Job, Maps, Method, chosen, targets
from patchword.explaining.methods.reading import over_patches, read_rows
from patchword.explaining.methods.record import Record, attention_gradient, with_gradients
from patchword.model.attention import Attended
from patchword.model.kinds import AttentionPool
from patchword.model.vit import ViT


def relevance(job: Job) -> list[Maps]:
    """R ← R + mean over heads of (dy/dA ⊙ A)⁺ R from block `start` on; the row that the head reads.

    y is the logit of the class. Rows are not normalised. An attention pool comes last, by the same rule; it has no
    residual connection.
    """
    vit, (start,) = job.vit, chosen((job.settings.start,), job.vit.config.depth, "layer", 0)
    blocks = [*range(start, vit.config.depth)]
    if isinstance(vit.config.head.pool, AttentionPool):
        blocks.append(vit.config.depth)

    def heads(record: Record) -> list[Tensor]:
        return [record.seen[block].heads for block in blocks]

    record, grads = with_gradients(vit, job.images, targets(job), heads)
    by_block = dict(zip(blocks, grads, strict=True))
    rows = _rows(vit, job.images, record, by_block)
    row = torch.zeros_like(rows[max(rows)])
    for block in reversed(range(start, vit.config.depth)):
        row = row + rows[block] if block in rows else row
        step = _positive(record.seen[block], by_block[block])
        row = row + (row[:, None, : step.shape[1]] @ step)[:, 0]
    return [over_patches(vit, row, record.layout, "relevance")]


def _positive(attended: Attended, grad: Tensor) -> Tensor:
    """mean over heads of (dy/dA ⊙ A)⁺: [B, n, N]"""
    return (attention_gradient(attended, grad) * attended.weights()).clamp(min=0).mean(1)


def _rows(vit: ViT, images: Tensor, record: Record, grads: dict[int, Tensor]) -> dict[int, Tensor]:
    pool = vit.config.depth
    own = _positive(record.seen[pool], grads[pool])[:, 0] if pool in grads else None
    return read_rows(vit, images, record, own)


METHOD = Method(
    name="relevance",
    title="attention times gradient, propagated",
    class_aware=True,
    run=relevance,
    passes=lambda config, settings: 3,
    uses=frozenset({"start"}),
)
