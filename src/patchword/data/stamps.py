"""What the files of a split were when a run began, so that changes are noticed without decoding anything.

A file with the same size and modification time is unchanged. If these differ, e.g. after copying the data to another machine, the
content decides, of which a short hash is kept when a file is read.
"""

import io
import os
import zipfile
from collections.abc import Callable, Iterable
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from patchword.data.contents import HASH_BYTES, hashes_of
from patchword.data.dataset import Split
from patchword.errors import UserError

Stamp = tuple[int, int]
_NONE: Stamp = (-1, -1)
Progress = Callable[[int, int], None]


@runtime_checkable
class Stamped(Protocol):
    """A reader that can tell that a file is unchanged without reading it."""

    def stamp(self, row: int) -> Stamp | None:
        """(size in bytes, modification time or checksum); None if that is not known."""
        ...


def file_stamp(path: str) -> Stamp | None:
    """Size and modification time in nanoseconds; None if there is no such file."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return None
    return status.st_size, status.st_mtime_ns


class Stamps:
    """Size, time and content of each file of a split.

    sizes, times [N] int64, -1 if not known. hashes [N, 6] uint8, of the files read so far; known [N]: which those are.
    """

    def __init__(self, sizes: NDArray[np.int64], times: NDArray[np.int64]) -> None:
        self.sizes, self.times = sizes, times
        self.hashes = np.zeros((len(sizes), HASH_BYTES), np.uint8)
        self.known = np.zeros(len(sizes), np.bool_)

    @classmethod
    def of(cls, split: Split) -> "Stamps":
        """The stamps of the files now; no file is read. About a second for 100,000 files."""
        reader = split.reader
        if not isinstance(reader, Stamped):
            nothing = np.full(len(split), -1, np.int64)
            return cls(nothing, nothing.copy())
        found = np.array([reader.stamp(row) or _NONE for row in split.rows.tolist()], np.int64).reshape(-1, 2)
        return cls(found[:, 0].copy(), found[:, 1].copy())

    def __len__(self) -> int:
        return len(self.sizes)

    def learn(self, index: int, content: bytes) -> None:
        """Keep the hash of a file that was read."""
        self.hashes[index] = np.frombuffer(content, np.uint8)
        self.known[index] = True

    def contents(self) -> frozenset[bytes]:
        """The hashes of the files read so far, as `contents.seen_in` compares them."""
        return frozenset(row.tobytes() for row in self.hashes[self.known])

    def read_rest(self, split: Split, progress: Progress | None = None) -> None:
        """Read and hash the files that were not read yet, without decoding them; unreadable ones stay unknown."""
        rest = np.flatnonzero(~self.known)
        for first in range(0, len(rest), 4096):
            some = rest[first : first + 4096].tolist()
            for index, content in zip(some, hashes_of(split, some), strict=True):
                if content is not None:
                    self.learn(index, content)
            if progress:
                progress(first + len(some), len(rest))

    def seen_in(self, split: Split, trained: frozenset[bytes]) -> list[int]:
        """The places of the images of `split`, whose stamps these are, that are in `trained`. Reads the files not read yet."""
        if not trained:
            return []
        self.read_rest(split)
        known = np.flatnonzero(self.known).tolist()
        return [index for index in known if self.hashes[index].tobytes() in trained]

    def adopt(self, before: "Stamps") -> None:
        """Take over the hashes of an earlier run's stamps, after `changed` found no change."""
        new = before.known & ~self.known
        self.hashes[new] = before.hashes[new]
        self.known |= new

    def changed(self, before: "Stamps", split: Split) -> list[str]:
        """The names of the files that are not what they were in `before`, the stamps of the same file list.

        Only files with another time, or without one, are read; those that were never read before are compared by size.
        """
        same = (self.sizes == before.sizes) & (self.times == before.times) & (self.times != -1)
        other_size = (self.sizes != before.sizes) & (self.sizes != -1) & (before.sizes != -1)
        # A parquet file has one size for all its rows, so a known content decides first.
        changed = set(np.flatnonzero(~same & ~before.known & other_size).tolist())
        doubtful = np.flatnonzero(~same & before.known).tolist()
        for index, content in zip(doubtful, hashes_of(split, doubtful), strict=True):
            if content != before.hashes[index].tobytes():
                changed.add(index)
        return [split.names[index] for index in sorted(changed)]

    def to_bytes(self) -> bytes:
        file = io.BytesIO()
        np.savez_compressed(
            file, sizes=self.sizes, times=self.times, hashes=self.hashes[self.known], known=self.known
        )
        return file.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes, name: str) -> "Stamps":
        """Raises: UserError, with `name`, for bytes that `to_bytes` did not write."""
        try:
            with np.load(io.BytesIO(data), allow_pickle=False) as parts:
                stamps = cls(parts["sizes"], parts["times"])
                stamps.known = parts["known"]
                stamps.hashes[stamps.known] = parts["hashes"]
                return stamps
        except (ValueError, KeyError, IndexError, OSError, EOFError, zipfile.BadZipFile) as error:
            raise UserError(f"{name} is damaged ({error})", "restore it, or start a new run") from error


def describe_changes(names: Iterable[str]) -> str:
    """ "a.jpg, b.jpg and 3 more"."""
    listed = list(names)
    more = f" and {len(listed) - 5} more" if len(listed) > 5 else ""
    return ", ".join(listed[:5]) + more
