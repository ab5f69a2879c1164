"""Small models of every kind that timm's ViT classes build: as timm is asked for them, and as ours are configured."""

from dataclasses import replace
from typing import Any

from patchword.model.config import (
    AttentionConfig,
    BlockConfig,
    HeadConfig,
    ImageConfig,
    MLPConfig,
    PatchConfig,
    TokensConfig,
    ViTConfig,
)
from patchword.model.kinds import (
    AttentionPool,
    Combined,
    IndexCoordinates,
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
    SinCos2d,
)

SMALL: dict[str, Any] = {
    "embed_dim": 48,
    "depth": 2,
    "num_heads": 3,
    "patch_size": 8,
    "img_size": [32, 48],
    "num_classes": 7,
}
# Where a class is strict about it, heads of 16 channels.
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "vit": ("vit_base_patch16_224", SMALL),
    "one block, odd sizes": (
        "vit_base_patch16_224",
        {"embed_dim": 33, "depth": 1, "num_heads": 11, "patch_size": 7, "img_size": [21, 49], "num_classes": 2, "mlp_ratio": 1.37},
    ),
    "oblong patches, five channels": ("vit_base_patch16_224", {**SMALL, "patch_size": [8, 4], "in_chans": 5}),
    "image that patches do not fill": ("vit_base_patch16_224", {**SMALL, "img_size": [35, 54]}),
    "padded": ("vit_base_patch16_224", {**SMALL, "img_size": [35, 54], "dynamic_img_size": True, "dynamic_img_pad": True}),
    "no biases": ("vit_base_patch16_224", {**SMALL, "qkv_bias": False, "proj_bias": False}),
    "no positions, largest of all": ("vit_base_patch16_224", {**SMALL, "pos_embed": "none", "global_pool": "max", "pool_include_prefix": True}),
    "class token through fc_norm": ("vit_base_patch16_224", {**SMALL, "fc_norm": True}),
    "no last norm": ("vit_base_patch16_224", {**SMALL, "final_norm": False}),
    "sub-LN": ("beit3_base_patch16_224", SMALL),
    "registers, positions for all": ("vit_base_patch16_224", {**SMALL, "reg_tokens": 3}),
    "registers, mean of all": ("vit_medium_patch16_reg4_gap_256", {**SMALL, "reg_tokens": 2, "pool_include_prefix": True}),
    "relu": ("vit_base_patch16_224", {**SMALL, "act_layer": "relu"}),
    "RMS": ("test_vit4", {**SMALL, "dynamic_img_size": False}),
    "map of all tokens": ("test_vit3", SMALL),
    "CLIP": ("vit_base_patch16_clip_quickgelu_224", SMALL),
    "SigLIP": ("vit_base_patch32_siglip_256", {**SMALL, "num_classes": 0}),
    "DINOv2 giant": ("vit_giant_patch14_reg4_dinov2", SMALL),
    "AIMv2": ("aimv2_large_patch14_224", SMALL),
    "rpn": ("vit_base_patch16_rpn_224", SMALL),
    "hybrid": ("vit_base_r50_s16_224", {"embed_dim": 48, "depth": 1, "num_heads": 3, "img_size": [64, 96], "num_classes": 7}),
    "hybrid of the root": ("vit_tiny_r_s16_p8_224", {"embed_dim": 48, "depth": 1, "num_heads": 3, "img_size": [64, 96], "num_classes": 7}),
    "distilled": ("deit_base_distilled_patch16_224", SMALL),
    "EVA-02": ("eva02_base_patch14_448", {**SMALL, "ref_feat_shape": [3, 5]}),
    "EVA-02 tiny": ("eva02_tiny_patch14_224", SMALL),
    "EVA-02 CLIP": ("eva02_base_patch16_clip_224", SMALL),
    "EVA enormous": ("eva02_enormous_patch14_clip_224", SMALL),
    "PE core": ("vit_pe_core_base_patch16_224", {**SMALL, "attn_pool_num_heads": 6}),
    "PE spatial": ("vit_pe_spatial_base_patch16_512", SMALL),
    "rope axial": ("vit_small_patch16_rope_224", SMALL),
    "rope axial, positions": ("vit_small_patch16_rope_ape_224", SMALL),
    "rope mixed": ("vit_small_patch16_rope_mixed_224", SMALL),
    "rope, registers": ("vit_betwixt_patch16_rope_reg4_gap_256", SMALL),
    "DINOv3": ("vit_small_patch16_dinov3", {**SMALL, "num_classes": 0}),
    "DINOv3 plus": ("vit_small_plus_patch16_dinov3", {**SMALL, "num_classes": 0}),
    "DINOv3 with biases, class token": ("vit_small_patch16_dinov3_qkvb", {**SMALL, "global_pool": "token"}),
    "BEiT": ("beit_base_patch16_224", SMALL),
    "BEiT, one table, positions": ("beit_base_patch16_224", {**SMALL, "use_rel_pos_bias": False, "use_shared_rel_pos_bias": True, "use_abs_pos_emb": True}),
    "BEiT, SwiGLU, class token": ("beitv2_base_patch16_224", {**SMALL, "swiglu_mlp": True, "scale_mlp": True, "global_pool": "token"}),
    "relpos": ("vit_relpos_base_patch16_224", SMALL),
    "relpos, class token": ("vit_relpos_base_patch16_cls_224", SMALL),
    "relpos, tables": ("vit_relpos_base_patch16_clsgap_224", {**SMALL, "rel_pos_type": "bias"}),
    "relpos, shared": ("vit_srelpos_small_patch16_224", SMALL),
    "relpos, rpn": ("vit_relpos_small_patch16_rpn_224", SMALL),
    "NaFlex": ("naflexvit_base_patch16_gap", {key: value for key, value in SMALL.items() if key != "img_size"} | {"pos_embed_grid_size": [4, 6]}),
    "NaFlex, aspect kept": ("naflexvit_base_patch16_par_gap", {key: value for key, value in SMALL.items() if key != "img_size"} | {"pos_embed_grid_size": [3, 3]}),
    "RADIO": ("naflexvit_base_patch16_radio_v3", {key: value for key, value in SMALL.items() if key != "img_size"} | {"pos_embed_grid_size": [9, 9]}),
    "NaFlex, resampled": ("naflexvit_base_patch16_siglip", {key: value for key, value in SMALL.items() if key != "img_size"} | {"pos_embed_grid_size": [5, 3], "num_classes": 0}),
}  # fmt: skip

PLAIN = ViTConfig(
    image=ImageConfig(size=(32, 48)),
    patch=PatchConfig(size=(8, 8)),
    dim=48,
    depth=2,
    attention=AttentionConfig(num_heads=3),
    mlp=MLPConfig(hidden=101),
    head=HeadConfig(num_classes=7),
)
GATED = MLPConfig(hidden=56, gated=True, activation="silu")
MEAN = HeadConfig(pool=MeanPool(), num_classes=7)
NO_CLASS = TokensConfig(class_token=False)


def ours(**parts: Any) -> ViTConfig:
    return replace(PLAIN, **parts)


OURS: dict[str, ViTConfig] = {
    "plain": PLAIN,
    "tanh GELU, mean of all tokens": ours(
        mlp=MLPConfig(activation="gelu_tanh"), head=HeadConfig(pool=MeanPool(over="all"), num_classes=7)
    ),
    "quick GELU, norm before": ours(
        patch=PatchConfig(size=(8, 8), bias=False),
        block=BlockConfig(entry_norm=True),
        mlp=MLPConfig(activation="quick_gelu"),
        norm=LayerNormConfig(eps=1e-5),
    ),
    "registers without positions": ours(
        tokens=TokensConfig(num_registers=3), positions=Learned(covers="patches"), head=MEAN
    ),
    "registers with positions": ours(tokens=TokensConfig(num_registers=2), positions=Learned(covers="all")),
    "no biases, RMS, gated": ours(
        attention=AttentionConfig(num_heads=3, bias="none", out_bias=False),
        mlp=replace(GATED, bias=False),
        norm=RMSNormConfig(eps=1e-5),
        tokens=NO_CLASS,
        patch=PatchConfig(size=(8, 8), norm_output=True),
        head=MEAN,
    ),
    "gated by GELU, scaled": ours(
        mlp=MLPConfig(hidden=50, gated=True), block=BlockConfig(layer_scale=0.3), positions=NoPositions()
    ),
    "padded image": ours(image=ImageConfig(size=(29, 45))),
    "largest value, pooled norm": ours(head=HeadConfig(pool=MaxPool(), norm="pooled", num_classes=7)),
    "no classes, attention pool": ours(tokens=NO_CLASS, head=HeadConfig(pool=AttentionPool(), num_classes=0)),
    "distilled": ours(
        tokens=TokensConfig(distillation_token=True), head=HeadConfig(num_classes=7, distilled=True)
    ),
    "queries and keys normed": ours(attention=AttentionConfig(num_heads=6, qk_norm="layer", out_norm=True)),
    "norms after the branches": ours(block=BlockConfig(order="res_post")),
    "EVA-02": ours(
        attention=AttentionConfig(num_heads=3, bias="qv", out_norm=True),
        mlp=replace(GATED, inner_norm=True),
        positions=Combined(
            inner=Rope2d(theta=1e4, pairing="neighbours", coordinates=IndexCoordinates(reference=(3, 5)))
        ),
    ),
    "DINOv3": ours(
        tokens=TokensConfig(num_registers=4),
        attention=AttentionConfig(num_heads=3, bias="none"),
        mlp=GATED,
        positions=Rope2d(),
        norm=LayerNormConfig(eps=1e-5),
        head=MEAN,
    ),
    "rope by columns, whole biases": ours(
        positions=Rope2d(
            theta=77.0, pairing="neighbours", first_axis="column", coordinates=IndexCoordinates(offset=1.0)
        )
    ),
    "rope, mixed": ours(positions=RopeMixed(), block=BlockConfig(layer_scale=0.2)),
    "BEiT": ours(
        attention=AttentionConfig(num_heads=3, bias="qv"),
        positions=RelativeBias(shared=True),
        block=BlockConfig(layer_scale=0.1),
        head=replace(MEAN, norm="pooled"),
    ),
    "table of differences, whole biases": ours(positions=RelativeBias()),
    "hybrid": ours(
        image=ImageConfig(size=(64, 96)),
        patch=PatchConfig(
            size=(1, 1),
            stem=ResNetStem(units=(2, 2, 2, 2), weight_eps="variance", small=1e-8, norm_eps=1e-5),
        ),
    ),
    # Said in timm's words, with the same answers.
    "a projection, as OpenAI's": ours(
        patch=PatchConfig(size=(8, 8), bias=False),
        block=BlockConfig(entry_norm=True),
        mlp=MLPConfig(activation="quick_gelu"),
        norm=LayerNormConfig(eps=1e-5),
        head=HeadConfig(norm="pooled", projection=9, num_classes=0),
    ),
    "a class token with a position before registers without": ours(
        tokens=TokensConfig(num_registers=3), mlp=GATED, block=BlockConfig(layer_scale=0.2)
    ),
    "sines": ours(positions=SinCos2d(), head=MEAN),
    "no biases where timm has them": ours(
        patch=PatchConfig(size=(8, 8), bias=False),
        norm=LayerNormConfig(bias=False),
        mlp=MLPConfig(bias=False),
        head=HeadConfig(num_classes=7, bias=False),
    ),
    "relative MLP, RMS-less": ours(tokens=NO_CLASS, positions=RelativeMLP(hidden=20), head=MEAN),
    "relative MLP with a class token": ours(positions=RelativeMLP(hidden=20, shared=True)),
}
