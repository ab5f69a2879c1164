"""Standard output and standard error of the command: closed pipes, full disks and undecodable names.

Messages that cannot be delivered (`2>&1 | head`, a closed terminal, a log on a full disk) are dropped, so they never
stop a training. If the reader of standard output leaves, the command ends without an error. If standard output
cannot be written, the command fails with a two-line error. This is handled below Python's own streams, because
click and rich write to them and each would end the program differently, as a bug would.
"""

import codecs
import io
import os
import sys
from typing import Any, TextIO

from patchword.errors import OutputError

LEFT = (BrokenPipeError, ConnectionResetError)


_ESCAPE = "patchword.escape"


class ReaderLeft(Exception):
    """The reader of standard output left. Not an OSError, which click, rich and `whole_file` would handle themselves."""


class _Output(io.FileIO):
    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except OSError as error:
            # Python flushes the rest again at exit.
            _discard(self)
            if isinstance(error, LEFT):
                raise ReaderLeft from None
            raise OutputError(
                f"standard output cannot be written: {error.strerror}",
                "free some space, or write to another location",
            ) from error


class _Messages(io.FileIO):
    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except OSError as error:
            if isinstance(error, LEFT):
                _discard(self)
            return memoryview(data).nbytes


def _discard(file: io.FileIO) -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), file.fileno())


def guard_streams() -> None:
    """Make `sys.stdout` raise ReaderLeft or OutputError, and `sys.stderr` drop what cannot be written."""
    codecs.register_error(_ESCAPE, _escape)
    sys.stdout = _guarded(sys.stdout, _Output, _ESCAPE)
    sys.stderr = _guarded(sys.stderr, _Messages, "backslashreplace")


def _escape(error: UnicodeError) -> tuple[bytes, int]:
    """Encode characters outside the stream's encoding as JSON escapes, and undecodable bytes of file names as themselves."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    char = error.object[error.start]
    if "\udc80" <= char <= "\udcff":
        return bytes([ord(char) - 0xDC00]), error.start + 1
    units = char.encode("utf-16-be", "surrogatepass").hex()
    return "".join(f"\\u{units[i : i + 4]}" for i in range(0, len(units), 4)).encode(), error.start + 1


def _guarded(stream: TextIO | None, kind: type[io.FileIO], errors: str) -> TextIO:
    if stream is None:  # `2>&-`
        return open(os.devnull, "w", encoding="utf-8")
    # Windows consoles are written through a separate system call.
    if not isinstance(stream, io.TextIOWrapper) or (os.name == "nt" and stream.isatty()):
        return stream
    stream.flush()
    return io.TextIOWrapper(
        io.BufferedWriter(kind(stream.fileno(), "wb", closefd=False)),
        encoding=stream.encoding,
        errors=errors,
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )
