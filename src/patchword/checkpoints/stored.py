"""What a checkpoint holds, listed without reading a tensor: dtype, shape and place of each. No torch until one is asked for."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from patchword.errors import CheckpointError

if TYPE_CHECKING:
    from torch import Tensor

Container = Literal["safetensors", "torch", "torchscript", "npz"]
MOST_CONFIG_BYTES = 16_000_000
CONFIGS = ("config.json", "preprocessor_config.json", "processor_config.json", "open_clip_config.json")
WIDTHS = {
    "F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1,
    "U64": 8, "U32": 4, "U16": 2, "U8": 1, "BOOL": 1, "F8_E4M3": 1, "F8_E5M2": 1, "C64": 8,
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One tensor as a file holds it.

    dtype: safetensors' names. offset: its first byte in `file`; -1 where it is compressed, and then
    `member` names the part of the archive, `start` the byte in it. strides: in elements, None row-major.
    """

    dtype: str
    shape: tuple[int, ...]
    file: Path
    offset: int
    strides: tuple[int, ...] | None = None
    member: str = ""
    start: int = 0


@dataclass(frozen=True, kw_only=True)
class Stored:
    """A file or folder, listed.

    tree: Entry leaves among nested mappings and plain values; safetensors and npz are flat.
    configs: JSON files beside, by name. why: the choice where there were several files.
    strangers: classes of a pickle that were not made, only named.
    """

    path: Path
    container: Container
    tree: Mapping[str, Any]
    metadata: Mapping[str, str] = field(default_factory=dict)
    files: tuple[Path, ...] = ()
    configs: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    why: str = ""
    strangers: tuple[str, ...] = ()


def open_stored(path: Path) -> Stored:
    """List a weights file, an index of shards, or a folder. Raises: CheckpointError that says what it is instead."""
    from patchword.checkpoints.containers.folder import open_file, open_folder

    return open_folder(path) if path.is_dir() else open_file(path)


def configs_beside(folder: Path) -> dict[str, Mapping[str, Any]]:
    """The JSON files that publishers put beside weights. Raises: CheckpointError for one that is no JSON object."""
    found: dict[str, Mapping[str, Any]] = {}
    for name in CONFIGS:
        file = folder / name
        if file.is_file():
            found[name] = read_json(file)
    return found


def read_json(file: Path) -> Mapping[str, Any]:
    """A JSON object. Raises: CheckpointError naming the file and what is wrong."""
    try:
        if file.stat().st_size > MOST_CONFIG_BYTES:
            raise CheckpointError(
                f"{file}: {file.stat().st_size:,} bytes, too large for a config", "get it again"
            )
        plain = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{file}: it cannot be read as JSON ({error})", "get the file again") from error
    if not isinstance(plain, dict):
        raise CheckpointError(f"{file}: it holds no JSON object", "get the file again")
    return plain


def tensor_of(entry: Entry, *, fresh: bool = False) -> "Tensor":
    """The tensor: mapped copy-on-write from the file, or with `fresh` read into memory of its own.

    Writing into a mapped tensor never reaches the file. Raises: CheckpointError where the file has changed.
    """
    import numpy as np
    import torch

    dtype = _torch_dtype(entry)
    count = _elements(entry)
    if not count:
        return torch.empty(entry.shape, dtype=dtype)
    size = count * WIDTHS[entry.dtype]
    try:
        raw: Any
        if entry.offset < 0:
            raw = np.frombuffer(bytearray(_unpacked(entry, size)), np.uint8)
        elif fresh:
            raw = np.empty(size, np.uint8)
            with entry.file.open("rb", buffering=0) as file:
                file.seek(entry.offset)
                _read_into(file, memoryview(raw), entry)
        else:
            raw = np.memmap(entry.file, np.uint8, "c", entry.offset, (size,))
    except (OSError, ValueError, EOFError) as error:
        raise CheckpointError(
            f"{entry.file}: a tensor cannot be read ({error})", "get the file again"
        ) from error
    flat = torch.from_numpy(np.asarray(raw))
    # A tensor must begin at a multiple of its width; zip members may lie anywhere.
    if flat.data_ptr() % WIDTHS[entry.dtype]:
        flat = flat.clone()
    flat = flat.view(dtype)
    if entry.strides is None:
        return flat.view(entry.shape)
    viewed = torch.as_strided(flat, entry.shape, entry.strides)
    return viewed.clone(memory_format=torch.contiguous_format) if fresh else viewed


def _torch_dtype(entry: Entry) -> Any:
    import torch

    names = {
        "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
        "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8,
        "BOOL": torch.bool,
    }  # fmt: skip
    if entry.dtype not in names:
        raise CheckpointError(
            f"{entry.file}: a tensor of {entry.dtype}, which no weights of a ViT are kept in",
            "save them as float32, float16 or bfloat16",
        )
    return names[entry.dtype]


def _elements(entry: Entry) -> int:
    """How many numbers of the storage the tensor spans."""
    if 0 in entry.shape:
        return 0
    if entry.strides is None:
        return math.prod(entry.shape)
    return 1 + sum((side - 1) * stride for side, stride in zip(entry.shape, entry.strides, strict=True))


def _read_into(file: Any, view: memoryview, entry: Entry) -> None:
    done = 0
    while done < len(view):
        got = file.readinto(view[done:])
        if not got:
            raise EOFError(f"{len(view) - done} bytes are missing")
        done += got


def _unpacked(entry: Entry, size: int) -> bytes:
    """A compressed part of an archive, whole: such files are small or rare."""
    import zipfile
    import zlib

    try:
        with zipfile.ZipFile(entry.file) as archive, archive.open(entry.member) as member:
            member.read(entry.start)
            found = member.read(size)
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, KeyError) as error:
        raise CheckpointError(
            f"{entry.file}: {entry.member} cannot be unpacked ({error})", "get the file again"
        ) from error
    if len(found) != size:
        raise EOFError(f"{size - len(found)} bytes are missing")
    return found
