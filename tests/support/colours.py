"""A model that classifies an image by its strongest colour, so that every prediction is known beforehand."""

from dataclasses import replace
from pathlib import Path

import torch

from patchword.images.preprocess import Preprocess
from patchword.model.config import HeadConfig
from patchword.model.kinds import MeanPool
from patchword.model.sizes import sized
from patchword.model.vit import ViT
from patchword.weights.card import ModelCard, Provenance
from patchword.weights.native import write_model

COLOURS = ("red", "green", "blue")


def write_colour_model(path: Path, provenance: Provenance | None = None) -> Path:
    """The mean of the patches, and a head on it."""
    whole = sized("ViT-Ti/16", image_size=32, num_classes=3)
    config = replace(
        whole,
        dim=6,
        depth=1,
        attention=replace(whole.attention, num_heads=1),
        head=HeadConfig(pool=MeanPool(), num_classes=3, norm="none"),
    )
    vit = ViT(config, torch.Generator().manual_seed(0))
    with torch.no_grad():
        for p in vit.parameters():
            p.zero_()
        for channel in range(3):
            vit.patch_embed.proj.weight[channel, channel] = 1 / 256
            vit.head.weight[channel, channel] = 4.0
    card = ModelCard(
        config=config,
        preprocess=Preprocess.simple(32),
        classes=COLOURS,
        provenance=provenance or Provenance(),
    )
    write_model(path, vit.state_dict(), card)
    return path
