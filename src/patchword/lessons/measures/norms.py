"""Which axes each norm averages over, and what an image's output then depends on.

Shapes: tokens [B, N, D] of B images. Sources: see `model/norms.py`.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from patchword.model.kinds import (
    BatchNormConfig,
    GroupNormConfig,
    InstanceNormConfig,
    LayerNormConfig,
    Norm,
    RMSNormConfig,
)
from patchword.model.norms import make_norm


@dataclass(frozen=True, kw_only=True)
class NormFacts:
    """What one norm does, in training.

    by_token, by_channel, by_image: the mean of one token over D; of one channel over B and N; of one channel of one image
        over N: the largest absolute value after the norm. Where it is zero, the norm averages over (at least) those axes.
    deviation: of all values, after the norm.
    mates: the largest change of image 1's output when the other images of the batch are replaced.
    padding: the largest change of image 1's output when a quarter of as many zero tokens are appended to each image.
    """

    by_token: float
    by_channel: float
    by_image: float
    deviation: float
    mates: float
    padding: float


def norms_of(dim: int) -> Mapping[str, Norm]:
    """Name → config, each with its defaults; the groups of group norm have at least four channels, if possible."""
    groups = next(count for count in (32, 16, 8, 4, 2, 1) if dim % count == 0 and dim // count >= min(4, dim))
    return {
        "layer": LayerNormConfig(),
        "rms": RMSNormConfig(),
        "batch": BatchNormConfig(),
        "group": GroupNormConfig(num_groups=groups),
        "instance": InstanceNormConfig(),
    }


@torch.no_grad()
def norm_facts(norm: Norm, tokens: Tensor, others: Tensor) -> NormFacts:
    """Measure a new norm on tokens [B, N, D]. others [B - 1, N, D]: the images that replace all but the first."""
    module = make_norm(norm, tokens.shape[-1]).to(tokens).train()
    out = module(tokens)
    swapped = module(torch.cat((tokens[:1], others)))
    zeros = tokens.new_zeros(len(tokens), max(tokens.shape[1] // 4, 1), tokens.shape[2])
    padded = module(torch.cat((tokens, zeros), dim=1))[:, : tokens.shape[1]]
    return NormFacts(
        by_token=float(out.mean(dim=2).abs().max()),
        by_channel=float(out.mean(dim=(0, 1)).abs().max()),
        by_image=float(out.mean(dim=1).abs().max()),
        deviation=float(out.std(correction=0)),
        mates=float((out[0] - swapped[0]).abs().max()),
        padding=float((out[0] - padded[0]).abs().max()),
    )
