"""Compare two configs as models: only fields that change outputs count, in a normal form."""

from dataclasses import fields, is_dataclass, replace
from typing import Any

from patchword.model.config import HeadConfig, ViTConfig
from patchword.model.kinds import (
    AttentionPool,
    ClassPool,
    Combined,
    FirstPool,
    LayerNormConfig,
    Learned,
    MaxPool,
    MeanPool,
    Positions,
    RMSNormConfig,
)

# These change no output at the model's own size: training settings, LayerScale's initial value, and the resampling
# for other sizes, which the reading format decides.
_IMMATERIAL = ("resample", "dropout", "drop_path", "layer_scale", "momentum", "rule")


def differences(ours: Any, theirs: Any, path: str = "") -> list[tuple[str, Any, Any]]:
    """Fields that differ between two configs and change outputs, as (dotted name, ours, theirs)."""
    if type(ours) is not type(theirs):
        if isinstance(ours, float | int) and isinstance(theirs, float | int) and ours == theirs:
            return []
        return [(path, ours, theirs)]
    if not is_dataclass(ours) or isinstance(ours, type):
        same = ours == theirs
        return [] if same else [(path, ours, theirs)]
    found: list[tuple[str, Any, Any]] = []
    for field in fields(ours):
        if field.name in _IMMATERIAL and (field.name != "layer_scale" or _both_there(ours, theirs)):
            continue
        inner = f"{path}.{field.name}" if path else field.name
        found += differences(getattr(ours, field.name), getattr(theirs, field.name), inner)
    return found


def _both_there(ours: Any, theirs: Any) -> bool:
    return (ours.layer_scale is None) == (theirs.layer_scale is None)


def explicit(config: ViTConfig) -> ViTConfig:
    """Fill in the config's defaults, so that two spellings of the same model compare equal."""
    attention = replace(config.attention, head_dim=config.head_dim)
    mlp = replace(config.mlp, hidden=config.mlp_dim)
    positions = _explicit_positions(config)
    # How an incomplete edge patch is handled: at the model's own size there may be none.
    whole = not any(side % span for side, span in zip(config.image.size, config.patch_span, strict=True))
    patch = replace(config.patch, edge="pad") if whole else config.patch
    return replace(
        config, patch=patch, attention=attention, mlp=mlp, positions=positions, head=_explicit_head(config)
    )


def _explicit_positions(config: ViTConfig) -> Positions:
    """A table without rows for prefix tokens covers the patches, whatever its setting."""
    added = config.added_positions
    if not isinstance(added, Learned) or config.num_prefix_positions:
        return config.positions
    plain = replace(added, covers="patches")
    return replace(config.positions, added=plain) if isinstance(config.positions, Combined) else plain


def _explicit_head(config: ViTConfig) -> HeadConfig:
    """One representative of the pools that give the same output."""
    head, pool = config.head, config.head.pool
    if isinstance(pool, FirstPool) and config.tokens.class_token:
        pool = ClassPool()
    if isinstance(pool, AttentionPool):
        heads, hidden = pool.num_heads or config.attention.num_heads, pool.hidden or config.mlp_dim
        pool = replace(pool, num_heads=heads, hidden=hidden)
    if isinstance(pool, MeanPool | MaxPool | AttentionPool) and not config.tokens.num_extra:
        pool = replace(pool, over="patches")
    # The norm is per token, so it may come before or after selecting one token.
    alone = isinstance(pool, ClassPool) and isinstance(config.norm, LayerNormConfig | RMSNormConfig)
    bias = head.bias or not head.num_classes
    return replace(
        head, pool=pool, bias=bias, norm="tokens" if alone and head.norm == "pooled" else head.norm
    )
