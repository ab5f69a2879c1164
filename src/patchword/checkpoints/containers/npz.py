"""NumPy archives, as JAX's authors publish weights. Pickled arrays are refused; nothing is unpickled."""

import math
import zipfile
import zlib
from pathlib import Path
from typing import IO, Any

from patchword.checkpoints.containers.archive import Member, members
from patchword.checkpoints.stored import WIDTHS, Entry
from patchword.errors import CheckpointError

_KINDS = {
    "f8": "F64", "f4": "F32", "f2": "F16", "i8": "I64", "i4": "I32", "i2": "I16", "i1": "I8",
    "u8": "U64", "u4": "U32", "u2": "U16", "u1": "U8", "b1": "BOOL",
    "V2": "BF16",  # numpy has no bfloat16: jax writes its two bytes as they are
}  # fmt: skip


def list_npz(path: Path) -> dict[str, Entry]:
    """Arrays by name. Raises: CheckpointError naming an array that cannot be read as numbers."""
    found: dict[str, Entry] = {}
    parts = members(path)
    try:
        with zipfile.ZipFile(path) as archive, path.open("rb") as file:
            for name, part in parts.items():
                if not name.endswith(".npy"):
                    raise CheckpointError(
                        f"{path}: its part {name} is no array", "give an .npz of numpy.savez"
                    )
                key = name.removesuffix(".npy")
                if part.offset >= 0:
                    file.seek(part.offset)
                    found[key] = _entry(path, key, part, file)
                else:
                    with archive.open(name) as member:
                        found[key] = _entry(path, key, part, member)
    except (OSError, zipfile.BadZipFile, zlib.error, RuntimeError, NotImplementedError, EOFError) as error:
        raise CheckpointError(f"{path}: damaged ({error})", "get the file again") from error
    return found


def _entry(path: Path, key: str, part: Member, file: IO[bytes]) -> Entry:
    shape, fortran, kind, length = _header(path, key, file)
    dtype = _KINDS.get(kind.lstrip("<|=")) if not kind.startswith(">") else None
    if dtype is None:
        what = "pickled objects" if "O" in kind else f"numbers of kind {kind!r}"
        raise CheckpointError(
            f"{path}: its array {key!r} holds {what}", "save the weights as float32, float16 or bfloat16"
        )
    if length + math.prod(shape) * WIDTHS[dtype] > part.size:
        raise CheckpointError(
            f"{path}: its array {key!r} says {list(shape)} and has {part.size - length:,} bytes",
            "get the file again: it is damaged",
        )
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


def _header(path: Path, key: str, file: IO[bytes]) -> tuple[tuple[int, ...], bool, str, int]:
    """Shape, order, kind and the length of an array's header. Source: numpy.lib.format."""
    import ast

    start = file.read(12)
    if len(start) < 12 or start[:6] != b"\x93NUMPY" or start[6] not in (1, 2, 3):
        raise CheckpointError(f"{path}: its array {key!r} is damaged", "get the file again")
    wide = start[6] > 1
    size = int.from_bytes(start[8:12] if wide else start[8:10], "little")
    if size > 100_000:
        raise CheckpointError(
            f"{path}: its array {key!r} has a header of {size:,} bytes", "get the file again"
        )
    text = start[10:12] * (not wide) + file.read(size - (0 if wide else 2))
    try:
        plain: Any = ast.literal_eval(text.decode("utf-8" if start[6] == 3 else "latin1").strip())
        shape, fortran, kind = plain["shape"], plain["fortran_order"], plain["descr"]
        if not isinstance(kind, str) or not all(type(n) is int and n >= 0 for n in shape):
            raise ValueError("sizes are no whole numbers")
    except (ValueError, SyntaxError, KeyError, TypeError, RecursionError, MemoryError) as error:
        raise CheckpointError(
            f"{path}: its array {key!r} has no readable header ({str(error)[:80]})", "get the file again"
        ) from error
    return tuple(shape), bool(fortran), kind, (12 if wide else 10) + size
