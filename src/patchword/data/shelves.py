"""Where a store keeps decoded images: memory, a file, or nowhere."""

import contextlib
import hashlib
import json
import os
import shutil
import sys
import threading
import time
import zlib
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import PIL
from numpy.typing import NDArray

from patchword.data.contents import HASH_BYTES
from patchword.data.dataset import Split
from patchword.data.stamps import Stamps
from patchword.images.preprocess import Preprocess
from patchword.images.stored import Pixels
from patchword.settings import to_plain

Shape = tuple[int, int, int]
# An unused cache is removed after this time.
KEPT_FOR_S = 30 * 24 * 3600
_UINT8, _FLOAT32 = 1, 2
_RECORD = np.dtype([("crc", "<u4"), ("kind", "u1"), ("content", f"V{HASH_BYTES}"), ("pad", "u1")])
_VERSION = 1


class Shelf(Protocol):
    """Keeps [C, h, w] images by their place in the split. Safe in several threads."""

    kind: str
    problem: str

    def get(self, index: int) -> Pixels | None: ...

    def put(self, index: int, pixels: Pixels, content: bytes) -> None:
        """content: the hash of the image's file."""
        ...

    def content(self, index: int) -> bytes | None:
        """The hash that came with the image, if it is kept."""
        ...


class Nothing:
    """Keeps nothing."""

    kind = "none"
    problem = ""

    def get(self, index: int) -> Pixels | None:
        return None

    def put(self, index: int, pixels: Pixels, content: bytes) -> None:
        pass

    def content(self, index: int) -> bytes | None:
        return None


class Memory:
    """Keeps as many images as fit in `budget` bytes, 8-bit ones in one block, whose pages the system gives when they are filled."""

    kind = "memory"
    problem = ""

    def __init__(self, count: int, shape: Shape, budget: int) -> None:
        size = int(np.prod(shape))
        self._block = np.empty((min(count, budget // size), *shape), np.uint8)
        self._slots = np.full(count, -1, np.int64)
        self._deep: dict[int, Pixels] = {}
        self._used = 0
        self._left = budget
        self._lock = threading.Lock()

    def get(self, index: int) -> Pixels | None:
        slot = self._slots[index]
        if slot >= 0:
            kept: Pixels = self._block[slot]
            return kept
        return self._deep.get(index)

    def put(self, index: int, pixels: Pixels, content: bytes) -> None:
        is_deep = pixels.dtype != np.uint8
        with self._lock:
            if pixels.nbytes > self._left or self.get(index) is not None:
                return
            self._left -= pixels.nbytes
            if is_deep:
                self._deep[index] = pixels
                return
            slot = self._used
            self._used += 1
        self._block[slot] = pixels
        # Only now: another thread must not see a slot that is half filled.
        self._slots[index] = slot

    def content(self, index: int) -> bytes | None:
        return None


class Disk:
    """Keeps images in a folder of the user's cache, for this run and later ones with the same files.

    Each image has a place in a sparse file, and a record with its checksum in another, written after it. So several
    processes may fill one cache, and an image that is incomplete or damaged is decoded again. Files are read and written
    instead of mapped: a full disk is then an error that can be handled, and their pages do not count as resident memory.
    """

    kind = "disk"

    def __init__(
        self, split: Split, preprocess: Preprocess, shape: Shape, stamps: Stamps, budget: int
    ) -> None:
        """budget: of all caches together; the least recently used others are removed. Raises: OSError."""
        self.problem = ""
        self.count, self._shape = len(split), shape
        about, key = _keys(split, preprocess, stamps)
        self.folder = cache_folder() / "decoded" / key
        tidy(self.folder, about, budget - self.count * int(np.prod(shape)))
        self.folder.mkdir(parents=True, exist_ok=True)
        _write_meta(self.folder, about)
        self._index = _File(self.folder / "index")
        self._pixels = {
            _UINT8: _File(self.folder / "pixels.uint8"),
            _FLOAT32: _File(self.folder / "pixels.float32"),
        }
        self._records = np.zeros(self.count, _RECORD)
        self._index.read(self._records.view(np.uint8), 0)

    @property
    def filled(self) -> int:
        """Number of images kept."""
        return int(np.count_nonzero(self._records["kind"]))

    def get(self, index: int) -> Pixels | None:
        record = self._records[index : index + 1]
        if record["kind"][0] == 0:
            # Another process may have decoded it meanwhile.
            self._index.read(record.view(np.uint8), index * _RECORD.itemsize)
        kind = int(record["kind"][0])
        if kind not in self._pixels:
            return None
        pixels = np.empty(self._shape, np.uint8 if kind == _UINT8 else np.float32)
        done = self._pixels[kind].read(pixels.view(np.uint8).reshape(-1), index * pixels.nbytes)
        if done == pixels.nbytes and _checksum(index, record[0], pixels) == record["crc"][0]:
            return pixels
        record["kind"] = 0
        return None

    def put(self, index: int, pixels: Pixels, content: bytes) -> None:
        if self.problem:
            return
        record = np.zeros(1, _RECORD)
        record["kind"] = kind = _UINT8 if pixels.dtype == np.uint8 else _FLOAT32
        record["content"] = np.void(content)
        record["crc"] = _checksum(index, record[0], pixels)
        try:
            self._pixels[kind].write(pixels.view(np.uint8).reshape(-1), index * pixels.nbytes)
            self._index.write(record.view(np.uint8), index * _RECORD.itemsize)
        except OSError as error:
            self.problem = (
                f"{self.folder}: {error.strerror or error}; further images are decoded in each epoch"
            )
            return
        self._records[index] = record[0]

    def content(self, index: int) -> bytes | None:
        record = self._records[index]
        return bytes(record["content"]) if record["kind"] else None


class _File:
    """A file that several threads read and write at given places."""

    def __init__(self, path: Path) -> None:
        self._file = open(path, "r+b" if path.exists() else "w+b", buffering=0)  # noqa: SIM115
        self._lock = threading.Lock()

    def read(self, into: NDArray[Any], place: int) -> int:
        """Fill `into` as far as the file goes; the number of bytes read."""
        if hasattr(os, "preadv"):
            return os.preadv(self._file.fileno(), [into.data], place)
        with self._lock:
            self._file.seek(place)
            return self._file.readinto(into.data) or 0

    def write(self, data: NDArray[Any], place: int) -> None:
        left = data.data
        while len(left):
            if hasattr(os, "pwrite"):
                done = os.pwrite(self._file.fileno(), left, place)
            else:
                with self._lock:
                    self._file.seek(place)
                    done = self._file.write(left) or 0
            left, place = left[done:], place + done

    def __del__(self) -> None:
        if hasattr(self, "_file"):
            self._file.close()


def _checksum(index: int, record: Any, pixels: Pixels) -> int:
    about = f"{index} {record['kind']}".encode() + bytes(record["content"])
    return zlib.crc32(pixels.view(np.uint8).reshape(-1).data, zlib.crc32(about))


def _keys(split: Split, preprocess: Preprocess, stamps: Stamps) -> tuple[str, str]:
    """What the images are, and the same with the state of their files: (about, key)."""
    # mean and std are not applied to stored images.
    plain = {k: v for k, v in to_plain(preprocess).items() if k not in ("mean", "std")}
    where = [os.path.abspath(str(getattr(split.reader, name, ""))) for name in ("root", "folder", "path")]
    facts = json.dumps([_VERSION, PIL.__version__, plain, split.max_pixels, where], sort_keys=True)
    names = "\0".join(split.names)
    about = hashlib.blake2b(f"{facts}\0{names}".encode("utf-8", "surrogatepass"), digest_size=16)
    key = about.copy()
    for part in (stamps.sizes, stamps.times, split.rows):
        key.update(np.ascontiguousarray(part).tobytes())
    return about.hexdigest(), key.hexdigest()


def cache_folder() -> Path:
    """PATCHWORD_CACHE, or a folder of this name in the system's place for caches."""
    if given := os.environ.get("PATCHWORD_CACHE"):
        return Path(given)
    home = Path.home()
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or home / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = home / "Library" / "Caches"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or home / ".cache")
    return base / "patchword"


def free_bytes(folder: Path) -> int:
    """Free space for `folder` and what caches hold there, which may be removed; 0 if that is not known."""
    there = next((place for place in (folder, *folder.parents) if place.exists()), None)
    try:
        free = shutil.disk_usage(there or Path.cwd()).free
    except OSError:
        return 0
    return free + sum(_held_bytes(entry) for entry in _entries(folder / "decoded"))


def tidy(folder: Path, about: str, room: int) -> None:
    """Remove caches next to `folder` that are unused for 30 days or of the same images in an earlier state, and the
    least recently used ones until the others hold at most `room` bytes."""
    others = [entry for entry in _entries(folder.parent) if entry != folder]
    others.sort(key=_used_at, reverse=True)
    for entry in others:
        held = _held_bytes(entry)
        is_old = time.time() - _used_at(entry) > KEPT_FOR_S
        if is_old or _about(entry) == about or held > room:
            shutil.rmtree(entry, ignore_errors=True)
        else:
            room -= held


def _entries(folder: Path) -> list[Path]:
    with contextlib.suppress(OSError):
        return [entry for entry in folder.iterdir() if (entry / "meta.json").is_file()]
    return []


def _used_at(entry: Path) -> float:
    with contextlib.suppress(OSError):
        return (entry / "meta.json").stat().st_mtime
    return 0.0


def _about(entry: Path) -> str:
    with contextlib.suppress(OSError, ValueError):
        return str(json.loads((entry / "meta.json").read_text(encoding="utf-8"))["about"])
    return ""


def _held_bytes(entry: Path) -> int:
    """Bytes on disk: the files are sparse."""
    total = 0
    with contextlib.suppress(OSError):
        for file in entry.iterdir():
            status = file.stat()
            total += getattr(status, "st_blocks", -(-status.st_size // 512)) * 512
    return total


def _write_meta(folder: Path, about: str) -> None:
    """Write it as a whole and mark the cache as used now."""
    new = folder / f"meta.json.{os.getpid()}"
    new.write_text(json.dumps({"about": about}), encoding="utf-8")
    new.replace(folder / "meta.json")
