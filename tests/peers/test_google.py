"""Against timm's reader of Google's .npz files: it takes what we write, and answers the same."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn

from patchword.formats.layouts.google import BigVision, GoogleViT
from patchword.formats.source import Source
from patchword.formats.write import write_as
from patchword.images.preprocess import Preprocess
from patchword.model.config import (
    AttentionConfig,
    HeadConfig,
    ImageConfig,
    MLPConfig,
    PatchConfig,
    TokensConfig,
    ViTConfig,
)
from patchword.model.kinds import AttentionPool, Learned, MeanPool, ResNetStem
from patchword.model.vit import ViT
from patchword.weights.card import ModelCard

pytestmark = pytest.mark.peers

PLAIN = ViTConfig(
    image=ImageConfig(size=(32, 32)),
    patch=PatchConfig(size=(8, 8)),
    dim=48,
    depth=3,
    attention=AttentionConfig(num_heads=3),
    mlp=MLPConfig(hidden=96, activation="gelu_tanh"),
    head=HeadConfig(num_classes=7),
)
BARE = replace(
    PLAIN,
    tokens=TokensConfig(class_token=False),
    positions=Learned(covers="patches"),
    head=HeadConfig(pool=MeanPool(), num_classes=7),
)
SHAPE: dict[str, Any] = {
    "img_size": 32,
    "patch_size": 8,
    "embed_dim": 48,
    "depth": 3,
    "num_heads": 3,
    "mlp_ratio": 2,
    "num_classes": 7,
    "act_layer": "gelu_tanh",
}
NO_TOKEN: dict[str, Any] = {"class_token": False, "fc_norm": False}
MODELS: dict[str, tuple[ViTConfig, Any, dict[str, Any]]] = {
    "ViT": (PLAIN, GoogleViT(), {}),
    "ViT, mean": (
        BARE,
        GoogleViT(),
        {**NO_TOKEN, "global_pool": "avg"},
    ),
    "big_vision": (
        replace(PLAIN, positions=Learned(covers="patches")),
        BigVision(),
        {"no_embed_class": True},
    ),
    "SigLIP": (
        replace(BARE, head=HeadConfig(pool=AttentionPool(), num_classes=0)),
        BigVision(),
        {**NO_TOKEN, "global_pool": "map", "num_classes": 0},
    ),
}


def drawn(config: ViTConfig) -> ViT:
    """With every weight drawn, so that no bias is zero."""
    generator = torch.Generator().manual_seed(0)
    model = ViT(config, generator).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            spread = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(1 + 0.2 * spread if parameter.ndim == 1 else 0.15 * spread)
    return model


def relative(ours: Tensor, theirs: Tensor) -> float:
    assert ours.shape == theirs.shape
    return float((ours - theirs).abs().max() / theirs.abs().max())


def images(config: ViTConfig) -> Tensor:
    shape = (2, config.image.channels, *config.image.size)
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


def file_of(model: ViT, layout: Any, folder: Path) -> Path:
    config = model.config
    card = ModelCard(config=config, preprocess=Preprocess.simple(config.image.size))
    return write_as(Source(card=card, tensors=model.state_dict()), layout, folder / "model.npz").path


@pytest.mark.parametrize(("config", "layout", "arguments"), MODELS.values(), ids=MODELS.keys())
@torch.no_grad()
def test_timm_answers_from_our_file(tmp_path: Path, config: ViTConfig, layout: Any, arguments: Any) -> None:
    model = drawn(config)
    peer = timm.models.VisionTransformer(**SHAPE | arguments).eval()
    peer.load_pretrained(str(file_of(model, layout, tmp_path)))
    x = images(config)
    assert relative(model(x), peer(x)) < 1e-5


@torch.no_grad()
def test_timms_hybrid_answers_from_our_file(tmp_path: Path) -> None:
    """timm takes other epsilons in the ResNet than Google's code (1e-5 in norms, 1e-6 in weights), so not quite the same."""
    stem = ResNetStem(units=(2, 2, 2, 2), width=64)
    config = replace(PLAIN, image=ImageConfig(size=(64, 96)), patch=PatchConfig(size=(1, 1), stem=stem))
    model = drawn(config)
    peer = timm.create_model(
        "vit_small_r26_s32_224",
        img_size=(64, 96),
        embed_dim=48,
        depth=3,
        num_heads=3,
        mlp_ratio=2,
        num_classes=7,
        act_layer="gelu_tanh",
    ).eval()
    peer.load_pretrained(str(file_of(model, GoogleViT(), tmp_path)))
    for module in peer.modules():
        if isinstance(module, nn.GroupNorm):
            module.eps = 1e-6
    x = images(config)
    assert relative(model(x), peer(x)) < 1e-3
