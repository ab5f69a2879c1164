"""Models of the authors' repositories, as they are published; `support.formats` makes them square."""

from dataclasses import replace

from patchword.model.config import (
    AttentionConfig,
    BlockConfig,
    HeadConfig,
    MLPConfig,
    PatchConfig,
    ViTConfig,
)
from patchword.model.kinds import (
    AttentionPool,
    Combined,
    IndexCoordinates,
    LayerNormConfig,
    Learned,
    MeanPool,
    PrefixPool,
    Resample,
    RMSNormConfig,
    Rope2d,
    SinCos1d,
)
from support.vit_configs import NO_CLASS, REGISTERS, tiny

_QV = AttentionConfig(num_heads=3, bias="qv")
_ROPE = Rope2d(theta=1e4, pairing="neighbours", coordinates=IndexCoordinates(reference=(16, 16)))
_PE = Rope2d(theta=1e4, pairing="neighbours", first_axis="column", coordinates=IndexCoordinates())
_PE_TABLE = Learned(resample=Resample(interpolation="bilinear", antialias=False))
ORIGINALS: dict[str, ViTConfig] = {
    "AIMv2, tokens": tiny(
        tokens=NO_CLASS,
        patch=PatchConfig(norm_output=True),
        norm=RMSNormConfig(eps=1e-5),
        attention=AttentionConfig(num_heads=3, bias="none", out_bias=False),
        mlp=MLPConfig(hidden=40, gated=True, activation="silu", bias=False),
        head=HeadConfig(pool=MeanPool(), num_classes=0),
    ),
    "MAE-pytorch": tiny(
        tokens=NO_CLASS,
        positions=SinCos1d(),
        attention=_QV,
        head=HeadConfig(pool=MeanPool(), norm="pooled", num_classes=5),
    ),
    "EVA-CLIP": tiny(
        dim=48,
        positions=Combined(inner=_ROPE),
        attention=AttentionConfig(num_heads=3, bias="qv", out_norm=True),
        mlp=MLPConfig(hidden=40, gated=True, activation="silu", inner_norm=True),
        head=HeadConfig(projection=7, projection_bias=True, num_classes=0),
    ),
    "EVA-CLIP, bigE": tiny(
        block=BlockConfig(order="res_post"),
        attention=_QV,
        head=HeadConfig(projection=7, projection_bias=True, num_classes=0),
    ),
    "PE, core": tiny(
        dim=48,
        patch=PatchConfig(bias=False),
        norm=LayerNormConfig(eps=1e-5),
        block=BlockConfig(entry_norm=True),
        positions=Combined(added=_PE_TABLE, inner=replace(_PE, coordinates=IndexCoordinates(offset=1.0))),
        head=HeadConfig(pool=AttentionPool(num_heads=8, hidden=40, over="all"), projection=7, num_classes=0),
    ),
    "PE, spatial": tiny(
        dim=48,
        tokens=NO_CLASS,
        patch=PatchConfig(bias=False),
        norm=LayerNormConfig(eps=1e-5),
        block=BlockConfig(entry_norm=True, layer_scale=0.1),
        positions=Combined(added=_PE_TABLE, inner=_PE),
        head=HeadConfig(pool=MeanPool(), norm="none", num_classes=0),
    ),
    "RADIO": tiny(
        tokens=REGISTERS,
        patch=PatchConfig(bias=False),
        positions=Learned(covers="patches", resample=replace(_PE_TABLE.resample, keep_aspect=True)),
        head=HeadConfig(pool=PrefixPool(tokens=(0, 1)), norm="none", num_classes=0),
    ),
    "Prithvi": tiny(norm=LayerNormConfig(eps=1e-5), head=HeadConfig(num_classes=0)),
}
