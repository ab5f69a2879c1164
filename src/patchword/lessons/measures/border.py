"""How much the pixels at the border of an image count in stacks of convolutions.

Sources: the arithmetic is exact. Islam et al. 2020 (arXiv 2001.08248) and Alsallakh et al. 2021 (arXiv 2010.02178) on what
padding tells a network.
"""

from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

Padding = Literal["zeros", "replicate", "reflect", "none"]
_MODES = {"zeros": "constant", "replicate": "replicate", "reflect": "reflect"}


class Border(NamedTuple):
    """Response at a corner and at the middle of an edge, each over that at the centre."""

    corner: float
    edge: float


def border_map(layers: int, padding: Padding, size: int = 65) -> Tensor:
    """d(sum of the last map) / d(pixel) [size, size], for a stack of uniform 3 x 3 kernels of stride 1.

    Each kernel sums to 1. "none": convolutions without padding, so that the map shrinks by 2 per layer.
    Raises: ValueError if nothing is left of the map.
    """
    if padding == "none" and size <= 2 * layers:
        raise ValueError(f"{layers} layers without padding need an image of more than {2 * layers} pixels")
    image = torch.zeros(1, 1, size, size, dtype=torch.float64, requires_grad=True)
    kernel = torch.full((1, 1, 3, 3), 1 / 9, dtype=torch.float64)
    x = image
    for _ in range(layers):
        x = F.conv2d(x if padding == "none" else F.pad(x, (1, 1, 1, 1), mode=_MODES[padding]), kernel)
    (gradient,) = torch.autograd.grad(x.sum(), image)
    return gradient[0, 0]


def border_response(layers: int, padding: Padding, size: int = 65) -> Border:
    """Corner and edge over centre of `border_map`. size: odd, and larger than 2 · layers + 1, so that the centre is free of it."""
    found = border_map(layers, padding, size)
    middle = size // 2
    centre = found[middle, middle]
    return Border(float(found[0, 0] / centre), float(found[0, middle] / centre))


def gradient_by_distance(features: Callable[[Tensor], Tensor], images: Tensor) -> list[float]:
    """Mean over images [B, C, H, W] and pixels of |d(sum of the map) / d(pixel)|, by distance to the border, over the last.

    features: images → any map. The innermost ring of pixels counts as 1.
    """
    images = images.detach().clone().requires_grad_()
    (gradient,) = torch.autograd.grad(features(images).sum(), images)
    strength = gradient.abs().mean(dim=(0, 1))
    height, width = strength.shape
    rows = torch.minimum(torch.arange(height), torch.arange(height).flip(0))
    columns = torch.minimum(torch.arange(width), torch.arange(width).flip(0))
    ring = torch.minimum(rows[:, None], columns)
    rings = [float(strength[ring == distance].mean()) for distance in range(int(ring.max()) + 1)]
    return [value / rings[-1] for value in rings]
