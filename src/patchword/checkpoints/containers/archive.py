"""Zip archives as torch and numpy write them: where each part lies, checked against the file. Nothing is unpacked."""

import struct
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from patchword.errors import CheckpointError

MOST_MEMBERS = 200_000
_LOCAL = struct.Struct("<4s5H3I2H")


@dataclass(frozen=True)
class Member:
    """offset: of its first byte in the file, -1 where it is compressed. size: unpacked."""

    name: str
    offset: int
    size: int


def members(path: Path) -> dict[str, Member]:
    """Raises: CheckpointError for an archive that is damaged, cut off, encrypted or lies about its parts."""
    broken = "get the file again: the download was cut off, or the file is damaged"
    try:
        size = path.stat().st_size
        with zipfile.ZipFile(path) as archive, path.open("rb") as file:
            listed = archive.infolist()
            if len(listed) > MOST_MEMBERS:
                raise CheckpointError(f"{path}: an archive of {len(listed):,} parts is no checkpoint", broken)
            return {info.filename: _member(info, file, size, path) for info in listed}
    except (
        zipfile.BadZipFile,
        OSError,
        ValueError,
        NotImplementedError,
        struct.error,
        OverflowError,
    ) as error:
        raise CheckpointError(f"{path}: a zip file that is truncated or damaged ({error})", broken) from error


def _member(info: zipfile.ZipInfo, file: IO[bytes], size: int, path: Path) -> Member:
    if info.flag_bits & 1:
        raise CheckpointError(f"{path}: its part {info.filename} is encrypted", "decrypt it")
    if info.compress_type != zipfile.ZIP_STORED:
        return Member(info.filename, -1, info.file_size)
    file.seek(info.header_offset)
    head = _LOCAL.unpack(file.read(_LOCAL.size))
    if head[0] != b"PK\x03\x04":
        raise ValueError(f"{info.filename} has no header of its own")
    start = info.header_offset + _LOCAL.size + head[9] + head[10]
    if start + info.file_size > size:
        raise ValueError(f"{info.filename} reaches {start + info.file_size - size:,} bytes beyond the end")
    return Member(info.filename, start, info.file_size)


def content(path: Path, name: str, most: int) -> bytes:
    """A small part, unpacked. Raises: CheckpointError where it is larger than `most`, or damaged."""
    import zlib

    try:
        with zipfile.ZipFile(path) as archive, archive.open(name) as member:
            found = member.read(most + 1)
    except (
        zipfile.BadZipFile,
        zlib.error,
        OSError,
        RuntimeError,
        NotImplementedError,
        KeyError,
        ValueError,
        EOFError,
    ) as error:
        raise CheckpointError(
            f"{path}: its part {name} is damaged ({error})", "get the file again"
        ) from error
    if len(found) > most:
        raise CheckpointError(f"{path}: its part {name} is larger than {most:,} bytes", "get the file again")
    return found
