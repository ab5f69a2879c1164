"""Colour jitter: linear in the pixel, so it is one matrix per image and a single pass over the pixels."""

import math

import torch
from torch import Tensor

from patchword.training.augment.geometry import between
from patchword.training.augment.settings import ColourSettings
from patchword.training.chance import Draws

# ITU-R BT.601 luma, as Pillow's convert("L") uses it.
LUMA = (0.299, 0.587, 0.114)


def pixel_mean(images: Tensor) -> Tensor:
    """The mean [B, C, 1, 1] over the pixels of [B, C, H, W].

    In two steps, because torch sums a single row with several threads in another order than many rows.
    """
    return images.mean(3, keepdim=True).mean(2, keepdim=True)


def jitter_colour(images: Tensor, settings: ColourSettings, draws: Draws) -> Tensor:
    """Colour jitter of [B, C, H, W] in 0..1; one factor of each kind for every image. Not clamped.

    Order: hue, saturation, grey, brightness, contrast about the view's mean. All are linear in the pixel, so for
    RGB they become one 3x3 matrix and one offset an image: a single pass over the pixels.
    """
    count, channels = images.shape[:2]
    drawn = draws.uniform(5).unbind(1)
    bright = _factor(drawn[0], settings.brightness)
    contrast = _factor(drawn[1], settings.contrast)
    if channels == 3:
        saturation = _factor(drawn[2], settings.saturation)
        angle = 2.0 * math.pi * between(drawn[3], (-settings.hue, settings.hue))
        keep = (drawn[4] >= settings.grey).float()
        matrix = grey_blend(saturation * keep) @ _hue_matrix(angle)
        weights = torch.tensor(LUMA)
    else:
        matrix = torch.eye(channels).expand(count, channels, channels)
        weights = torch.full((channels,), 1.0 / channels)
    matrix = (matrix * bright[:, None, None]).to(images.device)
    level = (matrix @ pixel_mean(images).flatten(1)[:, :, None]).squeeze(2) @ weights.to(images.device)
    contrast = contrast.to(images.device)
    offset = ((1.0 - contrast) * level)[:, None, None]
    matrix = matrix * contrast[:, None, None]
    if channels == 3:
        return torch.baddbmm(offset, matrix, images.flatten(2)).view_as(images)
    scale = (bright.to(images.device) * contrast)[:, None, None, None]
    return images * scale + offset[..., None]


def grey_blend(amount: Tensor) -> Tensor:
    """Matrices [B, 3, 3] that keep `amount` [B] of the colour: 0 is grey, 1 changes nothing."""
    grey = torch.tensor(LUMA).expand(3, 3)
    return amount[:, None, None] * torch.eye(3) + (1.0 - amount[:, None, None]) * grey


def _hue_matrix(angle: Tensor) -> Tensor:
    """Rotations [B, 3, 3] of RGB about the grey axis by `angle` [B] in radians; they keep R + G + B."""
    cos, sin = (part.float()[:, None, None] for part in (angle.cos(), angle.sin()))
    axis = 3.0**-0.5
    cross = axis * torch.tensor([[0.0, -1.0, 1.0], [1.0, 0.0, -1.0], [-1.0, 1.0, 0.0]])
    rotation: Tensor = cos * torch.eye(3) + (1.0 - cos) / 3.0 + sin * cross
    return rotation


def _factor(values: Tensor, amount: float) -> Tensor:
    return between(values, (max(0.0, 1.0 - amount), 1.0 + amount)).float()
