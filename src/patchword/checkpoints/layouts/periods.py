"""Periods of rotary positions: DINOv3's authors store them, the code of other formats computes them."""

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from patchword.model.config import ViTConfig
from patchword.model.kinds import Rope2d

if TYPE_CHECKING:
    from torch import Tensor

PERIODS = "attention_positions.periods"
Tensors = Mapping[str, "Tensor"]


def with_periods(config: ViTConfig, tensors: Tensors) -> tuple[ViTConfig, Tensors]:
    """Store computed periods as a tensor, which can represent any theta."""
    rope = config.positions
    if not isinstance(rope, Rope2d) or replace(rope, theta=Rope2d().theta) != Rope2d():
        return config, tensors
    stored = replace(config, positions=Rope2d(stored_periods=True))
    return stored, {**tensors, PERIODS: _computed(config, rope)}


def without_periods(config: ViTConfig, tensors: Tensors) -> tuple[ViTConfig, Tensors]:
    """Drop stored periods if the code computes exactly the same; keep rounded ones."""
    import torch

    rope = config.positions
    if not isinstance(rope, Rope2d) or not rope.stored_periods or PERIODS not in tensors:
        return config, tensors
    if not torch.equal(tensors[PERIODS].float().cpu(), _computed(config, rope)):
        return config, tensors
    rest = {name: tensor for name, tensor in tensors.items() if name != PERIODS}
    return replace(config, positions=replace(rope, stored_periods=False)), rest


def _computed(config: ViTConfig, rope: Rope2d) -> "Tensor":
    from patchword.model.positions.rope2d import Rope2dPositions

    module = Rope2dPositions(replace(rope, stored_periods=True), config)
    module.reset(None)
    assert module.periods is not None
    return module.periods
