"""The operations of augmentation policies, each on a batch with one amount per image.

Every function takes images [n, C, H, W] in 0..1 and returns new ones in 0..1. They equal those of
torchvision.transforms.v2.functional on floating point images (tests/peers/test_augmentation.py).
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from patchword.training.augment.colour import LUMA, grey_blend, pixel_mean
from patchword.training.augment.geometry import grid, identity

# Names, and what the amount of each is. Linear in the pixel: a factor; 0 is black, grey, or the mean grey level.
LINEAR = ("brightness", "colour", "contrast", "invert")
NEEDS_RGB = ("colour",)
# A tangent; a share of the side; degrees, anticlockwise.
GEOMETRIC = ("shear_x", "shear_y", "translate_x", "translate_y", "rotate")


def linear(images: Tensor, names: list[str], amount: Tensor) -> Tensor:
    """Each image's own of `LINEAR`: one matrix and one offset per image, then clamped."""
    count, channels = images.shape[:2]
    same = torch.eye(channels).expand(count, channels, channels)
    factor = amount[:, None, None]
    matrix, offset = factor * same, torch.zeros(count, 1, 1)
    contrast = _rows(names, "contrast")
    if "colour" in names:
        matrix = torch.where(_rows(names, "colour"), grey_blend(amount), matrix)
    if "invert" in names:
        inverted = _rows(names, "invert")
        matrix, offset = torch.where(inverted, -same, matrix), inverted.float()
    matrix, offset = matrix.to(images.device), offset.to(images.device)
    if "contrast" in names:
        weights = torch.tensor(LUMA if channels == 3 else (1.0 / channels,) * channels)
        level = (pixel_mean(images).flatten(1) * weights.to(images.device)).sum(1)[:, None, None]
        offset = torch.where(contrast.to(images.device), (1.0 - factor.to(images.device)) * level, offset)
    return torch.baddbmm(offset, matrix, images.flatten(2)).view_as(images).clamp_(0.0, 1.0)


def matrices(names: list[str], amount: Tensor, size: tuple[int, int]) -> Tensor:
    """Maps [n, 2, 3] of `GEOMETRIC` operations from coordinates (-1..1) of the result to those of the image.

    Shears keep the top left corner in place, as in all published versions.
    """
    height, width = size
    found = identity(len(names)).double()
    for i, (name, value) in enumerate(zip(names, amount.double().tolist(), strict=True)):
        if name == "shear_x":
            found[i, 0, 1:] = value * height / width
        elif name == "shear_y":
            found[i, 1, 0] = found[i, 1, 2] = value * width / height
        elif name == "translate_x":
            found[i, 0, 2] = -2.0 * value
        elif name == "translate_y":
            found[i, 1, 2] = -2.0 * value
        else:
            cos, sin = math.cos(math.radians(value)), math.sin(math.radians(value))
            found[i, :, :2] = torch.tensor([[cos, -sin * height / width], [sin * width / height, cos]])
    return found.float()


def geometric(images: Tensor, matrix: Tensor, fill: float) -> Tensor:
    """Sample images through `matrix` (see `matrices`), bilinear; what lies beyond the border is `fill`."""
    height, width = images.shape[-2:]
    places = grid(matrix.to(images.device), (height, width))
    # Padding is with zeros, so the images are shifted by the fill.
    found = F.grid_sample(images - fill, places, mode="bilinear", padding_mode="zeros", align_corners=False)
    return found.add_(fill)


def sharpness(images: Tensor, amount: Tensor) -> Tensor:
    """Blend with a smoothed image: 0 smooths, 1 changes nothing, above 1 sharpens. The outermost pixels are kept."""
    if min(images.shape[-2:]) <= 2:
        return images
    inner = images[..., 1:-1, 1:-1]
    # Weights of 1/13, and 5/13 in the middle.
    smooth = F.avg_pool2d(images, 3, stride=1).mul_(9.0 / 13.0).add_(inner, alpha=4.0 / 13.0)
    sharp = images.clone()
    sharp[..., 1:-1, 1:-1] = torch.lerp(smooth, inner, _column(amount, images)).clamp_(0.0, 1.0)
    return sharp


def posterise(images: Tensor, amount: Tensor) -> Tensor:
    """Keep the highest `amount` bits, 0 to 8; 8 changes nothing, whatever the depth of the image."""
    bits = _column(amount, images)
    levels = torch.exp2(bits)
    coarse = (images * levels).floor_().minimum(levels - 1.0) / levels
    return torch.where(bits >= 8.0, images, coarse)


def solarise(images: Tensor, amount: Tensor) -> Tensor:
    """Invert values from `amount` on."""
    return torch.where(images >= _column(amount, images), 1.0 - images, images)


def solarise_add(images: Tensor, amount: Tensor) -> Tensor:
    """Add `amount` to values below 0.5. Source: timm's and TensorFlow's AutoAugment."""
    brighter = (images + _column(amount, images)).clamp_(max=1.0)
    return torch.where(images < 0.5, brighter, images)


def autocontrast(images: Tensor, amount: Tensor) -> Tensor:
    """Stretch the values of each channel to 0..1. The amount is unused."""
    low, high = images.amin((2, 3), keepdim=True), images.amax((2, 3), keepdim=True)
    span = high - low
    flat = span <= 0.0
    stretched = ((images - low) / torch.where(flat, 1.0, span)).clamp_(0.0, 1.0)
    return torch.where(flat, images, stretched)


def equalise(images: Tensor, amount: Tensor) -> Tensor:
    """Equalise the histogram of each channel, in 256 levels, by Pillow's rule. The amount is unused."""
    count, channels, height, width = images.shape
    # As torchvision converts to uint8.
    levels = (images * (255.0 + 1.0 - 1e-3)).long().view(count * channels, height * width)
    start = torch.arange(count * channels, device=images.device)[:, None] * 256
    counts = torch.bincount((levels + start).flatten(), minlength=256 * count * channels).view(-1, 256)
    summed = counts.cumsum(1)
    last = counts.gather(1, summed.argmax(1, keepdim=True))
    step = (height * width - last) // 255
    table = ((summed - counts + step // 2) // step.clamp(min=1)).clamp_(0, 255).float() / 255.0
    equal = table.gather(1, levels)
    return torch.where(step > 0, equal, levels.float() / 255.0).view_as(images)


def blur(images: Tensor, amount: Tensor) -> Tensor:
    """Gaussian blur with a standard deviation of `amount` pixels, to three of them; the border is reflected."""
    reaches = (3.0 * amount).ceil().clamp(min=1.0)
    for reach in torch.unique(reaches).tolist():
        rows = (reaches == reach).nonzero().flatten()
        weights = torch.exp(-0.5 * (torch.arange(reach + 1) / amount[rows].double()[:, None]).square())
        rows = rows.to(images.device)
        chosen = images[rows]
        for axis in (2, 3):
            chosen = _blurred(chosen, weights, axis)
        images = images.index_copy(0, rows, chosen)
    return images


def _blurred(images: Tensor, weights: Tensor, axis: int) -> Tensor:
    """Along one axis, with symmetric weights [n, 1 + reach], here scaled to a sum of 1.

    A convolution would take as long, and its last digits depend on the batch size.
    """
    side = images.shape[axis]
    reach = min(weights.shape[1] - 1, side - 1)
    weights = weights[:, : reach + 1]
    weights = (weights / (2.0 * weights.sum(1, keepdim=True) - 1.0)).to(images)
    padding = (reach, reach, 0, 0) if axis == 3 else (0, 0, reach, reach)
    padded = F.pad(images, padding, mode="reflect")
    total = images * _column(weights[:, 0], images)
    for k in range(1, reach + 1):
        both = padded.narrow(axis, reach - k, side) + padded.narrow(axis, reach + k, side)
        total.addcmul_(both, _column(weights[:, k], images))
    return total


def _rows(names: list[str], wanted: str) -> Tensor:
    return torch.tensor([name == wanted for name in names])[:, None, None]


def _column(amount: Tensor, images: Tensor) -> Tensor:
    return amount.to(images)[:, None, None, None]
