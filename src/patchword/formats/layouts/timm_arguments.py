"""The arguments of each timm ViT class for a ViTConfig.

"@Name" stands for a timm class, which config.json cannot hold. None marks an argument that must be omitted. What a class
cannot hold shows when its file is read back; `lacks` has what decides between classes, or what only timm's code lacks.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

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
    RMSNormConfig,
    Rope2d,
    RopeMixed,
)

Args = dict[str, Any]
Spelling = Mapping[str, Any]

_COMMON = "img_size patch_size in_chans num_classes embed_dim depth num_heads global_pool mlp_ratio"
# The arguments of each class, in the order in which config.json has them.
NAMES: dict[str, str] = {
    "VisionTransformer": f"{_COMMON} qkv_bias qk_norm scale_attn_norm scale_mlp_norm proj_bias init_values class_token "
    "pos_embed no_embed_class reg_tokens pre_norm final_norm fc_norm pool_include_prefix dynamic_img_pad dynamic_img_size "
    "act_layer norm_layer embed_norm_layer mlp_layer block_fn attn_layer embed_layer",
    "Eva": f"{_COMMON.removesuffix(' mlp_ratio')} qkv_bias qkv_fused qk_norm mlp_ratio swiglu_mlp swiglu_align_to scale_mlp "
    "scale_attn_inner attn_type num_kv_heads norm_layer init_values attn_only_layer_scale class_token num_reg_tokens "
    "no_embed_class use_abs_pos_emb use_post_norm use_pre_transformer_norm use_post_transformer_norm use_fc_norm "
    "attn_pool_num_heads attn_pool_mlp_ratio dynamic_img_pad dynamic_img_size use_rot_pos_emb rope_type rope_grid_offset "
    "rope_grid_indexing rope_temperature rope_rotate_half ref_feat_shape",
    "Beit": f"{_COMMON.removesuffix(' mlp_ratio')} qkv_bias mlp_ratio swiglu_mlp scale_mlp norm_layer init_values "
    "use_abs_pos_emb use_rel_pos_bias use_shared_rel_pos_bias use_fc_norm",
    "VisionTransformerRelPos": f"{_COMMON} qkv_bias qk_norm norm_layer init_values class_token fc_norm rel_pos_type "
    "rel_pos_dim shared_rel_pos block_fn",
    "NaFlexVit": f"{_COMMON} qkv_bias qk_norm scale_attn_inner_norm scale_mlp_norm proj_bias init_values class_token "
    "reg_tokens pos_embed pos_embed_grid_size pos_embed_interp_mode pos_embed_antialias pos_embed_align_corners "
    "pos_embed_ar_preserving rope_type pre_norm final_norm fc_norm pool_include_prefix dynamic_img_pad embed_proj_type "
    "patchify_channels_last act_layer norm_layer embed_norm_layer",
}
NAMES["VisionTransformerDistilled"] = NAMES["VisionTransformer"]


def arguments(kind: str, config: ViTConfig, spelling: Spelling) -> Args:
    """The arguments of a class, without those that do not apply to the model."""
    values = _values(config, spelling) | _head_values(config) | _positions(config, spelling)
    own: Mapping[str, Callable[[ViTConfig, Spelling], Args]] = {
        "VisionTransformer": _vision_transformer,
        "VisionTransformerDistilled": _vision_transformer,
        "Eva": _eva,
        "Beit": _beit,
        "VisionTransformerRelPos": _relpos,
        "NaFlexVit": _naflex,
    }
    values |= own[kind](config, spelling)
    return {name: values[name] for name in NAMES[kind].split() if name in values}


def _values(config: ViTConfig, spelling: Spelling) -> Args:
    size, patch = config.image.size, config.patch.size
    if _pads(config):  # timm stores positions for complete patches, and pads images
        stride = config.patch.stem.stride
        size = (config.grid_size[0] * patch[0] * stride, config.grid_size[1] * patch[1] * stride)
    part, mlp, tokens = config.attention, config.mlp, config.tokens
    return {
        "img_size": list(size),
        "patch_size": patch[0] if patch[0] == patch[1] else list(patch),
        "in_chans": config.image.channels,
        "embed_dim": config.dim,
        "depth": config.depth,
        "num_heads": part.num_heads,
        "mlp_ratio": _ratio(config),
        "norm_layer": _norm_marker(config),
        "init_values": config.block.layer_scale or 0.0,
        "qkv_bias": part.bias == "qkv",
        "qk_norm": part.qk_norm != "none",
        "scale_attn_norm": part.out_norm,
        "scale_attn_inner": part.out_norm,
        "scale_attn_inner_norm": part.out_norm,
        "scale_mlp": mlp.inner_norm,
        "scale_mlp_norm": mlp.inner_norm,
        "swiglu_mlp": mlp.gated,
        "proj_bias": part.out_bias,
        "act_layer": mlp.activation,
        "class_token": tokens.class_token,
        "reg_tokens": tokens.num_registers,
        "num_reg_tokens": tokens.num_registers,
        "pre_norm": config.block.entry_norm,
        "use_pre_transformer_norm": config.block.entry_norm,
        "use_post_norm": config.block.order == "res_post",
        "dynamic_img_pad": _pads(config),
        **({"dynamic_img_size": True} if _pads(config) else {}),
    }


def _head_values(config: ViTConfig) -> Args:
    head, pool = config.head, config.head.pool
    pools = {MeanPool: "avg", MaxPool: "max", AttentionPool: "map"}
    attentive = pool if isinstance(pool, AttentionPool) else AttentionPool()
    return {
        "num_classes": head.num_classes,
        "global_pool": pools.get(type(pool), "token"),
        "pool_include_prefix": _over_all(config),
        "final_norm": head.norm != "none",
        "fc_norm": head.norm == "pooled",
        "use_post_transformer_norm": head.norm == "tokens",
        "use_fc_norm": head.norm == "pooled",
        "attn_pool_num_heads": attentive.num_heads or config.attention.num_heads,
        "attn_pool_mlp_ratio": ((attentive.hidden or config.mlp_dim) + 0.5) / config.dim,
    }


def _positions(config: ViTConfig, spelling: Spelling) -> Args:
    added, inner = config.added_positions, config.inner_positions
    shared = bool(getattr(inner, "shared", False))
    values: Args = {
        "no_embed_class": _bare(config),
        "use_abs_pos_emb": isinstance(added, Learned),
        "use_rot_pos_emb": not isinstance(inner, NoPositions),
        "use_rel_pos_bias": isinstance(inner, RelativeBias) and not shared,
        "use_shared_rel_pos_bias": shared,
        "shared_rel_pos": shared,
        "rel_pos_type": "mlp" if isinstance(inner, RelativeMLP) else "bias",
        "rel_pos_dim": inner.hidden if isinstance(inner, RelativeMLP) else 0,
        "pos_embed_grid_size": list(config.grid_size),
    }
    if isinstance(added, Learned):
        how = added.resample
        values |= {
            "pos_embed_interp_mode": how.interpolation,
            "pos_embed_antialias": how.antialias,
            "pos_embed_align_corners": how.align_corners,
            "pos_embed_ar_preserving": how.keep_aspect,
        }
    return values | _rope(inner) if isinstance(inner, Rope2d | RopeMixed) else values


def _rope(inner: Rope2d | RopeMixed) -> Args:
    columns_first = isinstance(inner, RopeMixed) or inner.first_axis == "column"
    values: Args = {
        "rope_type": "cat",
        "rope_grid_offset": 0.0,
        "rope_grid_indexing": "xy" if columns_first else "ij",
        "rope_temperature": inner.theta,
        "rope_rotate_half": isinstance(inner, Rope2d) and inner.pairing == "half",
    }
    if isinstance(inner, RopeMixed):
        return values | {"rope_type": "mixed"}
    where = inner.coordinates
    if isinstance(where, CentreCoordinates):
        return values | {"rope_type": "dinov3"}
    reference = None if where.reference is None else list(where.reference)
    return values | {"rope_grid_offset": where.offset, "ref_feat_shape": reference}


# What one class names or computes in its own way ---------------------------------------------


def _by_name(config: ViTConfig) -> Args:
    """Of VisionTransformer and NaFlexVit, which take a norm by name and use eps 1e-6."""
    marker = _norm_marker(config)
    named = "rmsnorm" if marker == ["@RmsNorm", {"eps": 1e-6}] else marker
    return {
        "norm_layer": named,
        "embed_norm_layer": (named or "layernorm") if config.patch.norm_output else "",
    }


def _vision_transformer(config: ViTConfig, spelling: Spelling) -> Args:
    gates = {"packed": ["@GluMlp", {"act_layer": "@SiLU", "gate_last": False}], "apart": "@SwiGLU"}
    stem, packed = config.patch.stem, config.mlp.gated and spelling["gate"] == "packed"
    units = ",".join(map(str, stem.units)) if isinstance(stem, ResNetStem) else ""
    return _by_name(config) | {
        "mlp_ratio": _ratio(config, 2 if packed else 1),
        "pos_embed": "learn" if isinstance(config.added_positions, Learned) else "none",
        "mlp_layer": gates[spelling["gate"]] if config.mlp.gated else None,
        "block_fn": "@ResPostBlock" if config.block.order == "res_post" else None,
        "attn_layer": None,
        "embed_layer": f"@HybridEmbed {units or 'root alone'}" if isinstance(stem, ResNetStem) else None,
    }


def _eva(config: ViTConfig, spelling: Spelling) -> Args:
    part, mlp, after = config.attention, config.mlp, config.block.order == "res_post"
    aligned = mlp.gated and spelling["gate"] == "apart" and not mlp.inner_norm
    return {
        "qkv_bias": part.bias != "none",
        "qkv_fused": not spelling.get("split", False),
        "swiglu_align_to": (8 if config.mlp_dim % 8 == 0 else 1) if aligned else 0,
        "attn_type": "rope" if part.bias == "qkv" else "eva",
        "num_kv_heads": part.num_heads if part.bias == "qkv" and not after else None,
        "init_values": config.block.layer_scale,
        "attn_only_layer_scale": None if after else False,
    }


def _beit(config: ViTConfig, spelling: Spelling) -> Args:
    return {"qkv_bias": config.attention.bias == "qv"}


def _relpos(config: ViTConfig, spelling: Spelling) -> Args:
    return {"block_fn": "@ResPostRelPosBlock" if config.block.order == "res_post" else None}


def _naflex(config: ViTConfig, spelling: Spelling) -> Args:
    return _by_name(config) | {
        "pos_embed": "learned" if isinstance(config.added_positions, Learned) else "none",
        "rope_type": "none",
        "embed_proj_type": "conv" if spelling.get("patches") == "kernel" else "linear",
        "patchify_channels_last": spelling.get("patches") != "channels first",
    }


# Values ------------------------------------------------------------------------------------------


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
    near = 1e-6 if config.norm.eps <= math.sqrt(1e-11) else 1e-5
    return None if (name, near) == ("@LayerNorm", 1e-6) else [name, {"eps": near}]


def _over_all(config: ViTConfig) -> bool:
    return bool(config.tokens.num_extra) and getattr(config.head.pool, "over", "patches") == "all"


def _bare(config: ViTConfig) -> bool:
    added = config.added_positions
    return isinstance(added, Learned) and added.covers == "patches"


# Limits --------------------------------------------------------------------------------------


def lacks(kind: str, config: ViTConfig, gate: str) -> str | None:
    """What a class cannot hold and another class of timm may, or what our reader reads and its code cannot build.

    The rest shows when the file is read back.
    """
    letter, limits = _LETTERS[kind], [*_limits_of_tokens(config), *_limits_of_blocks(config, gate)]
    return next((what for kinds, wrong, what in limits if wrong and letter in kinds), None)


_LETTERS = {
    "VisionTransformer": "V",
    "VisionTransformerDistilled": "D",
    "Eva": "E",
    "Beit": "B",
    "VisionTransformerRelPos": "R",
    "NaFlexVit": "N",
}
# Letters of the classes, whether the model has it, and words.
Limit = tuple[str, bool, str]


def _limits_of_tokens(config: ViTConfig) -> tuple[Limit, ...]:
    tokens, head, pool = config.tokens, config.head, config.head.pool
    added, inner = config.added_positions, config.inner_positions
    few = isinstance(pool, ClassPool | MeanPool) and not _over_all(config)
    own_pool = isinstance(pool, AttentionPool) and (
        pool.num_heads not in (None, config.attention.num_heads) or pool.hidden not in (None, config.mlp_dim)
    )
    uncovered = (
        isinstance(added, Learned) and added.covers == "all_but_registers" and tokens.num_registers > 0
    )
    without_rows = isinstance(inner, RelativeBias) and not inner.prefix_rows
    return (
        ("VDN", not isinstance(inner, NoPositions), f"{inner.kind} positions"),
        ("EBRN", isinstance(config.patch.stem, ResNetStem), "a ResNet before the patches"),
        ("VDEBRN", uncovered, "positions for the class token but not for the registers"),
        ("VENBR", tokens.distillation_token, "a distillation token"),
        ("D", not tokens.class_token, "a model without both tokens"),
        ("D", not head.distilled, "a distillation token without its own head"),
        ("D", tokens.num_registers > 0 or _bare(config), "registers, or tokens without positions"),
        ("D", not isinstance(added, Learned), "a model without learned positions"),
        ("BR", tokens.num_registers > 0, "registers"),
        ("B", not tokens.class_token or _bare(config), "a model without a class token with a position"),
        ("B", without_rows, "a relative position table without class token rows"),
        ("R", not isinstance(added, NoPositions), "added positions"),
        ("BR", not few, "this pooling"),
        ("BR", head.norm == "none", "a model without a final norm"),
        ("VDN", own_pool, "an attention pool with its own number of heads or MLP width"),
    )


def _limits_of_blocks(config: ViTConfig, gate: str) -> tuple[Limit, ...]:
    part, mlp, block, patch = config.attention, config.mlp, config.block, config.patch
    after, scaled = block.order == "res_post", block.layer_scale is not None
    complex_mlp = mlp.gated or mlp.inner_norm
    pooled = isinstance(config.head.pool, AttentionPool)
    kinds = {"rms": RMSNormConfig, "layer": LayerNormConfig}
    mixed = part.qk_norm != "none" and not isinstance(config.norm, kinds[part.qk_norm])
    no_biases = not (part.out_bias and mlp.bias)
    return (
        ("VDNEBR", mixed, f"{part.qk_norm} norm on queries and keys with {config.norm.kind} norm elsewhere"),
        ("VDNR", part.bias == "qv", "attention biases on queries and values only"),
        ("B", part.bias == "qkv", "a key bias"),
        ("VDN", part.out_bias != mlp.bias, "a bias only in the MLP or only after attention"),
        ("EBR", no_biases, "linear layers without biases"),
        ("VDNE", patch.bias == block.entry_norm, "this patch bias (it has one unless a norm precedes the blocks)"),
        ("BR", not patch.bias, "a patch embedding without bias"),
        ("EBR", patch.norm_output, "a norm after the patches"),
        ("BR", block.entry_norm, "a norm before the blocks"),
        ("B", after, "norms after the branches"),
        ("VDER", after and scaled, "LayerScale with norms after the branches"),
        ("E", after and part.qk_norm != "none", "normed queries with norms after the branches"),
        ("B", part.qk_norm != "none", "normed queries and keys"),
        ("BR", part.out_norm, "a norm after attention"),
        ("E", mlp.gated and gate != "apart" and mlp.inner_norm, "a packed gated MLP with an inner norm"),
        ("B", mlp.gated and gate != "apart", "a packed gated MLP"),
        ("RN", mlp.gated, "gated MLPs"),
        ("R", mlp.inner_norm, "MLPs with a norm inside"),
        ("VDNE", pooled and complex_mlp, "an attention pool with MLPs that are gated or normed"),
        ("VDN", pooled and not mlp.bias, "an attention pool with MLPs without bias"),
    )  # fmt: skip
