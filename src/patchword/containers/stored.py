"""List a checkpoint's tensors (dtype, shape, place) without reading them. Imports torch only to read one."""

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from patchword.containers.entry import (
    TORCH_DTYPES,
    WIDTHS,
    Container,
    Entry,
    Stored,
    configs_beside,
    read_json,
)
from patchword.errors import CheckpointError

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "TORCH_DTYPES",
    "WIDTHS",
    "Container",
    "Entry",
    "Stored",
    "configs_beside",
    "open_stored",
    "read_json",
    "tensor_of",
]


def open_stored(path: Path) -> Stored:
    """List a weights file, an index of shards, or a folder. Raises: CheckpointError that states what it is instead."""
    from patchword.containers.folder import open_file, open_folder

    return open_folder(path) if path.is_dir() else open_file(path)


def tensor_of(entry: Entry, *, fresh: bool = False) -> "Tensor":
    """The tensor, mapped copy-on-write from the file, or with `fresh` read into new memory.
    Writing to a mapped tensor never changes the file. Raises: CheckpointError if the file has changed.
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
            f"{entry.file}: a tensor cannot be read ({error})", "download the file again"
        ) from error
    flat = torch.from_numpy(raw).view(dtype)
    if entry.strides is None:
        return flat.view(entry.shape)
    viewed = torch.as_strided(flat, entry.shape, entry.strides)
    return viewed.clone(memory_format=torch.contiguous_format) if fresh else viewed


def _bytes_of(entry: Entry, size: int, fresh: bool) -> Any:
    """The bytes as a writable NumPy array."""
    import numpy as np

    if entry.offset < 0:
        from patchword.containers.archive import piece

        return np.frombuffer(bytearray(piece(entry.file, entry.member, entry.start, size)), np.uint8)
    # A mapped tensor must start at a multiple of its width. Archive members may not, so they are read.
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
            f"{entry.file}: a tensor has dtype {entry.dtype}, which torch does not have",
            "save it as float32, float16 or bfloat16",
        )
    return getattr(torch, name)


def _elements(entry: Entry) -> int:
    """The number of storage elements that the tensor spans."""
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
