"""Contradictions between the parts of a ViTConfig, each with what would mend it."""

from typing import TYPE_CHECKING

from patchword.errors import SettingsError
from patchword.model.kinds import (
    AttentionPool,
    ClassPool,
    GroupNormConfig,
    InstanceNormConfig,
    JoinedPool,
    Learned,
    Rope2d,
    RopeMixed,
    SinCos1d,
    SinCos2d,
)

if TYPE_CHECKING:
    from patchword.model.config import ViTConfig


def check(config: "ViTConfig") -> None:
    """Raises: SettingsError for the first contradiction found."""
    if min(config.patch.stem.size_after(config.image.size)) < 1:
        raise SettingsError(
            f"an image of {config.image.size[0]} x {config.image.size[1]} leaves no features behind the stem",
            f"set image.size to at least {2 * config.patch.stem.stride} pixels a side",
        )
    if not all(config.grid_size):
        raise SettingsError(
            f"images of {config.image.size} hold no whole patch of {config.patch.size}",
            "set image.size to at least a patch, or patch.edge = 'pad'",
        )
    _check_attention(config)
    _check_positions(config)
    _check_norm(config)
    _check_head(config)


def _check_attention(config: "ViTConfig") -> None:
    heads = config.attention.num_heads
    if config.attention.head_dim is None and config.dim % heads:
        fitting = [n for n in range(1, config.dim + 1) if config.dim % n == 0]
        nearest = min(fitting, key=lambda n: abs(n - heads))
        raise SettingsError(
            f"dim {config.dim} cannot be shared among {heads} attention heads",
            f"set attention.num_heads = {nearest}, or give attention.head_dim",
        )


def _check_positions(config: "ViTConfig") -> None:
    added, inner = config.added_positions, config.inner_positions
    if isinstance(added, SinCos2d) and config.dim % 4:
        raise SettingsError(
            f"sincos2d positions need a dim divisible by 4, not {config.dim}",
            f"set dim = {-(-config.dim // 4) * 4}",
        )
    if isinstance(added, SinCos1d) and config.dim % 2:
        raise SettingsError(f"sincos1d positions need an even dim, not {config.dim}", "make dim even")
    if isinstance(added, Learned) and added.covers == "all" and config.tokens.registers_last:
        raise SettingsError(
            "registers behind the patches have no positions", "set positions.covers = 'all_but_registers'"
        )
    if isinstance(inner, Rope2d | RopeMixed) and config.head_dim % 4:
        raise SettingsError(
            f"{inner.kind} positions need a head_dim divisible by 4, not {config.head_dim}",
            "choose attention.num_heads so that dim / num_heads is, or give attention.head_dim",
        )


def _check_norm(config: "ViTConfig") -> None:
    """Every width that is normed must suit the norm."""
    if isinstance(config.norm, GroupNormConfig):
        groups = config.norm.num_groups
        widths = {"dim": config.dim}
        if config.mlp.inner_norm:
            widths["the MLP's hidden width"] = config.mlp_dim
        if config.attention.out_norm:
            widths["num_heads · head_dim"] = config.attention_dim
        if config.patch.norm_pixels:
            widths["the pixels of a patch"] = config.patch_pixels
        if isinstance(config.head.pool, AttentionPool) and config.mlp.inner_norm:
            widths["the attention pool's hidden width"] = config.head.pool.hidden or config.mlp_dim
        for name, width in widths.items():
            if groups < 1 or width % groups:
                raise SettingsError(
                    f"{name}, {width}, cannot be parted into {groups} groups for group norm",
                    "set norm.num_groups to a divisor",
                )
    normed_alone = config.head.norm == "pooled" or isinstance(config.head.pool, AttentionPool)
    if isinstance(config.norm, InstanceNormConfig) and normed_alone:
        raise SettingsError(
            "instance norm of one pooled vector is always zero",
            "pool by class token, mean or max, with head.norm = 'tokens'",
        )


def _check_head(config: "ViTConfig") -> None:
    head, tokens = config.head, config.tokens
    if isinstance(head.pool, ClassPool | JoinedPool) and not tokens.class_token:
        raise SettingsError(
            f"pooling {head.pool.kind!r} needs a class token, and there is none",
            "set tokens.class_token = true, or head.pool = {kind = 'mean'}",
        )
    if isinstance(head.pool, JoinedPool) and head.pool.class_layers > config.depth:
        raise SettingsError(
            f"class tokens of {head.pool.class_layers} blocks are pooled, there are {config.depth}",
            f"set head.pool.class_layers to at most {config.depth}",
        )
    if isinstance(head.pool, AttentionPool) and config.dim % (
        head.pool.num_heads or config.attention.num_heads
    ):
        raise SettingsError(
            f"dim {config.dim} cannot be shared among the attention pool's heads",
            "set head.pool.num_heads to a divisor of dim",
        )
    if head.distilled and not (tokens.distillation_token and isinstance(head.pool, ClassPool)):
        raise SettingsError(
            "a distilled head needs a distillation token and pooling by class token",
            "set tokens.distillation_token = true and head.pool = {kind = 'class'}",
        )
    if head.projection_bias and not head.projection:
        raise SettingsError(
            "head.projection_bias is set, but there is no projection",
            "set head.projection, or leave its bias out",
        )
    if head.distilled and (head.norm != "tokens" or head.pre_logits or head.projection):
        raise SettingsError(
            "a distilled head reads normed tokens as they are",
            "set head.norm = 'tokens', head.pre_logits = 0, head.projection = 0",
        )
