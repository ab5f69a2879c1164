"""Mixing each image with its neighbour: mixup and CutMix."""

import torch
from torch import Tensor

from patchword.training.augment.boxes import masks
from patchword.training.augment.settings import MixSettings
from patchword.training.chance import Draws

# Rounds of Joehnk's rejection method. For alpha <= 1 a round accepts with probability >= 1/2.
_BETA_ROUNDS = 24


def mix(images: Tensor, targets: Tensor, settings: MixSettings, draws: Draws) -> tuple[Tensor, Tensor]:
    """Mix each image with its neighbour (mixup or cutmix, drawn for each image).

    `images` [B, C, H, W] floating point, `targets` [B, K] floating point (one-hot, smoothed or several labels);
    returns both mixed, same shapes. Rows of `targets` keep their sum. Nothing is changed in place.

    The partner of position 2i is 2i + 1 and the other way round, so even slices of a batch (micro-batches, processes)
    give the same numbers as the batch; the order of the data is shuffled anyway. An odd last image is not mixed.
    """
    count = len(images)
    if settings.is_identity or count < 2:
        return images, targets
    drawn = draws.stream("mixing").uniform(4 + 2 * _BETA_ROUNDS)
    partner = torch.arange(count) ^ 1
    chosen = (drawn[:, 0] < settings.probability) & (partner < count)
    partner.clamp_(max=count - 1)
    cut = drawn[:, 1] < settings.cutmix_share
    if not (settings.mixup and settings.cutmix):
        cut = torch.full((count,), settings.cutmix > 0)
    part = _beta(drawn[:, 4:], torch.where(cut, settings.cutmix, settings.mixup))
    # As in fastai: else both images of a pair could become nearly the same one, and the other would not be seen.
    blend = torch.maximum(part, 1.0 - part)
    side = (1.0 - part).sqrt()
    box = masks(side, side, images.shape[-2:], [drawn[:, 2], drawn[:, 3]], inside=False)
    box &= (chosen & cut)[:, None, None]
    # A box that crosses the edge covers less than was drawn, so the label follows the visible share.
    seen = 1.0 - box.double().mean((1, 2))
    share = torch.where(cut, seen, torch.where(chosen, blend, torch.ones(count))).float()
    own = torch.where(cut[:, None, None], (~box).float(), share[:, None, None].expand_as(box))
    partner = partner.to(images.device)
    own = own[:, None].to(images)
    mixed = torch.lerp(images[partner], images, own)
    label = share[:, None].to(targets)
    return mixed, torch.lerp(targets[partner], targets, label)


def _beta(drawn: Tensor, alpha: Tensor) -> Tensor:
    """Numbers [B] of Beta(alpha, alpha) from uniform ones [B, 2 * rounds]; alpha [B] is above 0. In float64.

    Joehnk's method (1964): of u^(1/a), v^(1/a) the first pair with a sum of at most 1 gives x / (x + y).
    """
    first, second = (drawn.double().clamp(min=1e-300) ** (1.0 / alpha.double()[:, None])).chunk(2, 1)
    accepted = (first + second <= 1.0) & (first + second > 0.0)
    accepted[:, -1] = True
    index = accepted.to(torch.int8).argmax(1, keepdim=True)
    x, y = first.gather(1, index)[:, 0], second.gather(1, index)[:, 0]
    share: Tensor = x / (x + y).clamp(min=1e-300)
    return share
