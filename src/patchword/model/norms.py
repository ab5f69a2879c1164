"""All norms, selected by one option. Each works on tokens [B, N, D] or pooled vectors [B, D].

The first line of each docstring says what it averages over. All but RMSNorm subtract the mean.
"""

from typing import assert_never

import torch
from torch import Tensor, nn

from patchword.model.kinds import (
    BatchNormConfig,
    GroupNormConfig,
    InstanceNormConfig,
    LayerNormConfig,
    Norm,
    RMSNormConfig,
)


class LayerNorm(nn.LayerNorm):
    """Over the D channels of one token; nothing is shared between tokens or images.

    Source: Ba et al. 2016 (arXiv 1607.06450).
    """


class RMSNorm(nn.RMSNorm):
    """Mean square over the D channels of one token, without subtracting the mean.

    Source: Zhang & Sennrich 2019 (arXiv 1910.07467).
    """


class BatchNorm(nn.BatchNorm1d):
    """Over batch and tokens, one channel at a time; in eval mode, the running mean and variance.

    A training batch needs more than one value per channel.
    Source: Ioffe & Szegedy 2015 (arXiv 1502.03167).
    """

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.flatten(0, -2)).view(x.shape)


class GroupNorm(nn.GroupNorm):
    """Over all tokens and the channels of one group, one image at a time.

    Source: Wu & He 2018 (arXiv 1803.08494); tokens take the place of the spatial axes.
    """

    def forward(self, x: Tensor) -> Tensor:
        if x.ndim == 2:
            return self._normed(x)
        return self._normed(x.transpose(1, 2)).transpose(1, 2)

    def _normed(self, x: Tensor) -> Tensor:
        # nn.GroupNorm.forward refuses groups of a single value, but only in a batch of one.
        return torch.group_norm(x, self.num_groups, self.weight, self.bias, self.eps)


class InstanceNorm(nn.Module):
    """Over the tokens of one image, one channel at a time.

    Source: Ulyanov et al. 2016 (arXiv 1607.08022); tokens take the place of the spatial axes.
    """

    def __init__(self, dim: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))
        self.bias = nn.Parameter(torch.zeros(dim))
        self.eps = eps

    def reset(self, generator: torch.Generator | None) -> None:
        nn.init.ones_(self.weight)
        nn.init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        # An instance is a group of one channel; F.instance_norm refuses an image of one token.
        channels = len(self.weight)
        return torch.group_norm(x.transpose(1, 2), channels, self.weight, self.bias, self.eps).transpose(1, 2)


def make_norm(config: Norm, dim: int) -> nn.Module:
    """Build the norm for `dim` channels."""
    match config:
        case LayerNormConfig():
            return LayerNorm(dim, eps=config.eps, bias=config.bias)
        case RMSNormConfig():
            return RMSNorm(dim, eps=config.eps)
        case BatchNormConfig():
            return BatchNorm(dim, eps=config.eps, momentum=config.momentum)
        case GroupNormConfig():
            return GroupNorm(config.num_groups, dim, eps=config.eps)
        case InstanceNormConfig():
            return InstanceNorm(dim, config.eps)
        case _:
            assert_never(config)
