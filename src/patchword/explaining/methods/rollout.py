"""Attention rollout: attention of all blocks multiplied, with the residual connection.

Source: Abnar & Zuidema 2020 (arXiv 2005.00928); fusing by maximum or minimum and discarding small weights are
jacobgil/vit-explain's.
"""

from typing import assert_never

import torch
from torch import Tensor

from patchword.explaining.methods.base import Job, Maps, Method, chosen
from patchword.explaining.methods.reading import over_patches, read_rows
from patchword.explaining.settings import Fuse


def rollout(job: Job) -> list[Maps]:
    """R = Â_L … Â_1 with Â = rows of (fused heads + I), each normalised; the row that the head reads.

    That row is propagated from the last block to the first, so no product of matrices is needed. It sums to 1.
    """
    vit, settings = job.vit, job.settings
    record = job.recorded()
    rows = read_rows(vit, job.images, record)
    (start,) = chosen((settings.start,), vit.config.depth, "layer", 0)
    places = vit.places(record.layout)
    row = torch.zeros_like(rows[max(rows)])
    for block in reversed(range(start, vit.config.depth)):
        row = row + rows[block] if block in rows else row
        if settings.discard and record.seen[block].queries.shape[2] < record.layout.num_tokens:
            # The smallest weights are found in the whole matrix, of which the last block computes some rows only.
            attention = vit.blocks[block].attention
            weights = attention.weights(record.seen[block].tokens, places[block])  # type: ignore[union-attr,operator]
        else:
            weights = record.seen[block].weights()
        row = step(row, discarded(fused(weights, settings.fuse), settings.discard))
    return [over_patches(vit, row, record.layout, "rollout")]


def fused(weights: Tensor, fuse: Fuse) -> Tensor:
    """[B, H, n, N] → [B, n, N]"""
    match fuse:
        case "mean":
            return weights.mean(1)
        case "max":
            return weights.amax(1)
        case "min":
            return weights.amin(1)
        case _:
            assert_never(fuse)


def discarded(matrix: Tensor, share: float) -> Tensor:
    """Set the smallest `share` of the entries of each image's matrix [B, n, N] to zero."""
    flat = matrix.flatten(1)
    count = int(flat.shape[1] * share)
    if not count:
        return matrix
    smallest = flat.topk(count, dim=1, largest=False, sorted=False).indices
    return flat.scatter(1, smallest, 0).view_as(matrix)


def step(row: Tensor, matrix: Tensor) -> Tensor:
    """row [B, N] times the normalised (matrix [B, n, N] + I). Rows beyond n must have a weight of zero."""
    n = matrix.shape[1]
    # The identity adds 1 to the sum of each row.
    weighted = row[:, :n] / (matrix.sum(2) + 1)
    moved = (weighted[:, None] @ matrix)[:, 0]
    return torch.cat((weighted, row[:, n:]), 1) + moved


METHOD = Method(
    name="rollout",
    title="attention of all blocks multiplied, with the residual",
    class_aware=False,
    run=rollout,
    passes=lambda config, settings: 1,
    uses=frozenset({"fuse", "discard", "start"}),
)
