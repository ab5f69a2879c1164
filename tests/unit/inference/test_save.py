"""Saving: what was trained by hand comes back to the bit, says where it came from, and loses nothing."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import patchword as pw
from patchword.errors import CheckpointError, OutputError
from patchword.inference.load import load
from patchword.inference.model import Model
from support.parity import committed

from .conftest import NAMES, write_tiny


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def step(model: Model) -> None:
    """One of a training by hand."""
    was = model.training
    model.train()
    images = torch.randn(4, 3, 32, 32)
    torch.nn.functional.cross_entropy(model(images), torch.tensor([0, 1, 2, 3])).backward()
    torch.optim.SGD(model.parameters(), lr=0.1).step()
    model.train(was)


def test_what_was_trained_by_hand_comes_back_to_the_bit(
    model_file: Path, pictures: list[Path], tmp_path: Path
) -> None:
    model, before = load(model_file, device="cpu"), sha256(model_file)
    old = model.predict(pictures[0]).probabilities
    step(model)
    new = model.predict(pictures[0]).probabilities
    model.save(tmp_path / "mine.safetensors")
    again = load(tmp_path / "mine.safetensors", device="cpu")
    assert not np.array_equal(new, old)
    assert np.array_equal(again.predict(pictures[0]).probabilities, new)
    assert again.classes == NAMES and again.config == model.config and again.preprocess == model.preprocess
    assert again.provenance.source == model_file.name
    assert again.provenance.source_sha256 == sha256(model_file) == before  # mapped, and not written through


def test_scores_of_the_weights_before_are_left_out(model: Model, tmp_path: Path) -> None:
    model.card = replace(
        model.card, provenance=replace(model.provenance, metrics={"top1": 0.9}, licence="mit")
    )
    model.save(tmp_path / "m.safetensors")
    saved = load(tmp_path / "m.safetensors").provenance
    assert saved.metrics == {} and saved.licence == "mit" and saved.facts["saved"] == "from memory"


def test_a_foreign_file_is_saved_with_its_hash_and_converts_back(tmp_path: Path) -> None:
    case = committed() / "timm_small_vit"
    file = case / json.loads((case / "meta.json").read_text())["load"]
    file = next(file.glob("*.safetensors")) if file.is_dir() else file
    pw.load(file).save(tmp_path / "ours.safetensors")
    assert pw.load(tmp_path / "ours.safetensors").provenance.source_sha256 == sha256(file)
    assert pw.convert(tmp_path / "ours.safetensors", "timm", tmp_path / "timm").difference == 0


def test_a_file_that_changed_since_gives_no_hash(pictures: list[Path], tmp_path: Path) -> None:
    file = write_tiny(tmp_path / "m.safetensors")
    model = load(file, device="cpu")
    expected = model.predict(pictures[0]).probabilities
    write_tiny(tmp_path / "other.safetensors", num_classes=0).replace(file)
    model.save(tmp_path / "kept.safetensors")
    kept = load(tmp_path / "kept.safetensors", device="cpu")
    assert kept.provenance.source_sha256 == "" and kept.provenance.source == "m.safetensors"
    assert np.array_equal(kept.predict(pictures[0]).probabilities, expected)


def test_a_new_head_trains_and_answers_once_it_is_said_to_be_trained(
    model_file: Path, pictures: list[Path], tmp_path: Path
) -> None:
    pw.adapt(model_file, tmp_path / "new.safetensors", classes=("cat", "dog", "cow", "hen"))
    model = load(tmp_path / "new.safetensors", device="cpu")
    step(model)
    for ask in (lambda: model.predict(pictures[0]), lambda: model(torch.zeros(1, 3, 32, 32))):
        with pytest.raises(CheckpointError, match="its head is untrained"):
            ask()
    model.save(tmp_path / "not-yet.safetensors")
    assert load(tmp_path / "not-yet.safetensors").card.untrained == ("head",)
    with pytest.raises(CheckpointError, match="its head is untrained"):  # other layouts cannot say it
        pw.convert(tmp_path / "not-yet.safetensors", "timm", tmp_path / "timm")
    assert not (tmp_path / "timm").exists()
    model.mark_trained()
    answer = model.predict(pictures[0])
    model.save(tmp_path / "trained.safetensors")
    again = load(tmp_path / "trained.safetensors", device="cpu").predict(pictures[0])
    assert np.array_equal(again.probabilities, answer.probabilities)


def test_nothing_is_overwritten_and_nothing_broken_is_written(model: Model, tmp_path: Path) -> None:
    taken = tmp_path / "taken.safetensors"
    taken.write_bytes(b"mine")
    with pytest.raises(OutputError, match="exists"):
        model.save(taken)
    assert taken.read_bytes() == b"mine"
    with torch.no_grad():
        model.vit.norm.weight[0] = torch.nan
    with pytest.raises(CheckpointError, match=r"norm\.weight contains NaN or infinite"):
        model.save(tmp_path / "nan.safetensors")
    model.vit.norm = torch.nn.LayerNorm(7)
    with pytest.raises(CheckpointError, match="its config was not"):
        model.save(tmp_path / "other.safetensors")
    assert [path.name for path in tmp_path.iterdir()] == ["taken.safetensors"]


@pytest.mark.parametrize("name", ["m.pth", "m.bin", "m.npz", "m"])
def test_a_file_is_what_its_name_says(model: Model, tmp_path: Path, name: str) -> None:
    """Weights are saved as safetensors, so under no other ending."""
    for write in (model.save, lambda path: pw.adapt("never read", path, image_size=64)):
        with pytest.raises(OutputError) as said:
            write(tmp_path / name)
        assert "use the name m.safetensors" in said.value.fix and not list(tmp_path.iterdir())
