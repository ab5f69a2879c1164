"""Read the bytes of an image source, without blocking and within the size limit."""

import os
import stat
from pathlib import Path
from typing import BinaryIO

from patchword.errors import ImageError
from patchword.images.limits import Limits
from patchword.images.sniff import HEAD, sniff

FileSource = str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryIO


def name_of(source: object, name: str) -> str:
    """The name of a source in messages: the given name, its path, or its type."""
    if name:
        return name
    if isinstance(source, str | os.PathLike):
        return os.fspath(source)
    own = getattr(source, "name", None) or getattr(source, "filename", None)
    if isinstance(own, str) and own:
        return own
    return {"bytes": "bytes", "ndarray": "array"}.get(type(source).__name__, "image")


def read_bytes(source: FileSource, name: str, limits: Limits) -> tuple[bytes, str]:
    """The content and its kind. Raises ImageError if it is not a regular file, too large or not an image."""
    if isinstance(source, str | os.PathLike):
        return _read_path(source, name, limits)
    if isinstance(source, bytes | bytearray | memoryview):
        data = bytes(source)
    elif hasattr(source, "read"):
        data = _read_stream(source, name)
    else:
        raise ImageError(
            f"{name}: {type(source).__name__} is not an image",
            "pass a path, bytes, a file opened in binary mode, a PIL image or an array",
        )
    limits.check_bytes(len(data), name)
    return data, sniff(data[:HEAD], len(data), name)


def _read_path(path: str | os.PathLike[str], name: str, limits: Limits) -> tuple[bytes, str]:
    try:
        # Without O_NONBLOCK, opening a FIFO would wait for a writer forever.
        flags = (
            os.O_RDONLY
            | getattr(os, "O_NONBLOCK", 0)
            | getattr(os, "O_CLOEXEC", 0)
            | getattr(os, "O_BINARY", 0)
        )
        descriptor = os.open(path, flags)
    except FileNotFoundError:
        raise ImageError(f"{name}: no such file", _nearest_file(path)) from None
    except PermissionError as error:
        raise ImageError(f"{name}: no permission to read it", "change its permissions") from error
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise ImageError(f"{name}: cannot be opened ({reason})", "check the path") from error
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            what = "a folder" if stat.S_ISDIR(status.st_mode) else "a pipe, socket or device"
            raise ImageError(f"{name}: {what}, not a file", "give the path of an image file")
        head = os.read(descriptor, HEAD)
        kind = sniff(head, status.st_size, name)
        limits.check_bytes(status.st_size, name)
        with os.fdopen(descriptor, "rb", buffering=0, closefd=False) as file:
            return head + file.read(), kind
    except OSError as error:
        raise ImageError(
            f"{name}: cannot be read ({error.strerror or error})", "download it again"
        ) from error
    finally:
        os.close(descriptor)


def _nearest_file(path: str | os.PathLike[str]) -> str:
    from patchword.errors import near_text

    parent = Path(path).parent
    try:
        siblings = [entry.name for entry in os.scandir(parent)] if parent.is_dir() else []
    except OSError:
        siblings = []
    near = near_text(Path(path).name, siblings[:10_000])
    return f"check the path{near}"


def _read_stream(stream: BinaryIO, name: str) -> bytes:
    try:
        data = stream.read()
    except (OSError, ValueError) as error:
        raise ImageError(
            f"{name}: cannot be read ({error})", "pass a file that is open for reading"
        ) from error
    if not isinstance(data, bytes):
        raise ImageError(f"{name}: the file is open in text mode", "open it in binary mode: open(path, 'rb')")
    return data
