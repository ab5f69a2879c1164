"""Encoders of one domain: a small file of each published shape gives the published embedding, pixels and licence."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from patchword.formats.facts import Options
from patchword.formats.layouts.clip_trunk import OpenClipTrunk
from patchword.formats.layouts.plain import MAE
from patchword.formats.layouts.timm import Timm
from patchword.formats.layouts.transformers_dino import TransformersDINOv2
from patchword.formats.layouts.transformers_vit import TransformersViT
from patchword.formats.read import open_foreign, read_tensors
from patchword.formats.source import Source
from patchword.formats.write import write_as
from patchword.hub.published import find_release
from patchword.images.preprocess import Preprocess
from patchword.model.config import BlockConfig, HeadConfig, MLPConfig, TokensConfig
from patchword.model.kinds import Learned
from patchword.model.vit import ViT
from patchword.weights.card import ModelCard
from support.vit_configs import tiny

SCALED, NONE = BlockConfig(layer_scale=1e-5), HeadConfig(num_classes=0)
GATED = MLPConfig(hidden=64, gated=True, activation="silu")
PLAIN = {"block": SCALED, "head": NONE, "mlp": MLPConfig(hidden=96)}
BARE_CLASS = Learned(covers="patches")
ARGS = {
    "embed_dim": 24,
    "depth": 2,
    "num_heads": 3,
    "num_classes": 0,
    "init_values": 1e-5,
    "img_size": 32,
    "patch_size": 8,
}
# Name on the hub, what its config.json states for timm, and the shape.
TIMM: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "paige-ai/Virchow": (
        "vit_huge_patch14_224",
        {"global_pool": "", "mlp_ratio": 5.3375},
        {**PLAIN, "mlp": GATED},
    ),
    "paige-ai/Virchow2": (
        "vit_huge_patch14_224",
        {"global_pool": "", "mlp_ratio": 5.3375, "reg_tokens": 4},
        {**PLAIN, "mlp": GATED, "tokens": TokensConfig(num_registers=4), "positions": Learned(covers="all")},
    ),
    "MahmoodLab/UNI": ("vit_large_patch16_224", {"dynamic_img_size": True}, PLAIN),
    "MahmoodLab/UNI2-h": (
        "vit_giant_patch14_224",
        {"reg_tokens": 8, "no_embed_class": True, "mlp_ratio": 5.33334},
        {**PLAIN, "mlp": GATED, "tokens": TokensConfig(num_registers=8), "positions": BARE_CLASS},
    ),
    "bioptimus/H-optimus-0": (
        "vit_giant_patch14_reg4_dinov2",
        {},
        {**PLAIN, "mlp": GATED, "tokens": TokensConfig(num_registers=4), "positions": BARE_CLASS},
    ),
    "prov-gigapath/prov-gigapath": ("vit_giant_patch14_dinov2", {}, {**PLAIN, "mlp": GATED}),
}
TIMM["bioptimus/H-optimus-1"] = TIMM["bioptimus/H-optimus-0"]


def _source(**parts: Any) -> Source:
    config = tiny(**parts)
    config = replace(
        config, image=replace(config.image, size=(32, 32)), patch=replace(config.patch, size=(8, 8))
    )
    tensors = ViT(config, torch.Generator().manual_seed(0)).state_dict()
    return Source(card=ModelCard(config=config, preprocess=Preprocess.simple(32)), tensors=tensors)


@pytest.mark.parametrize("name", TIMM)
@torch.no_grad()
def test_a_pathology_model_embeds_as_its_card_says(name: str, tmp_path: Path) -> None:
    architecture, stated, parts = TIMM[name]
    source = _source(**parts)
    write_as(source, Timm(), tmp_path / "model")
    pixels = {"mean": [0.7, 0.6, 0.7], "std": [0.2, 0.2, 0.2], "crop_pct": 1.0, "input_size": [3, 32, 32]}
    written = {
        "architecture": architecture,
        "num_classes": 0,
        "model_args": ARGS | stated,
        "pretrained_cfg": pixels,
    }
    (tmp_path / "model" / "config.json").write_text(json.dumps(written))
    opened, release = open_foreign(tmp_path / "model", source=f"hf://{name}"), find_release(name)
    model = opened.card
    vit = ViT(model.config, torch.Generator()).eval()
    vit.load_state_dict(read_tensors(opened))
    assert model.config.mlp.activation == source.card.config.mlp.activation
    assert model.preprocess.mean == (0.7, 0.6, 0.7) and model.preprocess.image_size == (32, 32)
    assert model.provenance.licence == (release.licence.weights or "")
    image = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    tokens = vit.forward_features(image)
    published = tokens[:, 0]
    if release.model.pool == "joined":
        patches = tokens[:, 1 + source.card.config.tokens.num_registers :]
        published = torch.cat((published, patches.mean(1)), 1)
    assert torch.equal(vit.embed(image), published)


@pytest.mark.parametrize(
    ("name", "layout", "parts"),
    [
        ("owkin/phikon", TransformersViT(), {"head": NONE, "mlp": MLPConfig(hidden=96)}),
        ("owkin/phikon-v2", TransformersDINOv2(), PLAIN),
        ("microsoft/rad-dino", TransformersDINOv2(), PLAIN),
        (
            "microsoft/BiomedCLIP-PubMedBERT_256-vit_base_patch16_224",
            OpenClipTrunk(),
            {"mlp": MLPConfig(hidden=96)},
        ),
    ],
)
def test_a_folder_of_the_hub_opens_under_its_name(
    name: str, layout: Any, parts: dict[str, Any], tmp_path: Path
) -> None:
    written = write_as(_source(**parts), layout, tmp_path / "model")
    opened = open_foreign(written.path, Options(**written.told), source=f"hf://{name}")
    assert opened.card.config.head.pool.kind == "class" and opened.layout.name == layout.name
    assert opened.card.provenance.licence == (find_release(name).licence.weights or "")


def test_retfound_averages_patches_and_a_small_file_of_its_name_is_another_model(tmp_path: Path) -> None:
    write_as(_source(head=NONE, mlp=MLPConfig(hidden=96)), MAE(), tmp_path / "RETFound_cfp_weights.pth")
    small = open_foreign(tmp_path / "RETFound_cfp_weights.pth", Options(num_heads=3))
    assert small.card.config.head.pool.kind == "class"
    assert find_release("RETFound_cfp_weights").model.pool == "mean"
