"""What is no weights file is named for what it is, and nothing is unpickled."""

import io
import json
import pickle
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from patchword.containers.stored import open_stored
from patchword.errors import CheckpointError, UnknownLayout, UnsafeFile
from patchword.hub.find import find_weights
from patchword.inference.load import load


def safetensors(header: object, data: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


ONE = {"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}


class Exploding:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return exec, ("raise SystemExit('unpickled')",)


def torch_file(new: bool) -> bytes:
    buffer = io.BytesIO()
    torch.save({"w": torch.ones(2)}, buffer, _use_new_zipfile_serialization=new)
    return buffer.getvalue()


def zipped(name: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(name, "x" * 100)
    return buffer.getvalue()


def npz() -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, w=np.ones(2))
    return buffer.getvalue()


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:0f\nsize 22\n"
WRONG = {
    "empty": (b"", "is empty"),
    "page": (b"<!DOCTYPE html><html><body>404</body></html>", "web page"),
    "page_behind_a_mark": (b"\xef\xbb\xbf\n <HTML>", "web page"),
    "lfs": (LFS, "Git LFS pointer"),
    "zeros": (bytes(4096), "never finished"),
    "seven_bytes": (b"\x10\0\0\0\0\0\0", "truncated after 7 bytes"),
    "text": (b"these are not the weights you look for", "text, not weights"),
    "brace_text": (b"abcdefgh{ more text }", "text, not weights"),
    "photo": (b"\xff\xd8\xff\xe0" + bytes(50), "JPEG"),
    "hdf5": (b"\x89HDF\r\n\x1a\n" + bytes(50), "HDF5"),
    "gzip": (b"\x1f\x8b" + bytes(50), "gzip"),
    "pickle": (pickle.dumps({"epoch": Exploding()}), "Python pickle"),
    "torch_zip_cut": (torch_file(new=True)[:-60], "truncated or damaged"),
    "torch_old_cut": (torch_file(new=False)[:-4], "truncated"),
    "npz_cut": (npz()[:-40], "truncated or damaged"),
    "zip": (zipped("holiday.txt"), "a zip archive"),
    "noise": (bytes(range(128, 256)) * 3, "not a weights file"),
    "header_without_end": (struct.pack("<Q", 2**64 - 1) + b"{}", "its header would have"),
    "length_alone": (struct.pack("<Q", 61), "truncated after 8 bytes"),
    "header_too_large": (struct.pack("<Q", 2**40) + b"{" + bytes(50), "its header would have"),
    "cut_in_header": (safetensors(ONE)[:20], "truncated within its header"),
    "cut_in_data": (safetensors(ONE, bytes(5)), "truncated: it has 5 of 8 bytes"),
    "too_long": (safetensors(ONE, bytes(9)), "1 extra byte after"),
    "no_json": (safetensors(b"{" + b"\xfe" * 20), "not a safetensors header"),
    "deep": (safetensors(b'{"a":' * 200_000), "header"),
    "wrong_size": (safetensors({"a": ONE["a"] | {"shape": [3]}}, bytes(8)), "8 bytes for F32 [3]"),
    "negative": (safetensors({"a": ONE["a"] | {"shape": [-2]}}, bytes(8)), "not whole numbers"),
    "overlap": (safetensors({**ONE, "b": ONE["a"]}, bytes(8)), "starts at byte 0"),
    "no_entry": (safetensors({"a": 3}), "not a safetensors header"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_a_wrong_file_is_named_for_what_it_is(tmp_path: Path, kind: str) -> None:
    content, words = WRONG[kind]
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises(CheckpointError) as refused:
        open_stored(path)
    error = refused.value
    assert words in error.message and str(path) in error.message and error.exit_code == 2
    # One action, and never the advice to switch a safeguard off.
    assert error.fix and "\n" not in str(error.message) + error.fix and "weights_only" not in str(error)


@pytest.mark.parametrize("kind", ["empty", "page", "page_behind_a_mark", "lfs", "noise"])
def test_a_wrong_config_beside_the_weights_is_named_for_what_it_is(tmp_path: Path, kind: str) -> None:
    content, words = WRONG[kind]
    (tmp_path / "model.safetensors").write_bytes(safetensors(ONE, bytes(8)))
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(CheckpointError) as refused:
        open_stored(tmp_path)
    assert str(tmp_path / "config.json") in refused.value.message
    assert ("is not valid JSON" if kind == "noise" else words) in refused.value.message


def test_pickles_are_told_apart_by_safety(tmp_path: Path) -> None:
    path = tmp_path / "m.pth"
    path.write_bytes(WRONG["pickle"][0])
    with pytest.raises(UnsafeFile):
        open_stored(path)
    path.write_bytes(torch_file(new=True))
    with pytest.raises(UnknownLayout, match=r"no supported layout matches its 1 tensor \(w \[2\]"):
        load(path)


def test_a_run_folder_means_its_last_weights_and_says_why(tmp_path: Path) -> None:
    (tmp_path / "last.safetensors").touch()
    (tmp_path / "best.safetensors").touch()
    found = find_weights(tmp_path)
    assert found.path.name == "last.safetensors" and "EMA" in found.why and "best" in found.why


def test_a_folder_with_one_weights_file_means_that_file(tmp_path: Path) -> None:
    (tmp_path / "m.safetensors").write_bytes(safetensors({"__metadata__": {"patchword": "{}"}}))
    assert find_weights(tmp_path).path.name == "m.safetensors"


def test_a_folder_of_another_program_is_left_to_its_names(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(safetensors(ONE, bytes(8)))
    (tmp_path / "pytorch_model.bin").write_bytes(torch_file(new=True))
    assert find_weights(tmp_path).path == tmp_path
    stored = open_stored(tmp_path)
    assert stored.container == "safetensors" and "preferred over pytorch_model.bin" in stored.why


def test_several_unrelated_files_are_named(tmp_path: Path) -> None:
    for name in ("a.safetensors", "b.safetensors"):
        (tmp_path / name).write_bytes(safetensors(ONE, bytes(8)))
    with pytest.raises(CheckpointError, match=r"2 weights files \(a.safetensors, b.safetensors\)"):
        open_stored(tmp_path)


@pytest.mark.parametrize(
    ("there", "given", "words"),
    [
        (["runs/demo/last.safetensors"], "runs/dmo", "did you mean 'demo'"),
        (["runs/demo/last.safetensors"], "rnus/demo", "did you mean 'runs'"),
        (["model.safetensors"], "model.safetensor", "did you mean 'model.safetensors'"),
        (["runs/a/last.safetensors", "runs/b/last.safetensors"], "runs", "this folder holds 2 runs (a, b)"),
        (["x/config.toml"], "x", "no weights yet"),
        (["x/photo.jpg"], "x", "has no weights"),
    ],
)
def test_a_place_without_weights_says_what_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, there: list[str], given: str, words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in there:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()
    with pytest.raises(CheckpointError) as refused:
        find_weights(given)
    assert words in refused.value.message and refused.value.fix
