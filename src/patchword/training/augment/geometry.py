"""Where a view is sampled: one affine map per image, composed of crop, flip, rotation, shear and zoom, sampled once.

Sizes: B images, C channels, H x W pixels of the stored images, h x w pixels of the views.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from patchword.training.augment.settings import GeometrySettings
from patchword.training.chance import Draws


def as_unit_float(images: Tensor) -> Tensor:
    """Images [B, C, H, W] as float32 in 0..1; uint8 is divided by 255, floating point is kept as is."""
    if images.ndim != 4:
        raise ValueError(f"images must be [B, C, H, W], not {tuple(images.shape)}")
    if images.dtype == torch.uint8:
        return images.float().div_(255.0)
    if not images.is_floating_point():
        raise TypeError(f"images must be uint8 or floating point, not {images.dtype}")
    return images.float()


def resize(images: Tensor, size: tuple[int, int]) -> Tensor:
    """Plain anti-aliased bilinear resize of [B, C, H, W] to [B, C, *size]; returns the input if the size is equal."""
    if tuple(images.shape[-2:]) == size:
        return images
    return F.interpolate(images, size, mode="bilinear", align_corners=False, antialias=True)


def between(values: Tensor, bounds: tuple[float, float]) -> Tensor:
    """Numbers of 0..1 spread over the bounds, in float64.

    A vector unit and its scalar remainder may round functions such as exp differently, so an image would depend on its
    position in the batch. Computed in float64 and then rounded, it does not.
    """
    low, high = bounds
    return values.double() * (high - low) + low


def identity(count: int) -> Tensor:
    """`count` maps [count, 2, 3] that move nothing."""
    return torch.eye(2, 3).repeat(count, 1, 1)


def draw_geometry(size: tuple[int, int] | torch.Size, settings: GeometrySettings, draws: Draws) -> Tensor:
    """Draw an affine map [B, 2, 3] per image, from view coordinates (-1..1) to coordinates of the image (-1..1).

    `size` is (H, W) of the images in pixels. Rotation and shear act in pixels, so they are not distorted on images
    that are not square. The maps are on the CPU.
    """
    height, width = float(size[0]), float(size[1])
    count, drawn = len(draws), draws.uniform(10).unbind(1)
    area = between(drawn[0], settings.crop_scale)
    low, high = settings.crop_ratio
    ratio = between(drawn[1], (math.log(low), math.log(high))).exp()
    # A view longer than the image is cut to it, as in the usual random-resized-crop.
    share = torch.stack([(area * ratio).sqrt(), (area / ratio).sqrt()], 1).clamp(max=1.0)
    centre = between(torch.stack(drawn[2:4], 1), (-1.0, 1.0)) * (1.0 - share)
    shift = between(torch.stack(drawn[4:6], 1), (-settings.translate, settings.translate))
    centre = centre - 2.0 * shift
    mirror = torch.where(drawn[6] < settings.flip, -1.0, 1.0)
    turn = torch.deg2rad(between(drawn[7], (-settings.degrees, settings.degrees)))
    skew = torch.tan(torch.deg2rad(between(drawn[8], (-settings.shear, settings.shear))))
    zoom = between(drawn[9], (1.0 - settings.zoom, 1.0 + settings.zoom))
    cos, sin = turn.cos() / zoom, turn.sin() / zoom
    linear = torch.stack([cos, cos * skew - sin, sin, sin * skew + cos], 1).view(count, 2, 2)
    half = torch.tensor([width, height], dtype=torch.float64) / 2.0
    extent = half * share * torch.stack([mirror, torch.ones(count)], 1)
    linear = linear * extent[:, None, :] / half[None, :, None]
    return torch.cat([linear, centre[:, :, None]], 2).float()


def warp(images: Tensor, matrix: Tensor, size: tuple[int, int], outside: str) -> Tensor:
    """Sample views [B, C, *size] from `images` [B, C, H, W] through `matrix` [B, 2, 3] (see `draw_geometry`).

    Bilinear sampling reads four pixels, so it aliases once a view shrinks the image by more than about two.
    Views that shrink more are therefore sampled from an image averaged over 2x2, 4x4 ... pixels first (a mip
    level: Williams 1983), chosen for each image so that the remaining factor is below 1.42. A cache
    of up to 1.5 times the training size needs none of this for most views, and that is also the fastest choice.
    """
    levels = _mip_levels(matrix, images.shape[-2:], size)
    matrix = matrix.to(images.device)
    views = images.new_empty((len(images), images.shape[1], *size))
    for level in torch.unique(levels).tolist():
        rows = (levels == level).nonzero().flatten().to(images.device)
        whole = len(rows) == len(images)
        source = images if whole else images[rows]
        if level > 0:
            source = F.avg_pool2d(source, 2**level, ceil_mode=False)
        places = grid(matrix if whole else matrix[rows], size)
        sampled: Tensor = F.grid_sample(
            source, places, mode="bilinear", padding_mode=outside, align_corners=False
        )
        if whole:
            return sampled
        views[rows] = sampled
    return views


def grid(matrix: Tensor, size: tuple[int, int]) -> Tensor:
    """Coordinates [B, h, w, 2] of the views' pixel centres, mapped by `matrix` [B, 2, 3].

    As torch's affine_grid, without its product of two matrices, which takes several times as long on a CPU.
    """
    rows, columns = (
        (torch.arange(side, device=matrix.device, dtype=matrix.dtype) * 2 + 1) / side - 1 for side in size
    )
    places = matrix.new_empty((len(matrix), *size, 2))
    for axis in (0, 1):
        along_x, along_y, start = matrix[:, axis].unbind(1)
        by_row = along_y[:, None] * rows + start[:, None]
        torch.add(
            (along_x[:, None] * columns)[:, None, :].expand(-1, size[0], -1),
            by_row[:, :, None],
            out=places[..., axis],
        )
    return places


def _mip_levels(matrix: Tensor, source: torch.Size, size: tuple[int, int]) -> Tensor:
    """How often to halve each image [B] before its view is sampled (int64, on the CPU)."""
    scale = torch.tensor(
        [[source[1] / size[1], source[1] / size[0]], [source[0] / size[1], source[0] / size[0]]]
    )
    step = (matrix[:, :, :2].cpu() * scale).double()
    # The length of the view's pixel steps in the image: the smaller, so that neither direction is over-blurred.
    shrink = step.square().sum(1).sqrt().amin(1).clamp(min=1e-6)
    largest = int(math.log2(max(1, min(source))))
    levels: Tensor = shrink.log2().round().clamp(0, largest).long()
    return levels
