"""Rewrite a model into the equivalent form of transformers' classes, with the same outputs."""

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from patchword.checkpoints.layouts.periods import without_periods
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

if TYPE_CHECKING:
    from torch import Tensor

Tensors = Mapping[str, "Tensor"]


def rewritten_for(
    config: ViTConfig, tensors: Tensors, *, bias: Literal["qkv", "qv", "any"], patch_bias: bool
) -> tuple[ViTConfig, Tensors]:
    """bias: biases of the class on queries, keys and values. patch_bias: whether its patch embedding has one."""
    if isinstance(config.head.pool, FirstPool) and config.tokens.class_token:
        config = replace(config, head=replace(config.head, pool=ClassPool()))
    config, tensors = sines_as_table(config, tensors)
    config, tensors = without_periods(config, tensors)
    config, tensors = zeros_for_positions(config, tensors)
    if bias == "any":
        return config, tensors
    config, tensors = _keys(config, tensors, bias)
    return _zeros_for_biases(config, tensors, patch_bias)


def sines_as_table(config: ViTConfig, tensors: Tensors) -> tuple[ViTConfig, Tensors]:
    """Turn fixed sines into a learned table, which is resampled for other sizes."""
    if not isinstance(config.added_positions, SinCos1d | SinCos2d):
        return config, tensors
    from patchword.model.positions import added_positions

    module = added_positions(config)
    assert module is not None
    table = module(config.grid_size).reshape(*config.grid_size, config.dim)
    return _with_added(config, Learned(covers="patches")), {**tensors, "positions.grid": table.contiguous()}


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


def _keys(config: ViTConfig, tensors: Tensors, bias: str) -> tuple[ViTConfig, Tensors]:
    """Add or drop the key bias. It shifts all scores of a query equally, which softmax cancels."""
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


def _zeros_for_biases(config: ViTConfig, tensors: Tensors, patch_bias: bool) -> tuple[ViTConfig, Tensors]:
    """Add a zero bias, since the class always has one."""
    import torch

    config = replace(
        config,
        head=replace(config.head, bias=True),
        attention=replace(config.attention, out_bias=True),
        mlp=replace(config.mlp, bias=True),
        patch=replace(config.patch, bias=config.patch.bias or patch_bias),
    )
    zeros = {
        name: torch.zeros(shape, dtype=tensors[weight].dtype)
        for name, shape in shapes(config).items()
        if name.endswith(".bias")
        and name not in tensors
        and (weight := f"{name.removesuffix('bias')}weight") in tensors
        and "qkv" not in name
    }
    return config, {**tensors, **zeros}
