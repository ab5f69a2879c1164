"""Output files: check the destination before computing, and write files atomically."""

import errno
import io
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from patchword.errors import OutputError, near_text


def check_place(path: Path) -> None:
    """Raises: OutputError if the path is visibly not writable."""
    if problem := _wrong_place(path):
        raise problem
    if not os.access(path.parent, os.W_OK):
        raise cannot_write(path, PermissionError(errno.EACCES, "no permission"))


def cannot_write(path: Path, error: OSError) -> OutputError:
    """Explain why a file cannot be written: the visible cause, or else the system's error."""
    if problem := _wrong_place(path):
        return problem
    if isinstance(error, PermissionError):
        return OutputError(
            f"{path}: no permission to write this file", "change the permissions, or choose another folder"
        )
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return OutputError(
            f"{path}: cannot be written ({error.strerror})", "free some space, or choose another folder"
        )
    return OutputError(f"{path}: cannot be written ({error.strerror or error})", "choose another path")


def _wrong_place(path: Path) -> OutputError | None:
    if path.is_dir():
        return OutputError(
            f"{path}: a folder, not a file", f"give a file in it, such as {path / 'answers.json'}"
        )
    missing = path.parent
    if missing.is_dir():
        return None
    if missing.exists():
        return OutputError(f"{path}: {missing} is a file, not a folder", "choose another path")
    while not missing.parent.exists():
        missing = missing.parent
    try:
        near = near_text(missing.name, [p.name for p in missing.parent.iterdir() if p.is_dir()])
    except OSError:
        near = ""
    return OutputError(
        f"{path}: folder {missing} does not exist{near}", "create that folder, or choose another path"
    )


class _Checked(io.FileIO):
    """Reports its own write errors, so that they are not confused with errors of reading images."""

    def __init__(self, part: Path, path: Path) -> None:
        super().__init__(part, "wb")
        self._path = path

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except OSError as error:
            raise cannot_write(self._path, error) from error


class NewFile:
    """A file that appears under its name when closed; if discarded before that, it leaves nothing.

    Raises: OutputError if it cannot be written.
    """

    def __init__(self, path: Path, *, text: bool = False) -> None:
        self.path = path
        self._part = path.with_name(f".{path.name}.{os.getpid()}.part")
        try:
            raw = io.BufferedWriter(_Checked(self._part, path))
        except OSError as error:
            raise cannot_write(path, error) from error
        self.stream: IO[Any] = raw
        if text:
            self.stream = io.TextIOWrapper(raw, encoding="utf-8", errors="surrogateescape", newline="")

    def close(self) -> None:
        try:
            self.stream.close()
            os.replace(self._part, self.path)
        except OSError as error:
            raise cannot_write(self.path, error) from error

    def discard(self) -> None:
        """Delete the file unless it was closed; after `close` this does nothing."""
        with suppress(OSError, OutputError, ValueError):  # flushing the rest may fail, e.g. without space
            self.stream.close()
        with suppress(OSError):
            self._part.unlink()


@contextmanager
def whole_file(path: Path, *, text: bool) -> Iterator[IO[Any]]:
    """Open a file that appears under its name only when completely written. Raises: OutputError."""
    file = NewFile(path, text=text)
    try:
        yield file.stream
        file.close()
    finally:
        file.discard()
