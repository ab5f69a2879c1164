"""A file under a published name is that release only where it holds as many numbers."""

from dataclasses import replace
from pathlib import Path

import torch

from patchword.formats.facts import Options
from patchword.formats.read import open_foreign
from patchword.hub.published import release_of_file
from patchword.images.preprocess import Preprocess
from patchword.inference.convert import convert
from patchword.model.sizes import sized
from patchword.model.vit import ViT
from patchword.weights.card import ModelCard
from patchword.weights.native import write_model

PUBLISHED = "vit_b_16-c867db91.pth"


def test_a_small_model_under_a_published_name_takes_nothing_from_that_release(tmp_path: Path) -> None:
    release = release_of_file(PUBLISHED)
    assert release is not None and release.classes is not None
    whole = sized("ViT-Ti/16", image_size=32, num_classes=1000)
    config = replace(whole, dim=24, depth=1, attention=replace(whole.attention, num_heads=2))
    card = ModelCard(config=config, preprocess=Preprocess.simple(32))
    write_model(
        tmp_path / "own.safetensors", ViT(config, torch.Generator().manual_seed(0)).state_dict(), card
    )
    convert(tmp_path / "own.safetensors", "torchvision", tmp_path / PUBLISHED)
    found = open_foreign(tmp_path / PUBLISHED, Options(num_heads=2)).card
    assert found.config.head.num_classes == 1000
    assert found.classes == ()
