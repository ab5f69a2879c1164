"""Every format against every small model: what a format writes, as a hash, or that it refuses."""

import contextlib
import hashlib
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from patchword.containers.stored import Entry, open_stored, tensor_of
from patchword.errors import CheckpointError, SettingsError
from patchword.formats.layout import Layout
from patchword.formats.source import Source
from patchword.formats.write import Written, write_as
from patchword.images.geometry import Patches, Squash
from patchword.images.preprocess import Preprocess
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
    ClassPool,
    Combined,
    FirstPool,
    IndexCoordinates,
    JoinedPool,
    LayerNormConfig,
    Learned,
    MeanPool,
    NoPositions,
    RelativeBias,
    Resample,
    ResNetStem,
    RMSNormConfig,
    Rope2d,
)
from patchword.model.vit import ViT
from patchword.weights.card import ModelCard
from support.original_families import ORIGINALS
from support.vit_configs import ALL, NO_CLASS, REGISTERS, tiny


def _square(config: ViTConfig) -> ViTConfig:
    """The same model on 32 x 32 pixels in patches of 8 x 8, which more formats can hold."""
    image, patch = replace(config.image, size=(32, 32)), replace(config.patch, size=(8, 8))
    return replace(config, image=image, patch=patch)


_QV = AttentionConfig(num_heads=3, bias="qv")
_SWIGLU = MLPConfig(hidden=40, gated=True, activation="silu")
_SCALED = BlockConfig(layer_scale=1e-5)
_EVA = Rope2d(theta=1e4, pairing="neighbours", coordinates=IndexCoordinates())
# Models as the families publish them, which few configs of single kinds are.
FAMILIES: dict[str, ViTConfig] = {
    name: _square(config) if config.patch.stem.kind == "none" else config
    for name, config in {
        "CLIP tower": tiny(
            patch=PatchConfig(bias=False),
            norm=LayerNormConfig(eps=1e-5),
            block=BlockConfig(entry_norm=True),
            mlp=MLPConfig(hidden=32, activation="quick_gelu"),
            head=HeadConfig(norm="pooled", projection=7, num_classes=0),
        ),
        "SigLIP": tiny(
            tokens=NO_CLASS,
            mlp=MLPConfig(hidden=40, activation="gelu_tanh"),
            head=HeadConfig(pool=AttentionPool(), num_classes=0),
        ),
        "DINOv2": tiny(
            block=_SCALED, mlp=MLPConfig(hidden=96), head=HeadConfig(pool=JoinedPool(), num_classes=5)
        ),
        "DINOv2, giant": tiny(
            block=_SCALED,
            tokens=REGISTERS,
            mlp=MLPConfig(hidden=64, gated=True, activation="silu"),
            head=HeadConfig(num_classes=0),
        ),
        "DINOv3": tiny(
            dim=48,
            norm=LayerNormConfig(eps=1e-5),
            tokens=REGISTERS,
            positions=Rope2d(),
            block=_SCALED,
            attention=_QV,
            mlp=_SWIGLU,
            head=HeadConfig(num_classes=0),
        ),
        "DINOv3, plain": tiny(
            dim=48,
            tokens=REGISTERS,
            positions=Rope2d(stored_periods=True),
            block=_SCALED,
            attention=_QV,
            head=HeadConfig(num_classes=0),
        ),
        "BEiT": tiny(
            positions=RelativeBias(),
            block=_SCALED,
            attention=_QV,
            head=HeadConfig(pool=MeanPool(), norm="pooled", num_classes=5),
        ),
        "BEiT, shared": tiny(
            positions=Combined(added=Learned(), inner=RelativeBias(shared=True)),
            block=_SCALED,
            attention=_QV,
            head=HeadConfig(num_classes=0),
        ),
        "EVA": tiny(attention=_QV),
        "EVA-02": tiny(
            dim=48,
            positions=Combined(inner=_EVA),
            attention=AttentionConfig(num_heads=3, bias="qv", out_norm=True),
            mlp=replace(_SWIGLU, inner_norm=True),
            head=HeadConfig(pool=MeanPool(), norm="pooled", num_classes=5),
        ),
        "EVA-02, small": tiny(
            dim=48,
            positions=Combined(inner=replace(_EVA, coordinates=IndexCoordinates(reference=(16, 16)))),
            attention=_QV,
            mlp=_SWIGLU,
            head=HeadConfig(num_classes=0),
        ),
        "DeiT-III": tiny(positions=Learned(covers="patches"), block=_SCALED),
        "distilled": tiny(
            tokens=TokensConfig(distillation_token=True), head=HeadConfig(num_classes=5, distilled=True)
        ),
        "MAE, fine-tuned": tiny(head=HeadConfig(pool=MeanPool(), norm="pooled", num_classes=5)),
        "I-JEPA": tiny(tokens=NO_CLASS, head=HeadConfig(pool=MeanPool(), num_classes=0)),
        "LiT": tiny(
            mlp=MLPConfig(hidden=40, activation="gelu_tanh"),
            head=HeadConfig(projection=7, projection_bias=True, num_classes=0),
        ),
        "big_vision": tiny(
            tokens=NO_CLASS,
            mlp=MLPConfig(hidden=40, activation="gelu_tanh"),
            head=HeadConfig(pool=MeanPool(), num_classes=5),
        ),
        "lucidrains": tiny(
            patch=PatchConfig(norm_pixels=True, norm_output=True),
            norm=LayerNormConfig(eps=1e-5),
            attention=AttentionConfig(num_heads=2, head_dim=20, bias="none"),
            head=HeadConfig(norm="none", num_classes=5),
        ),
        "ViT, pooler": tiny(norm=LayerNormConfig(eps=1e-12), head=HeadConfig(pre_logits=24, num_classes=0)),
        "backbone": tiny(head=HeadConfig(num_classes=0)),
        "tanh GELU": tiny(mlp=MLPConfig(hidden=40, activation="gelu_tanh")),
        "torch": tiny(positions=Learned(resample=Resample(antialias=False, align_corners=True))),
        "AIMv2": tiny(
            tokens=NO_CLASS,
            patch=PatchConfig(norm_output=True),
            norm=ALL["rms"].norm,
            attention=AttentionConfig(num_heads=3, bias="none", out_bias=False),
            mlp=MLPConfig(hidden=40, gated=True, activation="silu", bias=False),
            head=HeadConfig(pool=MeanPool(), num_classes=5),
        ),
        **ORIGINALS,
        "AIMv2, pooled": tiny(
            tokens=NO_CLASS,
            patch=PatchConfig(norm_output=True, edge="cut"),
            norm=RMSNormConfig(eps=1e-5),
            attention=AttentionConfig(num_heads=3, bias="none", out_bias=False),
            mlp=MLPConfig(hidden=40, gated=True, activation="silu", bias=False),
            head=HeadConfig(pool=AttentionPool(plain=True), num_classes=0),
        ),
        "InternViT": tiny(
            patch=PatchConfig(edge="cut"),
            block=_SCALED,
            attention=AttentionConfig(num_heads=3, bias="none"),
            head=HeadConfig(pool=MeanPool(), norm="none", num_classes=0),
        ),
        "Pixio": tiny(
            patch=PatchConfig(edge="cut"),
            tokens=REGISTERS,
            positions=Learned(covers="all"),
            mlp=MLPConfig(hidden=48),
            head=HeadConfig(pool=MeanPool(over="prefix"), num_classes=0),
        ),
        "MLCD": tiny(
            dim=48,
            patch=PatchConfig(bias=False, edge="cut"),
            norm=LayerNormConfig(eps=1e-5),
            positions=Rope2d(theta=1e4, coordinates=IndexCoordinates(), class_angles=True),
            block=BlockConfig(entry_norm=True),
            head=HeadConfig(norm="pooled", num_classes=0),
        ),
        "CLIP tower, bare": tiny(
            patch=PatchConfig(bias=False, edge="cut"),
            norm=LayerNormConfig(eps=1e-5),
            block=BlockConfig(entry_norm=True),
            mlp=MLPConfig(hidden=32, activation="quick_gelu"),
            head=HeadConfig(norm="pooled", num_classes=0),
        ),
        "SigLIP, bare": tiny(
            tokens=NO_CLASS,
            patch=PatchConfig(edge="cut"),
            mlp=MLPConfig(hidden=40, activation="gelu_tanh"),
            head=HeadConfig(pool=MeanPool(), num_classes=0),
        ),
        "timm's relpos": tiny(
            tokens=NO_CLASS, positions=RelativeBias(prefix_rows=False), head=HeadConfig(pool=MeanPool())
        ),
        "Google's hybrid": tiny(
            image=ImageConfig(size=(32, 32)),
            patch=PatchConfig(size=(1, 1), stem=ResNetStem(units=(1, 2), width=32)),
            mlp=MLPConfig(hidden=40, activation="gelu_tanh"),
        ),
        "jeonsworld's hybrid": tiny(
            image=ImageConfig(size=(32, 32)),
            patch=PatchConfig(
                size=(1, 1),
                stem=ResNetStem(
                    units=(1, 2),
                    width=32,
                    weight_eps="variance",
                    padding="symmetric",
                    proj_norm="channel",
                ),
            ),
        ),
        "timm's hybrid": tiny(
            image=ImageConfig(size=(32, 32)),
            patch=PatchConfig(
                size=(1, 1),
                stem=ResNetStem(units=(1, 1), width=32, weight_eps="variance", small=1e-8, norm_eps=1e-5),
            ),
        ),
    }.items()
}
_FITTING = {
    f"square, {name}": _square(config)
    for name, config in ALL.items()
    if config.patch == tiny().patch and config.image == tiny().image
}
MODELS: dict[str, ViTConfig] = {**ALL, **_FITTING, **FAMILIES}


def _oblong(config: ViTConfig) -> ViTConfig:
    image, patch = replace(config.image, size=(24, 32)), replace(config.patch, size=(8, 4))
    return replace(config, image=image, patch=patch)


# One thing that a family's format may not hold.
_CHANGES: dict[str, Callable[[ViTConfig], ViTConfig]] = {
    "oblong image": lambda c: replace(c, image=replace(c.image, size=(16, 32))),
    "oblong patches": _oblong,
    "ragged image": lambda c: replace(c, image=replace(c.image, size=(37, 37))),
    "cut image": lambda c: replace(
        c, image=replace(c.image, size=(37, 37)), patch=replace(c.patch, edge="cut")
    ),
    "one channel": lambda c: replace(c, image=replace(c.image, channels=1)),
    "no patch bias": lambda c: replace(c, patch=replace(c.patch, bias=not c.patch.bias)),
    "registers": lambda c: replace(
        c, tokens=replace(c.tokens, num_registers=2 * (not c.tokens.num_registers))
    ),
    "class token": lambda c: replace(c, tokens=replace(c.tokens, class_token=not c.tokens.class_token)),
    "bare class token": lambda c: replace(c, positions=replace(c.positions, covers="patches")),  # type: ignore[call-arg]
    "all covered": lambda c: replace(c, positions=replace(c.positions, covers="all")),  # type: ignore[call-arg]
    "relu": lambda c: replace(c, mlp=replace(c.mlp, activation="relu")),
    "tanh GELU": lambda c: replace(c, mlp=replace(c.mlp, activation="gelu_tanh")),
    "gate": lambda c: replace(c, mlp=replace(c.mlp, gated=not c.mlp.gated, activation="silu")),
    "inner norm": lambda c: replace(c, mlp=replace(c.mlp, inner_norm=not c.mlp.inner_norm)),
    "out norm": lambda c: replace(c, attention=replace(c.attention, out_norm=not c.attention.out_norm)),
    "no MLP bias": lambda c: replace(c, mlp=replace(c.mlp, bias=False)),
    "no biases": lambda c: replace(c, attention=replace(c.attention, bias="none")),
    "qkv": lambda c: replace(c, attention=replace(c.attention, bias="qkv")),
    "qv": lambda c: replace(c, attention=replace(c.attention, bias="qv")),
    "no out bias": lambda c: replace(c, attention=replace(c.attention, out_bias=False)),
    "LayerScale": lambda c: replace(
        c, block=replace(c.block, layer_scale=0.1 if c.block.layer_scale is None else None)
    ),
    "entry norm": lambda c: replace(c, block=replace(c.block, entry_norm=not c.block.entry_norm)),
    "res-post": lambda c: replace(c, block=replace(c.block, order="res_post")),
    "other eps": lambda c: replace(c, norm=replace(c.norm, eps=3e-4)),
    "heads": lambda c: replace(c, attention=replace(c.attention, num_heads=2, head_dim=None)),
    "mean": lambda c: replace(c, head=replace(c.head, pool=MeanPool(), distilled=False)),
    "class": lambda c: replace(c, head=replace(c.head, pool=ClassPool())),
    "first": lambda c: replace(c, head=replace(c.head, pool=FirstPool(), distilled=False)),
    "pooled norm": lambda c: replace(c, head=replace(c.head, norm="pooled", distilled=False)),
    "token norm": lambda c: replace(c, head=replace(c.head, norm="tokens")),
    "no last norm": lambda c: replace(c, head=replace(c.head, norm="none", distilled=False)),
    "pre-logits": lambda c: replace(c, head=replace(c.head, pre_logits=9, distilled=False)),
    "projection": lambda c: replace(c, head=replace(c.head, projection=6, distilled=False)),
    "classes": lambda c: replace(c, head=replace(c.head, num_classes=0 if c.head.num_classes else 4)),
    "no head bias": lambda c: replace(c, head=replace(c.head, bias=False, num_classes=4)),
    "no positions": lambda c: replace(c, positions=NoPositions()),
    "rope": lambda c: replace(c, positions=Combined(added=Learned(), inner=Rope2d())),
    "relative": lambda c: replace(c, positions=RelativeBias()),
}


def _varied() -> dict[str, tuple[str, ViTConfig]]:
    found = {}
    for family, config in FAMILIES.items():
        for change, changed in _CHANGES.items():
            with contextlib.suppress(SettingsError, TypeError):
                other = changed(config)
                if other != config:
                    found[f"{family}; {change}"] = (family, other)
    return found


# Each of the families' models with one thing changed: name → family, model.
VARIED = _varied()


def source_of(name: str) -> Source:
    """The model of that name with weights that no random generator and no platform changes."""
    family, config = VARIED.get(name) or (name, MODELS.get(name) or tiny())
    vit = ViT(config, torch.Generator().manual_seed(0)).eval()
    learned = {key for key, _ in vit.named_parameters()}
    tensors = {
        key: _filled(key, tensor) if key in learned else tensor for key, tensor in vit.state_dict().items()
    }
    preprocess = Preprocess.simple(config.image.size, in_channels=config.image.channels)
    if name in VARIED:
        preprocess = replace(preprocess, resize=Squash(size=config.image.size))
    if family == "SigLIP":
        preprocess = replace(preprocess, resize=Patches(patch=config.patch.size, max_patches=16))
    return Source(card=ModelCard(config=config, preprocess=preprocess), tensors=tensors)


def _filled(name: str, like: Tensor) -> Tensor:
    start = zlib.crc32(name.encode()) % 251
    values = (torch.arange(like.numel()) * 7 + start) % 251 - 125
    return (values / 256).reshape(like.shape).to(like.dtype)


def outcome(source: Source, layout: Layout, out: Path) -> str:
    """What a format made of a model: a hash of what it wrote, or the class of its refusal."""
    try:
        return hash_of(write_as(source, layout, out))
    except CheckpointError as error:
        assert error.message and error.fix and "\n" not in error.message
        return type(error).__name__


def hash_of(written: Written) -> str:
    """Of every file's content. Tensors count by name, order, type, shape and value, since containers hold versions."""
    found = hashlib.sha256(repr(sorted(written.told)).encode())
    weights = written.reopened.checkpoint.stored.files
    for file in sorted(written.files):
        found.update(file.name.encode())
        if file not in weights and file.suffix != ".pth":
            found.update(file.read_bytes())
            continue
        for name, value in _leaves(open_stored(file).tree):
            found.update(name.encode())
            if isinstance(value, Entry):
                tensor = tensor_of(value)
                found.update(f"{value.dtype} {value.shape}".encode())
                found.update((tensor.double() * 1024).round().to(torch.int64).numpy().tobytes())
            else:
                found.update(repr(value).encode())
    return found.hexdigest()[:16]


def _leaves(tree: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    if not isinstance(tree, Mapping):
        yield prefix, tree
        return
    for key, value in tree.items():
        yield from _leaves(value, f"{prefix}{key}/")
