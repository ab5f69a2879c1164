"""Rewrite a model into timm's equivalent form, with the same outputs.

timm's own loaders do the same for files of CLIP (a projection becomes the head, with zero bias)
and of DINOv2 with registers (the class token's position is added to the token).
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from patchword.checkpoints.layouts.periods import without_periods
from patchword.model.config import ViTConfig
from patchword.model.kinds import (
    ClassPool,
    Combined,
    FirstPool,
    LayerNormConfig,
    Learned,
    NoPositions,
    Positions,
    SinCos1d,
    SinCos2d,
)
from patchword.model.shapes import shapes

if TYPE_CHECKING:
    from torch import Tensor

Tensors = Mapping[str, "Tensor"]


def rewritten_for(config: ViTConfig, tensors: Tensors) -> tuple[ViTConfig, Tensors]:
    """Config and tensors of the same model, as close to timm's form as possible without changing outputs."""
    for step in (
        _first_as_class,
        _projection_as_head,
        _class_position_in_token,
        _sines_as_table,
        _zeros_for_biases,
        without_periods,
    ):
        config, tensors = step(config, tensors)
    return config, tensors


def _first_as_class(config: ViTConfig, tensors: Tensors) -> tuple[ViTConfig, Tensors]:
    if not isinstance(config.head.pool, FirstPool) or not config.tokens.class_token:
        return config, tensors
    return replace(config, head=replace(config.head, pool=ClassPool())), tensors


def _projection_as_head(config: ViTConfig, tensors: Tensors) -> tuple[ViTConfig, Tensors]:
    head = config.head
    if not head.projection or head.num_classes:
        return config, tensors
    found = {name: tensor for name, tensor in tensors.items() if name != "projection.weight"}
    found["head.weight"] = tensors["projection.weight"]
    if head.projection_bias:
        found["head.bias"] = found.pop("projection.bias")
    as_head = replace(
        head, projection=0, projection_bias=False, num_classes=head.projection, bias=head.projection_bias
    )
    return replace(config, head=as_head), found


def _class_position_in_token(config: ViTConfig, tensors: Tensors) -> tuple[ViTConfig, Tensors]:
    added, tokens = config.added_positions, config.tokens
    alone = isinstance(added, Learned) and added.covers == "all_but_registers" and tokens.num_registers
    if not alone or not tokens.class_token or tokens.distillation_token:
        return config, tensors
    assert isinstance(added, Learned)
    found = {name: tensor for name, tensor in tensors.items() if name != "positions.prefix"}
    found["prefix.class_token"] = tensors["prefix.class_token"] + tensors["positions.prefix"][0]
    return _with_added(config, replace(added, covers="patches")), found


def _with_added(config: ViTConfig, added: Learned) -> ViTConfig:
    inner = config.inner_positions
    positions: Positions = added if isinstance(inner, NoPositions) else Combined(added=added, inner=inner)
    return replace(config, positions=positions)


def _sines_as_table(config: ViTConfig, tensors: Tensors) -> tuple[ViTConfig, Tensors]:
    """Turn fixed sines into a learned table, which timm resamples for other sizes."""
    if not isinstance(config.added_positions, SinCos1d | SinCos2d):
        return config, tensors
    from patchword.model.positions import added_positions

    module = added_positions(config)
    assert module is not None
    weight = tensors["patch_embed.proj.weight"]
    table = module(config.grid_size).to(weight.dtype).reshape(*config.grid_size, config.dim)
    covers = Learned(covers="patches" if config.tokens.num_prefix else "all_but_registers")
    return _with_added(config, covers), {**tensors, "positions.grid": table.contiguous()}


def _zeros_for_biases(config: ViTConfig, tensors: Tensors) -> tuple[ViTConfig, Tensors]:
    """Add a zero bias, since timm always has one."""
    import torch

    norm, head, attention, mlp = config.norm, config.head, config.attention, config.mlp
    if isinstance(norm, LayerNormConfig):
        norm = replace(norm, bias=True)
    plain = isinstance(config.inner_positions, NoPositions) and attention.bias != "qv"
    if attention.out_bias != mlp.bias or not plain:
        attention, mlp = replace(attention, out_bias=True), replace(mlp, bias=True)
    patch = config.patch if config.block.entry_norm else replace(config.patch, bias=True)
    head = replace(head, bias=True)
    config = replace(config, norm=norm, head=head, attention=attention, mlp=mlp, patch=patch)
    zeros = {
        name: torch.zeros(shape, dtype=tensors[name.removesuffix("bias") + "weight"].dtype)
        for name, shape in shapes(config).items()
        if name.endswith(".bias") and name not in tensors
    }
    return config, {**tensors, **zeros}
