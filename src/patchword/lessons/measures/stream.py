"""The residual stream: what each block adds, and what the head would answer after it.

Shapes: images [B, C, H, W], N tokens, L blocks. Sources: Raghu et al. 2021 (arXiv 2108.08810), section 5 and figure 7, for the
norms; the "logit lens" (nostalgebraist 2020) for the reading.
"""

import itertools
from dataclasses import dataclass

import torch
from torch import Tensor

from patchword.lessons.measures.attention import entering
from patchword.model.positions.layout import TokenLayout
from patchword.model.vit import ViT


@dataclass(frozen=True, kw_only=True)
class Stream:
    """Mean lengths over images and tokens, one value per block: of the tokens that enter it, and of what it adds."""

    entering: list[float]
    added: list[float]


@torch.no_grad()
def stream(vit: ViT, images: Tensor) -> Stream:
    blocks = [one.tokens for one in entering(vit, images)]
    blocks.append(vit.encode(images, [vit.config.depth - 1], normed=False)[vit.config.depth - 1])
    return Stream(
        entering=[float(x.norm(dim=-1).mean()) for x in blocks[:-1]],
        added=[float((after - before).norm(dim=-1).mean()) for before, after in itertools.pairwise(blocks)],
    )


@torch.no_grad()
def read_after_each_block(vit: ViT, images: Tensor) -> Tensor:
    """Class probabilities [L, B, classes] if the head read the tokens after each block; the last are the model's own.

    Raises: ValueError for a model without classes.
    """
    layout = vit.layout(images)
    after = vit.encode(images)
    return torch.stack(
        [_read(vit, after[index], layout).softmax(dim=-1) for index in range(vit.config.depth)]
    )


def _read(vit: ViT, tokens: Tensor, layout: TokenLayout) -> Tensor:
    if vit.head is None:
        raise ValueError("a model without classes answers nothing")
    embedding = vit.pooled([tokens] * len(vit.config.head.pool.layers(vit.config.depth)), layout)
    if vit.pre_logits is not None:
        embedding = vit.pre_logits(embedding).tanh()
    if vit.projection is not None:
        embedding = vit.projection(embedding)
    logits: Tensor = vit.head(embedding)
    if vit.head_distillation is not None:
        logits = (logits + vit.head_distillation(tokens[:, 1])) / 2
    return logits
