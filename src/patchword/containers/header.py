"""Read a safetensors header with the standard library only, and check everything it states.

Source: the format as its authors describe it (safetensors README): 8 bytes little-endian length N,
N bytes of JSON {name: {dtype, shape, data_offsets}, "__metadata__": {text: text}}, then the tensors'
bytes without gaps.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from patchword.containers.sniff import HEAD_BYTES, MAX_HEADER_BYTES, refuse, too_long_header
from patchword.errors import CheckpointError, plural

MAX_AXES = 64
MAX_ELEMENTS = 2**60
DTYPE_BYTES = {
    "F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1,
    "U64": 8, "U32": 4, "U16": 2, "U8": 1, "BOOL": 1, "F8_E4M3": 1, "F8_E5M2": 1, "C64": 8,
}  # fmt: skip


@dataclass(frozen=True)
class TensorEntry:
    """A tensor of the file; `start` and `end` count from the first byte after the header."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


@dataclass(frozen=True)
class Header:
    tensors: Mapping[str, TensorEntry]
    metadata: Mapping[str, str]
    data_start: int


def read_header(path: Path) -> Header:
    """List a safetensors file, checked against its size; no tensor is read.

    Raises: CheckpointError that states what the file is instead, or how it is damaged.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            head = file.read(HEAD_BYTES)
            if len(head) < 9 or head[8:9] != b"{" or _other_kind(head):
                raise refuse(path, head, size)
            length = int.from_bytes(head[:8], "little")
            _check_length(path, length, size)
            file.seek(8)
            text = file.read(length)
    except OSError as error:
        raise CheckpointError(
            f"{path}: cannot be read ({error.strerror or error})", "give a weights file that can be read"
        ) from error
    tensors, metadata = _parse(path, text)
    _check_covers(path, tensors, size - 8 - length)
    return Header(tensors, metadata, 8 + length)


def _other_kind(head: bytes) -> bool:
    # Text files and archives whose ninth byte happens to be a brace.
    return int.from_bytes(head[:8], "little") > 2**48


def _check_length(path: Path, length: int, size: int) -> None:
    if length > MAX_HEADER_BYTES:
        raise too_long_header(path, length)
    if length > size - 8:
        raise CheckpointError(
            f"{path}: truncated within its header ({size:,} bytes, but the header alone has {length:,})",
            "download the file again",
        )


def _parse(path: Path, text: bytes) -> tuple[dict[str, TensorEntry], dict[str, str]]:
    damaged = "download the file again: its header is damaged"
    try:
        plain = json.loads(text.decode("utf-8"))
        if not isinstance(plain, dict):
            raise TypeError("not a JSON object")
        metadata = plain.pop("__metadata__", None) or {}
        return {name: _entry(name, plain[name]) for name in plain}, {
            str(k): str(v) for k, v in metadata.items()
        }
    except RecursionError:
        raise CheckpointError(f"{path}: its header is nested too deeply for safetensors", damaged) from None
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise CheckpointError(f"{path}: its header is not a safetensors header ({error})", damaged) from error


def _entry(name: str, plain: Mapping[str, Any]) -> TensorEntry:
    dtype, shape, (start, end) = plain["dtype"], tuple(plain["shape"]), plain["data_offsets"]
    if not all(type(n) is int and 0 <= n < MAX_ELEMENTS for n in (*shape, start, end)):
        raise ValueError(f"{name!r}: sizes are not whole numbers")
    # An empty tensor may state any size in its other axes; torch counts them anyway.
    if len(shape) > MAX_AXES or math.prod(max(side, 1) for side in shape) >= MAX_ELEMENTS:
        raise ValueError(f"{name!r}: the tensor has an impossible size")
    if dtype in DTYPE_BYTES and end - start != math.prod(shape) * DTYPE_BYTES[dtype]:
        raise ValueError(f"{name!r}: {end - start} bytes for {dtype} {list(shape)}")
    return TensorEntry(str(dtype), shape, start, end)


def _check_covers(path: Path, tensors: Mapping[str, TensorEntry], data_bytes: int) -> None:
    """Check that entries are contiguous and fill the file exactly."""
    reached = 0
    for name, entry in sorted(tensors.items(), key=lambda item: (item[1].start, item[1].end)):
        if entry.start != reached:
            raise CheckpointError(
                f"{path}: its tensor {name!r} starts at byte {entry.start:,} instead of {reached:,}",
                "download the file again: its header is damaged",
            )
        reached = entry.end
    if data_bytes < reached:
        raise CheckpointError(
            f"{path}: truncated: it has {data_bytes:,} of {reached:,} bytes of weights",
            "download the file again",
        )
    if data_bytes > reached:
        raise CheckpointError(
            f"{path}: {plural(data_bytes - reached, 'extra byte')} after the weights",
            "download the file again",
        )
