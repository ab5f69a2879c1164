"""Resample a patch kernel to another patch size, so that a resized patch gives the same token.

Let B be the matrix that resizes a patch. The kernel w' that minimises the difference between
(B x)ᵀ w' and xᵀ w over all patches x is pinv(Bᵀ) w. Source: FlexiViT, Beyer et al. 2023 (arXiv 2212.08013), section 3.4.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from patchword.model.kinds import Resample, Size


def resample_kernel(weight: Tensor, size: Size, rule: Resample) -> Tensor:
    """Resample weight [D, C, h, w] to [D, C, rows, columns]; return it unchanged if the size is the same.

    rule: the resize that patches are assumed to undergo. Computed in float64, because the pseudo-inverse
    of a resize that shrinks one side and stretches the other is badly conditioned.
    """
    if tuple(weight.shape[2:]) == size:
        return weight
    # Resizing is separable: one matrix per axis. So is its pseudo-inverse.
    down, across = (
        torch.linalg.pinv(_resize_matrix(old, new, rule).T)
        for old, new in zip(weight.shape[2:], size, strict=True)
    )
    resampled: Tensor = down @ weight.double() @ across.T
    return resampled.to(weight.dtype)


def _resize_matrix(old: int, new: int, rule: Resample) -> Tensor:
    """The matrix [new, old] that resizes a row of `old` values."""
    # One image whose columns are the unit vectors. A batch of one-column images would be wrong with antialias
    # in torch 2.15.
    units = torch.eye(old, dtype=torch.float64)[None, None]
    resized = F.interpolate(
        units,
        size=(new, old),
        mode=rule.interpolation,
        antialias=rule.antialias,
        align_corners=None if rule.interpolation == "nearest" else rule.align_corners,
    )
    return resized[0, 0]
