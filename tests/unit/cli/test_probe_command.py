"""`evaluate --probe`: what is printed, and what is refused."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from patchword.cli.main import patchword
from patchword.errors import DataError, SettingsError
from patchword.images.preprocess import Preprocess
from patchword.model.sizes import sized
from patchword.model.vit import ViT
from patchword.probes.kinds import TRAINED
from patchword.weights.card import ModelCard
from patchword.weights.native import write_model


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


@pytest.mark.parametrize("probe", ["knn", "linear", "attentive", "dino-linear", "mae-linear"])
def test_a_model_without_a_head_is_scored_by_a_probe(model_and_data: tuple[str, str], probe: str) -> None:
    given = ["evaluate", *model_and_data, "--probe", probe, "--no-cache", "--device", "cpu", "--json"]
    given += ["--epochs", "20"] if probe in TRAINED else []
    result = CliRunner().invoke(patchword, given)
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["scored"] == 8 and found["top1"] == 1.0
    assert found["probe"]["kind"] == probe and found["probe"]["images"] == 8 and not found["probe"]["cached"]
    read = "patch tokens" if probe == "attentive" else "class token"
    assert read in found["probe"]["feature"] and read in found["probe"]["pooling"]
    assert "of 2" in found["probe"]["layer"] and found["probe"]["norm"] == "the final norm"
    assert [c["images"] for c in found["classes"]] == [4, 4]


def test_a_published_probe_says_its_cost_first_and_what_is_not_as_published(
    model_and_data: tuple[str, str],
) -> None:
    given = ["evaluate", *model_and_data, "--probe", "mae-linear", "--epochs", "9", "--no-cache"]
    result = CliRunner().invoke(patchword, given)
    assert result.exit_code == 0, result.output
    assert "72 of them (9 x 8 images): about" in result.stderr
    for text in (
        "mae-linear, 9 of 90 epochs probe, fitted to 8",
        "not as published: batch 8 instead of 16,384",
        "9 epochs instead of 90",
        "optimiser lars; lr 6.4",
        "facebookresearch/mae",
        "layer: block 2 of 2; pooling: the class token; norm: the final norm",
    ):
        assert text in " ".join(result.stdout.split()), text


@pytest.mark.parametrize("probe", ["linear", "mae-linear"])
def test_scored_images_of_a_class_without_readable_training_images_are_counted(
    model_and_data: tuple[str, str], probe: str
) -> None:
    data = Path(model_and_data[1])
    for split in ("train", "val"):
        (data / split / "green").mkdir()
        for i in range(3):
            Image.new("RGB", (32, 32), (0, 200, i)).save(data / split / f"green/{i}.png")
    for place in (data / "train/green").iterdir():
        place.write_bytes(place.read_bytes()[:40])
    given = ["evaluate", *model_and_data, "--probe", probe, "--no-cache"]
    result = CliRunner().invoke(patchword, given + ["--epochs", "2"] * (probe != "linear"))
    assert result.exit_code == 0, result.output
    said = " ".join(result.stderr.split())
    assert "3 scored images can only be wrong: no readable training image is of class 'green'" in said
    assert "3 unreadable images of train skipped, such as" in said
    assert "fitted to 8 training images" in result.stdout


def test_a_class_that_train_lacks_is_refused(model_and_data: tuple[str, str]) -> None:
    shutil.copytree(Path(model_and_data[1]) / "val/red", Path(model_and_data[1]) / "val/green")
    result = CliRunner().invoke(patchword, ["evaluate", *model_and_data, "--probe", "attentive"])
    assert isinstance(result.exception, DataError) and "'green'" in result.exception.message


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
        (["--probe", "dino-knn", "--no-cache"], "dino-knn votes among 20 neighbours, but there are 8"),
        (["--probe", "dino-knn", "--k", "3"], "always uses k 20"),
        (["--epochs", "3"], "--epochs 3 only applies to a probe"),
        (["--probe", "linear", "--epochs", "3"], "the linear probe has no epochs"),
        (["--probe", "dino-knn", "--seed", "3"], "the dino-knn probe has no seed"),
    ],
)
def test_options_without_effect_and_a_k_too_large_are_refused(
    model_and_data: tuple[str, str], options: list[str], message: str
) -> None:
    result = CliRunner().invoke(patchword, ["evaluate", *model_and_data, *options])
    error = result.exception
    assert isinstance(error, SettingsError) and message in error.message and error.fix
