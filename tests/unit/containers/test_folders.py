"""Which files of a folder belong together, and what is wrong where they do not."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from patchword.containers.stored import Stored, open_stored, tensor_of
from patchword.errors import CheckpointError, UnsafeFile

Tensors = dict[str, torch.Tensor]


def assert_holds(stored: Stored, tensors: Tensors) -> None:
    assert stored.tree.keys() == tensors.keys()
    assert all(torch.equal(tensor_of(stored.tree[name]), tensor) for name, tensor in tensors.items())


def sharded(folder: Path, ending: str, listed: dict[str, str] | None = None) -> Tensors:
    """Two parts with an index; `listed` changes what the index says (None: a name is left out)."""
    tensors = {"a": torch.ones(2), "b": torch.arange(3), "c": torch.zeros(1)}
    stem = "model" if ending == "safetensors" else "pytorch_model"
    names = [f"{stem}-0000{i}-of-00002.{ending}" for i in (1, 2)]
    for name, part in zip(names, (["a", "b"], ["c"]), strict=True):
        kept = {key: tensors[key] for key in part}
        if ending == "safetensors":
            save_file(kept, folder / name)
        else:
            torch.save(kept, folder / name)
    told = {"a": names[0], "b": names[0], "c": names[1]} | (listed or {})
    index = {"metadata": {}, "weight_map": {key: name for key, name in told.items() if name}}
    (folder / f"{stem}.{ending}.index.json").write_text(json.dumps(index))
    return tensors


@pytest.mark.parametrize("ending", ["safetensors", "bin"])
def test_parts_are_read_through_their_index(tmp_path: Path, ending: str) -> None:
    tensors = sharded(tmp_path, ending)
    (tmp_path / "config.json").write_text('{"model_type": "vit"}')
    stored = open_stored(tmp_path)
    assert_holds(stored, tensors)
    assert len(stored.files) == 2 and stored.configs == {"config.json": {"model_type": "vit"}}
    assert_holds(open_stored(next(tmp_path.glob("*.index.json"))), tensors)
    with pytest.raises(CheckpointError, match="part 1 of 2 of a model"):
        open_stored(next(tmp_path.glob("*00001-of-*")))


def test_parts_of_a_variant_are_read_through_its_index(tmp_path: Path) -> None:
    tensors = sharded(tmp_path, "safetensors")
    index = tmp_path / "model.safetensors.index.json"
    index.rename(tmp_path / "model.safetensors.index.fp16.json")
    assert_holds(open_stored(tmp_path), tensors)


@pytest.mark.parametrize(
    ("listed", "words"),
    [
        ({"c": "absent.safetensors"}, "its file 'absent.safetensors' is missing"),
        ({"c": "model-00001-of-00002.safetensors"}, "the tensor 'c' is not in 'model-00001"),
        ({"d": "model-00001-of-00002.safetensors"}, "the tensor 'd' is not in 'model-00001"),
        ({"b": ""}, "holds 'b', which the index does not list"),
        ({"b": 3}, "no weight_map"),
        ({"b": "x" * 5000}, "is missing"),
        ({"b": "\ud800"}, "is missing"),
    ],
)
def test_an_index_that_does_not_fit_its_parts_is_told(
    tmp_path: Path, listed: dict[str, Any], words: str
) -> None:
    sharded(tmp_path, "safetensors", listed)
    with pytest.raises(CheckpointError) as refused:
        open_stored(tmp_path)
    assert words in refused.value.message and "index.json" in refused.value.message


def test_a_tensor_that_two_parts_hold_is_told(tmp_path: Path) -> None:
    sharded(tmp_path, "safetensors")
    first, second = sorted(tmp_path.glob("model-*"))
    both = load_file(second) | {name: tensor + 1 for name, tensor in load_file(first).items()}
    save_file(both, second)
    with pytest.raises(CheckpointError, match=f"is in both '{second.name}' and '{first.name}'"):
        open_stored(tmp_path)


@pytest.mark.parametrize(
    "name", ["../secret.safetensors", "/etc/passwd", "a/../../b", "C:\\x", "..\\x", "\\\\host\\x", "a\0b"]
)
def test_an_index_that_leads_outside_its_folder_is_unsafe(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "inner"
    folder.mkdir()
    save_file({"c": torch.ones(1)}, tmp_path / "secret.safetensors")
    sharded(folder, "safetensors", {"c": name})
    with pytest.raises(UnsafeFile, match="outside its folder"):
        open_stored(folder)


def test_of_the_same_weights_in_two_files_the_safer_is_taken(tmp_path: Path) -> None:
    tensors = {"a": torch.ones(2)}
    torch.save(tensors, tmp_path / "dino.pth")
    save_file(tensors, tmp_path / "dino.safetensors")
    stored = open_stored(tmp_path)
    assert stored.container == "safetensors" and stored.why == "dino.safetensors, preferred over dino.pth"
    assert stored.path == tmp_path


def test_a_folder_of_another_framework_is_named(tmp_path: Path) -> None:
    (tmp_path / "tf_model.h5").touch()
    with pytest.raises(CheckpointError, match=r"Keras weights .*\(tf_model.h5\)"):
        open_stored(tmp_path)
    (tmp_path / "tf_model.h5").unlink()
    with pytest.raises(CheckpointError, match="has no weights"):
        open_stored(tmp_path)


@pytest.mark.parametrize("text", ["{", "[1]", '{"a": NaN', "\xff", "[" * 100_000, "1" * 5000])
def test_a_config_that_is_no_json_object_is_named(tmp_path: Path, text: str) -> None:
    save_file({"a": torch.ones(2)}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(text, encoding="latin1")
    with pytest.raises(CheckpointError, match=r"config\.json: it (is not valid JSON|is not a JSON object)"):
        open_stored(tmp_path)
