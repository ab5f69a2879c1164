"""A tiny model with answers that differ between pictures, and pictures for it."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from patchword.images.preprocess import Preprocess
from patchword.inference.load import load
from patchword.inference.model import Model
from patchword.model.sizes import sized
from patchword.model.vit import ViT
from patchword.weights.card import ModelCard
from patchword.weights.native import write_model

NAMES = ("daisy", "dandelion", "rose", "sunflower", "tulip", "weed")


def write_tiny(
    path: Path,
    *,
    untrained: tuple[str, ...] = (),
    num_classes: int = len(NAMES),
    classes: tuple[str, ...] = NAMES,
    drop: float = 0.0,
) -> Path:
    whole = sized("ViT-Ti/16", image_size=32, num_classes=num_classes)
    config = replace(whole, dim=24, depth=2, attention=replace(whole.attention, num_heads=2))
    config = replace(config, block=replace(config.block, drop_path=drop, dropout=drop))
    generator = torch.Generator().manual_seed(3)
    tensors = {
        # Larger weights than a model begins with: its answers then differ from picture to picture.
        name: torch.randn(t.shape, generator=generator) * 0.3 + (t if "norm" in name else 0)
        for name, t in ViT(config, generator).state_dict().items()
    }
    card = ModelCard(
        config=config,
        preprocess=Preprocess.simple(32),
        classes=classes if num_classes else (),
        untrained=untrained,
    )
    write_model(path, tensors, card)
    return path


@pytest.fixture(scope="session")
def model_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny(tmp_path_factory.mktemp("model") / "m.safetensors")


@pytest.fixture
def model(model_file: Path) -> Model:
    return load(model_file, device="cpu")


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Twenty photographs' worth of shapes and colours, no two alike, of several sizes."""
    folder = tmp_path_factory.mktemp("pictures")
    drawn = np.random.default_rng(0)
    found = []
    for i in range(20):
        height, width = drawn.integers(20, 90, 2)
        coarse = Image.fromarray(drawn.integers(0, 255, (4, 5, 3), dtype=np.uint8))
        path = folder / f"{i:02}.{'jpg' if i % 2 else 'png'}"
        coarse.resize((int(width), int(height))).save(path)
        found.append(path)
    return found
