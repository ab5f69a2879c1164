"""What a checkpoint holds, listed without reading a tensor: dtype, shape and place of each. No torch until one is asked for."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from patchword.checkpoints.header import DTYPE_BYTES
from patchword.checkpoints.sniff import HEAD_BYTES, left_in_its_place
from patchword.errors import CheckpointError

if TYPE_CHECKING:
    from torch import Tensor

Container = Literal["safetensors", "torch", "torchscript", "npz"]
MOST_CONFIG_BYTES = 16_000_000
CONFIGS = (
    "config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "open_clip_config.json",
    "adapter_config.json",
)
WIDTHS = DTYPE_BYTES
# Names of dtypes: safetensors' and torch's.
TORCH_DTYPES = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "I64": "int64", "I32": "int32",
    "I16": "int16", "I8": "int8", "U64": "uint64", "U32": "uint32", "U16": "uint16", "U8": "uint8", "BOOL": "bool",
    "F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2", "C64": "complex64",
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
        content = file.read_bytes()
        if (instead := left_in_its_place(file, content[:HEAD_BYTES], len(content))) is not None:
            raise instead
        plain = json.loads(content.decode("utf-8-sig"))
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
    try:
        raw = np.asarray(_bytes_of(entry, count * WIDTHS[entry.dtype], fresh))
    except (OSError, ValueError, EOFError, MemoryError) as error:
        raise CheckpointError(
            f"{entry.file}: a tensor cannot be read ({error})", "get the file again"
        ) from error
    flat = torch.from_numpy(raw).view(dtype)
    if entry.strides is None:
        return flat.view(entry.shape)
    viewed = torch.as_strided(flat, entry.shape, entry.strides)
    return viewed.clone(memory_format=torch.contiguous_format) if fresh else viewed


def _bytes_of(entry: Entry, size: int, fresh: bool) -> Any:
    """So many bytes, as an array of numpy that may be written to."""
    import numpy as np

    if entry.offset < 0:
        from patchword.checkpoints.containers.archive import piece

        return np.frombuffer(bytearray(piece(entry.file, entry.member, entry.start, size)), np.uint8)
    # A tensor must begin at a multiple of its width. Members of archives lie anywhere: such are read.
    if not fresh and entry.offset % WIDTHS[entry.dtype] == 0:
        return np.memmap(entry.file, np.uint8, "c", entry.offset, (size,))
    raw: Any = np.empty(size, np.uint8)
    with entry.file.open("rb", buffering=0) as file:
        file.seek(entry.offset)
        _read_into(file, memoryview(raw))
    return raw


def _torch_dtype(entry: Entry) -> Any:
    import torch

    name = TORCH_DTYPES.get(entry.dtype)
    if name is None:
        raise CheckpointError(
            f"{entry.file}: a tensor of {entry.dtype}, which torch does not have",
            "save it as float32, float16 or bfloat16",
        )
    return getattr(torch, name)


def _elements(entry: Entry) -> int:
    """How many numbers of the storage the tensor spans."""
    if 0 in entry.shape:
        return 0
    if entry.strides is None:
        return math.prod(entry.shape)
    return 1 + sum((side - 1) * stride for side, stride in zip(entry.shape, entry.strides, strict=True))


def _read_into(file: Any, view: memoryview) -> None:
    done = 0
    while done < len(view):
        got = file.readinto(view[done:])
        if not got:
            raise EOFError(f"{len(view) - done} bytes are missing")
        done += got
