"""The run folder: its name, its lock, and how its files are written."""

import contextlib
import errno
import json
import os
import platform
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from patchword.errors import OutputError, UserError, escape_surrogates, one_line

CONFIG, DATA, METRICS, LOG = "config.toml", "data.json", "metrics.jsonl", "log.txt"
EVALUATION, REPORT = "evaluation.json", "report.html"
LOCK = "lock"
BEST, LAST, STATE = "best.safetensors", "last.safetensors", "state"
# Sizes, times and hashes of the training files.
STAMPS = "state/files.npz"


def free_folder(wanted: str | Path) -> Path:
    """Return `wanted` if it is free or an empty folder, else the next free name: runs/flowers, runs/flowers-2, …

    Raises: OutputError for "." and the like, for an unreadable parent, and for a name that is not UTF-8, because
    safetensors could not open the weights again.
    """
    path = Path(wanted)
    if path.name in ("", ".."):
        raise OutputError(
            f"--out is {str(wanted)!r}, which is not a new folder",
            "give a folder name, such as --out runs/first",
        )
    if escape_surrogates(str(wanted)) != str(wanted):
        raise OutputError(
            f"the run folder {escape_surrogates(str(wanted))} has a name that is not UTF-8",
            "give another name with --out",
        )
    free, number = path, 2
    try:
        while free.exists() and not _is_empty_folder(free):
            free = path.with_name(f"{path.name}-{number}")
            number += 1
    except OSError as error:
        raise cannot_write(free, error) from error
    return free


def _is_empty_folder(path: Path) -> bool:
    return path.is_dir() and not any(path.iterdir())


def make_folder(wanted: Path) -> "RunFolder":
    """Create a run folder: `wanted`, or the next free name if another run has just taken it.

    Raises: OutputError if it cannot be created or written.
    """
    path = wanted
    try:
        while True:
            with contextlib.suppress(FileExistsError):
                path.mkdir(parents=True, exist_ok=_is_empty_folder(path))
                (path / STATE).mkdir()  # the process that creates this owns the folder
                return RunFolder(path)
            path = free_folder(wanted)
    except OSError as error:
        raise cannot_write(path, error) from error


@contextlib.contextmanager
def locked(folder: "RunFolder") -> Iterator[None]:
    """Hold the run folder: only one process may train in it.

    The operating system releases the lock when the process ends, even after a crash. The lock does not apply to
    copies of the folder or to other hosts. Raises: UserError if another process holds it.
    """
    path = folder.path / STATE / LOCK
    try:
        file = path.open("a+", encoding="utf-8")
    except OSError as error:
        raise cannot_write(path, error) from error
    with file:
        if not _take(file):
            file.seek(0)
            by = file.read(200).strip()
            raise UserError(
                f"{folder.path} is being trained{by and f' by {by}'}",
                "wait for it to finish, or stop it, then resume",
            )
        file.truncate(0)
        file.write(f"process {os.getpid()} on {platform.node()}\n")
        file.flush()
        yield


def _take(file: IO[str]) -> bool:
    """Lock the open file; False if another process holds the lock. On file systems without locks, return True."""
    try:
        if sys.platform == "win32":
            import msvcrt

            file.seek(1 << 20)  # not the text, which other processes read
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    except OSError:
        return True
    return True


def open_folder(path: str | Path) -> "RunFolder":
    """Open an existing run folder. Raises: UserError if there is none."""
    folder = Path(path)
    if not (folder / CONFIG).is_file():
        near = [p.parent.name for p in folder.parent.glob(f"*/{CONFIG}")] if folder.parent.is_dir() else []
        there = f" (found: {', '.join(sorted(near)[:5])})" if near else ""
        raise UserError(
            f"{folder} is not a run folder: it has no {CONFIG}{there}",
            "give a folder that `patchword train` created",
        )
    return RunFolder(folder)


def cannot_write(path: Path, error: OSError) -> OutputError:
    what = error.strerror or str(error)
    return OutputError(
        f"{path} cannot be written: {what}", "free some space, or choose another location with --out"
    )


def resumable(folder: "RunFolder", error: OutputError) -> OutputError:
    """The error for a file of a run that could not be written: the run goes on from its last state."""
    cause = error.__cause__
    if not isinstance(cause, OSError) or cause.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return error
    return OutputError(
        f"{error.message}; the state before it is kept",
        f"free some space, then go on with `patchword train --resume {folder.path}`",
    )


class RunFolder:
    """Write the files of a run: append to metrics and log, replace all others atomically."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def write_text(self, name: str, text: str) -> None:
        write_whole(self.path / name, text.encode("utf-8", "backslashreplace"))

    def append_metrics(self, record: Mapping[str, Any]) -> None:
        self._append(METRICS, json.dumps(record) + "\n")

    def log(self, message: str) -> None:
        stamp = time.strftime("%Y-%m-%d %H:%M:%S")
        self._append(LOG, f"{stamp}  {one_line(message)}\n")

    def broken(self) -> dict[str, Any] | None:
        """The record of a run that diverged, else None."""
        records = [record for _, record in self._metrics()]
        return next((record for record in reversed(records) if record.get("kind") == "broken"), None)

    def epochs_done(self) -> int:
        """The last epoch in the metrics; 0 if there is none."""
        return max((int(r["epoch"]) for _, r in self._metrics() if r.get("kind") == "epoch"), default=0)

    def keep_metrics_until(self, step: int, epoch: int) -> None:
        """Drop the records of later steps and epochs: a resumed run writes them again."""
        if (self.path / METRICS).exists():
            kept = [
                line
                for line, record in self._metrics()
                if record.get("step", 0) <= step
                and (record.get("kind") != "epoch" or record["epoch"] <= epoch)
            ]
            self.write_text(METRICS, "".join(line + "\n" for line in kept))

    def _metrics(self) -> list[tuple[str, dict[str, Any]]]:
        """Each complete line of the metrics, as text and parsed."""
        path = self.path / METRICS
        found = []
        for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
            try:
                record = json.loads(line)
            except ValueError:  # the last line of a run that was killed while it wrote
                continue
            if isinstance(record, dict):
                found.append((line, record))
        return found

    def _append(self, name: str, text: str) -> None:
        try:
            with open(self.path / name, "a", encoding="utf-8", errors="backslashreplace") as file:
                file.write(text)
        except OSError as error:
            raise cannot_write(self.path / name, error) from error


def write_whole(path: Path, content: bytes) -> None:
    """Replace the file by `content`, atomically. Raises: OutputError."""
    with writing(path) as file:
        file.write(content)


@contextlib.contextmanager
def writing(path: Path) -> Iterator[IO[bytes]]:
    """Write to a temporary file, sync, rename: the file is the old or the new one, never partial.

    Raises: OutputError.
    """
    aside = path.with_name(path.name + ".new")
    try:
        with open(aside, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, path)
    except BaseException as error:
        aside.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise cannot_write(path, error) from error
        raise
