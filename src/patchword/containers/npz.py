"""NumPy archives, used to publish JAX weights. Pickled arrays are refused; nothing is unpickled."""

import ast
import math
import warnings
from pathlib import Path
from typing import IO, Any

from patchword.containers.archive import Member, members, opened
from patchword.containers.entry import WIDTHS, Entry
from patchword.errors import CheckpointError

_KINDS = {
    "f8": "F64", "f4": "F32", "f2": "F16", "i8": "I64", "i4": "I32", "i2": "I16", "i1": "I8",
    "u8": "U64", "u4": "U32", "u2": "U16", "u1": "U8", "b1": "BOOL", "c8": "C64",
    "V2": "BF16",  # NumPy has no bfloat16: JAX writes its two raw bytes
}  # fmt: skip
_AGAIN = "download the file again: it is damaged"
# NumPy's own limits for reading and creating arrays.
MAX_HEADER_BYTES = 10_000
MAX_AXES = 64


def list_npz(path: Path) -> dict[str, Entry]:
    """List arrays by name. Raises: CheckpointError with the array that cannot be read as numbers."""
    found: dict[str, Entry] = {}
    parts = members(path)
    with opened(path) as archive, path.open("rb") as file:
        for name, part in parts.items():
            key = name.removesuffix(".npy")
            if key == name:
                raise CheckpointError(
                    f"{path}: its part {name!r} is not an array", "give an .npz file from numpy.savez"
                )
            if part.offset >= 0:
                file.seek(part.offset)
                found[key] = _entry(path, key, part, file)
            else:
                with archive.open(name) as member:
                    found[key] = _entry(path, key, part, member)
    return found


def _entry(path: Path, key: str, part: Member, file: IO[bytes]) -> Entry:
    shape, fortran, dtype, length = _header(path, key, part, file)
    if len(shape) > MAX_AXES or length + math.prod(shape) * WIDTHS[dtype] > part.size:
        raise CheckpointError(
            f"{path}: its array {key!r} states shape {list(shape[:MAX_AXES])} but has {part.size - length:,} bytes",
            _AGAIN,
        )
    if math.prod(max(side, 1) for side in shape) >= 2**60:
        raise CheckpointError(f"{path}: its array {key!r} states the impossible shape {list(shape)}", _AGAIN)
    strides: tuple[int, ...] | None = None
    if fortran and len(shape) > 1:
        strides = tuple(math.prod(shape[:axis]) for axis in range(len(shape)))
    packed = part.offset < 0
    return Entry(
        dtype=dtype,
        shape=shape,
        file=path,
        offset=-1 if packed else part.offset + length,
        strides=strides,
        member=part.name if packed else "",
        start=length if packed else 0,
    )


def _header(path: Path, key: str, part: Member, file: IO[bytes]) -> tuple[tuple[int, ...], bool, str, int]:
    """Read shape, order, dtype and header length of an array. Source: numpy.lib.format."""
    start = file.read(8)
    if len(start) < 8 or start[:6] != b"\x93NUMPY" or start[6] not in (1, 2, 3):
        raise CheckpointError(f"{path}: its array {key!r} is damaged", _AGAIN)
    width = 2 if start[6] == 1 else 4
    size = int.from_bytes(file.read(width), "little")
    length = 8 + width + size
    if size > MAX_HEADER_BYTES or length > part.size:
        raise CheckpointError(f"{path}: its array {key!r} has a header of {size:,} bytes", _AGAIN)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about invalid escapes in damaged headers
            plain: Any = ast.literal_eval(
                file.read(size).decode("utf-8" if start[6] == 3 else "latin1").strip()
            )
        shape, fortran, kind = plain["shape"], plain["fortran_order"], plain["descr"]
        if not isinstance(shape, tuple) or not all(type(n) is int and n >= 0 for n in shape):
            raise ValueError("sizes are not whole numbers")
    except (ValueError, SyntaxError, KeyError, TypeError, RecursionError, MemoryError) as error:
        raise CheckpointError(
            f"{path}: its array {key!r} has no readable header ({str(error)[:80]})", _AGAIN
        ) from error
    return shape, bool(fortran), _dtype(path, key, kind), length


def _dtype(path: Path, key: str, kind: Any) -> str:
    if isinstance(kind, str) and not kind.startswith(">") and kind.lstrip("<|=") in _KINDS:
        return _KINDS[kind.lstrip("<|=")]
    what = f"numbers of kind {str(kind)[:40]!r}"
    if not isinstance(kind, str):
        what = "records with several fields"
    elif "O" in kind:
        what = "pickled objects, which could run any code and are not opened"
    raise CheckpointError(
        f"{path}: its array {key!r} holds {what}", "save the weights as float32, float16 or bfloat16"
    )
