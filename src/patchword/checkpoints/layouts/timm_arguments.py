"""The arguments of each timm ViT class for a ViTConfig, or the part that the class cannot represent.

"@Name" stands for a timm class, which config.json cannot hold. None marks an argument that must be omitted.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from patchword.errors import CheckpointError
from patchword.model.config import ViTConfig
from patchword.model.kinds import (
    AttentionPool,
    CentreCoordinates,
    ClassPool,
    LayerNormConfig,
    Learned,
    MaxPool,
    MeanPool,
    NoPositions,
    RelativeBias,
    RelativeMLP,
    ResNetStem,
    Rope2d,
    RopeMixed,
)

Args = dict[str, Any]
_PATCH_BIAS = "this patch bias (timm has one unless a norm precedes the blocks)"


def lacks(what: str, kind: str = "") -> CheckpointError:
    return CheckpointError(
        f"{f'timm ({kind})' if kind else 'timm'} does not support {what}",
        "choose another format, or keep the patchword file",
    )


def _need(right: bool, what: str, kind: str) -> None:
    if not right:
        raise lacks(what, kind)


def common(config: ViTConfig) -> Args:
    size, patch = config.image.size, config.patch.size
    if _pads(config):  # timm stores positions for complete patches, and pads images
        stride = config.patch.stem.stride
        size = (config.grid_size[0] * patch[0] * stride, config.grid_size[1] * patch[1] * stride)
    return {
        "img_size": list(size),
        "patch_size": patch[0] if patch[0] == patch[1] else list(patch),
        "in_chans": config.image.channels,
        "num_classes": config.head.num_classes,
        "embed_dim": config.dim,
        "depth": config.depth,
        "num_heads": config.attention.num_heads,
        "global_pool": _pool(config),
    }


def _pool(config: ViTConfig) -> str:
    match config.head.pool:
        case MeanPool():
            return "avg"
        case MaxPool():
            return "max"
        case AttentionPool():
            return "map"
        case _:
            return "token"


def _ratio(config: ViTConfig, parts: int = 1) -> float:
    """The ratio for which int(dim · ratio) is the MLP's hidden width times `parts`."""
    width = config.mlp_dim * parts
    ratio = width / config.dim
    return ratio if int(config.dim * ratio) == width else (width + 0.5) / config.dim


def _pads(config: ViTConfig) -> bool:
    unit = (config.patch.stem.stride * side for side in config.patch.size)
    ragged = any(side % part for side, part in zip(config.image.size, unit, strict=True))
    return ragged and config.patch.edge == "pad"


def _norm_marker(config: ViTConfig) -> Any:
    """The norm as written in the table: None is LayerNorm with 1e-6. Uses the closest eps that timm supports."""
    name = "@LayerNorm" if isinstance(config.norm, LayerNormConfig) else "@RmsNorm"
    eps = config.norm.eps
    near = 1e-6 if eps <= math.sqrt(1e-11) else 1e-5
    return None if (name, near) == ("@LayerNorm", 1e-6) else [name, {"eps": near}]


def _named_norm(marker: Any) -> Any:
    """The norm argument of VisionTransformer and NaFlexVit, which take a name and use eps 1e-6."""
    return {"@RmsNorm": "rmsnorm"}.get(marker[0], marker) if marker and marker[1]["eps"] == 1e-6 else marker


def _over_all(config: ViTConfig) -> bool:
    return bool(config.tokens.num_extra) and getattr(config.head.pool, "over", "patches") == "all"


def _vision_transformer(config: ViTConfig, spelling: Mapping[str, Any]) -> Args:
    kind = "VisionTransformer"
    part, mlp, tokens = config.attention, config.mlp, config.tokens
    _need(isinstance(config.inner_positions, NoPositions), f"{config.inner_positions.kind} positions", kind)
    _need(part.bias != "qv", "attention biases on queries and values only", kind)
    _need(part.out_bias == mlp.bias, "a bias only in the MLP or only after attention", kind)
    _need(config.patch.bias != config.block.entry_norm, _PATCH_BIAS, kind)
    _need(not tokens.distillation_token, "a distillation token", kind)
    _plain_pool(config, kind)
    marker = _named_norm(_norm_marker(config))
    packed = mlp.gated and spelling["gate"] == "packed"
    gates = {"packed": ["@GluMlp", {"act_layer": "@SiLU", "gate_last": False}], "apart": "@SwiGLU"}
    after = config.block.order == "res_post"
    _need(not after or config.block.layer_scale is None, "LayerScale with norms after the branches", kind)
    return {
        "mlp_ratio": _ratio(config, 2 if packed else 1),
        "qkv_bias": part.bias == "qkv",
        "qk_norm": part.qk_norm != "none",
        "scale_attn_norm": part.out_norm,
        "scale_mlp_norm": mlp.inner_norm,
        "proj_bias": part.out_bias,
        "init_values": config.block.layer_scale or 0.0,
        "class_token": tokens.class_token,
        "pos_embed": "learn" if isinstance(config.added_positions, Learned) else "none",
        "no_embed_class": _bare(config),
        "reg_tokens": tokens.num_registers,
        "pre_norm": config.block.entry_norm,
        "final_norm": config.head.norm != "none",
        "fc_norm": config.head.norm == "pooled",
        "pool_include_prefix": _over_all(config),
        "dynamic_img_pad": _pads(config),
        **({"dynamic_img_size": True} if _pads(config) else {}),
        "act_layer": mlp.activation,
        "norm_layer": marker,
        "embed_norm_layer": (marker or "layernorm") if config.patch.norm_output else "",
        "mlp_layer": gates[spelling["gate"]] if mlp.gated else None,
        "block_fn": "@ResPostBlock" if after else None,
        "attn_layer": None,
        "embed_layer": _hybrid(config),
    }


def _hybrid(config: ViTConfig) -> str | None:
    """A ResNet before the patches, as written in the table."""
    stem = config.patch.stem
    if not isinstance(stem, ResNetStem):
        return None
    return f"@HybridEmbed {','.join(map(str, stem.units)) or 'root alone'}"


def _plain_pool(config: ViTConfig, kind: str) -> None:
    """Require that an attention pool has the blocks' heads and a plain MLP of the same width."""
    pool = config.head.pool
    if not isinstance(pool, AttentionPool):
        return
    own_heads = pool.num_heads not in (None, config.attention.num_heads)
    _need(not own_heads, "an attention pool with its own number of heads", kind)
    _need(pool.hidden in (None, config.mlp_dim), "an attention pool with its own MLP width", kind)
    plain = not config.mlp.gated and not config.mlp.inner_norm and config.mlp.bias
    _need(plain, "an attention pool with MLPs that are gated, normed or without bias", kind)


def _bare(config: ViTConfig) -> bool:
    added = config.added_positions
    return isinstance(added, Learned) and added.covers == "patches"


def _distilled(config: ViTConfig, spelling: Mapping[str, Any]) -> Args:
    kind = "VisionTransformerDistilled"
    tokens, head = config.tokens, config.head
    _need(tokens.class_token and tokens.distillation_token, "a model without both tokens", kind)
    _need(not tokens.num_registers and not _bare(config), "registers, or tokens without positions", kind)
    _need(isinstance(config.added_positions, Learned), "a model without learned positions", kind)
    _need(head.distilled, "a distillation token without its own head", kind)
    plain = replace(
        config,
        tokens=replace(tokens, distillation_token=False),
        head=replace(head, distilled=False),
    )
    return _vision_transformer(plain, spelling)


def _eva(config: ViTConfig, spelling: Mapping[str, Any]) -> Args:
    kind = "Eva"
    part, mlp, tokens, head = config.attention, config.mlp, config.tokens, config.head
    inner, pool = config.inner_positions, config.head.pool
    _need(isinstance(inner, NoPositions | Rope2d | RopeMixed), f"{inner.kind} positions", kind)
    _need(mlp.activation == ("silu" if mlp.gated else "gelu"), f"the activation {mlp.activation}", kind)
    _need(part.out_bias and mlp.bias, "linear layers without biases", kind)
    _need(config.patch.bias != config.block.entry_norm, _PATCH_BIAS, kind)
    _need(not config.patch.norm_output, "a norm after the patches", kind)
    _need(not tokens.distillation_token, "a distillation token", kind)
    whole = _over_all(config) or not tokens.num_extra
    _need(whole == isinstance(pool, AttentionPool) or not tokens.num_extra, "a pool over these tokens", kind)
    after = config.block.order == "res_post"
    plain = config.block.layer_scale is None and part.qk_norm == "none"
    _need(not after or plain, "LayerScale or normed queries with norms after the branches", kind)
    apart = mlp.gated and spelling["gate"] == "apart"
    _need(apart or not (mlp.gated and mlp.inner_norm), "a packed gated MLP with an inner norm", kind)
    pool_is_plain = not isinstance(pool, AttentionPool) or not (mlp.gated or mlp.inner_norm)
    _need(pool_is_plain, "an attention pool with gated MLPs", kind)
    align = (8 if config.mlp_dim % 8 == 0 else 1) if apart and not mlp.inner_norm else 0
    hidden = pool.hidden if isinstance(pool, AttentionPool) and pool.hidden else config.mlp_dim
    own = pool.num_heads if isinstance(pool, AttentionPool) else None
    return {
        "qkv_bias": part.bias != "none",
        "qkv_fused": not spelling.get("split", False),
        "qk_norm": part.qk_norm != "none",
        "mlp_ratio": _ratio(config),
        "swiglu_mlp": mlp.gated,
        "swiglu_align_to": align,
        "scale_mlp": mlp.inner_norm,
        "scale_attn_inner": part.out_norm,
        "attn_type": "rope" if part.bias == "qkv" else "eva",
        "num_kv_heads": config.attention.num_heads if part.bias == "qkv" and not after else None,
        "norm_layer": _norm_marker(config),
        "init_values": config.block.layer_scale,
        "attn_only_layer_scale": None if after else False,
        "class_token": tokens.class_token,
        "num_reg_tokens": tokens.num_registers,
        "no_embed_class": _bare(config),
        "use_abs_pos_emb": isinstance(config.added_positions, Learned),
        "use_post_norm": after,
        "use_pre_transformer_norm": config.block.entry_norm,
        "use_post_transformer_norm": head.norm == "tokens",
        "use_fc_norm": head.norm == "pooled",
        "attn_pool_num_heads": own or config.attention.num_heads,
        "attn_pool_mlp_ratio": (hidden + 0.5) / config.dim,
        "dynamic_img_pad": _pads(config),
        **({"dynamic_img_size": True} if _pads(config) else {}),
        **_rope(config),
    }


def _rope(config: ViTConfig) -> Args:
    inner = config.inner_positions
    args: Args = {
        "use_rot_pos_emb": not isinstance(inner, NoPositions),
        "rope_type": "cat",
        "rope_grid_offset": 0.0,
        "rope_grid_indexing": "ij",
        "rope_temperature": 10_000.0,
        "rope_rotate_half": False,
    }
    if isinstance(inner, RopeMixed):
        mixed = {"rope_type": "mixed", "rope_grid_indexing": "xy", "rope_temperature": inner.theta}
        return {**args, **mixed}
    if not isinstance(inner, Rope2d):
        return {"use_rot_pos_emb": False}
    args |= {
        "rope_temperature": inner.theta,
        "rope_rotate_half": inner.pairing == "half",
        "rope_grid_indexing": "ij" if inner.first_axis == "row" else "xy",
    }
    where = inner.coordinates
    if isinstance(where, CentreCoordinates):
        return {**args, "rope_type": "dinov3"}
    reference = None if where.reference is None else list(where.reference)
    return {**args, "rope_grid_offset": where.offset, "ref_feat_shape": reference}


def _beit(config: ViTConfig, spelling: Mapping[str, Any]) -> Args:
    kind = "Beit"
    part, mlp, tokens, inner = config.attention, config.mlp, config.tokens, config.inner_positions
    relative = isinstance(inner, RelativeBias)
    _need(isinstance(inner, RelativeBias | NoPositions), f"{inner.kind} positions", kind)
    rows = not isinstance(inner, RelativeBias) or inner.prefix_rows
    _need(rows, "a relative position table without class token rows", kind)
    _need(part.bias != "qkv", "a key bias", kind)
    _need(part.qk_norm == "none" and not part.out_norm, "norms inside attention", kind)
    _need(part.out_bias and mlp.bias and config.patch.bias, "linear layers without biases", kind)
    _need(mlp.activation == ("silu" if mlp.gated else "gelu"), f"the activation {mlp.activation}", kind)
    _need(not mlp.gated or spelling["gate"] == "apart", "a packed gated MLP", kind)
    only_class = tokens.class_token and tokens.num_extra == 1
    _need(only_class and not _bare(config), "tokens other than a class token with a position", kind)
    _need(
        config.block.order == "pre" and not config.block.entry_norm,
        "norms that are not before the branches",
        kind,
    )
    _need(isinstance(config.head.pool, ClassPool | MeanPool) and not _over_all(config), "this pooling", kind)
    _need(
        config.head.norm != "none" and not config.patch.norm_output,
        "a model without a final norm, or with a norm after the patches",
        kind,
    )
    _need(not _pads(config), "images padded to complete patches", kind)
    shared = isinstance(inner, RelativeBias) and inner.shared
    return {
        "qkv_bias": part.bias == "qv",
        "mlp_ratio": _ratio(config),
        "swiglu_mlp": mlp.gated,
        "scale_mlp": mlp.inner_norm,
        "norm_layer": _norm_marker(config),
        "init_values": config.block.layer_scale or 0.0,
        "use_abs_pos_emb": isinstance(config.added_positions, Learned),
        "use_rel_pos_bias": relative and not shared,
        "use_shared_rel_pos_bias": shared,
        "use_fc_norm": config.head.norm == "pooled",
    }


def _relpos(config: ViTConfig, spelling: Mapping[str, Any]) -> Args:
    kind = "VisionTransformerRelPos"
    part, mlp, tokens, inner = config.attention, config.mlp, config.tokens, config.inner_positions
    _need(isinstance(inner, RelativeBias | RelativeMLP), "a model without relative positions", kind)
    _need(isinstance(config.added_positions, NoPositions), "added positions", kind)
    rows = isinstance(inner, RelativeBias) and inner.prefix_rows
    fits = isinstance(inner, RelativeMLP) or rows == tokens.class_token
    _need(fits, "a class token without its own rows", kind)
    _need(part.bias != "qv", "biases on queries and values only", kind)
    _need(
        part.out_bias and mlp.bias and config.patch.bias and not part.out_norm,
        "linear layers without biases, or a norm after attention",
        kind,
    )
    _need(
        mlp.activation == "gelu" and not mlp.gated and not mlp.inner_norm,
        "MLPs other than a plain one with GELU",
        kind,
    )
    _need(tokens.num_extra == tokens.class_token, "tokens other than a class token", kind)
    after = config.block.order == "res_post"
    _need(not config.block.entry_norm and not config.patch.norm_output, "norms around the patches", kind)
    _need(not after or config.block.layer_scale is None, "LayerScale with norms after the branches", kind)
    _need(isinstance(config.head.pool, ClassPool | MeanPool) and not _over_all(config), "this pooling", kind)
    _need(config.head.norm != "none" and not _pads(config), "no final norm, or padded images", kind)
    return {
        "mlp_ratio": _ratio(config),
        "qkv_bias": part.bias == "qkv",
        "qk_norm": part.qk_norm != "none",
        "norm_layer": _norm_marker(config),
        "init_values": config.block.layer_scale or 0.0,
        "class_token": tokens.class_token,
        "fc_norm": config.head.norm == "pooled",
        "rel_pos_type": "mlp" if isinstance(inner, RelativeMLP) else "bias",
        "rel_pos_dim": inner.hidden if isinstance(inner, RelativeMLP) else 0,
        "shared_rel_pos": bool(getattr(inner, "shared", False)),
        "block_fn": "@ResPostRelPosBlock" if after else None,
    }


def _naflex(config: ViTConfig, spelling: Mapping[str, Any]) -> Args:
    kind = "NaFlexVit"
    part, mlp, tokens, added = config.attention, config.mlp, config.tokens, config.added_positions
    _need(isinstance(config.inner_positions, NoPositions), f"{config.inner_positions.kind} positions", kind)
    _need(part.bias != "qv" and not mlp.gated, "biases on queries and values only, or a gated MLP", kind)
    _need(part.out_bias == mlp.bias, "a bias only in the MLP or only after attention", kind)
    _need(config.patch.bias != config.block.entry_norm, _PATCH_BIAS, kind)
    _need(not tokens.distillation_token, "a distillation token", kind)
    _need(config.block.order == "pre", "norms after the branches", kind)
    bare = isinstance(added, NoPositions) or _bare(config) or not tokens.num_prefix
    _need(bare, "positions for prefix tokens", kind)
    _plain_pool(config, kind)
    marker = _named_norm(_norm_marker(config))
    grid = {} if not isinstance(added, Learned) else {
        "pos_embed_interp_mode": added.resample.interpolation,
        "pos_embed_antialias": added.resample.antialias,
        "pos_embed_align_corners": added.resample.align_corners,
        "pos_embed_ar_preserving": added.resample.keep_aspect,
    }  # fmt: skip
    return {
        "mlp_ratio": _ratio(config),
        "qkv_bias": part.bias == "qkv",
        "qk_norm": part.qk_norm != "none",
        "scale_attn_inner_norm": part.out_norm,
        "scale_mlp_norm": mlp.inner_norm,
        "proj_bias": part.out_bias,
        "init_values": config.block.layer_scale or 0.0,
        "class_token": tokens.class_token,
        "reg_tokens": tokens.num_registers,
        "pos_embed": "learned" if isinstance(added, Learned) else "none",
        "pos_embed_grid_size": list(config.grid_size),
        **grid,
        "rope_type": "none",
        "pre_norm": config.block.entry_norm,
        "final_norm": config.head.norm != "none",
        "fc_norm": config.head.norm == "pooled",
        "pool_include_prefix": _over_all(config),
        "dynamic_img_pad": _pads(config),
        "embed_proj_type": "conv" if spelling.get("patches") == "kernel" else "linear",
        "patchify_channels_last": spelling.get("patches") != "channels first",
        "act_layer": mlp.activation,
        "norm_layer": marker,
        "embed_norm_layer": (marker or "layernorm") if config.patch.norm_output else "",
    }


ARGUMENTS: dict[str, Callable[[ViTConfig, Mapping[str, Any]], Args]] = {
    "VisionTransformer": _vision_transformer,
    "VisionTransformerDistilled": _distilled,
    "Eva": _eva,
    "Beit": _beit,
    "VisionTransformerRelPos": _relpos,
    "NaFlexVit": _naflex,
}
