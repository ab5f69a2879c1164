"""Models of timm, torchvision and transformers, and our own configs, have no mistakes."""

from collections.abc import Callable
from typing import Any

import pytest
from torch import nn

import patchword as pw
from patchword.model.config import (
    AttentionConfig,
    BlockConfig,
    HeadConfig,
    ImageConfig,
    MLPConfig,
    PatchConfig,
    TokensConfig,
)
from patchword.model.kinds import BatchNormConfig, MeanPool, NoPositions, RMSNormConfig, Rope2d, SinCos2d

pytestmark = pytest.mark.peers
SMALL = {"img_size": 32, "patch_size": 8, "embed_dim": 64, "depth": 3, "num_heads": 4, "num_classes": 10}


def timm_vit(**settings: Any) -> nn.Module:
    from timm.models.vision_transformer import VisionTransformer

    return VisionTransformer(**{**SMALL, **settings})


def timm_block(name: str) -> nn.Module:
    from timm.models import vision_transformer

    return timm_vit(block_fn=getattr(vision_transformer, name))


def timm_other(module: str, name: str, **settings: Any) -> nn.Module:
    import timm

    return getattr(getattr(timm.models, module), name)(**{**SMALL, **settings})


def torchvision_vit(**settings: Any) -> nn.Module:
    from torchvision.models import VisionTransformer

    return VisionTransformer(32, 8, 3, 4, 64, 128, num_classes=10, **settings)


def transformers_vit(kind: str) -> nn.Module:
    import transformers

    config = {
        "image_size": 32,
        "patch_size": 8,
        "hidden_size": 64,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
    }
    settings = getattr(transformers, f"{kind}Config")(**config, num_labels=10)
    return getattr(transformers, f"{kind}ForImageClassification")(settings)


def own(**settings: Any) -> nn.Module:
    usual = {
        "patch": PatchConfig(size=(8, 8)),
        "head": HeadConfig(num_classes=10),
        "attention": AttentionConfig(num_heads=4),
    }
    return pw.ViT(pw.ViTConfig(image=ImageConfig(size=(32, 32)), dim=64, depth=3, **{**usual, **settings}))


MODELS: dict[str, Callable[[], nn.Module]] = {
    "timm": timm_vit,
    "timm mean": lambda: timm_vit(global_pool="avg", class_token=False),
    "timm registers": lambda: timm_vit(reg_tokens=4, no_embed_class=True),
    "timm layer scale, qk norm": lambda: timm_vit(init_values=1e-5, qk_norm=True),
    "timm attention pool": lambda: timm_vit(global_pool="map", class_token=False),
    "timm drop path": lambda: timm_vit(drop_path_rate=0.1, drop_rate=0.1, attn_drop_rate=0.1),
    "timm parallel": lambda: timm_block("ParallelThingsBlock"),
    "timm parallel scaling": lambda: timm_block("ParallelScalingBlock"),
    "timm res-post": lambda: timm_block("ResPostBlock"),
    "timm beit": lambda: timm_other("beit", "Beit", use_rel_pos_bias=True, use_abs_pos_emb=False),
    "timm eva": lambda: timm_other("eva", "Eva", use_rot_pos_emb=True),
    "timm deit": lambda: timm_other("deit", "VisionTransformerDistilled"),
    "timm cait": lambda: timm_other("cait", "Cait"),
    "torchvision": torchvision_vit,
    "transformers vit": lambda: transformers_vit("ViT"),
    "transformers dinov2": lambda: transformers_vit("Dinov2"),
    "transformers deit": lambda: transformers_vit("DeiT"),
    "own": own,
    "own rms": lambda: own(norm=RMSNormConfig()),
    "own batch norm": lambda: own(norm=BatchNormConfig()),
    "own post-norm": lambda: own(block=BlockConfig(order="post")),
    "own res-post": lambda: own(block=BlockConfig(order="res_post")),
    "own rope": lambda: own(positions=Rope2d()),
    "own sine": lambda: own(positions=SinCos2d()),
    "own without positions": lambda: own(positions=NoPositions()),
    "own gated": lambda: own(mlp=MLPConfig(gated=True, activation="silu")),
    "own registers": lambda: own(tokens=TokensConfig(num_registers=4)),
    "own mean": lambda: own(tokens=TokensConfig(class_token=False), head=HeadConfig(num_classes=10, pool=MeanPool())),
    "own layer scale": lambda: own(block=BlockConfig(layer_scale=1e-5, drop_path=0.1, dropout=0.1)),
}  # fmt: skip


@pytest.mark.parametrize("name", MODELS)
def test_a_correct_model_of_a_library_has_no_mistakes(name: str) -> None:
    found = pw.diagnose(MODELS[name])
    assert not found.mistakes, [(f.title, f.module) for f in found.mistakes]
