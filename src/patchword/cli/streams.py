"""The command's standard output and standard error: readers leave, disks are full, names are no text.

Messages that reach nobody (`2>&1 | head`, a terminal that was closed, a log on a full disk) are no reason to end a
training: they are dropped. Answers that nobody reads are the end of the command, and no error; answers that find
no room are one, of two lines. All this is decided below Python's own streams, because click and rich, which write
to them, each end the program in a way of their own, as a bug would.
"""

import codecs
import io
import os
import sys
from typing import Any, TextIO

from patchword.errors import OutputError

LEFT = (BrokenPipeError, ConnectionResetError)


_SPELT = "patchword.spelt"


class ReaderLeft(Exception):
    """Nobody reads the answers any more. No OSError: click, rich and `whole_file` would take it for theirs."""


class _Answers(io.FileIO):
    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except OSError as error:
            # Python flushes what is left once more at exit.
            _lead_nowhere(self)
            if isinstance(error, LEFT):
                raise ReaderLeft from None
            raise OutputError(
                f"standard output cannot be written: {error.strerror}", "make room, or write to another place"
            ) from error


class _Messages(io.FileIO):
    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except OSError as error:
            if isinstance(error, LEFT):
                _lead_nowhere(self)
            return memoryview(data).nbytes


def _lead_nowhere(file: io.FileIO) -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), file.fileno())


def guard_streams() -> None:
    """From here on `sys.stdout` raises ReaderLeft or OutputError, and `sys.stderr` drops what cannot be written."""
    codecs.register_error(_SPELT, _spelt)
    sys.stdout = _guarded(sys.stdout, _Answers, _SPELT)
    sys.stderr = _guarded(sys.stderr, _Messages, "backslashreplace")


def _spelt(error: UnicodeError) -> tuple[bytes, int]:
    """What the stream's encoding lacks as JSON's escapes; bytes of a file name that are no text as those bytes."""
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
    # A console of Windows is written through a call of its own.
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
