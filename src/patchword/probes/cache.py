"""Features on disk: one row per image, found again by the image's content.

A folder holds the rows of one combination of weights, preprocessing and feature. Each run adds one file with the rows that
were missing, so ten new images in a data set cost ten images of computation.
"""

import hashlib
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from patchword.data.shelves import cache_folder

MAX_BYTES = 4 << 30
HASH_BYTES = 16
_FORMAT = "patchword-features-1"

# Float32, or float16 of patch tokens.
Rows = NDArray[Any]


class FeatureCache:
    """Rows of features by content. It never fails: what it cannot read or write is a line in `notes`.

    folder: None for the one next to decoded images (PATCHWORD_CACHE, or the system's place for caches). max_bytes: when exceeded, the
    files that were used longest ago are deleted.
    """

    def __init__(self, folder: Path | None = None, max_bytes: int = MAX_BYTES) -> None:
        self._folder, self.max_bytes = folder, max_bytes
        self.notes: list[str] = []

    @property
    def folder(self) -> Path:
        if self._folder is None:
            self._folder = cache_folder() / "features"
        return self._folder

    def read(self, key: str, dim: int, wanted: set[bytes]) -> dict[bytes, Rows]:
        """The stored rows [dim] of the wanted images. Damaged and foreign files are ignored, with a note."""
        found: dict[bytes, Rows] = {}
        for path in sorted((self.folder / key).glob("*.safetensors")):
            try:
                hashes, rows = _read(path, dim)
            except FileNotFoundError:  # deleted by another process
                continue
            except Exception as error:
                self.notes.append(f"cached features ignored: {path} is damaged or foreign ({_short(error)})")
                continue
            used = False
            for content, row in zip(hashes, rows, strict=True):
                if content in wanted:
                    found[content], used = row, True
            if used:
                with suppress(OSError):
                    os.utime(path)
        return found

    def write(self, key: str, rows: Mapping[bytes, Rows]) -> None:
        """Add rows in a new file, which appears complete or not at all."""
        size = sum(row.nbytes + HASH_BYTES for row in rows.values())
        if not rows:
            return
        if size > self.max_bytes:
            self.notes.append(
                f"features not cached: they need {size / 2**30:.1f} GiB, and the cache holds {self.max_bytes / 2**30:.1f} GiB"
            )
            return
        content = _bytes_of(list(rows), np.stack(list(rows.values())))
        path = self.folder / key / f"{hashlib.blake2b(content, digest_size=12).hexdigest()}.safetensors"
        part = path.with_name(f".{path.name}.{os.getpid()}.part")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            part.write_bytes(content)
            os.replace(part, path)
            self._bound(path)
        except OSError as error:
            self.notes.append(f"features not cached: {self.folder} cannot be written ({_short(error)})")
        finally:
            with suppress(OSError):
                part.unlink()

    def _bound(self, newest: Path) -> None:
        """Delete the files that were used longest ago until the rest fits."""
        files = []
        for path in self.folder.glob("*/*.safetensors"):
            with suppress(OSError):
                stat = path.stat()
                files.append((path == newest, stat.st_mtime, stat.st_size, path))
        total = sum(size for _, _, size, _ in files)
        for is_newest, _, size, path in sorted(files):
            if total <= self.max_bytes or is_newest:
                return
            path.unlink(missing_ok=True)
            total -= size


def _bytes_of(hashes: Sequence[bytes], rows: Rows) -> bytes:
    from safetensors.numpy import save

    table = np.frombuffer(b"".join(hashes), np.uint8).reshape(len(hashes), HASH_BYTES)
    values = np.ascontiguousarray(rows)
    about = {"format": _FORMAT, "checksum": _checksum(table, values)}
    content: bytes = save({"hashes": table, "rows": values}, about)
    return content


def _read(path: Path, dim: int) -> tuple[list[bytes], Rows]:
    from safetensors import safe_open

    with safe_open(path, "numpy") as file:
        about = file.metadata() or {}
        if about.get("format") != _FORMAT:
            raise ValueError("another format")
        table, rows = file.get_tensor("hashes"), file.get_tensor("rows")
    if table.shape != (len(rows), HASH_BYTES) or rows.shape[1:] != (dim,):
        raise ValueError(f"rows of shape {list(rows.shape)}")
    if about.get("checksum") != _checksum(table, rows) or not np.isfinite(rows).all():
        raise ValueError("wrong checksum")
    return [row.tobytes() for row in table], rows


def _checksum(table: NDArray[np.uint8], rows: Rows) -> str:
    digest = hashlib.blake2b(table.tobytes(), digest_size=16)
    digest.update(rows.data)
    return digest.hexdigest()


def _short(error: Exception) -> str:
    strerror = getattr(error, "strerror", None)
    return str(strerror or error).split("\n")[0]
