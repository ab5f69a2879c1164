"""Batched image augmentation on tensors: one resampling, one colour matrix and one rectangle per image.

Everything runs on a whole batch at once and draws every random number from the caller's generator,
so a run that restores the generator's state continues bit for bit. Only torch is needed.

Sizes: B images, C channels, H x W pixels in the cache, h x w pixels out.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from patchword.training.augment_settings import AugmentSettings, ColourSettings, GeometrySettings, MixSettings

# ITU-R BT.601 luma, as Pillow's convert("L") uses it.
_LUMA = (0.299, 0.587, 0.114)
# Rounds of Joehnk's rejection method. For alpha <= 1 a round accepts with probability >= 1/2.
_BETA_ROUNDS = 24


class Augment:
    """Turns a batch of cached images into a batch of training views.

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

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Augment `images` [B, C, H, W] (uint8 0..255, or float 0..1); float32 [B, C, h, w] in 0..1.

        The generator must live on the CPU: it draws only a few numbers per image, which are then the same
        on every device.
        """
        pixels = as_unit_float(images)
        if self.settings.geometry.is_identity:
            pixels = resize(pixels, self.output_size)
        else:
            matrix = draw_geometry(len(pixels), pixels.shape[-2:], self.settings.geometry, generator)
            pixels = warp(pixels, matrix, self.output_size, self.settings.geometry.outside)
        if not self.settings.colour.is_identity:
            pixels = jitter_colour(pixels, self.settings.colour, generator)
        if self.settings.erase > 0:
            pixels = erase(pixels, self.settings, generator)
        return pixels.clamp(0.0, 1.0)


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


def draw_geometry(
    count: int, size: tuple[int, int] | torch.Size, settings: GeometrySettings, generator: torch.Generator
) -> Tensor:
    """Draw `count` affine maps [count, 2, 3] from view coordinates (-1..1) to coordinates of the image (-1..1).

    `size` is (H, W) of the images in pixels. Rotation and shear act in pixels, so they are not distorted on images
    that are not square.
    """
    height, width = float(size[0]), float(size[1])
    area = _uniform(count, settings.crop_scale, generator)
    low, high = settings.crop_ratio
    ratio = _uniform(count, (math.log(low), math.log(high)), generator).exp()
    # A view longer than the image is cut to it, as in the usual random-resized-crop.
    share = torch.stack([(area * ratio).sqrt(), (area / ratio).sqrt()], 1).clamp(max=1.0)
    centre = _uniform(2 * count, (-1.0, 1.0), generator).view(count, 2) * (1.0 - share)
    shift = _uniform(2 * count, (-settings.translate, settings.translate), generator).view(count, 2)
    centre = centre - 2.0 * shift
    mirror = torch.where(torch.rand(count, generator=generator) < settings.flip, -1.0, 1.0)
    turn = torch.deg2rad(_uniform(count, (-settings.degrees, settings.degrees), generator))
    skew = torch.tan(torch.deg2rad(_uniform(count, (-settings.shear, settings.shear), generator)))
    zoom = _uniform(count, (1.0 - settings.zoom, 1.0 + settings.zoom), generator)
    cos, sin = turn.cos() / zoom, turn.sin() / zoom
    linear = torch.stack([cos, cos * skew - sin, sin, sin * skew + cos], 1).view(count, 2, 2)
    half = torch.tensor([width, height]) / 2.0
    extent = half * share * torch.stack([mirror, torch.ones(count)], 1)
    linear = linear * extent[:, None, :] / half[None, :, None]
    return torch.cat([linear, centre[:, :, None]], 2)


def warp(images: Tensor, matrix: Tensor, size: tuple[int, int], outside: str) -> Tensor:
    """Sample views [B, C, *size] from `images` [B, C, H, W] through `matrix` [B, 2, 3] (see `draw_geometry`).

    Bilinear sampling reads four pixels, so it aliases once a view shrinks the image by more than about two.
    Views that shrink more are therefore sampled from an image averaged over 2x2, 4x4 ... pixels first (a mip
    level: Williams 1983), chosen for each image so that the remaining factor is below 1.42. A cache
    of up to 1.5 times the training size needs none of this for most views, and that is also the fastest choice.
    """
    matrix = matrix.to(images.device)
    views = images.new_empty((len(images), images.shape[1], *size))
    levels = _mip_levels(matrix, images.shape[-2:], size)
    for level in torch.unique(levels).tolist():
        rows = (levels == level).nonzero().flatten().to(images.device)
        whole = len(rows) == len(images)
        source = images if whole else images[rows]
        if level > 0:
            source = F.avg_pool2d(source, 2**level, ceil_mode=False)
        shape = [len(rows), images.shape[1], *size]
        grid = F.affine_grid(matrix if whole else matrix[rows], shape, align_corners=False)
        sampled: Tensor = F.grid_sample(
            source, grid, mode="bilinear", padding_mode=outside, align_corners=False
        )
        if whole:
            return sampled
        views[rows] = sampled
    return views


def _mip_levels(matrix: Tensor, source: torch.Size, size: tuple[int, int]) -> Tensor:
    """How often to halve each image [B] before its view is sampled (int64, on the CPU)."""
    scale = torch.tensor(
        [[source[1] / size[1], source[1] / size[0]], [source[0] / size[1], source[0] / size[0]]]
    )
    step = matrix[:, :, :2].cpu() * scale
    # The length of the view's pixel steps in the image: the smaller, so that neither direction is over-blurred.
    shrink = step.norm(dim=1).amin(1).clamp(min=1e-6)
    largest = int(math.log2(max(1, min(source))))
    levels: Tensor = shrink.log2().round().clamp(0, largest).long()
    return levels


def jitter_colour(images: Tensor, settings: ColourSettings, generator: torch.Generator) -> Tensor:
    """Colour jitter of [B, C, H, W] in 0..1; one factor of each kind for every image. Not clamped.

    Order: hue, saturation, grey, brightness, contrast about the view's mean. All are linear in the pixel, so for
    RGB they become one 3x3 matrix and one offset an image: a single pass over the pixels.
    """
    count, channels = images.shape[:2]
    bright = _factor(count, settings.brightness, generator)
    contrast = _factor(count, settings.contrast, generator)
    # Drawn for every channel count, so that the generator advances equally for all images.
    saturation = _factor(count, settings.saturation, generator)
    angle = 2.0 * math.pi * _uniform(count, (-settings.hue, settings.hue), generator)
    keep = (torch.rand(count, generator=generator) >= settings.grey).float()
    if channels == 3:
        colour = _hue_matrix(angle)
        grey = torch.tensor(_LUMA).expand(3, 3)
        amount = (saturation * keep)[:, None, None]
        matrix = (amount * torch.eye(3) + (1.0 - amount) * grey) @ colour
        weights = torch.tensor(_LUMA)
    else:
        matrix = torch.eye(channels).expand(count, channels, channels)
        weights = torch.full((channels,), 1.0 / channels)
    matrix = (matrix * bright[:, None, None]).to(images.device)
    level = (matrix @ images.mean((2, 3))[:, :, None]).squeeze(2) @ weights.to(images.device)
    contrast = contrast.to(images.device)
    offset = ((1.0 - contrast) * level)[:, None, None]
    matrix = matrix * contrast[:, None, None]
    if channels == 3:
        return torch.baddbmm(offset, matrix, images.flatten(2)).view_as(images)
    scale = (bright.to(images.device) * contrast)[:, None, None, None]
    return images * scale + offset[..., None]


def _hue_matrix(angle: Tensor) -> Tensor:
    """Rotations [B, 3, 3] of RGB about the grey axis by `angle` [B] in radians; they keep R + G + B."""
    cos, sin = angle.cos()[:, None, None], angle.sin()[:, None, None]
    axis = 3.0**-0.5
    cross = axis * torch.tensor([[0.0, -1.0, 1.0], [1.0, 0.0, -1.0], [-1.0, 1.0, 0.0]])
    rotation: Tensor = cos * torch.eye(3) + (1.0 - cos) / 3.0 + sin * cross
    return rotation


def erase(images: Tensor, settings: AugmentSettings, generator: torch.Generator) -> Tensor:
    """Cover a random rectangle of some images [B, C, H, W] with the image's mean (Zhong et al. 2020)."""
    count = len(images)
    share = _uniform(count, settings.erase_area, generator)
    chosen = torch.rand(count, generator=generator) < settings.erase
    aspect = _uniform(count, (math.log(0.3), math.log(1.0 / 0.3)), generator).exp()
    box = _boxes((share * aspect).sqrt(), (share / aspect).sqrt(), images.shape[-2:], generator, inside=True)
    covered = (box & chosen[:, None, None])[:, None].to(images.device)
    return torch.where(covered, images.mean((2, 3), keepdim=True), images)


def mix(
    images: Tensor, targets: Tensor, settings: MixSettings, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Mix each image with a partner from the same batch (mixup or cutmix, drawn for each image).

    `images` [B, C, H, W] floating point, `targets` [B, K] floating point (one-hot, smoothed or several labels);
    returns both mixed, same shapes. Rows of `targets` keep their sum. Nothing is changed in place.
    """
    count = len(images)
    if settings.is_identity or count < 2:
        return images, targets
    partner = torch.randperm(count, generator=generator)
    chosen = torch.rand(count, generator=generator) < settings.probability
    cut = torch.rand(count, generator=generator) < settings.cutmix_share
    if not (settings.mixup and settings.cutmix):
        cut = torch.full((count,), settings.cutmix > 0)
    blend = _beta(count, settings.mixup, generator)
    side = (1.0 - _beta(count, settings.cutmix, generator)).sqrt()
    box = _boxes(side, side, images.shape[-2:], generator, inside=False)
    box &= (chosen & cut)[:, None, None]
    # A box that crosses the edge covers less than was drawn, so the label follows the visible share.
    seen = 1.0 - box.float().mean((1, 2))
    share = torch.where(cut, seen, torch.where(chosen, blend, torch.ones(count)))
    own = torch.where(cut[:, None, None], (~box).float(), share[:, None, None].expand_as(box))
    partner = partner.to(images.device)
    own = own[:, None].to(images)
    mixed = torch.lerp(images[partner], images, own)
    label = share[:, None].to(targets)
    return mixed, torch.lerp(targets[partner], targets, label)


def _boxes(
    width: Tensor, height: Tensor, size: torch.Size, generator: torch.Generator, *, inside: bool
) -> Tensor:
    """Masks [B, H, W], true inside one rectangle each; `width` and `height` [B] are shares of the image.

    Where `inside` is false the rectangle's centre may lie anywhere, so a part may fall outside (CutMix's way).
    """
    count = len(width)
    masks = []
    for pixels, share in ((size[0], height), (size[1], width)):
        length = (share.clamp(max=1.0) * pixels).round()
        spot = torch.rand(count, generator=generator)
        start = spot * (pixels - length) if inside else spot * pixels - length / 2.0
        start = start.round()[:, None]
        place = torch.arange(pixels)
        masks.append((place >= start) & (place < start + length[:, None]))
    return masks[0][:, :, None] & masks[1][:, None, :]


def _beta(count: int, alpha: float, generator: torch.Generator) -> Tensor:
    """Draw [count] numbers of Beta(alpha, alpha); ones if alpha is 0.

    torch.distributions takes no generator, so this is Joehnk's method (1964): of u^(1/a), v^(1/a) the first pair
    with a sum of at most 1 gives x / (x + y). A fixed number of rounds keeps the generator's use constant.
    """
    if alpha == 0:
        return torch.ones(count)
    draws = torch.rand(2, _BETA_ROUNDS, count, generator=generator, dtype=torch.float64)
    first, second = draws.clamp(min=1e-300) ** (1.0 / alpha)
    accepted = (first + second <= 1.0) & (first + second > 0.0)
    accepted[-1] = True
    index = accepted.to(torch.int8).argmax(0, keepdim=True)
    x, y = first.gather(0, index)[0], second.gather(0, index)[0]
    share: Tensor = (x / (x + y).clamp(min=1e-300)).float()
    return share


def _uniform(count: int, bounds: tuple[float, float], generator: torch.Generator) -> Tensor:
    low, high = bounds
    return torch.rand(count, generator=generator) * (high - low) + low


def _factor(count: int, amount: float, generator: torch.Generator) -> Tensor:
    return _uniform(count, (max(0.0, 1.0 - amount), 1.0 + amount), generator)
