"""What each kind of file gives back is what its own library gives; nothing is copied, nothing written to."""

import argparse
import subprocess
import sys
import zipfile
from collections import OrderedDict, defaultdict
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save, save_file

from patchword.containers.stored import Entry, Stored, open_stored, tensor_of
from patchword.containers.write import write_npz, write_safetensors, write_torch
from patchword.errors import CheckpointError, OutputError
from support.disk import full_disk

Tensors = dict[str, torch.Tensor]
DTYPES = [
    torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16,
    torch.int8, torch.uint8, torch.bool,
]  # fmt: skip
RARE = [torch.uint16, torch.uint32, torch.uint64, torch.float8_e4m3fn, torch.float8_e5m2, torch.complex64]


def every_dtype(dtypes: list[torch.dtype] = DTYPES) -> Tensors:
    numbers = torch.arange(-3, 9).reshape(3, 4)
    found = {str(dtype).removeprefix("torch."): numbers.abs().to(dtype) for dtype in dtypes}
    return found | {"scalar": torch.tensor(2.5), "none": torch.empty(0, 3), "odd": torch.ones(3).bool()}


def safetensors_writes(dtype: torch.dtype) -> bool:
    """Before 0.6 it has no unsigned integers of more than 8 bits."""
    try:
        save({"x": torch.zeros(1, dtype=dtype)})
    except KeyError:
        return False
    return True


def same(entry: Entry, tensor: torch.Tensor) -> None:
    plain = tensor.detach()
    for fresh in (False, True):
        found = tensor_of(entry, fresh=fresh)
        assert found.dtype == plain.dtype and found.shape == plain.shape == entry.shape
        assert torch.equal(bits(found), bits(plain))


def bits(tensor: torch.Tensor) -> torch.Tensor:
    """Bytes: some dtypes cannot be compared."""
    return tensor.contiguous().flatten().view(torch.uint8)


def holds(stored: Stored, tensors: Tensors) -> None:
    assert list(stored.tree) == list(tensors) or stored.container == "safetensors"
    assert stored.tree.keys() == tensors.keys()
    for name, tensor in tensors.items():
        same(stored.tree[name], tensor)


def test_safetensors_give_what_was_saved(tmp_path: Path) -> None:
    tensors = every_dtype(DTYPES + [dtype for dtype in RARE[:5] if safetensors_writes(dtype)])
    save_file(tensors, tmp_path / "m.safetensors", {"format": "pt"})
    stored = open_stored(tmp_path / "m.safetensors")
    holds(stored, tensors)
    assert stored.container == "safetensors" and stored.metadata == {"format": "pt"}
    assert stored.files == (tmp_path / "m.safetensors",)


@pytest.mark.parametrize("ours", [False, True])
def test_a_header_of_odd_length_is_read_all_the_same(tmp_path: Path, ours: bool) -> None:
    text = b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}'
    text += b" " * ((1 if ours else 2) - len(text) % 4)
    path = tmp_path / "m.safetensors"
    path.write_bytes(len(text).to_bytes(8, "little") + text + np.array([1, 2], "<f4").tobytes())
    same(open_stored(path).tree["a"], torch.tensor([1.0, 2.0]))


@pytest.mark.parametrize("new", [True, False])
@pytest.mark.parametrize("protocol", [2, 4])
def test_torch_files_give_what_was_saved(tmp_path: Path, new: bool, protocol: int) -> None:
    tensors = every_dtype(DTYPES + RARE)
    path = tmp_path / "m.pth"
    torch.save(tensors, path, _use_new_zipfile_serialization=new, pickle_protocol=protocol)
    stored = open_stored(path)
    holds(stored, tensors)
    assert stored.container == "torch" and not stored.strangers


@pytest.mark.parametrize("new", [True, False])
def test_views_and_shared_storages_are_read_through_their_strides(tmp_path: Path, new: bool) -> None:
    base = torch.arange(24.0).reshape(4, 6)
    tensors = {
        "base": base,
        "transposed": base.t(),
        "columns": base[:, 2:4],
        "row": base[3],
        "every_second": base[::2, ::3],
        "repeated": torch.ones(1).expand(5, 2),
        "again": base,
        "one": base[1:2, 3:4],
        "channels_last": torch.arange(36.0).reshape(1, 4, 3, 3).to(memory_format=torch.channels_last),
    }
    torch.save(tensors, tmp_path / "m.pt", _use_new_zipfile_serialization=new)
    stored = open_stored(tmp_path / "m.pt")
    holds(stored, tensors)
    assert stored.tree["transposed"].strides == (1, 6) and stored.tree["row"].strides is None
    assert tensor_of(stored.tree["transposed"], fresh=True).is_contiguous()


class Oddity:
    """A class that patchword has never heard of."""

    def __init__(self) -> None:
        self.secret = 3


class Settings(dict[str, Any]):
    """A dict of some framework."""


def training_file() -> dict[str, Any]:
    model = torch.nn.Linear(3, 2)
    return {
        "model": model.state_dict(),
        "parameters": {"p": torch.nn.Parameter(torch.ones(2))},
        "buffer": torch.nn.Buffer(torch.ones(2)),
        "optimizer": torch.optim.AdamW(model.parameters()).state_dict(),
        "args": argparse.Namespace(lr=0.1, names=["a", "b"], out=PurePosixPath("/runs/a"), seed=None),
        "epoch": 7,
        "best": np.float32(0.5),
        "count": np.int64(9),
        "flag": np.bool_(True),
        "array": np.arange(3),
        "size": torch.Size([2, 3]),
        "device": torch.device("cuda:1"),
        "dtype": torch.float16,
        "many": defaultdict(list, a=[1, 2]),
        "ordered": OrderedDict(b=1, a=2),
        "set": {1},
        "frozen": frozenset(["x"]),
        "odd": Oddity(),
        "settings": Settings(depth=12),
        3: "number",
        (1, 2): "pair",
        ((1, 2), "a"): "pairs",
        frozenset(["y"]): "frozen",
        Oddity: "class",
        torch.float32: "dtype",
        torch.nn.functional.gelu: "function",
        "function": torch.nn.functional.gelu,
        torch.ones(2): "tensor",
    }


@pytest.mark.parametrize("new", [True, False])
def test_all_that_a_training_file_holds_is_plain_or_inert(tmp_path: Path, new: bool) -> None:
    saved = training_file()
    torch.save(saved, tmp_path / "c.pth", _use_new_zipfile_serialization=new)
    stored = open_stored(tmp_path / "c.pth")
    tree = stored.tree
    same(tree["model"]["weight"], saved["model"]["weight"])
    same(tree["parameters"]["p"], torch.ones(2))
    same(tree["buffer"], torch.ones(2))
    assert tree["args"] == {"lr": 0.1, "names": ["a", "b"], "out": "/runs/a", "seed": None}
    assert tree["optimizer"]["param_groups"][0]["lr"] == 0.001
    assert (tree["epoch"], tree["best"], tree["count"], tree["flag"]) == (7, 0.5, 9, True)
    assert tree["size"] == [2, 3] and tree["device"] == "cuda:1" and tree["dtype"] is None
    assert tree["many"] == {"a": [1, 2]} and tree["ordered"] == {"b": 1, "a": 2}
    assert tree["set"] == [1] and tree["frozen"] == ["x"] and tree["3"] == "number" and "(1, 2)" in tree
    assert tree[f"{__name__}.Oddity"] == "class" and tree["function"] is None
    assert tree["odd"] is None and tree["array"] is None and tree["settings"] == {"depth": 12}
    assert f"{__name__}.Oddity" in stored.strangers


class Net(torch.nn.Module):
    """Two layers, of which one lies twice in it, and buffers of which one is not kept."""

    def __init__(self) -> None:
        super().__init__()
        self.first = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3))
        self.scale = torch.nn.Parameter(torch.ones(3))
        self.register_buffer("kept", torch.arange(3))
        self.register_buffer("unkept", torch.arange(3), persistent=False)
        self.register_parameter("absent", None)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.first(x) * self.scale


@pytest.mark.parametrize("new", [True, False])
@pytest.mark.parametrize("wrapped", [True, False])
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_model_saved_whole_gives_its_state_dict(tmp_path: Path, new: bool, wrapped: bool) -> None:
    net = Net()
    torch.save({"model": net} if wrapped else net, tmp_path / "m.pt", _use_new_zipfile_serialization=new)
    stored = open_stored(tmp_path / "m.pt")
    found = stored.tree["model"] if wrapped else stored.tree
    assert list(found) == list(net.state_dict())
    for name, tensor in net.state_dict().items():
        same(found[name], tensor)
    assert f"{__name__}.Net" in stored.strangers


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("traced", [True, False])
def test_a_torchscript_archive_gives_its_state_dict(tmp_path: Path, traced: bool) -> None:
    net = (
        torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Sequential(torch.nn.BatchNorm1d(3))).eval().half()
    )
    scripted = torch.jit.trace(net, torch.ones(1, 2).half()) if traced else torch.jit.script(net)
    scripted.save(str(tmp_path / "m.pt"))
    stored = open_stored(tmp_path / "m.pt")
    assert stored.container == "torchscript" and stored.tree.keys() == net.state_dict().keys()
    for name, tensor in net.state_dict().items():
        same(stored.tree[name], tensor)


@pytest.mark.parametrize("compressed", [False, True])
def test_npz_gives_what_was_saved(tmp_path: Path, compressed: bool) -> None:
    arrays = {name: t.numpy() for name, t in every_dtype(DTYPES[:3] + DTYPES[4:]).items()}
    arrays["fortran"] = np.asfortranarray(np.arange(24.0).reshape(2, 3, 4))
    arrays["params/Transformer/x"] = np.arange(4, dtype="<f4")
    path = tmp_path / "m.npz"
    (np.savez_compressed if compressed else np.savez)(path, **arrays)
    stored = open_stored(path)
    holds(stored, {name: torch.from_numpy(np.load(path)[name].copy()) for name in arrays})
    assert stored.container == "npz"
    assert all((entry.offset < 0) == compressed for entry in stored.tree.values())


def test_bfloat16_goes_through_npz_as_jax_writes_it(tmp_path: Path) -> None:
    tensors = every_dtype()
    write_npz(tmp_path / "m.npz", tensors)
    with np.load(tmp_path / "m.npz") as loaded:
        assert loaded["bfloat16"].dtype == np.dtype("V2")
        assert (loaded["float32"] == tensors["float32"].numpy()).all()
    holds(open_stored(tmp_path / "m.npz"), tensors)


def test_a_compressed_torch_file_is_read(tmp_path: Path) -> None:
    tensors = {"a": torch.arange(1000.0), "b": torch.arange(1000.0)[10:20]}
    torch.save(tensors, tmp_path / "m.pt")
    with (
        zipfile.ZipFile(tmp_path / "m.pt") as old,
        zipfile.ZipFile(tmp_path / "c.pt", "w", zipfile.ZIP_DEFLATED) as new,
    ):
        for name in old.namelist():
            new.writestr(name, old.read(name))
    holds(open_stored(tmp_path / "c.pt"), tensors)


def test_a_member_that_lies_at_an_odd_byte_is_read(tmp_path: Path) -> None:
    tensors = {"a": torch.arange(5.0), "b": torch.arange(5.0, dtype=torch.float64)}
    torch.save(tensors, tmp_path / "m.pt")
    with zipfile.ZipFile(tmp_path / "m.pt") as old, zipfile.ZipFile(tmp_path / "c.pt", "w") as new:
        new.writestr("archive/x", "odd")
        for name in old.namelist():
            new.writestr("archive/" + name.partition("/")[2], old.read(name))
    stored = open_stored(tmp_path / "c.pt")
    assert any(entry.offset % 8 for entry in stored.tree.values())
    holds(stored, tensors)


def test_writing_into_a_tensor_never_reaches_the_file(tmp_path: Path) -> None:
    save_file({"a": torch.ones(4000)}, tmp_path / "m.safetensors")
    before = (tmp_path / "m.safetensors").read_bytes()
    entry = open_stored(tmp_path / "m.safetensors").tree["a"]
    mapped = tensor_of(entry)
    mapped.zero_()
    assert (tmp_path / "m.safetensors").read_bytes() == before
    assert tensor_of(entry).sum() == 4000 and not mapped.any()


def test_a_file_that_has_changed_since_is_an_error(tmp_path: Path) -> None:
    save_file({"a": torch.ones(4000)}, tmp_path / "m.safetensors")
    entry = open_stored(tmp_path / "m.safetensors").tree["a"]
    (tmp_path / "m.safetensors").write_bytes(b"short")
    for fresh in (False, True):
        with pytest.raises(CheckpointError, match="cannot be read"):
            tensor_of(entry, fresh=fresh)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8), "'w' is a quantized tensor"),
        (lambda: torch.eye(3).to_sparse(), "'w' is a sparse tensor"),
        (lambda: torch.ones(3, dtype=torch.complex128), "'w' has dtype torch.ComplexDoubleStorage"),
        (lambda: torch.ones(3, device="meta"), "'w' is a meta tensor"),
    ],
)
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")
def test_a_tensor_that_is_not_read_is_named(
    tmp_path: Path, make: Callable[[], torch.Tensor], words: str
) -> None:
    torch.save({"model": {"w": make()}}, tmp_path / "m.pt")
    with pytest.raises(CheckpointError) as refused:
        open_stored(tmp_path / "m.pt")
    assert words in refused.value.message


def test_arrays_of_objects_and_records_are_named(tmp_path: Path) -> None:
    path = tmp_path / "m.npz"
    for array, words in (
        (np.array([{}], object), "'w' holds pickled objects"),
        (np.zeros(2, "f4,i4"), "'w' holds records"),
        (np.zeros(2, ">f4"), "'w' holds numbers of kind '>f4'"),
        (np.array(["a"]), "'w' holds numbers of kind '<U1'"),
    ):
        np.savez(path, w=array)
        with pytest.raises(CheckpointError) as refused:
            open_stored(path)
        assert words in refused.value.message


def test_a_torch_file_of_the_other_byte_order_is_refused(tmp_path: Path) -> None:
    torch.save({"w": torch.ones(3)}, tmp_path / "m.pt")
    with zipfile.ZipFile(tmp_path / "m.pt") as old, zipfile.ZipFile(tmp_path / "c.pt", "w") as new:
        for name in old.namelist():
            new.writestr(name, b"big" if name.endswith("byteorder") else old.read(name))
    with pytest.raises(CheckpointError, match="big-endian"):
        open_stored(tmp_path / "c.pt")


def test_what_holds_no_tensors_by_name_is_told(tmp_path: Path) -> None:
    for value, words in ((3, "a int"), (Oddity(), "Oddity"), ("text", "a str")):
        torch.save(value, tmp_path / "m.pt")
        with pytest.raises(CheckpointError, match=words):
            open_stored(tmp_path / "m.pt")


def test_listing_needs_neither_torch_nor_numpy(tmp_path: Path) -> None:
    tensors = {"a": torch.ones(3)}
    save_file(tensors, tmp_path / "m.safetensors")
    torch.save(tensors, tmp_path / "new.pth")
    torch.save(tensors, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    write_npz(tmp_path / "m.npz", tensors)
    code = (
        "import sys; from pathlib import Path; from patchword.containers.stored import open_stored\n"
        f"for f in {[str(f) for f in sorted(tmp_path.iterdir())]!r}: assert open_stored(Path(f)).tree['a'].shape == (3,)\n"
        "assert not {'torch', 'numpy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_writers_write_whole_files_that_their_libraries_read(tmp_path: Path) -> None:
    tensors = every_dtype() | {"view": torch.arange(100.0).reshape(10, 10).t()[:2]}
    write_safetensors(tmp_path / "m.safetensors", tensors, {"format": "pt"})
    write_torch(tmp_path / "m.pth", {"model": tensors, "epoch": 3, "list": [tensors["view"]]})
    loaded = torch.load(tmp_path / "m.pth")
    assert loaded["epoch"] == 3 and loaded["model"]["view"].untyped_storage().nbytes() == 80
    for found in (load_file(tmp_path / "m.safetensors"), loaded["model"]):
        assert found.keys() == tensors.keys()
        assert all(torch.equal(found[name], tensors[name]) for name in tensors)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["m.pth", "m.safetensors"]


def test_a_dtype_that_a_format_cannot_hold_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"NumPy has no .*float8_e4m3fn, the dtype of w"):
        write_npz(tmp_path / "m.npz", {"w": torch.ones(2).to(torch.float8_e4m3fn)})
    with pytest.raises(CheckpointError, match=r"safetensors has no torch\.complex128, the dtype of w"):
        write_safetensors(tmp_path / "m.safetensors", {"w": torch.ones(2, dtype=torch.complex128)}, {})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "write", [write_npz, write_torch, lambda path, tensors: write_safetensors(path, tensors, {})]
)
def test_a_full_disk_leaves_the_older_file(tmp_path: Path, write: Any) -> None:
    (tmp_path / "m").write_bytes(b"older")
    big = {"w": torch.ones(100_000)}
    with full_disk(100_000), pytest.raises(OutputError, match="cannot be written"):
        write(tmp_path / "m", big)
    assert [file.name for file in tmp_path.iterdir()] == ["m"] and (tmp_path / "m").read_bytes() == b"older"


def test_a_place_that_cannot_be_written_is_an_output_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError):
        write_npz(tmp_path / "file" / "m.npz", {})
