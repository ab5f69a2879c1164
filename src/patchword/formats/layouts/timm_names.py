"""timm's tensor names for all of its ViT classes; the model's shapes and the spelling decide which are present."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from patchword.formats.checkpoint import Checkpoint
from patchword.formats.layout import Ignored
from patchword.formats.layouts.stems import TORCH, StemNames
from patchword.formats.ops import Op, Reshaped, Shape
from patchword.formats.rows import (
    Row,
    Rows,
    channels_last,
    gate_and_value,
    queries_keys_values,
    table,
    token,
    unchanged,
)
from patchword.model.kinds import NoStem, ResNetStem, Stem

INDEX = Ignored(
    r"(.*\.)?relative_position_index|.*\.rel_coords_log", "an index that patchword computes from the grid"
)
_BACKBONE = "patch_embed.backbone."
_SHARED = ("rel_pos_bias.", "shared_rel_pos.")


def rows(spelling: Mapping[str, Any], stem: Stem) -> Rows:
    """All rows. spelling: as described in `timm.spelled`."""
    before = "embeds." if spelling["naflex"] else ""
    patches = "embeds" if spelling["naflex"] else "patch_embed"
    yield from stem_names(stem).rows(stem)
    yield f"{patches}.proj.weight", "patch_embed.proj.weight", _KERNELS[spelling["patches"]]
    yield f"{patches}.proj.bias", "patch_embed.proj.bias"
    yield f"{patches}.norm.{{wb}}", "patch_embed.norm_output.{wb}"
    yield f"{before}cls_token", "prefix.class_token", token
    yield "dist_token", "prefix.distillation_token", token
    yield f"{before}reg_token", "prefix.registers", token
    if spelling["naflex"]:
        yield f"{before}pos_embed", "positions.grid", _laid_out
    else:
        yield "pos_embed", ("positions.prefix", "positions.grid"), table
    yield from _inner_positions(spelling["relative"])
    yield "norm_pre.{wb}", "entry_norm.{wb}"
    yield [
        (f"blocks.{{i}}.{row[0]}", *row[1:]) if isinstance(row[0], str) else row for row in _block(spelling)
    ]
    yield from _HEAD


def _inner_positions(place: str) -> Iterator[Row]:
    """place: of relative tables, below each block's attention or at the top."""
    yield "rope.freqs", "attention_positions.frequencies"
    theirs, index = (place, "0") if place in _SHARED else (f"blocks.{{i}}.attn.{place}", "{i}")
    yield f"{theirs}relative_position_bias_table", f"attention_positions.tables.{index}"
    for layer in ("fc1", "fc2"):
        yield f"{theirs}mlp.{layer}.{{wb}}", f"attention_positions.mlps.{index}.{layer}.{{wb}}"


def _block(spelling: Mapping[str, Any]) -> Iterator[Row]:
    """Of a block, below its prefix; query and value biases are separate if keys have none."""
    ours = "blocks.{i}.attention."
    yield "norm1.{wb}", "blocks.{i}.norm1.{wb}"
    if spelling["split"]:
        three = tuple(f"blocks.{{i}}.attn.{part}_proj.{{wb}}" for part in "qkv")
        yield three, f"{ours}qkv.{{wb}}", queries_keys_values
    else:
        yield "attn.qkv.{wb}", f"{ours}qkv.{{wb}}"
    for part in "qv":
        yield f"attn.{part}_proj.bias" if spelling["split"] else f"attn.{part}_bias", f"{ours}{part}_bias"
    for norm, name in (("q_norm", "q_norm"), ("k_norm", "k_norm"), ("norm", "out_norm")):
        yield f"attn.{norm}.{{wb}}", f"{ours}{name}.{{wb}}"
    yield "attn.proj.{wb}", f"{ours}proj.{{wb}}"
    for number in (1, 2):
        gamma = f"gamma_{number}" if spelling["scale"] == "gamma" else f"ls{number}.gamma"
        yield gamma, f"blocks.{{i}}.scale{number}.weight"
    yield "norm2.{wb}", "blocks.{i}.norm2.{wb}"
    if spelling["gate"] == "apart":
        apart = tuple(f"blocks.{{i}}.mlp.fc1_{part}.{{wb}}" for part in "gx")
        yield apart, "blocks.{i}.mlp.fc1.{wb}", gate_and_value
    else:
        yield "mlp.fc1.{wb}", "blocks.{i}.mlp.fc1.{wb}"
    yield "mlp.norm.{wb}", "blocks.{i}.mlp.norm.{wb}"
    yield "mlp.fc2.{wb}", "blocks.{i}.mlp.fc2.{wb}"


_HEAD: tuple[Row, ...] = (
    ("attn_pool.latent", "pool.probe", token),
    *(
        (f"attn_pool.{n}.{{wb}}", f"pool.{n}.{{wb}}")
        for n in ("q", "kv", "proj", "mlp.fc1", "mlp.fc2", "norm")
    ),
    ("norm.{wb}", "norm.{wb}"),
    ("fc_norm.{wb}", "pooled_norm.{wb}"),
    ("head.{wb}", "head.{wb}"),
    ("head_dist.{wb}", "head_distillation.{wb}"),
)


# Operations ------------------------------------------------------------------------------------


def _laid_out(ours: Sequence[Shape]) -> Op:
    """[1, rows, columns, D] in the file."""
    return Reshaped((1, *ours[0]))


def _channels_first(ours: Sequence[Shape]) -> Op:
    dim, *rest = ours[0]
    return Reshaped((dim, rest[0] * rest[1] * rest[2]))


_KERNELS = {
    "kernel": unchanged,
    "channels first": _channels_first,
    "channels last": channels_last,
}


# Hybrids ---------------------------------------------------------------------------------------


def stem_names(stem: Stem) -> StemNames:
    """timm's ResNetV2 without pre-activation. Source: its `vision_transformer_hybrid.py`."""
    root = f"{_BACKBONE}stem." if isinstance(stem, ResNetStem) and stem.units else _BACKBONE
    return StemNames(
        root=f"{root}conv",
        root_norm=f"{root}norm",
        unit=f"{_BACKBONE}stages.{{stage}}.blocks.{{unit}}.",
        conv="conv{n}",
        norm="norm{n}",
        proj="downsample.conv",
        proj_norm="downsample.norm",
        parts=TORCH,
    )


def stem_of(checkpoint: Checkpoint) -> Stem:
    """The ResNet before the patches."""
    for root, units in (("", ()), ("stem.", _units(checkpoint))):
        if checkpoint.has(f"{_BACKBONE}{root}conv.weight"):
            width = checkpoint.shape_of(f"{_BACKBONE}{root}conv.weight", 4)[0]
            return ResNetStem(units=units, width=width, weight_eps="variance", small=1e-8, norm_eps=1e-5)
    return NoStem()


def _units(checkpoint: Checkpoint) -> tuple[int, ...]:
    found: list[int] = []
    while units := checkpoint.depth(f"{_BACKBONE}stages.{len(found)}.blocks.{{}}.conv1.weight"):
        found.append(units)
    return tuple(found)
