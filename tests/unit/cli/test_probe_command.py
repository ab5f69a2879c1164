"""`evaluate --probe`: what is printed, and what is refused."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from patchword.checkpoints.card import ModelCard
from patchword.checkpoints.native import write_model
from patchword.cli.main import patchword
from patchword.errors import SettingsError
from patchword.images.preprocess import Preprocess
from patchword.model.sizes import sized
from patchword.model.vit import ViT


@pytest.fixture
def model_and_data(tmp_path: Path) -> tuple[str, str]:
    drawn = np.random.default_rng(0)
    for split in ("train", "val"):
        for name, colour in (("red", (200, 60, 60)), ("blue", (60, 60, 200))):
            for i in range(4):
                place = tmp_path / "data" / split / name / f"{i}.png"
                place.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(np.clip(drawn.normal(colour, 9, (32, 32, 3)), 0, 255).astype(np.uint8)).save(
                    place
                )
    whole = sized("ViT-Ti/16", image_size=32, num_classes=0)
    config = replace(whole, dim=24, depth=2, attention=replace(whole.attention, num_heads=2))
    tensors = ViT(config, torch.Generator().manual_seed(0)).state_dict()
    write_model(
        tmp_path / "m.safetensors", tensors, ModelCard(config=config, preprocess=Preprocess.simple(32))
    )
    return str(tmp_path / "m.safetensors"), str(tmp_path / "data")


@pytest.mark.parametrize("probe", ["knn", "linear"])
def test_a_model_without_a_head_is_scored_by_a_probe(model_and_data: tuple[str, str], probe: str) -> None:
    given = ["evaluate", *model_and_data, "--probe", probe, "--no-cache", "--device", "cpu", "--json"]
    result = CliRunner().invoke(patchword, given)
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["scored"] == 8 and found["top1"] == 1.0
    assert found["probe"]["kind"] == probe and found["probe"]["images"] == 8 and not found["probe"]["cached"]
    assert "class token" in found["probe"]["feature"]


def test_images_that_are_also_in_train_are_not_scored(model_and_data: tuple[str, str]) -> None:
    data = Path(model_and_data[1])
    (data / "val/red/0.png").write_bytes((data / "train/red/0.png").read_bytes())
    given = ["evaluate", *model_and_data, "--probe", "knn", "--no-cache", "--device", "cpu", "--json"]
    found = json.loads(CliRunner().invoke(patchword, given).stdout)
    assert found["scored"] == 7 and found["trained_on"]["images"] == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--k", "3"], "--k 3 only applies to a probe"),
        (["--no-cache"], "--no-cache only applies to a probe"),
        (["--probe", "linear", "--k", "3"], "has no k"),
        (["--probe", "knn", "--k", "9", "--no-cache"], "k is 9, but there are 8 training images"),
    ],
)
def test_options_without_effect_and_a_k_too_large_are_refused(
    model_and_data: tuple[str, str], options: list[str], message: str
) -> None:
    result = CliRunner().invoke(patchword, ["evaluate", *model_and_data, *options])
    error = result.exception
    assert isinstance(error, SettingsError) and message in error.message and error.fix
