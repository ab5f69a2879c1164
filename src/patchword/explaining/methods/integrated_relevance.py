"""Relevance with the gradient averaged on the way from a baseline to the image.

Where the model is sure, more attention to what decided changes nothing: layer norm takes the length away, and the gradient is
near zero or negative there. On the way, the model is not sure yet.
Sources: Chefer et al. 2021 (arXiv 2103.15679), equations 5 and 6; the average of Sundararajan et al. 2017 (arXiv 1703.01365),
equation 3, taken of dy/dA.
"""

import torch
from torch import Tensor

from patchword.explaining.methods.base import Job, Maps, Method, targets
from patchword.explaining.methods.integrated_gradients import quadrature, start_of
from patchword.explaining.methods.patches import images_at_once
from patchword.explaining.methods.record import Record, attention_gradient, recorded, with_gradients
from patchword.explaining.methods.relevance import blocks_of, positive, propagated


def integrated_relevance(job: Job) -> list[Maps]:
    """R ← R + mean over heads of (∫ dy/dA(x' + t (x − x')) dt ⊙ A(x))⁺ R; the row that the head reads.

    x' is the fill, as for integrated gradients; A is the attention on the image itself.
    """
    start = start_of(job)
    with torch.no_grad():
        record = recorded(job.vit, job.images)
    grads = [_mean_gradients(job, index, start[index]) for index in range(len(start))]
    steps = {
        block: positive(record.seen[block], torch.cat([one[block] for one in grads]))
        for block in blocks_of(job)
    }
    return propagated(job, record, steps, "integrated-relevance")


def _mean_gradients(job: Job, index: int, start: Tensor) -> dict[int, Tensor]:
    """dy/dA [1, H, n, N] of each block, averaged on the way to one image."""
    vit, image, blocks = job.vit, job.images[index], blocks_of(job)
    places, shares = quadrature(job.settings.steps, image)
    at_once = images_at_once(vit, image[None], gradients=True)
    total: dict[int, Tensor] = {}

    def heads(record: Record) -> list[Tensor]:
        return [record.seen[block].heads for block in blocks]

    for at, share in zip(torch.split(places, at_once), torch.split(shares, at_once), strict=True):
        points = start + at[:, None, None, None] * (image - start)
        record, grads = with_gradients(vit, points, targets(job)[index].expand(len(points)), heads)
        for block, grad in zip(blocks, grads, strict=True):
            found = attention_gradient(record.seen[block], grad)
            mean = (share.to(found.dtype)[:, None, None, None] * found).sum(0, keepdim=True)
            total[block] = total[block] + mean if block in total else mean
    return total


METHOD = Method(
    name="integrated-relevance",
    title="relevance, its gradient averaged from a baseline to the image",
    class_aware=True,
    run=integrated_relevance,
    passes=lambda config, settings: 1 + 3 * settings.steps,
    uses=frozenset({"start", "steps", "fill"}),
)
