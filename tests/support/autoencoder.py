"""A small masked autoencoder with random weights, and a file of it."""

from dataclasses import replace
from pathlib import Path

import torch

from patchword.images.preprocess import Preprocess
from patchword.model.decoder import DecoderConfig
from patchword.model.mae import MAE
from patchword.model.sizes import sized
from patchword.model.vit import ViT
from patchword.weights.card import ModelCard
from patchword.weights.native import write_model


def small_mae(*, norm_targets: bool = True, size: int = 32, patch: int = 8) -> MAE:
    whole = sized("ViT-Ti/16", image_size=size, num_classes=0)
    config = replace(
        whole,
        patch=replace(whole.patch, size=(patch, patch)),
        dim=24,
        depth=1,
        attention=replace(whole.attention, num_heads=2),
    )
    decoder = DecoderConfig(dim=16, depth=1, num_heads=2, norm_targets=norm_targets)
    generator = torch.Generator().manual_seed(0)
    return MAE(ViT(config, generator), decoder, generator).eval()


def write_mae(path: Path, mae: MAE, *, with_decoder: bool = True) -> Path:
    card = ModelCard(
        config=mae.vit.config,
        preprocess=Preprocess.simple(mae.vit.config.image.size, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.25)),
        decoder=mae.config if with_decoder else None,
    )
    tensors = {name.removeprefix("vit."): tensor for name, tensor in mae.state_dict().items()}
    kept = {name: t for name, t in tensors.items() if with_decoder or not name.startswith("decoder.")}
    write_model(path, kept, card)
    return path
