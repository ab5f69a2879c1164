"""Training batches: decoded once if they fit in memory, in an order fixed by seed and epoch."""

import hashlib
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from patchword import machine
from patchword.data.contents import fetched, hash_of
from patchword.data.dataset import Split
from patchword.data.pool import in_order
from patchword.errors import DataError, ImageError
from patchword.images.decode import Source
from patchword.images.prepare import read_pixels
from patchword.images.preprocess import Preprocess
from patchword.images.stored import Pixels

if TYPE_CHECKING:
    from torch import Tensor

# Share of the available memory for decoded images.
CACHE_SHARE = 0.25
BATCHES_AHEAD = 3
Progress = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True)
class TrainingBatch:
    """images [B, C, h, w], uint8 or float32 in 0..1, labels [B] int64, names of the images for messages."""

    images: "Tensor"
    labels: "Tensor"
    names: list[str]
    rows: NDArray[np.int64]


class BatchesFeed:
    """Batches as the loop takes them."""

    def __init__(self, batches: "Batches", collate: Callable[..., Any]) -> None:
        self.batches, self.collate = batches, collate

    @property
    def waited_s(self) -> float:
        return self.batches.waited_s

    @property
    def steps_per_epoch(self) -> int:
        return self.batches.steps_per_epoch

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Any]:
        from types import SimpleNamespace

        for batch in self.batches.epoch(epoch, start):
            images, targets = self.collate(list(batch.images), batch.rows.tolist())
            yield SimpleNamespace(
                images=images, targets=targets, names=tuple(batch.names), samples=batch.rows
            )


class Batches:
    """The images of a split, decoded to one size, epoch after epoch.

    They are kept in memory if they fit in a quarter of the available memory, else decoded again each epoch;
    the pixels are the same. 8-bit images are kept as uint8. A split with an image deeper than that
    is kept as float32 in 0..1, four times as large, so that no level is lost.
    An unreadable image is skipped, never replaced, and listed in `skipped`.
    """

    def __init__(
        self, split: Split, preprocess: Preprocess, *, batch_size: int, seed: int, workers: int
    ) -> None:
        """preprocess: how the stored image is made; its mean and std are not applied.

        fingerprint: of the pixels that `prepare` read, "" before. contents: the hashes of their files.
        """
        self.split, self.batch_size, self.seed = split, batch_size, seed
        self.workers = workers
        self.preprocess = preprocess
        self.skipped: list[tuple[str, str]] = []
        self.waited_s = 0.0
        self.fingerprint = ""
        self.contents: frozenset[bytes] = frozenset()
        self._usable = np.arange(len(split))
        self._cache: Tensor | None = None

    @property
    def num_images(self) -> int:
        """Number of images not known to be unreadable."""
        return len(self._usable)

    @property
    def steps_per_epoch(self) -> int:
        """Number of full batches; an incomplete one is dropped unless it is the only one."""
        return max(self.num_images // self.batch_size, 1)

    def fits_in_memory(self, value_bytes: int) -> bool:
        height, width = self.preprocess.image_size
        needed = len(self.split) * self.preprocess.in_channels * height * width * value_bytes
        return needed <= CACHE_SHARE * machine.memory_limit_bytes()

    def prepare(self, progress: Progress | None = None) -> None:
        """Decode every image once: fill the cache if they fit, and find the unreadable ones.

        Raises: DataError if no image can be read.
        """
        cache = self._new_cache(np.dtype(np.uint8))
        usable: list[int] = []
        contents: set[bytes] = set()
        digest = hashlib.blake2b(digest_size=16)
        for index, answer in enumerate(in_order(self._read_hashed, range(len(self.split)), self.workers, 64)):
            if isinstance(answer, str):
                self.skipped.append((self.split.names[index], answer))
            else:
                pixels, content = answer
                digest.update(f"{index} {zlib.crc32(pixels.tobytes())}\n".encode())
                contents.add(content)
                if cache is not None and cache.dtype != pixels.dtype:
                    cache, pixels = self._deepened(cache, len(usable)), as_unit_float(pixels)
                if cache is not None:
                    cache[len(usable)] = pixels
                usable.append(index)
            if progress:
                progress(index + 1, len(self.split))
        if not usable:
            first = f"; the first: {': '.join(self.skipped[0])}" if self.skipped else ""
            raise DataError(
                f"none of the {len(self.split)} training images can be read{first}", "fix the images"
            )
        self.fingerprint, self.contents = digest.hexdigest(), frozenset(contents)
        self._usable = np.array(usable)
        self._keep(cache)

    def _new_cache(self, dtype: np.dtype[Any]) -> Pixels | None:
        """Allocate space for every image; None if they do not fit."""
        if not self.fits_in_memory(dtype.itemsize):
            return None
        return np.empty((len(self.split), self.preprocess.in_channels, *self.preprocess.image_size), dtype)

    def _deepened(self, cache: Pixels, filled: int) -> Pixels | None:
        """Convert the cache to float32, because the first image deeper than 8 bits was found."""
        if cache.dtype == np.float32:
            return cache
        deep = self._new_cache(np.dtype(np.float32))
        if deep is not None:
            deep[:filled] = as_unit_float(cache[:filled])
        return deep

    def _keep(self, cache: Pixels | None) -> None:
        import torch

        self._cache = None if cache is None else torch.from_numpy(cache[: len(self._usable)])

    def feed(self, collate: Callable[..., Any]) -> "BatchesFeed":
        return BatchesFeed(self, collate)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[TrainingBatch]:
        """Yield the batches of an epoch, in an order that depends only on (seed, epoch)."""
        order = np.random.default_rng((self.seed, epoch)).permutation(self.num_images)
        wanted = order[: self.steps_per_epoch * self.batch_size]
        chunks = [
            wanted[i : i + self.batch_size]
            for i in range(start * self.batch_size, len(wanted), self.batch_size)
        ]
        batches = map(self._from_memory, chunks) if self._cache is not None else self._from_files(chunks)
        while True:
            asked = time.perf_counter()
            batch = next(batches, None)
            self.waited_s += time.perf_counter() - asked
            if batch is None:
                return
            yield batch

    def _from_memory(self, places: NDArray[np.int64]) -> TrainingBatch:
        import torch

        assert self._cache is not None
        return self._labelled(self._cache[torch.from_numpy(places)], self._usable[places])

    def _from_files(self, chunks: list[NDArray[np.int64]]) -> Iterator[TrainingBatch]:
        import torch

        flat = (int(self._usable[place]) for chunk in chunks for place in chunk)
        decoded = in_order(self._read, flat, self.workers, BATCHES_AHEAD * self.batch_size)
        for chunk in chunks:
            answers = [next(decoded) for _ in chunk]
            # The file became unreadable after `prepare` (e.g. an unmounted disk): skip and record it.
            good = [i for i, answer in enumerate(answers) if not isinstance(answer, str)]
            for i, answer in enumerate(answers):
                if isinstance(answer, str):
                    self.skipped.append((self.split.names[self._usable[chunk[i]]], answer))
            if good:
                images = torch.from_numpy(_stacked([answers[i] for i in good]))
                yield self._labelled(images, self._usable[chunk[good]])

    def _labelled(self, images: "Tensor", indices: NDArray[np.int64]) -> TrainingBatch:
        import torch

        labels = torch.from_numpy(self.split.labels[indices])
        return TrainingBatch(
            images=images, labels=labels, names=[self.split.names[i] for i in indices], rows=indices
        )

    def _read(self, index: int) -> Pixels | str:
        """[C, h, w], or why it cannot be read."""
        try:
            return self._pixels(self.split.source(index), index)
        except ImageError as error:
            return error.about(self.split.names[index])

    def _read_hashed(self, index: int) -> tuple[Pixels, bytes] | str:
        """As `_read`, with the hash of the file."""
        name = self.split.names[index]
        try:
            source = fetched(self.split.source(index), name, self.split.max_pixels)
            return self._pixels(source, index), hash_of(source)
        except ImageError as error:
            return error.about(name)

    def _pixels(self, source: Source, index: int) -> Pixels:
        name, most = self.split.names[index], self.split.max_pixels
        pixels = read_pixels(source, self.preprocess, name=name, max_pixels=most)
        return np.ascontiguousarray(pixels.transpose(2, 0, 1))


def as_unit_float(pixels: Pixels) -> Pixels:
    """Pixels as float32 in 0..1, the same numbers that augmentation makes from uint8."""
    return pixels.astype(np.float32) / np.float32(255) if pixels.dtype == np.uint8 else pixels


def _stacked(pictures: list[Any]) -> Pixels:
    """One array of one dtype; uint8 if all are."""
    if any(picture.dtype != np.uint8 for picture in pictures):
        pictures = [as_unit_float(picture) for picture in pictures]
    return np.stack(pictures)
