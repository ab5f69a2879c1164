"""Every format against every small model: what a format writes, as a hash, or that it refuses."""

import hashlib
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from patchword.checkpoints.card import ModelCard
from patchword.checkpoints.layout import Layout
from patchword.checkpoints.source import Source
from patchword.checkpoints.stored import Entry, open_stored, tensor_of
from patchword.checkpoints.write import Written, write_as
from patchword.errors import CheckpointError
from patchword.images.geometry import Patches
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
    Combined,
    IndexCoordinates,
    JoinedPool,
    LayerNormConfig,
    Learned,
    MeanPool,
    RelativeBias,
    Resample,
    ResNetStem,
    Rope2d,
)
from patchword.model.vit import ViT
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


def source_of(name: str) -> Source:
    """The model of that name with weights that no random generator and no platform changes."""
    config = MODELS[name]
    vit = ViT(config, torch.Generator().manual_seed(0)).eval()
    learned = {key for key, _ in vit.named_parameters()}
    tensors = {
        key: _filled(key, tensor) if key in learned else tensor for key, tensor in vit.state_dict().items()
    }
    preprocess = Preprocess.simple(config.image.size, in_channels=config.image.channels)
    if name == "SigLIP":
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
