"""Batches to train on: decoded once where they fit in memory, in an order fixed by seed and epoch."""

import hashlib
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from patchword import machine
from patchword.data.dataset import Split
from patchword.data.pool import in_order
from patchword.errors import DataError, ImageError
from patchword.images.prepare import read
from patchword.images.preprocess import Preprocess

if TYPE_CHECKING:
    from torch import Tensor

# Of the memory that the machine grants, for decoded images.
CACHE_SHARE = 0.25
BATCHES_AHEAD = 3
Progress = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True)
class TrainingBatch:
    """images [B, C, h, w] uint8, labels [B] int64, names of the images for messages."""

    images: "Tensor"
    labels: "Tensor"
    names: list[str]


class Batches:
    """The images of a split as uint8, decoded to one size, epoch after epoch.

    They are kept in memory when they fit in a quarter of what the machine grants, and
    decoded anew each epoch when not; the pixels are the same. Pictures deeper than 8 bits
    are rounded to 8 here (augmentation moves them by more); evaluation keeps their depth.
    An image that cannot be read is left out, never replaced, and listed in `skipped`.
    """

    def __init__(
        self, split: Split, preprocess: Preprocess, *, batch_size: int, seed: int, workers: int
    ) -> None:
        """preprocess: how the stored picture is made; its mean and std are not applied.

        fingerprint: of what `prepare` read, "" before.
        """
        self.split, self.batch_size, self.seed = split, batch_size, seed
        self.workers = workers
        self.preprocess = _without_statistics(preprocess)
        self.skipped: list[tuple[str, str]] = []
        self.waited_s = 0.0
        self.fingerprint = ""
        self._usable = np.arange(len(split))
        self._cache: Tensor | None = None

    @property
    def num_images(self) -> int:
        """Images that can be read, as far as is known."""
        return len(self._usable)

    @property
    def steps_per_epoch(self) -> int:
        """Whole batches; the one that is left over is dropped, unless it is the only one."""
        return max(self.num_images // self.batch_size, 1)

    @property
    def fits_in_memory(self) -> bool:
        height, width = self.preprocess.image_size
        needed = len(self.split) * self.preprocess.in_channels * height * width
        return needed <= CACHE_SHARE * machine.memory_limit_bytes()

    def prepare(self, progress: Progress | None = None) -> None:
        """Decode every image once: fills the memory where they fit, finds the unreadable ones.

        Raises: DataError where not one image can be read.
        """
        import torch

        height, width = self.preprocess.image_size
        keep = self.fits_in_memory
        shape = (len(self.split) if keep else 0, self.preprocess.in_channels, height, width)
        cache = torch.empty(shape, dtype=torch.uint8)
        usable: list[int] = []
        digest = hashlib.blake2b(digest_size=16)
        for index, answer in enumerate(in_order(self._read, range(len(self.split)), self.workers, 64)):
            if isinstance(answer, str):
                self.skipped.append((self.split.names[index], answer))
            else:
                digest.update(f"{index} {zlib.crc32(answer.tobytes())}\n".encode())
                if keep:
                    cache[len(usable)] = torch.from_numpy(answer)
                usable.append(index)
            if progress:
                progress(index + 1, len(self.split))
        if not usable:
            first = f", the first because {': '.join(self.skipped[0])}" if self.skipped else ""
            raise DataError(
                f"not one of {len(self.split)} training images can be read{first}", "mend the images"
            )
        self.fingerprint = digest.hexdigest()
        self._usable = np.array(usable)
        self._cache = cache[: len(usable)] if keep else None

    def epoch(self, epoch: int) -> Iterator[TrainingBatch]:
        """The batches of an epoch, in an order that only (seed, epoch) decides."""
        order = np.random.default_rng((self.seed, epoch)).permutation(self.num_images)
        wanted = order[: self.steps_per_epoch * self.batch_size]
        chunks = [wanted[i : i + self.batch_size] for i in range(0, len(wanted), self.batch_size)]
        batches = map(self._from_memory, chunks) if self._cache is not None else self._from_files(chunks)
        while True:
            start = time.perf_counter()
            batch = next(batches, None)
            self.waited_s += time.perf_counter() - start
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
            # Readable a moment ago, unreadable now (a disk that went away): left out and listed.
            good = [i for i, answer in enumerate(answers) if not isinstance(answer, str)]
            for i, answer in enumerate(answers):
                if isinstance(answer, str):
                    self.skipped.append((self.split.names[self._usable[chunk[i]]], answer))
            if good:
                images = torch.from_numpy(np.stack([np.asarray(answers[i]) for i in good]))
                yield self._labelled(images, self._usable[chunk[good]])

    def _labelled(self, images: "Tensor", indices: NDArray[np.int64]) -> TrainingBatch:
        import torch

        labels = torch.from_numpy(self.split.labels[indices])
        return TrainingBatch(images=images, labels=labels, names=[self.split.names[i] for i in indices])

    def _read(self, index: int) -> NDArray[np.uint8] | str:
        """[C, h, w], or why it cannot be read."""
        try:
            values = read(
                self.split.source(index),
                self.preprocess,
                name=self.split.names[index],
                max_pixels=self.split.max_pixels,
            )
        except ImageError as error:
            return error.about(self.split.names[index])
        return np.rint(values * 255).clip(0, 255).astype(np.uint8)


def _without_statistics(preprocess: Preprocess) -> Preprocess:

    return replace(preprocess, mean=(0.0,), std=(1.0,))
