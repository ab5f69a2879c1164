"""Random rectangles: erasing here, CutMix in mix.py."""

import math

import torch
from torch import Tensor

from patchword.training.augment.colour import pixel_mean
from patchword.training.augment.geometry import between
from patchword.training.augment.settings import AugmentSettings
from patchword.training.chance import Draws


def erase(images: Tensor, settings: AugmentSettings, draws: Draws) -> Tensor:
    """Cover random rectangles of some images [B, C, H, W] (Zhong et al. 2020).

    With several boxes, each is drawn with its part of the area (as timm's RandomErasing does), and they may overlap.
    """
    drawn = draws.uniform(1 + 4 * settings.erase_count)
    chosen = drawn[:, 0] < settings.erase
    aspects = (math.log(0.3), math.log(1.0 / 0.3))
    covered = torch.zeros((len(images), *images.shape[-2:]), dtype=torch.bool)
    for area, ratio, *place in drawn[:, 1:].reshape(len(images), -1, 4).permute(1, 2, 0):
        share = between(area, settings.erase_area) / settings.erase_count
        aspect = between(ratio, aspects).exp()
        covered |= masks(
            (share * aspect).sqrt(), (share / aspect).sqrt(), images.shape[-2:], place, inside=True
        )
    covered &= chosen[:, None, None]
    return torch.where(covered[:, None].to(images.device), _fill(images, settings, draws, chosen), images)


def _fill(images: Tensor, settings: AugmentSettings, draws: Draws, chosen: Tensor) -> Tensor:
    if settings.erase_fill == "zero":
        return images.new_zeros(())
    mean = pixel_mean(images)
    if settings.erase_fill == "mean":
        return mean
    rows = chosen.nonzero().flatten()
    fill = torch.zeros_like(images)
    noise = draws.part(rows.numpy()).stream("noise").uniform(*images.shape[1:])
    fill[rows.to(images.device)] = noise.to(images.device)
    return fill


def masks(width: Tensor, height: Tensor, size: torch.Size, place: list[Tensor], *, inside: bool) -> Tensor:
    """Masks [B, H, W], true inside one rectangle each; `width` and `height` [B] are shares of the image.

    place: vertical and horizontal position [B] each, 0..1. Where `inside` is false the rectangle's centre may lie
    anywhere, so a part may fall outside (CutMix's way).
    """
    sides = []
    for pixels, share, spot in ((size[0], height, place[0]), (size[1], width, place[1])):
        length = (share.clamp(max=1.0) * pixels).round()
        start = spot * (pixels - length) if inside else spot * pixels - length / 2.0
        start = start.round()[:, None]
        along = torch.arange(pixels)
        sides.append((along >= start) & (along < start + length[:, None]))
    return sides[0][:, :, None] & sides[1][:, None, :]
