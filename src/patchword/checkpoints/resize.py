"""Patch kernels of another size, so that a patch resized with its image gives the same token."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

Size = tuple[int, int]


def resample_patch_kernel(kernel: "Tensor", size: Size) -> "Tensor":
    """kernel [D, C, h, w] → [D, C, *size], float32 or wider, by the pseudo-inverse of the patch's bilinear resize.

    With B the matrix [new pixels, old pixels] that resizes a patch (no antialias), the kernel w becomes
    pinv(Bᵀ) w: where a patch is enlarged, its product with the new kernel is that of the old patch with the old.
    Source: Beyer et al. 2023 (arXiv 2212.08013), section 3.4.
    """
    import torch
    import torch.nn.functional as F

    old = (kernel.shape[2], kernel.shape[3])
    wide = kernel if kernel.dtype == torch.float64 else kernel.float()
    if old == size:
        return wide
    pixels = old[0] * old[1]
    units = torch.eye(pixels, dtype=torch.float64).view(pixels, 1, *old)
    resized = F.interpolate(units, size=size, mode="bilinear", antialias=False, align_corners=False)
    inverse = torch.linalg.pinv(resized.flatten(1))  # of Bᵀ, [old pixels, new pixels] → [new, old]
    new: Tensor = wide.double().flatten(2) @ inverse.T
    return new.view(*kernel.shape[:2], *size).to(wide.dtype)
