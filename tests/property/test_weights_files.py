"""Whatever is done to a weights file or its index: it is read, or a CheckpointError says why not."""

import io
import json
import math
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save

from patchword.containers import torch_tree
from patchword.containers.stored import Entry, open_stored, tensor_of
from patchword.errors import CheckpointError

TENSORS = {"a": torch.arange(6.0).reshape(2, 3), "b.c": torch.ones(3).bfloat16(), "d": torch.tensor(7)}
FEW = settings(
    max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


def saved(new: bool) -> bytes:
    buffer = io.BytesIO()
    torch.save({"model": TENSORS, "epoch": 3}, buffer, _use_new_zipfile_serialization=new)
    return buffer.getvalue()


def scripted() -> bytes:
    buffer = io.BytesIO()
    torch.jit.save(torch.jit.trace(torch.nn.Linear(2, 3), torch.ones(1, 2)), buffer)
    return buffer.getvalue()


def arrays(compressed: bool) -> bytes:
    buffer = io.BytesIO()
    plain = {name: tensor.float().numpy() for name, tensor in TENSORS.items()}
    (np.savez_compressed if compressed else np.savez)(buffer, **plain, f=np.asfortranarray(plain["a"]))
    return buffer.getvalue()


@pytest.fixture(scope="module")
def whole() -> dict[str, bytes]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("warnings.warn", lambda *given, **named: None)  # torch's, that TorchScript is old
        script = scripted()
    return {
        "safetensors": save(TENSORS, {"format": "pt"}),
        "new": saved(new=True),
        "old": saved(new=False),
        "script": script,
        "npz": arrays(compressed=False),
        "packed": arrays(compressed=True),
    }


@pytest.fixture(autouse=True)
def small_trees(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_tree, "MAX_PARTS", 10_000)


def read_or_refuse(path: Path) -> None:
    try:
        stored = open_stored(path)
        for entry in entries(stored.tree):
            assert math.prod(entry.shape) < 2**31
            tensor_of(entry)
            tensor_of(entry, fresh=True)
    except CheckpointError as error:
        assert str(path.parent) in error.message and error.fix and "\n" not in error.message


def entries(tree: Any) -> Iterator[Entry]:
    if isinstance(tree, Entry):
        yield tree
    elif isinstance(tree, dict):
        for part in tree.values():
            yield from entries(part)


KINDS = ("safetensors", "new", "old", "script", "npz", "packed")


@pytest.mark.parametrize("kind", KINDS)
@FEW
@given(data=st.data())
def test_flipped_bytes_are_read_or_refused(
    tmp_path: Path, whole: dict[str, bytes], kind: str, data: st.DataObject
) -> None:
    content = bytearray(whole[kind])
    at = st.integers(0, len(content) - 1)
    for position, byte in data.draw(st.lists(st.tuples(at, st.integers(0, 255)), min_size=1, max_size=4)):
        content[position] = byte
    (tmp_path / "m.pth").write_bytes(content)
    read_or_refuse(tmp_path / "m.pth")


@pytest.mark.parametrize("kind", KINDS)
@FEW
@given(data=st.data())
def test_cut_off_files_are_refused(
    tmp_path: Path, whole: dict[str, bytes], kind: str, data: st.DataObject
) -> None:
    kept = data.draw(st.integers(0, len(whole[kind]) - 1))
    (tmp_path / "m.pth").write_bytes(whole[kind][:kept])
    with pytest.raises(CheckpointError):
        open_stored(tmp_path / "m.pth")


@FEW
@given(data=st.data())
def test_flipped_pickles_in_a_sound_archive_are_read_or_refused(
    tmp_path: Path, whole: dict[str, bytes], data: st.DataObject
) -> None:
    with zipfile.ZipFile(io.BytesIO(whole["new"])) as archive:
        parts = {name: bytearray(archive.read(name)) for name in archive.namelist()}
    content = next(content for name, content in parts.items() if name.endswith("data.pkl"))
    at = st.integers(0, len(content) - 1)
    for position, byte in data.draw(st.lists(st.tuples(at, st.integers(0, 255)), min_size=1, max_size=6)):
        content[position] = byte
    with zipfile.ZipFile(tmp_path / "m.pth", "w") as archive:
        for name, part in parts.items():
            archive.writestr(name, bytes(part))
    read_or_refuse(tmp_path / "m.pth")


@FEW
@given(text=st.binary(max_size=60), version=st.sampled_from([1, 2, 3, 4]))
def test_any_header_of_an_array_is_read_or_refused(tmp_path: Path, text: bytes, version: int) -> None:
    width = 2 if version == 1 else 4
    array = b"\x93NUMPY" + bytes([version, 0]) + len(text).to_bytes(width, "little") + text + bytes(32)
    with zipfile.ZipFile(tmp_path / "m.npz", "w") as archive:
        archive.writestr("w.npy", array)
    read_or_refuse(tmp_path / "m.npz")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)
sizes = st.integers(-1, 9) | st.sampled_from([2**31, 2**60, 2**63, 2**64, 10**400])
header_entries = json_values | st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(["F32", "BF16", "BOOL", "F8_E4M3", "C64", "I4", "", "x"]),
        "shape": st.lists(sizes, max_size=3) | json_values,
        "data_offsets": st.tuples(sizes, sizes) | json_values,
    }
)


@settings(FEW, max_examples=300)
@given(header=st.dictionaries(st.sampled_from(["a", "b", "__metadata__", "\ud800"]), header_entries))
def test_any_safetensors_header_is_read_or_refused(tmp_path: Path, header: dict[str, Any]) -> None:
    text = json.dumps(header).encode()
    (tmp_path / "m.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + bytes(24))
    read_or_refuse(tmp_path / "m.safetensors")


names = st.sampled_from(["part.safetensors", "../part.safetensors", "", ".", "a/b", "x" * 300]) | st.text(
    max_size=5
)


@settings(FEW, max_examples=200)
@given(
    index=json_values
    | st.fixed_dictionaries({"weight_map": st.dictionaries(st.sampled_from(["a", "b.c", "d", "e"]), names)})
)
def test_any_index_is_read_or_refused(tmp_path: Path, whole: dict[str, bytes], index: Any) -> None:
    (tmp_path / "part.safetensors").write_bytes(whole["safetensors"])
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    read_or_refuse(tmp_path)


@settings(FEW, max_examples=100)
@given(
    content=st.binary(max_size=200),
    head=st.sampled_from([b"", b"PK\x03\x04", b"\x80\x02", b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."]),
)
def test_any_bytes_are_refused(tmp_path: Path, head: bytes, content: bytes) -> None:
    (tmp_path / "m.bin").write_bytes(head + content)
    with pytest.raises(CheckpointError):
        open_stored(tmp_path / "m.bin")
