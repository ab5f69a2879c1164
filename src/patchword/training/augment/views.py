"""From a batch of stored images to a batch of training views."""

import torch
from torch import Tensor

from patchword.training.augment.boxes import erase
from patchword.training.augment.colour import jitter_colour
from patchword.training.augment.geometry import as_unit_float, draw_geometry, identity, resize, warp
from patchword.training.augment.policy import apply_policy, composed
from patchword.training.augment.settings import AugmentSettings, NoPolicy
from patchword.training.chance import Draws

# Float images that a CPU augments together: larger tensors leave the caches, which takes a third longer at 336 pixels.
CACHE_BYTES = 16 * 2**20


class Augment:
    """Turns a batch of stored images into a batch of training views.

    Each image gets parameters of its own. Geometry is composed into one affine map per image and sampled once,
    because each additional resampling blurs. Colour jitter is linear, so it is one matrix per image.
    """

    def __init__(self, settings: AugmentSettings, output_size: int | tuple[int, int]) -> None:
        """`output_size` is the side, or (height, width), of the views in pixels."""
        pair = (output_size, output_size) if isinstance(output_size, int) else output_size
        if min(pair) < 1:
            raise ValueError(f"output_size must be at least 1 pixel, not {output_size}")
        self.settings = settings
        self.output_size = pair

    def __call__(self, images: Tensor, draws: Draws) -> Tensor:
        """Augment `images` [B, C, H, W] (uint8 0..255, or float 0..1); float32 [B, C, h, w] in 0..1.

        Every random number comes from streams of `draws`, so the same draws give the same views, and a view depends
        on its own image only: on a CPU, a part of a batch gives the same bits as the batch.
        """
        return self.with_matrix(images, draws)[0]

    def with_matrix(self, images: Tensor, draws: Draws) -> tuple[Tensor, Tensor]:
        """The views, and the affine maps [B, 2, 3] from their coordinates to those of the images (`draw_geometry`)."""
        if len(draws) != len(images):
            raise ValueError(f"{len(images)} images, but draws for {len(draws)}")
        each = 4 * images[0].numel() if len(images) else 1
        count = max(CACHE_BYTES // each, 1) if images.device.type == "cpu" else len(images)
        if count >= len(images):
            return self._augmented(images, draws)
        parts = [slice(i, i + count) for i in range(0, len(images), count)]
        views, matrices = zip(
            *(self._augmented(images[part], draws.part(part)) for part in parts), strict=True
        )
        return torch.cat(views), torch.cat(matrices)

    def _augmented(self, images: Tensor, draws: Draws) -> tuple[Tensor, Tensor]:
        pixels, settings = as_unit_float(images), self.settings
        if settings.geometry.is_identity:
            matrix = identity(len(pixels))
            pixels = resize(pixels, self.output_size)
        else:
            matrix = draw_geometry(pixels.shape[-2:], settings.geometry, draws.stream("geometry"))
            pixels = warp(pixels, matrix, self.output_size, settings.geometry.outside)
        if not isinstance(settings.policy, NoPolicy):
            pixels, moved = apply_policy(pixels, settings.policy, draws.stream("policy"))
            matrix = composed(matrix, moved)
        if not settings.colour.is_identity:
            pixels = jitter_colour(pixels, settings.colour, draws.stream("colour"))
        if settings.erase > 0:
            pixels = erase(pixels, settings, draws.stream("erase"))
        return pixels.clamp(0.0, 1.0) if pixels is images else pixels.clamp_(0.0, 1.0), matrix
