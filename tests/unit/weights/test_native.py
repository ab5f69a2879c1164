"""Our own weights file: what goes in comes out, nothing half-written, everything strict."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from patchword.errors import CheckpointError, KeyMismatch, OutputError, ShapeMismatch, UnknownLayout
from patchword.images.preprocess import Preprocess
from patchword.model.config import ViTConfig
from patchword.model.sizes import sized
from patchword.model.vit import ViT
from patchword.weights.card import DETECTOR_VERSION, ModelCard, Provenance, card_from_json, card_to_json
from patchword.weights.native import fill, read_card, read_model, write_model
from support.disk import full_disk

Tensors = dict[str, torch.Tensor]


def tiny(num_classes: int = 3) -> ViTConfig:
    whole = sized("ViT-Ti/16", image_size=32, num_classes=num_classes)
    return replace(whole, dim=24, depth=2, attention=replace(whole.attention, num_heads=2))


def card(**changes: object) -> ModelCard:
    parts = {
        "config": tiny(),
        "preprocess": Preprocess.simple(32, mean=(0.1, 0.2, 0.3), std=(0.5,)),
        "classes": ("rosé", "tulip", 'a "quoted" one'),
        "provenance": Provenance(
            created="2026-11-23T06:00:00Z",
            seed=7,
            data="flowers",
            licence="Apache-2.0",
            metrics={"top1": 0.5},
            facts={"epoch": 3, "weights": "averaged"},
        ),
    }
    return ModelCard(**(parts | changes))  # type: ignore[arg-type]


@pytest.fixture
def written(tmp_path: Path) -> tuple[Path, Tensors]:
    tensors = dict(ViT(tiny(), torch.Generator().manual_seed(0)).state_dict())
    write_model(tmp_path / "m.safetensors", tensors, card())
    return tmp_path / "m.safetensors", tensors


def test_what_is_written_is_read_back(written: tuple[Path, Tensors]) -> None:
    path, tensors = written
    read, found = read_model(path)
    assert read == card() == read_card(path)
    assert found.keys() == tensors.keys()
    assert all(torch.equal(found[k], tensors[k]) and found[k].dtype == tensors[k].dtype for k in tensors)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64, torch.int64, torch.bool])
def test_every_type_is_kept(tmp_path: Path, dtype: torch.dtype) -> None:
    tensors = {"a": torch.arange(6).reshape(2, 3).to(dtype), "b": torch.ones(3), "scalar": torch.tensor(2.5)}
    tensors["turned"] = tensors["a"].T  # not in the order of memory
    write_model(tmp_path / "m.safetensors", tensors, card())
    _, found = read_model(tmp_path / "m.safetensors")
    assert all(torch.equal(found[k], tensors[k]) and found[k].dtype == tensors[k].dtype for k in tensors)


def test_the_file_opens_with_safetensors_alone(written: tuple[Path, Tensors]) -> None:
    from safetensors import safe_open
    from safetensors.torch import load_file

    path, tensors = written
    assert torch.equal(load_file(path)["norm.weight"], tensors["norm.weight"])
    with safe_open(path, framework="np") as file:
        stored = json.loads(file.metadata()["patchword"])
    assert stored["classes"] == list(card().classes)


def test_weights_begin_on_a_cache_line(written: tuple[Path, Tensors]) -> None:
    path, _ = written
    assert (8 + int.from_bytes(path.read_bytes()[:8], "little")) % 64 == 0


def test_the_card_is_read_without_torch(written: tuple[Path, Tensors]) -> None:
    code = f"""
import sys
from patchword.weights.native import read_card
assert read_card({str(written[0])!r}).classes[1] == "tulip"
print("torch" in sys.modules, "safetensors" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


def test_a_model_on_meta_takes_the_mapped_weights_without_a_copy(written: tuple[Path, Tensors]) -> None:
    path, tensors = written
    with torch.device("meta"):
        model = ViT(tiny())
    _, found = read_model(path)
    fill(model, found, "m")
    assert model.norm.weight.data_ptr() == found["norm.weight"].data_ptr()
    assert not any(t.is_meta for t in (*model.parameters(), *model.buffers()))
    images = torch.randn(2, 3, 32, 32)
    original = ViT(tiny())
    original.load_state_dict(tensors)
    with torch.no_grad():
        assert torch.equal(model.eval()(images), original.eval()(images))


def test_writing_twice_gives_the_same_bytes(tmp_path: Path, written: tuple[Path, Tensors]) -> None:
    path, tensors = written
    write_model(tmp_path / "again.safetensors", dict(reversed(tensors.items())), card())
    assert (tmp_path / "again.safetensors").read_bytes() == path.read_bytes()


def test_no_space_keeps_the_old_file_whole_and_leaves_no_other(written: tuple[Path, Tensors]) -> None:
    path, tensors = written
    before = path.read_bytes()
    with full_disk(len(before) // 2), pytest.raises(OutputError):
        write_model(path, {name: tensor + 1 for name, tensor in tensors.items()}, card())
    assert path.read_bytes() == before and [p.name for p in path.parent.iterdir()] == [path.name]


def test_a_place_that_cannot_be_written_is_an_output_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match="cannot be written"):
        write_model(tmp_path / "file" / "m.safetensors", {}, card())


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        (lambda t: t.pop("norm.weight"), KeyMismatch, "lacks norm.weight"),
        (lambda t: t.update(nrom=torch.ones(2)), KeyMismatch, "has unexpected nrom"),
        (
            lambda t: t.update({"head.weight": torch.ones(4, 24)}),
            ShapeMismatch,
            "head.weight has shape [4, 24]",
        ),
    ],
)
def test_weights_that_are_not_the_cards_model_are_refused_by_name(
    written: tuple[Path, Tensors], change: object, error: type[CheckpointError], words: str
) -> None:
    _, tensors = written
    change(tensors)  # type: ignore[operator]
    with torch.device("meta"):
        model = ViT(tiny())
    with pytest.raises(error) as refused:
        fill(model, tensors, "m.safetensors")
    assert words in refused.value.message and "m.safetensors" in refused.value.message


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"classes": ("a", "b")}, "lists 2 classes, but the model's head has 3"),
        ({"classes": ("a", "b", "a")}, "more than once: 'a'"),
        ({"preprocess": Preprocess.simple(32, in_channels=1)}, "1 channel, but its model takes 3"),
    ],
)
def test_a_card_that_contradicts_itself_is_refused(changes: dict[str, object], words: str) -> None:
    with pytest.raises(CheckpointError, match=words):
        card(**changes)


def rewrite_card(path: Path, change: object) -> None:
    """Change the card's JSON inside the file."""
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    plain = json.loads(header["__metadata__"]["patchword"])
    change(plain)  # type: ignore[operator]
    header["__metadata__"]["patchword"] = json.dumps(plain)
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + content[8 + length :])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda c: c.update(version=99), "version 99"),
        (lambda c: c.update(version=DETECTOR_VERSION + 1), f"version {DETECTOR_VERSION + 1}"),
        (lambda c: c.pop("version"), "no version"),
        (lambda c: c.pop("config"), "lacks config"),
        (lambda c: c.update(novelty=1), "unknown parts: novelty"),
        (lambda c: c["config"].update(dimm=3), "did you mean 'dim'"),
        (lambda c: c["classes"].pop(), "lists 2 classes"),
        (lambda c: c.update(classes="abc"), "not a list of names"),
        (lambda c: c.update(temperature="warm"), "temperature is 'warm'"),
        (lambda c: c.update(temperature=0), "temperature is 0"),
        (lambda c: c.update(thresholds=[0.5, 0.5, 0.5]), "3 thresholds, but its model of task 'single'"),
        (lambda c: c.update(thresholds=[0.5, 2, 0.5], task="multi"), "thresholds have 2"),
    ],
)
def test_a_changed_card_is_refused_naming_the_file(
    written: tuple[Path, Tensors], change: object, words: str
) -> None:
    path, _ = written
    rewrite_card(path, change)
    with pytest.raises(CheckpointError) as refused:
        read_card(path)
    assert words in refused.value.message and str(path) in refused.value.message and refused.value.fix


def test_an_unknown_note_on_where_a_file_comes_from_does_not_keep_it_from_loading(
    written: tuple[Path, Tensors],
) -> None:
    path, _ = written
    rewrite_card(path, lambda c: c["provenance"].update(trained_by="a person"))
    assert read_card(path).provenance.facts["trained_by"] == "a person"


def test_a_file_without_a_temperature_can_be_read_by_older_versions(written: tuple[Path, Tensors]) -> None:
    plain = json.loads(card_to_json(card()))
    assert plain["version"] == 1 and "temperature" not in plain
    warm = replace(card(), temperature=1.5)
    assert json.loads(card_to_json(warm))["version"] == 2
    assert card_from_json(card_to_json(warm), "it") == warm


def test_weights_of_another_program_are_of_unknown_layout(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    save_file({"a": np.ones(3, np.float32)}, tmp_path / "x.safetensors", metadata={"format": "pt"})
    with pytest.raises(UnknownLayout, match="another program"):
        read_card(tmp_path / "x.safetensors")
