"""RandAugment, TrivialAugment and 3-Augment on a batch: draw an operation per image, then apply each to its images at once."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from patchword.training.augment import operations
from patchword.training.augment.geometry import between, identity
from patchword.training.augment.operations import GEOMETRIC, LINEAR, NEEDS_RGB
from patchword.training.augment.settings import Policy, RandAugment, ThreeAugment, TrivialAugment
from patchword.training.chance import Draws

OTHERS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "sharpness": operations.sharpness,
    "posterise": operations.posterise,
    "solarise": operations.solarise,
    "solarise_add": operations.solarise_add,
    "autocontrast": operations.autocontrast,
    "equalise": operations.equalise,
    "blur": operations.blur,
}
_RAND = (
    *(
        "autocontrast",
        "equalise",
        "invert",
        "rotate",
        "posterise",
        "solarise",
        "solarise_add",
        "colour",
        "contrast",
    ),
    *("brightness", "sharpness", "shear_x", "shear_y", "translate_x", "translate_y"),
)
_TRIVIAL = (
    *(
        "identity",
        "shear_x",
        "shear_y",
        "translate_x",
        "translate_y",
        "rotate",
        "brightness",
        "colour",
        "contrast",
    ),
    *("sharpness", "posterise", "solarise", "autocontrast", "equalise"),
)
BINS, SHIFT = 31, 32


@dataclass(frozen=True)
class Step:
    """One operation per image: its name, and its amount [B] as `operations.py` takes it."""

    names: list[str]
    amount: Tensor


def apply_policy(images: Tensor, policy: Policy, draws: Draws) -> tuple[Tensor, Tensor]:
    """Images [B, C, H, W] in 0..1 after the policy, and the maps [B, 2, 3] from their coordinates to those before."""
    height, width = images.shape[-2:]
    fill = policy.fill if isinstance(policy, RandAugment | TrivialAugment) else 0.0
    return apply_steps(images, draw_steps(policy, (height, width), draws), fill)


def draw_steps(policy: Policy, size: tuple[int, int], draws: Draws) -> list[Step]:
    """The operations of each image, one step after the other. size: (h, w) of the views in pixels."""
    if isinstance(policy, RandAugment):
        drawn = draws.uniform(policy.operations, 5)
        return [_rand_step(policy, drawn[:, i].unbind(1)) for i in range(policy.operations)]
    if isinstance(policy, TrivialAugment):
        return [_trivial_step(size, draws.uniform(3).unbind(1))]
    if isinstance(policy, ThreeAugment):
        which, spread = draws.uniform(2).unbind(1)
        table = {
            "colour": torch.zeros(len(draws)),
            "solarise": torch.full((len(draws),), policy.solarise),
            "blur": between(spread, policy.blur),
        }
        return [_chosen(table, which)]
    return []


def apply_steps(images: Tensor, steps: list[Step], fill: float) -> tuple[Tensor, Tensor]:
    """As `apply_policy`, for steps that are drawn already. fill: of what operations uncover."""
    height, width = images.shape[-2:]
    images, total = images.clone(), identity(len(images))
    for step in steps:
        for family in (GEOMETRIC, LINEAR, *((name,) for name in OTHERS)):
            rows = [i for i, name in enumerate(step.names) if name in family and _is_possible(name, images)]
            if not rows:
                continue
            names, amount = [step.names[i] for i in rows], step.amount[rows]
            places = torch.tensor(rows, device=images.device)
            chosen = images[places]
            if family is GEOMETRIC:
                matrix = operations.matrices(names, amount, (height, width))
                images[places] = operations.geometric(chosen, matrix, fill)
                total[rows] = composed(total[rows], matrix)
            elif family is LINEAR:
                images[places] = operations.linear(chosen, names, amount)
            else:
                images[places] = OTHERS[family[0]](chosen, amount)
    return images, total


def composed(first: Tensor, second: Tensor) -> Tensor:
    """The maps [B, 2, 3] that apply `second`, then `first`."""
    linear = first[:, :, :2] @ second[:, :, :2]
    start = (first[:, :, :2] @ second[:, :, 2:]) + first[:, :, 2:]
    return torch.cat([linear, start], 2)


def _is_possible(name: str, images: Tensor) -> bool:
    return images.shape[1] == 3 or name not in NEEDS_RGB


def _rand_step(policy: RandAugment, drawn: tuple[Tensor, ...]) -> Step:
    """Levels as timm's "inc1" (increasing strength) has them."""
    which, applied, sign, *noise = drawn
    radius = (-2.0 * torch.log1p(-noise[0].double())).sqrt()
    normal = radius * torch.cos(2.0 * math.pi * noise[1].double())
    level = (policy.magnitude + policy.noise * normal).clamp(0.0, 10.0) / 10.0
    signed = torch.where(sign < 0.5, -level, level)
    factor = (1.0 + 0.9 * signed).clamp(min=0.1)
    zero = torch.zeros_like(level)
    table = {
        **dict.fromkeys(_RAND, zero),
        "rotate": 30.0 * signed,
        # At least one bit: none, which timm draws at 10, is a black image.
        "posterise": (4.0 - (4.0 * level).floor()).clamp(min=1.0),
        "solarise": (256.0 - (256.0 * level).floor()) / 255.0,
        "solarise_add": (110.0 * level).floor() / 255.0,
        **dict.fromkeys(("colour", "contrast", "brightness", "sharpness"), factor),
        **dict.fromkeys(("shear_x", "shear_y"), 0.3 * signed),
        **dict.fromkeys(("translate_x", "translate_y"), 0.45 * signed),
    }
    step = _chosen(table, which)
    kept = (applied < policy.probability).tolist()
    names = [name if keep else "identity" for name, keep in zip(step.names, kept, strict=True)]
    return Step(names, step.amount)


def _trivial_step(size: tuple[int, int], drawn: tuple[Tensor, ...]) -> Step:
    which, strength, sign = drawn
    level = (strength * BINS).floor().double() / (BINS - 1)
    signed = torch.where(sign < 0.5, -level, level)
    factor, zero = 1.0 + 0.99 * signed, torch.zeros_like(level)
    table = {
        **dict.fromkeys(_TRIVIAL, zero),
        **dict.fromkeys(("shear_x", "shear_y"), 0.99 * signed),
        # Complete pixels, as in the paper.
        "translate_x": (min(SHIFT, size[1]) * signed).trunc() / size[1],
        "translate_y": (min(SHIFT, size[0]) * signed).trunc() / size[0],
        "rotate": 135.0 * signed,
        **dict.fromkeys(("brightness", "colour", "contrast", "sharpness"), factor),
        "posterise": (8.0 - 6.0 * level).round(),
        "solarise": 1.0 - level,
    }
    return _chosen(table, which)


def _chosen(table: dict[str, Tensor], which: Tensor) -> Step:
    """Pick one entry of the table for each image. which: [B], 0..1."""
    codes = (which.double() * len(table)).long()
    amounts = torch.stack([amount.double() for amount in table.values()], 1)
    amount = amounts.gather(1, codes[:, None])[:, 0].float()
    names = np.array(list(table))[codes.numpy()].tolist()
    return Step(names, amount)
