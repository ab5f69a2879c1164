"""Loading: what a Model knows of itself, and that nothing is drawn at random."""

from pathlib import Path

import pytest
import torch

from patchword.errors import CheckpointError, SettingsError
from patchword.inference.load import load
from patchword.inference.model import Model
from patchword.weights.native import read_model, write_model

from .conftest import NAMES


def test_a_model_knows_how_it_is_built_fed_and_named(model: Model, model_file: Path) -> None:
    assert model.config.dim == 24 and model.preprocess.image_size == (32, 32)
    assert model.classes == NAMES and not model.training
    assert model.report.path == model_file and model.report.filled == 1
    assert model.report.parameters == sum(p.numel() for p in model.parameters())
    assert str(model_file) in str(model.report) and "100 %" in str(model.report)
    assert model(torch.zeros(2, 3, 32, 32)).shape == (2, len(NAMES))


def test_loading_draws_nothing_at_random(model_file: Path) -> None:
    before = torch.get_rng_state()
    load(model_file, device="cpu")
    assert torch.equal(torch.get_rng_state(), before)


def test_a_run_folder_loads_its_last_weights(model_file: Path, tmp_path: Path) -> None:
    for name in ("last", "best"):
        (tmp_path / f"{name}.safetensors").write_bytes(model_file.read_bytes())
    model = load(tmp_path, device="cpu")
    assert model.report.path.name == "last.safetensors" and "EMA weights" in model.report.why


def test_narrow_weights_are_widened_and_the_report_says_so(model_file: Path, tmp_path: Path) -> None:
    card, tensors = read_model(model_file)
    write_model(tmp_path / "half.safetensors", {k: t.bfloat16() for k, t in tensors.items()}, card)
    model = load(tmp_path / "half.safetensors", device="cpu")
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert "bfloat16" in str(model.report)


def test_a_loaded_model_can_be_trained_on_without_touching_its_file(model_file: Path) -> None:
    before = model_file.read_bytes()
    model = load(model_file, device="cpu").train()
    model(torch.ones(1, 3, 32, 32)).sum().backward()
    with torch.no_grad():
        for p in model.parameters():
            p -= p.grad
    assert model_file.read_bytes() == before


def test_a_device_that_is_not_there_is_named(model_file: Path) -> None:
    with pytest.raises(SettingsError, match="device 'warp' is not available"):
        load(model_file, device="warp")


def test_a_wrong_file_is_refused_by_load(tmp_path: Path) -> None:
    (tmp_path / "m.safetensors").write_bytes(b"<!doctype html>")
    with pytest.raises(CheckpointError, match="web page"):
        load(tmp_path / "m.safetensors")
