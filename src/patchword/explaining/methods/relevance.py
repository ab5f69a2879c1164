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


def relevance(job: Job) -> list[Maps]:
    """R ← R + mean over heads of (dy/dA ⊙ A)⁺ R from block `start` on; the row that the head reads.

    y is the logit of the class. Rows are not normalised. An attention pool comes last, by the same rule; it has no
    residual connection.
    """
    blocks = blocks_of(job)
    record, grads = with_gradients(
        job.vit, job.images, targets(job), lambda record: [record.seen[block].heads for block in blocks]
    )
    steps = {
        block: positive(record.seen[block], attention_gradient(record.seen[block], grad))
        for block, grad in zip(blocks, grads, strict=True)
    }
    return propagated(job, record, steps, "relevance")


def blocks_of(job: Job) -> list[int]:
    """The blocks from `start` on, then the attention pool, if there is one."""
    depth = job.vit.config.depth
    (start,) = chosen((job.settings.start,), depth, "layer", 0)
    pool = [depth] if isinstance(job.vit.config.head.pool, AttentionPool) else []
    return [*range(start, depth), *pool]


def positive(attended: Attended, grad: Tensor) -> Tensor:
    """mean over heads of (dy/dA ⊙ A)⁺: [B, n, N]. grad: dy/dA [B, H, n, N]."""
    return (grad * attended.weights()).clamp(min=0).mean(1)


def propagated(job: Job, record: Record, steps: dict[int, Tensor], label: str) -> list[Maps]:
    """The row that the head reads of the product of (1 + step) over the blocks, last block first."""
    vit, depth = job.vit, job.vit.config.depth
    rows = read_rows(vit, job.images, record, steps[depth][:, 0] if depth in steps else None)
    row = torch.zeros_like(rows[max(rows)])
    for block in sorted((block for block in steps if block < depth), reverse=True):
        row = row + rows[block] if block in rows else row
        step = steps[block]
        row = row + (row[:, None, : step.shape[1]] @ step)[:, 0]
    return [over_patches(vit, row, record.layout, label)]


METHOD = Method(
    name="relevance",
    title="attention times gradient, propagated",
    class_aware=True,
    run=relevance,
    passes=lambda config, settings: 3,
    uses=frozenset({"start"}),
)
