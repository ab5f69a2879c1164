"""Patches of an image: what replaces them, which pixels they cover, and a model that never sees some."""

import torch
import torch.nn.functional as F
from torch import Tensor

from patchword.explaining.settings import Fill
from patchword.model.config import ViTConfig
from patchword.model.positions.layout import TokenLayout
from patchword.model.vit import ViT


def filled(images: Tensor, fill: Fill, config: ViTConfig) -> Tensor:
    """What removed patches show: images [B, C, H, W] of the mean colour, or blurred.

    The mean colour is zero after normalisation. The blur is a Gaussian whose deviation is half the side of a patch.
    """
    if fill == "mean":
        return torch.zeros_like(images)
    blurred = images
    for axis, span in ((-2, config.patch_span[0]), (-1, config.patch_span[1])):
        blurred = _blurred(blurred, span / 2, axis)
    return blurred


def _blurred(images: Tensor, deviation: float, axis: int) -> Tensor:
    reach = max(round(3 * deviation), 1)
    at = torch.arange(-reach, reach + 1, device=images.device, dtype=images.dtype)
    kernel = torch.exp(-0.5 * (at / deviation) ** 2)
    kernel = kernel / kernel.sum()
    lines = images.transpose(axis, -1)
    flat = lines.reshape(-1, 1, lines.shape[-1])
    smooth = F.conv1d(F.pad(flat, (reach, reach), mode="replicate"), kernel[None, None])
    return smooth.view(lines.shape).transpose(axis, -1)


def to_pixels(cells: Tensor, size: torch.Size, config: ViTConfig) -> Tensor:
    """Spread a value of every patch [..., h, w] over its pixels [..., H, W]; 0 beyond the last complete patch of a cropped image."""
    rows, columns = config.patch_span
    pixels = cells.repeat_interleave(rows, -2).repeat_interleave(columns, -1)
    height, width = size[-2:]
    pixels = pixels[..., :height, :width]
    return F.pad(pixels, (0, width - pixels.shape[-1], 0, height - pixels.shape[-2]))


def to_patches(pixels: Tensor, config: ViTConfig) -> Tensor:
    """Sum values of pixels [B, H, W] over each patch: [B, h, w]."""
    rows, columns = config.patch_span
    height, width = pixels.shape[-2:]
    down, across = config.grid_of((height, width))
    padded = F.pad(pixels, (0, across * columns - width, 0, down * rows - height))
    summed: Tensor = padded.reshape(len(pixels), down, rows, across, columns).sum((2, 4))
    return summed


def without_patches(vit: ViT, images: Tensor, kept: Tensor) -> Tensor:
    """The answer of a model that gets only some patches of each image.

    A ViT can leave tokens out: the others keep their positions. kept [B, n]: indices of patches.
    """
    x, layout = vit.embed_tokens(images)
    before = torch.arange(layout.num_prefix, device=x.device).expand(len(kept), -1)
    after = torch.arange(layout.num_prefix + layout.num_patches, layout.num_tokens, device=x.device)
    rows = torch.cat((before, layout.num_prefix + kept, after.expand(len(kept), -1)), 1)
    x = x.gather(1, rows[..., None].expand(-1, -1, x.shape[-1]))
    places = vit.places(layout)
    selected = {id(place): place.select(rows) for place in places}
    shorter = TokenLayout((1, kept.shape[1]), layout.num_prefix, layout.num_suffix, layout.device)
    return vit.answer(x, shorter, [selected[id(place)] for place in places])


def images_at_once(vit: ViT, images: Tensor, *, gradients: bool = False) -> int:
    """How many of these images to compute together: about 0.5 GiB of activations, and no more than 16."""
    config, tokens = vit.config, vit.layout(images).num_tokens
    # With gradients every block keeps its activations, else only queries, keys and values are kept.
    block = 6 * config.dim + 2 * config.mlp_dim
    widths = config.depth * block if gradients else block + 3 * config.depth * config.attention_dim
    each = tokens * (widths + 3 * config.attention.num_heads * tokens) * images.element_size()
    return max(1, min(16, 2**29 // each))
