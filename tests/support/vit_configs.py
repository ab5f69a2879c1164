"""Small models of every kind of part, for the tests that must hold for all of them."""

from dataclasses import replace
from typing import Any, get_args

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
    AnyAdded,
    AnyInner,
    AttentionPool,
    Combined,
    FirstPool,
    GroupNormConfig,
    IndexCoordinates,
    JoinedPool,
    LayerNormConfig,
    Learned,
    LearnedBetween,
    LearnedTokens,
    MaxPool,
    MeanPool,
    NoPositions,
    Norm,
    Pool,
    Positions,
    PrefixPool,
    RelativeBias,
    RelativeMLP,
    Resample,
    ResNetStem,
    Rope2d,
    SinCos2d,
)


def tiny(**parts: Any) -> ViTConfig:
    """Two blocks of width 24 on 16 x 24 pixels in patches of 8 x 6: a grid of 2 x 4."""
    plain = ViTConfig(
        image=ImageConfig(size=(16, 24)),
        patch=PatchConfig(size=(8, 6)),
        dim=24,
        depth=2,
        attention=AttentionConfig(num_heads=3),
        mlp=MLPConfig(hidden=40),
        head=HeadConfig(num_classes=5),
    )
    return replace(plain, **parts)


NO_CLASS = TokensConfig(class_token=False)
REGISTERS = TokensConfig(num_registers=2)

# A kind is added by its union alone; where its defaults do not fit the tiny model, it is named here.
FITTING: dict[type, Any] = {GroupNormConfig: GroupNormConfig(num_groups=4)}


def _each(union: Any) -> dict[str, Any]:
    """An instance of every kind of a union, by name."""
    return {kind.kind: FITTING[kind] if kind in FITTING else kind() for kind in get_args(union)}


POSITIONS: dict[str, ViTConfig] = {
    **{kind: tiny(positions=part) for kind, part in _each(Positions).items() if kind != "none"},
    **{f"combined, {kind}": tiny(positions=Combined(added=part)) for kind, part in _each(AnyAdded).items()},
    **{f"combined, {kind}": tiny(positions=Combined(inner=part)) for kind, part in _each(AnyInner).items()},
    "learned for all": tiny(tokens=REGISTERS, positions=Learned(covers="all")),
    "learned for registers behind": tiny(
        tokens=TokensConfig(num_registers=5, registers_last=True),
        positions=Combined(added=LearnedTokens(resampled_by="count"), inner=LearnedBetween(grid=(3, 2))),
    ),
    "learned for patches": tiny(positions=Learned(covers="patches")),
    "learned, offset": tiny(positions=Learned(resample=Resample(antialias=False, offset=0.1))),
    "learned, corners": tiny(positions=Learned(resample=Resample(antialias=False, align_corners=True))),
    "learned, aspect kept": tiny(positions=Learned(resample=Resample(keep_aspect=True))),
    "learned, bilinear": tiny(positions=Learned(resample=Resample(interpolation="bilinear"))),
    "sincos2d, MAE": tiny(positions=SinCos2d(last_included=False)),
    "relative bias, shared": tiny(positions=RelativeBias(shared=True), tokens=REGISTERS),
    "relative bias, patches": tiny(positions=RelativeBias(prefix_rows=False)),
    "relative MLP": tiny(positions=RelativeMLP(hidden=12)),
    "relative MLP, shared": tiny(positions=RelativeMLP(shared=True), tokens=REGISTERS),
    "rope2d, stored": tiny(positions=Rope2d(stored_periods=True), tokens=REGISTERS),
    "rope2d, EVA": tiny(
        positions=Rope2d(
            theta=10_000.0, pairing="neighbours", coordinates=IndexCoordinates(reference=(16, 16))
        )
    ),
    "rope2d, class angles": tiny(
        dim=48, positions=Rope2d(theta=1e4, coordinates=IndexCoordinates(), class_angles=True)
    ),
    "learned, nearest": tiny(positions=Learned(resample=Resample(interpolation="nearest", antialias=False))),
    "rope2d, PE": tiny(
        positions=Combined(
            inner=Rope2d(pairing="neighbours", first_axis="column", coordinates=IndexCoordinates(offset=1.0))
        )
    ),
}
NORMS: dict[str, ViTConfig] = {
    **{kind: tiny(norm=part) for kind, part in _each(Norm).items()},
    "layer, no bias": tiny(norm=LayerNormConfig(bias=False)),
}
POOLS: dict[str, ViTConfig] = {
    kind: tiny(head=HeadConfig(pool=part, num_classes=5)) for kind, part in _each(Pool).items()
}
OTHERS: dict[str, ViTConfig] = {
    "no positions": tiny(positions=NoPositions()),
    "grey": tiny(image=ImageConfig(size=(16, 24), channels=1)),
    "ragged": tiny(image=ImageConfig(size=(13, 20), channels=4)),
    "ragged, cut": tiny(image=ImageConfig(size=(21, 26)), patch=PatchConfig(size=(8, 6), edge="cut")),
    "patch norms": tiny(patch=PatchConfig(size=(8, 6), bias=False, norm_pixels=True, norm_output=True)),
    "hybrid": tiny(
        image=ImageConfig(size=(32, 48)),
        patch=PatchConfig(size=(2, 1), stem=ResNetStem(units=(1, 2), width=32)),
    ),
    "hybrid of torch": tiny(
        image=ImageConfig(size=(40, 61), channels=2),
        patch=PatchConfig(
            size=(1, 1),
            stem=ResNetStem(
                units=(2, 1, 1), width=32, weight_eps="variance", padding="symmetric", proj_norm="channel"
            ),
        ),
    ),
    "hybrid of a root alone": tiny(
        image=ImageConfig(size=(32, 48)), patch=PatchConfig(size=(4, 4), stem=ResNetStem(units=(), width=32))
    ),
    "registers last": tiny(
        tokens=TokensConfig(class_token=False, num_registers=3, registers_last=True),
        head=HeadConfig(pool=MeanPool(), num_classes=5),
    ),
    "distilled": tiny(
        tokens=TokensConfig(distillation_token=True), head=HeadConfig(num_classes=5, distilled=True)
    ),
    "post norm": tiny(block=BlockConfig(order="post", layer_scale=0.5)),
    "res-post norm": tiny(block=BlockConfig(order="res_post", drop_path=0.3)),
    "CLIP": tiny(
        block=BlockConfig(entry_norm=True),
        mlp=MLPConfig(hidden=32, activation="quick_gelu"),
        head=HeadConfig(norm="pooled", projection=7, num_classes=0),
    ),
    "LiT": tiny(head=HeadConfig(projection=7, projection_bias=True, num_classes=0)),
    "layer scale": tiny(block=BlockConfig(layer_scale=1e-2, dropout=0.1)),
    "qv bias": tiny(attention=AttentionConfig(num_heads=3, bias="qv", out_bias=False, dropout=0.1)),
    "no bias, own head dim": tiny(
        attention=AttentionConfig(num_heads=2, head_dim=20, bias="none", qk_norm="layer")
    ),
    "sub-LN": tiny(
        attention=AttentionConfig(num_heads=3, out_norm=True, qk_norm="rms"),
        mlp=MLPConfig(gated=True, activation="silu", inner_norm=True),
    ),
    "no MLP bias": tiny(mlp=MLPConfig(bias=False, activation="gelu_tanh")),
    "relu": tiny(mlp=MLPConfig(activation="relu"), head=HeadConfig(bias=False, num_classes=5, pre_logits=9)),
    "attention pool": tiny(
        tokens=NO_CLASS, head=HeadConfig(pool=AttentionPool(num_heads=4, hidden=30), num_classes=5)
    ),
    "attention pool over all": tiny(
        head=HeadConfig(pool=AttentionPool(over="all"), num_classes=5),
        mlp=MLPConfig(hidden=40, inner_norm=True),
    ),
    "plain attention pool": tiny(
        tokens=NO_CLASS,
        attention=AttentionConfig(num_heads=3, bias="none"),
        head=HeadConfig(pool=AttentionPool(plain=True), num_classes=5),
    ),
    "mean of prefix": tiny(
        tokens=REGISTERS,
        positions=Learned(covers="all"),
        head=HeadConfig(pool=MeanPool(over="prefix"), num_classes=5),
    ),
    "mean of all": tiny(tokens=REGISTERS, head=HeadConfig(pool=MeanPool(over="all"), num_classes=5)),
    "mean, pooled norm": tiny(head=HeadConfig(pool=MeanPool(), norm="pooled", num_classes=5)),
    "max, no norm": tiny(head=HeadConfig(pool=MaxPool(), norm="none", num_classes=5)),
    "first, no class token": tiny(tokens=NO_CLASS, head=HeadConfig(pool=FirstPool(), num_classes=0)),
    "prefix": tiny(tokens=REGISTERS, head=HeadConfig(pool=PrefixPool(tokens=(0, 2)), num_classes=5)),
    "joined, two blocks": tiny(
        head=HeadConfig(pool=JoinedPool(class_layers=2), norm="pooled", num_classes=5)
    ),
    "joined, interleaved": tiny(head=HeadConfig(pool=JoinedPool(interleaved=True), num_classes=5)),
    "joined, class alone": tiny(head=HeadConfig(pool=JoinedPool(class_layers=2, mean=False), num_classes=5)),
}
ALL: dict[str, ViTConfig] = {**POSITIONS, **NORMS, **POOLS, **OTHERS}
