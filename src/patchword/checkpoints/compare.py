"""Whether two configs are one model: the fields that change answers, and what two ways to say the same share."""

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

# They change no answer at the model's own size: training's settings, the value LayerScale began with, and how another
# size would be reached, which is the reading format's own way.
_IMMATERIAL = ("resample", "dropout", "drop_path", "layer_scale", "momentum", "rule")


def differences(ours: Any, theirs: Any, path: str = "") -> list[tuple[str, Any, Any]]:
    """Fields of two configs that differ and change answers, as (dotted name, ours, theirs)."""
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
    """The config with what it leaves to defaults filled in, so that two ways to say the same are equal."""
    attention = replace(config.attention, head_dim=config.head_dim)
    mlp = replace(config.mlp, hidden=config.mlp_dim)
    positions = _explicit_positions(config)
    # What becomes of an edge that is no whole patch: at the model's own size there may be none.
    whole = not any(side % span for side, span in zip(config.image.size, config.patch_span, strict=True))
    patch = replace(config.patch, edge="pad") if whole else config.patch
    return replace(
        config, patch=patch, attention=attention, mlp=mlp, positions=positions, head=_explicit_head(config)
    )


def _explicit_positions(config: ViTConfig) -> Positions:
    """A table without a row for any prefix token covers the patches, whatever it says."""
    added = config.added_positions
    if not isinstance(added, Learned) or config.num_prefix_positions:
        return config.positions
    plain = replace(added, covers="patches")
    return replace(config.positions, added=plain) if isinstance(config.positions, Combined) else plain


def _explicit_head(config: ViTConfig) -> HeadConfig:
    """Of ways to pool that give the same answer, one."""
    head, pool = config.head, config.head.pool
    if isinstance(pool, FirstPool) and config.tokens.class_token:
        pool = ClassPool()
    if isinstance(pool, AttentionPool):
        heads, hidden = pool.num_heads or config.attention.num_heads, pool.hidden or config.mlp_dim
        pool = replace(pool, num_heads=heads, hidden=hidden)
    if isinstance(pool, MeanPool | MaxPool | AttentionPool) and not config.tokens.num_extra:
        pool = replace(pool, over="patches")
    # A norm of each token alone: before or after the one token is taken.
    alone = isinstance(pool, ClassPool) and isinstance(config.norm, LayerNormConfig | RMSNormConfig)
    bias = head.bias or not head.num_classes
    return replace(
        head, pool=pool, bias=bias, norm="tokens" if alone and head.norm == "pooled" else head.norm
    )
