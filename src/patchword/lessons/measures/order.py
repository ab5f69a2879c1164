"""What a Transformer knows about order: the same patches in another order.

Source: Vaswani et al. 2017 (arXiv 1706.03762), section 3.5; Naseer et al. 2021 (arXiv 2105.10497), section 3.3.
"""

from dataclasses import replace

import torch
from torch import Tensor

from patchword.errors import SettingsError
from patchword.model.kinds import NoPositions
from patchword.model.mae import patchify, unpatchify
from patchword.model.vit import ViT


def without_positions(vit: ViT) -> ViT:
    """The same weights in a model without positions, in evaluation mode.

    Raises: SettingsError if such a model cannot be built.
    """
    bare = ViT(replace(vit.config, positions=NoPositions())).to(next(vit.parameters()))
    kept = {name: tensor for name, tensor in vit.state_dict().items() if name in bare.state_dict()}
    bare.load_state_dict(kept)
    return bare.eval()


def whole_patches(images: Tensor, size: tuple[int, int]) -> Tensor:
    """images [B, C, H, W] without the rows and columns that fill no complete patch."""
    return images[..., : images.shape[2] // size[0] * size[0], : images.shape[3] // size[1] * size[1]]


def shuffled(images: Tensor, size: tuple[int, int], seed: int = 0) -> Tensor:
    """The patches of images [B, C, H, W] in one random order, the same for each image. size: of a patch in pixels.

    Raises: SettingsError for an image that is a single patch.
    """
    images = whole_patches(images, size)
    grid = images.shape[2] // size[0], images.shape[3] // size[1]
    if grid[0] * grid[1] < 2:
        raise SettingsError("an image of one patch has no order", "use smaller patches or a larger image")
    order = torch.randperm(grid[0] * grid[1], generator=torch.Generator().manual_seed(seed))
    return unpatchify(patchify(images, size)[:, order], size, grid)


@torch.no_grad()
def shuffle_change(vit: ViT, images: Tensor, seed: int = 0) -> float:
    """The largest change of an output when the patches of images [B, C, H, W] are shuffled.

    Without positions it is rounding alone: attention is a sum over tokens, and a sum has no order.
    """
    size = vit.config.patch_span
    before, after = vit(whole_patches(images, size)), vit(shuffled(images, size, seed))
    return float((before - after).abs().max())
