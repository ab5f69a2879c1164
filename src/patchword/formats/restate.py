"""Rewrite a model into an equivalent form that a format can hold, with the same outputs.

Each step takes a config and its tensors, and returns both unchanged if it does not apply. timm's loaders do the same for
files of CLIP (a projection becomes the head) and of DINOv2 with registers (the class token's position is added to it).
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from patchword.model.config import ViTConfig
from patchword.model.kinds import (
    ClassPool,
    Combined,
    FirstPool,
    Learned,
    NoPositions,
    Positions,
    Rope2d,
    RopeMixed,
    SinCos1d,
    SinCos2d,
)
from patchword.model.shapes import shapes
from patchword.weights.card import ModelCard

if TYPE_CHECKING:
    from torch import Tensor

Tensors = Mapping[str, "Tensor"]
Step = Callable[[ViTConfig, Tensors], tuple[ViTConfig, Tensors]]
PERIODS = "attention_positions.periods"


def restated(card: ModelCard, tensors: Tensors, *steps: Step) -> tuple[ModelCard, Tensors]:
    """The model after all steps."""
    config = card.config
    for step in steps:
        config, tensors = step(config, tensors)
    return replace(card, config=config), tensors


def first_as_class(config: ViTConfig, tensors: Tensors) -> tuple[ViTConfig, Tensors]:
    """Pooling by the first token is pooling by the class token, if there is one."""
    if isinstance(config.head.pool, FirstPool) and config.tokens.class_token:
        config = replace(config, head=replace(config.head, pool=ClassPool()))
    return config, tensors


def projection_as_head(config: ViTConfig, tensors: Tensors) -> tuple[ViTConfig, Tensors]:
    head = config.head
    if not head.projection or head.num_classes:
        return config, tensors
    found = {
        name.replace("projection.", "head.", 1) if name.startswith("projection.") else name: tensor
        for name, tensor in tensors.items()
    }
    as_head = replace(
        head, projection=0, projection_bias=False, num_classes=head.projection, bias=head.projection_bias
    )
    return replace(config, head=as_head), found


# Positions -------------------------------------------------------------------------------------


def class_position_in_token(config: ViTConfig, tensors: Tensors) -> tuple[ViTConfig, Tensors]:
    added, tokens = config.added_positions, config.tokens
    if not isinstance(added, Learned) or added.covers != "all_but_registers" or not tokens.num_registers:
        return config, tensors
    if not tokens.class_token or tokens.distillation_token:
        return config, tensors
    found = {name: tensor for name, tensor in tensors.items() if name != "positions.prefix"}
    found["prefix.class_token"] = tensors["prefix.class_token"] + tensors["positions.prefix"][0]
    return _with_added(config, replace(added, covers="patches")), found


def sines_as_table(config: ViTConfig, tensors: Tensors) -> tuple[ViTConfig, Tensors]:
    """Turn fixed sines into a learned table, which is resampled for other sizes."""
    if not isinstance(config.added_positions, SinCos1d | SinCos2d):
        return config, tensors
    from patchword.model.positions import added_positions

    module = added_positions(config)
    assert module is not None
    table = module(config.grid_size).reshape(*config.grid_size, config.dim)
    covers = Learned(covers="patches" if config.tokens.num_prefix else "all_but_registers")
    return _with_added(config, covers), {**tensors, "positions.grid": table.contiguous()}


def sines_in_its_dtype(config: ViTConfig, tensors: Tensors) -> tuple[ViTConfig, Tensors]:
    """As `sines_as_table`, in the dtype of the weights."""
    if not isinstance(config.added_positions, SinCos1d | SinCos2d):
        return config, tensors
    config, found = sines_as_table(config, tensors)
    table = found["positions.grid"].to(tensors["patch_embed.proj.weight"].dtype)
    return config, {**found, "positions.grid": table}


def zeros_for_positions(config: ViTConfig, tensors: Tensors) -> tuple[ViTConfig, Tensors]:
    """Give a class token without a position one of zeros."""
    import torch

    added, tokens = config.added_positions, config.tokens
    if not isinstance(added, Learned) or added.covers != "patches":
        return config, tensors
    count = tokens.class_token + tokens.distillation_token
    config = _with_added(config, replace(added, covers="all_but_registers"))
    if not count or "positions.grid" not in tensors:
        return config, tensors
    rows = torch.zeros(count, config.dim, dtype=tensors["positions.grid"].dtype)
    return config, {**tensors, "positions.prefix": rows}


def _with_added(config: ViTConfig, added: Learned) -> ViTConfig:
    inner = config.inner_positions
    positions: Positions = added if isinstance(inner, NoPositions) else Combined(added=added, inner=inner)
    return replace(config, positions=positions)


def with_periods(config: ViTConfig, tensors: Tensors) -> tuple[ViTConfig, Tensors]:
    """Store computed periods of rotary positions as a tensor, which can represent any theta (DINOv3's authors)."""
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


# Biases ------------------------------------------------------------------------------------------


def keys(bias: str) -> Step:
    """Add or drop the key bias ("qkv", "qv"). It shifts all scores of a query equally, which softmax cancels."""

    def step(config: ViTConfig, tensors: Tensors) -> tuple[ViTConfig, Tensors]:
        import torch

        attention = config.attention
        plain = attention.qk_norm == "none" and not isinstance(config.inner_positions, Rope2d | RopeMixed)
        if attention.bias not in ("qkv", "qv") or attention.bias == bias or not plain:
            return config, tensors
        found = dict(tensors)
        for index in range(config.depth):
            name = f"blocks.{index}.attention."
            if bias == "qv" and f"{name}qkv.bias" in found:
                found[f"{name}q_bias"], _, found[f"{name}v_bias"] = found.pop(f"{name}qkv.bias").chunk(3)
            elif f"{name}q_bias" in found:
                query, value = found.pop(f"{name}q_bias"), found.pop(f"{name}v_bias")
                found[f"{name}qkv.bias"] = torch.cat((query, torch.zeros_like(query), value))
        return replace(config, attention=replace(attention, bias="qv" if bias == "qv" else "qkv")), found

    return step


def with_zero_biases(config: ViTConfig, tensors: Tensors) -> tuple[ViTConfig, Tensors]:
    """Add a zero bias where the config has one and the tensors have only its weight."""
    zeros = {
        name: tensors[weight].new_zeros(shape)
        for name, shape in shapes(config).items()
        if name.endswith(".bias")
        and name not in tensors
        and "qkv" not in name
        and (weight := f"{name.removesuffix('bias')}weight") in tensors
    }
    return config, {**tensors, **zeros}
