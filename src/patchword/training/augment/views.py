"""From a batch of stored images to a batch of training views."""

import torch
from torch import Tensor

from patchword.training.augment.boxes import erase
from patchword.training.augment.colour import jitter_colour
from patchword.training.augment.geometry import as_unit_float, draw_geometry, identity, resize, warp
from patchword.training.augment.policy import apply_policy, composed
from patchword.training.augment.settings import AugmentSettings, NoPolicy
from patchword.training.augment.workers import Workers
from patchword.training.chance import Draws

# Of float images that a thread augments together. Larger tensors leave the caches, which takes a third longer at 336
# pixels; for smaller ones, starting the operations takes longer than the operations.
CACHE_BYTES, SMALLEST_BYTES = 16 * 2**20, 2**20


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
        self._workers: Workers | None = None

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
        parts = self._parts(images)
        if len(parts) == 1 and (images.device.type != "cpu" or torch.get_num_threads() == 1):
            return self._augmented(images, draws)
        if self._workers is None:
            self._workers = Workers(torch.get_num_threads())
        found = self._workers.map(lambda part: self._augmented(images[part], draws.part(part)), parts)
        return torch.cat([views for views, _ in found]), torch.cat([matrix for _, matrix in found])

    def _parts(self, images: Tensor) -> list[slice]:
        """On a CPU, one or more parts for each thread, as long as these are worth a thread and fit in the caches."""
        count = len(images)
        if images.device.type != "cpu" or count == 0:
            return [slice(0, count)]
        needed = 4 * images.numel()
        parts = min(max(torch.get_num_threads(), needed // CACHE_BYTES), needed // SMALLEST_BYTES, count)
        each = -(-count // max(parts, 1))
        return [slice(i, min(i + each, count)) for i in range(0, count, each)]

    def _augmented(self, images: Tensor, draws: Draws) -> tuple[Tensor, Tensor]:
        pixels, settings = as_unit_float(images), self.settings
        if settings.geometry.is_identity:
            matrix = identity(len(pixels))
            pixels = resize(pixels, self.output_size)
        else:
            matrix = draw_geometry(pixels.shape[-2:], settings.geometry, draws.stream("geometry"))
            # For views inside their images the padding makes no difference, but the border is the fastest.
            outside = "border" if settings.geometry.stays_inside else settings.geometry.outside
            pixels = warp(pixels, matrix, self.output_size, outside)
        if not isinstance(settings.policy, NoPolicy):
            pixels, moved = apply_policy(pixels, settings.policy, draws.stream("policy"))
            matrix = composed(matrix, moved)
        if not settings.colour.is_identity:
            pixels = jitter_colour(pixels, settings.colour, draws.stream("colour"))
        if settings.erase > 0:
            pixels = erase(pixels, settings, draws.stream("erase"))
        return pixels.clamp(0.0, 1.0) if pixels is images else pixels.clamp_(0.0, 1.0), matrix
