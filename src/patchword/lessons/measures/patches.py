"""The patch embedding: a convolution that is a linear layer, and what its filters look like.

Source: Dosovitskiy et al. 2021 (arXiv 2010.11929), section 3.1 and figure 7 (left).
"""

from typing import NamedTuple

import torch
from torch import Tensor

from patchword.lessons.measures.order import whole_patches
from patchword.model.linear import linear
from patchword.model.vit import ViT, cut_patches


@torch.no_grad()
def convolution_and_linear(vit: ViT, images: Tensor) -> tuple[Tensor, Tensor]:
    """The same patches of images [B, C, H, W] projected in two ways, both [B, N, D], before any norm.

    First the convolution whose stride is its kernel; then the patches cut out, flattened and multiplied by a matrix.
    """
    proj = vit.patch_embed.proj
    features = vit.patch_embed.stem(images)
    features = whole_patches(features, vit.config.patch.size)
    convolved = proj(features).flatten(2).transpose(1, 2)
    multiplied = linear(cut_patches(features, vit.config.patch.size), proj.weight.flatten(1), proj.bias)
    return convolved, multiplied


def largest_difference(pair: tuple[Tensor, Tensor]) -> float:
    """max |a - b| / max |a|"""
    first, second = pair
    return float((first - second).abs().max() / first.abs().max())


class Filters(NamedTuple):
    """components [k, C, rows, columns], each of length 1, and the share of the variance of each [k], largest first."""

    components: Tensor
    shares: Tensor


@torch.no_grad()
def principal_filters(vit: ViT) -> Filters:
    """Principal components of the D filters of the patch embedding, [D, C, rows, columns], their mean taken off."""
    weight = vit.patch_embed.proj.weight.detach().double().cpu()
    flat = weight.flatten(1)
    _, lengths, directions = torch.linalg.svd(flat - flat.mean(dim=0), full_matrices=False)
    shares = lengths.square() / lengths.square().sum()
    return Filters(directions.reshape(-1, *weight.shape[1:]), shares)
