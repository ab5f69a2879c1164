"""Zip archives as torch and NumPy write them: the place of each part, checked against the file, without unpacking."""

import lzma
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from patchword.errors import CheckpointError

MAX_MEMBERS = 200_000
AGAIN = "download the file again: it is truncated or damaged"
_LOCAL = struct.Struct("<4s5H3I2H")
# Every error that zipfile and its compressors raise for a damaged archive.
DAMAGED = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    OSError,
    EOFError,
    ValueError,
    KeyError,
    IndexError,
    OverflowError,
    MemoryError,
    NotImplementedError,
    RuntimeError,
)


@dataclass(frozen=True)
class Member:
    """offset: of its first byte in the file, -1 if compressed. size: unpacked; packed: as stored."""

    name: str
    offset: int
    size: int
    packed: int = 0


@contextmanager
def opened(path: Path) -> Iterator[zipfile.ZipFile]:
    """Raises: CheckpointError for any error in the archive while it is open."""
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except DAMAGED as error:
        what = (str(error).splitlines() or [type(error).__name__])[0][:120]
        raise CheckpointError(f"{path}: a zip file that is truncated or damaged ({what})", AGAIN) from error


def members(path: Path) -> dict[str, Member]:
    """Raises: CheckpointError for an archive that is damaged, truncated, encrypted or misstates its parts."""
    with opened(path) as archive, path.open("rb") as file:
        size = path.stat().st_size
        listed = archive.infolist()
        if len(listed) > MAX_MEMBERS:
            raise CheckpointError(f"{path}: an archive with {len(listed):,} parts is not a checkpoint", AGAIN)
        found = {info.filename: _member(info, file, size, path) for info in listed}
        if len(found) != len(listed):
            raise CheckpointError(f"{path}: the archive has two parts with the same name", AGAIN)
    return found


def _member(info: zipfile.ZipInfo, file: IO[bytes], size: int, path: Path) -> Member:
    if info.flag_bits & 1:
        raise CheckpointError(f"{path}: its part {info.filename!r} is encrypted", "decrypt it")
    if info.compress_type != zipfile.ZIP_STORED:
        return Member(info.filename, -1, info.file_size, info.compress_size)
    file.seek(info.header_offset)
    head = _LOCAL.unpack(file.read(_LOCAL.size))
    if head[0] != b"PK\x03\x04":
        raise ValueError(f"{info.filename!r} has no header")
    start = info.header_offset + _LOCAL.size + head[9] + head[10]
    if info.compress_size != info.file_size:
        raise ValueError(f"{info.filename!r} has two sizes")
    if start + info.file_size > size:
        raise ValueError(f"{info.filename!r} reaches {start + info.file_size - size:,} bytes beyond the end")
    return Member(info.filename, start, info.file_size, info.file_size)


def content(path: Path, name: str, most: int) -> bytes:
    """Unpack a small part. Raises: CheckpointError if it is larger than `most` or damaged."""
    with opened(path) as archive, archive.open(name) as member:
        found = member.read(most + 1)
    if len(found) > most:
        raise CheckpointError(
            f"{path}: its part {name!r} is larger than {most:,} bytes", "download the file again"
        )
    return found


def piece(path: Path, name: str, start: int, size: int) -> bytes:
    """Read bytes of a compressed part. Raises: CheckpointError if they are missing."""
    with opened(path) as archive, archive.open(name) as member:
        member.seek(start)
        found = member.read(size)
        if len(found) != size:
            raise EOFError(f"{size - len(found)} bytes of {name!r} are missing")
    return found
