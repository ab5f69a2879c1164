"""Decoded training images, kept in memory, on disk, or nowhere. The pixels are the same."""

import threading
import time
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from patchword import machine
from patchword.data.contents import fetched, hash_of
from patchword.data.dataset import Split
from patchword.data.shelves import Disk, Memory, Nothing, Shelf
from patchword.data.stamps import Stamps
from patchword.errors import DataError, ImageError, SettingsError, UserError
from patchword.images.decode import Loaded, Source
from patchword.images.geometry import Border, Size
from patchword.images.prepare import fitted, read_pixels
from patchword.images.preprocess import Preprocess
from patchword.images.stored import Pixels

Cache = Literal["auto", "memory", "disk", "none"]
# Share of the available memory, and of the free disk space, for decoded images.
MEMORY_SHARE = 0.25
DISK_SHARE = 0.5


@dataclass(frozen=True, kw_only=True)
class Budget:
    """Bytes that decoded images may take in memory and on disk."""

    memory: int
    disk: int


class Store:
    """The images of a split at one size: `store[index]` is [C, h, w], uint8 or float32 in 0..1, or why it cannot be read.

    Safe to call in several threads. An image is decoded when it is first needed, and kept if the kind of store keeps it.

    text: which kind was chosen and why, for the user. stamps: of the files, with the hashes of those read so far.
    """

    def __init__(
        self, split: Split, preprocess: Preprocess, shelf: Shelf, stamps: Stamps, text: str = ""
    ) -> None:
        """preprocess: how the stored image is made; its mean and std are not applied."""
        self.split, self.preprocess, self.stamps, self.text = split, preprocess, stamps, text
        self._shelf = shelf
        self._seconds = {"read": 0.0, "decode": 0.0}
        self._lock = threading.Lock()

    @property
    def kind(self) -> str:
        """ "memory", "disk" or "none"."""
        return self._shelf.kind

    @property
    def seconds(self) -> dict[str, float]:
        """Time spent reading and decoding, summed over the threads."""
        return dict(self._seconds)

    @property
    def problem(self) -> str:
        """Why the cache on disk no longer takes images, or ""."""
        return self._shelf.problem

    def __len__(self) -> int:
        return len(self.split)

    def in_memory(self, index: int) -> Pixels | None:
        """The image, if no disk access is needed to get it."""
        return self._shelf.get(index) if self._shelf.kind == "memory" else None

    def __getitem__(self, index: int) -> Pixels | str:
        """Raises: DataError, with the file's name, if decoding fails in an unexpected way."""
        began = time.perf_counter()
        if (kept := self._shelf.get(index)) is not None:
            self._spent("read", began)
            if not self.stamps.known[index] and (content := self._shelf.content(index)) is not None:
                self.stamps.learn(index, content)
            return kept
        name = self.split.names[index]
        try:
            source = fetched(self.split.source(index), name, self.split.max_pixels)
            began = self._spent("read", began)
            pixels = read_pixels(source, self.preprocess, name=name, max_pixels=self.split.max_pixels)
        except ImageError as error:
            return error.about(name)
        except OSError as error:
            return error.strerror or str(error)
        except UserError:
            raise
        except Exception as error:
            raise DataError(
                f"{name}: decoding failed with {type(error).__name__}: {error}", "convert or remove this file"
            ) from error
        kept = self._keep(index, pixels, hash_of(source))
        self._spent("decode", began)
        return kept

    def take(self, index: int, loaded: Loaded, content: bytes) -> None:
        """Keep an image that was decoded elsewhere as `request_for(self.preprocess)` asks. content: the file's hash.

        Raises: ImageError if it does not have the wanted channels.
        """
        if self.keeps:
            self._keep(index, fitted(self.preprocess, loaded, self.split.names[index]), content)

    def fill(self, index: int, source: Source, content: bytes) -> None:
        """Decode and keep an image that was read elsewhere. Raises: ImageError."""
        if self.keeps:
            name, most = self.split.names[index], self.split.max_pixels
            pixels = read_pixels(source, self.preprocess, name=name, max_pixels=most)
            self._keep(index, pixels, content)

    @property
    def keeps(self) -> bool:
        """Whether decoded images are kept."""
        return self._shelf.kind != "none"

    def _keep(self, index: int, pixels: Pixels, content: bytes) -> Pixels:
        # A copy: Pillow's arrays are read-only, and torch shares the memory.
        planes = np.array(pixels.transpose(2, 0, 1), order="C")
        self.stamps.learn(index, content)
        self._shelf.put(index, planes, content)
        return planes

    def _spent(self, stage: str, began: float) -> float:
        now = time.perf_counter()
        with self._lock:
            self._seconds[stage] += now - began
        return now


def stored_as(preprocess: Preprocess, size: Size, *, whole: bool = False) -> Preprocess:
    """How the images that are augmented are stored: as the model reads them, but of `size`, and without mean and std.

    whole: nothing is cut off; an image of another aspect has a border.
    """
    plain = Preprocess.simple(size, in_channels=preprocess.in_channels)
    resize = Border(size=size) if whole else plain.resize
    return replace(plain, reading=preprocess.reading, resize=resize)


def default_budget() -> Budget:
    """A quarter of the memory that this process may use, and half of the free disk space of the cache folder."""
    from patchword.data.shelves import cache_folder, free_bytes

    memory = int(MEMORY_SHARE * machine.memory_limit_bytes())
    return Budget(memory=memory, disk=int(DISK_SHARE * free_bytes(cache_folder())))


def open_store(
    split: Split,
    preprocess: Preprocess,
    cache: Cache = "auto",
    *,
    budget: Budget | None = None,
    stamps: Stamps | None = None,
) -> Store:
    """The store for a split. "auto": memory if all images fit in the budget as 8-bit, else disk if they fit there, else none.

    "memory" keeps as many images as fit. A cache on disk that an earlier run filled from the same files is used again.

    Raises: SettingsError if "disk" is asked for and there is no room or no right to write.
    """
    budget = budget or default_budget()
    stamps = stamps or Stamps.of(split)
    height, width = preprocess.image_size
    shape = (preprocess.in_channels, height, width)
    needed = len(split) * preprocess.in_channels * height * width
    kind = cache
    why_not_disk = ""
    if cache == "auto":
        kind = "memory" if needed <= budget.memory else "disk" if needed <= budget.disk else "none"
    shelf: Shelf = Nothing()
    if kind == "disk":
        why_not_disk = _why_not_disk(stamps, needed, budget)
        if not why_not_disk:
            try:
                shelf = Disk(split, preprocess, shape, stamps, budget.disk)
            except OSError as error:
                why_not_disk = f"{error.filename or 'the cache folder'}: {error.strerror or error}"
        if why_not_disk and cache == "disk":
            raise SettingsError(
                f"the decoded images cannot be kept on disk ({why_not_disk})",
                "use --cache none, or set PATCHWORD_CACHE to a folder with more space",
            )
    elif kind == "memory":
        shelf = Memory(len(split), shape, budget.memory)
    return Store(split, preprocess, shelf, stamps, _described(shelf, needed, budget, cache, why_not_disk))


def _why_not_disk(stamps: Stamps, needed: int, budget: Budget) -> str:
    if (stamps.times == -1).all():
        return "these data have no modification times, so changes would not be noticed"
    if needed > budget.disk:
        return f"{_gib(needed)} are needed and {_gib(budget.disk)} may be used"
    return ""


def _described(shelf: Shelf, needed: int, budget: Budget, cache: Cache, why_not_disk: str) -> str:
    if isinstance(shelf, Memory):
        if needed > budget.memory:
            return f"decoded images: in memory, as many as fit ({_gib(budget.memory)} of {_gib(needed)})"
        return f"decoded images: in memory ({_gib(needed)} of {_gib(budget.memory)})"
    if isinstance(shelf, Disk):
        there = f", {shelf.filled} of {shelf.count} images from an earlier run" if shelf.filled else ""
        return f"decoded images: on disk in {shelf.folder} ({_gib(needed)} of {_gib(budget.disk)}{there})"
    if cache == "none":
        return "decoded images: not kept (--cache none), so each epoch decodes them again"
    disk = why_not_disk or f"{_gib(budget.disk)} on disk"
    return (
        f"decoded images: not kept, so each epoch decodes them again ({_gib(needed)} are needed; "
        f"{_gib(budget.memory)} in memory and {disk} may be used)"
    )


def _gib(count: int) -> str:
    return f"{count / 2**30:.1f} GiB" if count >= 0.05 * 2**30 else f"{count / 2**20:.1f} MiB"
