"""Zip archives as torch and numpy write them: where each part lies, checked against the file. Nothing is unpacked."""

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
AGAIN = "get the file again: the download was cut off, or the file is damaged"
_LOCAL = struct.Struct("<4s5H3I2H")
# Every way in which zipfile and the formats under it say that an archive is damaged.
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
    """offset: of its first byte in the file, -1 where it is compressed. size: unpacked; packed: as it lies there."""

    name: str
    offset: int
    size: int
    packed: int = 0


@contextmanager
def opened(path: Path) -> Iterator[zipfile.ZipFile]:
    """Raises: CheckpointError for whatever goes wrong in the archive while it is open."""
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except DAMAGED as error:
        what = (str(error).splitlines() or [type(error).__name__])[0][:120]
        raise CheckpointError(f"{path}: a zip file that is truncated or damaged ({what})", AGAIN) from error


def members(path: Path) -> dict[str, Member]:
    """Raises: CheckpointError for an archive that is damaged, cut off, encrypted or lies about its parts."""
    with opened(path) as archive, path.open("rb") as file:
        size = path.stat().st_size
        listed = archive.infolist()
        if len(listed) > MAX_MEMBERS:
            raise CheckpointError(f"{path}: an archive of {len(listed):,} parts is no checkpoint", AGAIN)
        found = {info.filename: _member(info, file, size, path) for info in listed}
        if len(found) != len(listed):
            raise CheckpointError(f"{path}: an archive with two parts of the same name", AGAIN)
    return found


def _member(info: zipfile.ZipInfo, file: IO[bytes], size: int, path: Path) -> Member:
    if info.flag_bits & 1:
        raise CheckpointError(f"{path}: its part {info.filename!r} is encrypted", "decrypt it")
    if info.compress_type != zipfile.ZIP_STORED:
        return Member(info.filename, -1, info.file_size, info.compress_size)
    file.seek(info.header_offset)
    head = _LOCAL.unpack(file.read(_LOCAL.size))
    if head[0] != b"PK\x03\x04":
        raise ValueError(f"{info.filename!r} has no header of its own")
    start = info.header_offset + _LOCAL.size + head[9] + head[10]
    if info.compress_size != info.file_size:
        raise ValueError(f"{info.filename!r} has two sizes")
    if start + info.file_size > size:
        raise ValueError(f"{info.filename!r} reaches {start + info.file_size - size:,} bytes beyond the end")
    return Member(info.filename, start, info.file_size, info.file_size)


def content(path: Path, name: str, most: int) -> bytes:
    """A small part, unpacked. Raises: CheckpointError where it is larger than `most`, or damaged."""
    with opened(path) as archive, archive.open(name) as member:
        found = member.read(most + 1)
    if len(found) > most:
        raise CheckpointError(
            f"{path}: its part {name!r} is larger than {most:,} bytes", "get the file again"
        )
    return found


def piece(path: Path, name: str, start: int, size: int) -> bytes:
    """So many bytes of a compressed part. Raises: CheckpointError where they are not there."""
    with opened(path) as archive, archive.open(name) as member:
        member.seek(start)
        found = member.read(size)
        if len(found) != size:
            raise EOFError(f"{size - len(found)} bytes of {name!r} are missing")
    return found
