"""Files of answers: a bad place is refused before anything is computed, and a file appears whole or not at all."""

import errno
import io
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from patchword.errors import OutputError, near_text


def check_place(path: Path) -> None:
    """Raises: OutputError if no file can be written there, as far as can be seen beforehand."""
    if problem := _wrong_place(path):
        raise problem
    if not os.access(path.parent, os.W_OK):
        raise cannot_write(path, PermissionError(errno.EACCES, "no permission"))


def cannot_write(path: Path, error: OSError) -> OutputError:
    """What is wrong with the place, as far as it can be seen; else what the system said."""
    if problem := _wrong_place(path):
        return problem
    if isinstance(error, PermissionError):
        return OutputError(
            f"{path}: no permission to write it", "change its permissions, or choose another place"
        )
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return OutputError(
            f"{path}: cannot be written ({error.strerror})", "make room, or choose another place"
        )
    return OutputError(f"{path}: cannot be written ({error.strerror or error})", "choose another place")


def _wrong_place(path: Path) -> OutputError | None:
    if path.is_dir():
        return OutputError(
            f"{path}: a folder, not a file", f"name a file in it, such as {path / 'answers.json'}"
        )
    missing = path.parent
    if missing.is_dir():
        return None
    if missing.exists():
        return OutputError(f"{path}: {missing} is a file, not a folder", "choose another place")
    while not missing.parent.exists():
        missing = missing.parent
    try:
        near = near_text(missing.name, [p.name for p in missing.parent.iterdir() if p.is_dir()])
    except OSError:
        near = ""
    return OutputError(
        f"{path}: there is no folder {missing}{near}", "make that folder, or choose another place"
    )


class _Checked(io.FileIO):
    """Says itself that it cannot be written, so that no error of reading images is taken for one of writing."""

    def __init__(self, part: Path, path: Path) -> None:
        super().__init__(part, "wb")
        self._path = path

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except OSError as error:
            raise cannot_write(self._path, error) from error


class NewFile:
    """A file that appears under its name when it is closed, and leaves nothing if it is discarded before.

    Raises: OutputError where it cannot be written.
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
        """Ignored what was not closed; after `close` this changes nothing."""
        with suppress(OSError, OutputError, ValueError):  # what it still holds need find no room
            self.stream.close()
        with suppress(OSError):
            self._part.unlink()


@contextmanager
def whole_file(path: Path, *, text: bool) -> Iterator[IO[Any]]:
    """A file that appears under its name only when all is written. Raises: OutputError."""
    file = NewFile(path, text=text)
    try:
        yield file.stream
        file.close()
    finally:
        file.discard()
