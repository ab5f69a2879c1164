"""A patch kernel for another size of patch, so that a resized patch gives the same token.

With B the matrix that resizes a patch, the kernel w' that minimises the difference of (B x)ᵀ w' and xᵀ w
over all patches x is pinv(Bᵀ) w. Source: FlexiViT, Beyer et al. 2023 (arXiv 2212.08013), section 3.4.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from patchword.model.kinds import Resample, Size


def resample_kernel(weight: Tensor, size: Size, rule: Resample) -> Tensor:
    """weight [D, C, h, w] → [D, C, rows, columns]; the kernel itself at its own size.

    rule: how patches are thought to be resized. In float64 inside, since the pseudo-inverse
    of a resize that shrinks one side and stretches the other is badly conditioned.
    """
    if tuple(weight.shape[2:]) == size:
        return weight
    # The resize of a picture is one matrix down times one across, and so is its pseudo-inverse.
    down, across = (
        torch.linalg.pinv(_resize_matrix(old, new, rule).T)
        for old, new in zip(weight.shape[2:], size, strict=True)
    )
    resampled: Tensor = down @ weight.double() @ across.T
    return resampled.to(weight.dtype)


def _resize_matrix(old: int, new: int, rule: Resample) -> Tensor:
    """[new, old]: what resizing does to a row of `old` numbers."""
    # One column a unit; not one picture of one column each: torch 2.15 mixes those up with antialias.
    units = torch.eye(old, dtype=torch.float64)[None, None]
    resized = F.interpolate(
        units,
        size=(new, old),
        mode=rule.interpolation,
        antialias=rule.antialias,
        align_corners=rule.align_corners,
    )
    return resized[0, 0]
