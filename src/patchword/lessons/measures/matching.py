"""The matching of DETR in small numbers, and where a query looks.

Source: Carion et al. 2020 (arXiv 2005.12872), section 3.1 and figure 6.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from patchword.model.detection import DetectionOutput
from patchword.model.detr.model import DETR
from patchword.model.detr.transformer import DecoderLayer
from patchword.model.matching import Targets, match, matching_costs
from patchword.model.set_loss_config import SetLossConfig


class Assignment(NamedTuple):
    """Queries for the T objects of one image.

    costs [Q, T]: of every query for every object. queries [T]: the query of each object in the cheapest one-to-one
    assignment. total: the sum of their costs.
    """

    costs: Tensor
    queries: Tensor
    total: float


def assignment(output: DetectionOutput, targets: Targets, config: SetLossConfig | None = None) -> Assignment:
    """For the first image of the batch and the last layer."""
    last = DetectionOutput(output.logits[-1:], output.boxes[-1:])
    count = targets.counts[0]
    costs = matching_costs(last, targets, config or SetLossConfig())[0, 0, :, :count]
    found = match(last, targets, config)
    mine = found.image[0] == 0
    queries = torch.empty(count, dtype=torch.long)
    queries[found.target[0][mine]] = found.query[0][mine]
    return Assignment(costs, queries, float(costs[queries, torch.arange(count)].sum()))


@torch.no_grad()
def cross_attention(detr: DETR, images: Tensor) -> Tensor:
    """Where the queries of the last decoder layer look: images [B, C, H, W] → [B, Q, h, w], mean over heads; sums to 1."""
    layer = detr.decoder.layers[-1]
    assert isinstance(layer, DecoderLayer)
    attention = layer.cross_attention
    kept: list[tuple[Tensor, ...]] = []

    def keep(_: torch.nn.Module, arguments: tuple[Tensor, ...]) -> None:
        kept.append(arguments)

    hook = attention.register_forward_pre_hook(keep)
    try:
        detr(images)
    finally:
        hook.remove()
    queries, keys = kept[-1][:2]
    shape = (len(images), -1, attention.num_heads, attention.dim // attention.num_heads)
    weight, bias, dim = attention.qkv.weight, attention.qkv.bias, attention.dim
    q = (queries @ weight[:dim].T + bias[:dim]).reshape(shape).transpose(1, 2)
    k = (keys @ weight[dim : 2 * dim].T + bias[dim : 2 * dim]).reshape(shape).transpose(1, 2)
    weights: Tensor = (q @ k.mT * shape[-1] ** -0.5).softmax(dim=-1).mean(dim=1)
    return weights.reshape(
        len(images), weights.shape[1], *detr.config.trunk.grid_of((images.shape[2], images.shape[3]))
    )
