"""Accuracy on images with holes and on images in pieces.

Source: Naseer et al. 2021 (arXiv 2105.10497), sections 3.1 (random drop) and 3.3 (shuffled grids).
"""

from collections.abc import Callable

import torch
from torch import Tensor

from patchword.lessons.measures.order import shuffled


def dropped(images: Tensor, share: float, size: int, seed: int = 0, fill: float = 0.0) -> Tensor:
    """Images [B, C, H, W] in which a share of the squares of `size` pixels, drawn for each image, is `fill`."""
    batch, _, height, width = images.shape
    grid = -(-height // size), -(-width // size)
    noise = torch.rand(batch, grid[0] * grid[1], generator=torch.Generator().manual_seed(seed))
    hidden = noise.argsort(dim=1).argsort(dim=1) < round(share * noise.shape[1])
    cells = hidden.reshape(batch, 1, *grid).repeat_interleave(size, 2).repeat_interleave(size, 3)
    return images.masked_fill(cells[..., :height, :width], fill)


def in_pieces(images: Tensor, pieces: int, seed: int = 0) -> Tensor:
    """Images [B, C, H, W] cut into pieces x pieces parts, in another random order for each; 1 changes nothing."""
    if pieces == 1:
        return images
    size = images.shape[2] // pieces, images.shape[3] // pieces
    return torch.cat([shuffled(image[None], size, seed + index) for index, image in enumerate(images)])


@torch.no_grad()
def accuracy(model: Callable[[Tensor], Tensor], images: Tensor, labels: Tensor) -> float:
    """The share of images [B, C, H, W] whose largest logit is that of their label [B]."""
    return float((model(images).argmax(dim=1) == labels).double().mean())
