"""Receptive fields: what a unit could see, and what it does see.

Sources: Araujo et al. 2019 (Distill, 10.23915/distill.00021) for the formula; Luo et al. 2016 (arXiv 1701.04128) for the
effective field; Raghu et al. 2021 (arXiv 2108.08810), figure 6, for Transformers.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

Layer = tuple[int, int]  # kernel, stride
# A Gaussian is at 4.55 % of its peak about 2.5 deviations from it (Luo et al. count pixels above 1 - 95.45 %).
CUT = 0.0455


def vgg16() -> list[Layer]:
    """Convolutions and pools of VGG-16."""
    return [layer for count in (2, 2, 3, 3, 3) for layer in [*[(3, 1)] * count, (2, 2)]]


def resnet(units: Sequence[int], *, bottleneck: bool, stride_on_3x3: bool = True) -> list[Layer]:
    """The longest path of a ResNet: ResNet-18 is resnet((2, 2, 2, 2), bottleneck=False)."""
    layers: list[Layer] = [(7, 2), (3, 2)]
    for stage, count in enumerate(units):
        for unit in range(count):
            stride = 2 if stage and not unit else 1
            if not bottleneck:
                layers += [(3, stride), (3, 1)]
            elif stride_on_3x3:
                layers += [(1, 1), (3, stride), (1, 1)]
            else:
                layers += [(1, stride), (3, 1), (1, 1)]
    return layers


def theoretical_field(layers: Sequence[Layer]) -> int:
    """Pixels per side that one unit can depend on: 1 + sum of (kernel - 1) · product of the strides before."""
    field, jump = 1, 1
    for kernel, stride in layers:
        field += (kernel - 1) * jump
        jump *= stride
    return field


class Effective(NamedTuple):
    """deviation: in pixels. side: pixels per side of the theoretical field. above: pixels per side above 4.55 % of the peak.
    area: the share of the theoretical field that a square of that side covers."""

    deviation: float
    side: int
    above: int
    area: float


def uniform_stack(layers: int) -> Effective:
    """The effective field of `layers` uniform 3 x 3 kernels of stride 1: exact, close to a Gaussian of sd sqrt(layers · 8/12)."""
    row = torch.ones(1, dtype=torch.float64)
    for _ in range(layers):
        row = torch.conv1d(
            torch.nn.functional.pad(row, (2, 2))[None, None],
            torch.full((1, 1, 3), 1 / 3, dtype=torch.float64),
        )[0, 0]
    place = torch.arange(len(row), dtype=torch.float64) - len(row) // 2
    above = int((row > CUT * row.max()).sum())
    return Effective(
        deviation=math.sqrt(float((row * place.square()).sum())),
        side=len(row),
        above=above,
        area=(above / len(row)) ** 2,
    )


def effective_field(unit: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    """|d(unit, summed over its channels) / d(pixel)|, mean over images [B, C, H, W] and channels: [H, W], summing to 1.

    unit: images → the vector [B, D] of one place. Without any gradient, all zeros.
    """
    images = images.detach().clone().requires_grad_()
    (gradient,) = torch.autograd.grad(unit(images).sum(), images)
    field = gradient.abs().mean(dim=(0, 1)).double()
    return field / field.sum().clamp(min=1e-300)


def spread(field: Tensor) -> float:
    """The deviation of a field [H, W] about its centre of mass, per axis, in pixels."""
    rows, columns = torch.meshgrid(
        *(torch.arange(n, dtype=torch.float64) for n in field.shape), indexing="ij"
    )
    total = field.sum()
    variance = 0.0
    for axis in (rows, columns):
        mean = (field * axis).sum() / total
        variance += float((field * (axis - mean).square()).sum() / total)
    return math.sqrt(variance / 2)


def share_inside(field: Tensor, top: int, left: int, height: int, width: int) -> float:
    """The share of a field [H, W] inside a rectangle, such as the unit's own patch."""
    return float(field[top : top + height, left : left + width].sum() / field.sum())
