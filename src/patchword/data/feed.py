"""Training batches, prepared ahead in the background: order, then store, then the task's collate."""

import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from patchword.data.dataset import Split
from patchword.data.order import Part, order, steps_in
from patchword.data.store import Store
from patchword.errors import DataError, plural
from patchword.images.stored import Pixels

if TYPE_CHECKING:
    from torch import Tensor

# Complete batches that wait for the loop.
BATCHES_AHEAD = 2
# With so many unreadable images one after another, the disk is at fault and not the images.
MAX_IN_A_ROW = 256

Collate = Callable[[Sequence["Tensor"], Sequence[int]], tuple["Tensor", Any]]
_Slots = list[Pixels | str | Future[Pixels | str]]


@dataclass(frozen=True, kw_only=True)
class Fed:
    """The images of one step, in this process.

    step: the step's number in its epoch. images, targets: from the task's collate. names: for messages.
    samples [B] int64: `index + copy * number of images`, for `chance.Draws`.
    """

    step: int
    images: "Tensor"
    targets: Any
    names: tuple[str, ...]
    samples: NDArray[np.int64]


class Feed:
    """The training images, epoch after epoch.

    Batches are the same for any number of workers and any store. An unreadable image is skipped where it is met, never
    replaced, so the order of the others is unchanged; its mixing partner goes to the end of its batch. A step of which
    no image can be read is not yielded, which the numbers of the steps (`Fed.step`) show.

    waited_s: seconds in which the loop waited for a batch.
    """

    def __init__(
        self,
        split: Split,
        store: Store,
        collate: Collate,
        *,
        batch_size: int,
        seed: int,
        workers: int,
        part: Part | None = None,
        repeats: int = 1,
        weights: NDArray[np.float64] | None = None,
        unreadable: Sequence[int] = (),
        pin: bool = False,
    ) -> None:
        """batch_size: of the global batch. part: the positions of this process in a global batch of a given length.

        repeats, weights [N]: as for `order`. unreadable: places of images known to be so, which are in no batch; a
        resumed run must give the same. pin: put the batches into pinned memory, for a GPU.
        """
        self.split, self.store = split, store
        self.batch_size, self.seed = batch_size, seed
        self.waited_s = 0.0
        self._collate, self._workers, self._pin = collate, max(workers, 1), pin
        self._usable = np.setdiff1d(np.arange(len(split)), np.asarray(unreadable, np.int64))
        self._weights = None if weights is None else np.asarray(weights, np.float64)[self._usable]
        self._part, self._repeats = part, repeats
        self._skipped: dict[int, str] = {}
        self._gather_s = 0.0
        self._bad_in_a_row = 0

    @property
    def num_images(self) -> int:
        """Number of images not known to be unreadable before training."""
        return len(self._usable)

    @property
    def steps_per_epoch(self) -> int:
        """Number of full batches; an incomplete one is dropped unless it is the only one."""
        return steps_in(self.num_images, self.batch_size)

    @property
    def skipped(self) -> list[tuple[str, str]]:
        """Names of the unreadable images met so far, each once, with the reason."""
        return [(self.split.names[index], reason) for index, reason in self._skipped.items()]

    @property
    def contents(self) -> frozenset[bytes]:
        """The hashes of the files read so far."""
        return self.store.stamps.contents()

    @property
    def seconds(self) -> dict[str, float]:
        """Time spent in each stage, summed over the threads: read, decode, gather."""
        return {**self.store.seconds, "gather": self._gather_s}

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Fed]:
        """Yield the batches of an epoch from step `start` on. The threads end with the iterator.

        Raises: DataError for a decoder that fails unexpectedly, with the file's name, or if no image can be read.
        """
        ready: queue.Queue[Fed | BaseException | None] = queue.Queue(BATCHES_AHEAD)
        stop = threading.Event()
        thread = threading.Thread(
            target=self._produce, args=(epoch, start, ready, stop), name="patchword-feed", daemon=True
        )
        thread.start()
        try:
            while True:
                began = time.perf_counter()
                fed = ready.get()
                self.waited_s += time.perf_counter() - began
                if isinstance(fed, BaseException):
                    raise fed
                if fed is None:
                    return
                yield fed
        finally:
            stop.set()
            # The producer may wait for room in the queue; it puts at most one more.
            while not ready.empty():
                ready.get_nowait()
            thread.join()

    def _produce(
        self, epoch: int, start: int, ready: "queue.Queue[Fed | BaseException | None]", stop: threading.Event
    ) -> None:
        pool = ThreadPoolExecutor(self._workers, thread_name_prefix="patchword-decode")
        last: BaseException | None = None
        try:
            for fed in self._batches(epoch, start, pool):
                ready.put(fed)
                if stop.is_set():
                    return
        except BaseException as error:
            last = error
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
            if not stop.is_set():
                ready.put(last)

    def _batches(self, epoch: int, start: int, pool: ThreadPoolExecutor) -> Iterator[Fed]:
        """Decode two batches ahead, or as many as keep every worker busy."""
        n = self.num_images
        steps = order(
            n,
            self.batch_size,
            self.seed,
            epoch,
            start,
            part=self._part,
            repeats=self._repeats,
            weights=self._weights,
        )
        ahead = max(BATCHES_AHEAD, -(-2 * self._workers // self.batch_size))
        is_empty = True
        waiting: deque[tuple[int, NDArray[np.int64], _Slots]] = deque()
        for step, numbers in enumerate(steps, start):
            copies, places = np.divmod(numbers, n)
            indices = self._usable[places]
            slots = [self._requested(index, pool) for index in indices.tolist()]
            waiting.append((step, indices + copies * len(self.split), slots))
            if len(waiting) > ahead and (fed := self._fed(*waiting.popleft())):
                is_empty = False
                yield fed
        while waiting:
            if fed := self._fed(*waiting.popleft()):
                is_empty = False
                yield fed
        if is_empty and self._bad_in_a_row:
            self._refuse()

    def _requested(self, index: int, pool: ThreadPoolExecutor) -> "Pixels | str | Future[Pixels | str]":
        kept = self.store.in_memory(index)
        return pool.submit(self.store.__getitem__, index) if kept is None else kept

    def _fed(self, step: int, samples: NDArray[np.int64], slots: _Slots) -> Fed | None:
        """The batch of a step; None if no image of it can be read."""
        import torch

        answers = [slot.result() if isinstance(slot, Future) else slot for slot in slots]
        began = time.perf_counter()
        rows: list[int] = (samples % len(self.split)).tolist()
        for index, answer in zip(rows, answers, strict=True):
            self._note(index, answer)
        chosen = _readable(answers)
        if not chosen:
            return None
        pixels = [torch.from_numpy(answers[i]) for i in chosen]
        rows = [rows[i] for i in chosen]
        images, targets = self._collate(pixels, rows)
        if self._pin:
            images, targets = _pinned(images), _pinned(targets)
        self._gather_s += time.perf_counter() - began
        names = tuple(self.split.names[index] for index in rows)
        return Fed(step=step, images=images, targets=targets, names=names, samples=samples[chosen])

    def _note(self, index: int, answer: Pixels | str) -> None:
        """List an unreadable image. Raises: DataError after many in a row."""
        if not isinstance(answer, str):
            self._bad_in_a_row = 0
            return
        self._skipped.setdefault(index, answer)
        self._bad_in_a_row += 1
        if self._bad_in_a_row >= MAX_IN_A_ROW:
            self._refuse()

    def _refuse(self) -> None:
        index, reason = next(reversed(self._skipped.items()))
        raise DataError(
            f"none of the {plural(self._bad_in_a_row, 'training image')} read last can be read, "
            f"such as {self.split.names[index]}: {reason}",
            "check that the disk with the images is there",
        )


def stacked(pixels: Sequence["Tensor"]) -> "Tensor":
    """One tensor [B, C, h, w] of images of one size: uint8 if all are, else float32 in 0..1."""
    import torch

    if any(image.dtype != torch.uint8 for image in pixels):
        pixels = [image.float() / 255 if image.dtype == torch.uint8 else image for image in pixels]
    return torch.stack(list(pixels))


def _readable(answers: Sequence[Pixels | str]) -> list[int]:
    """The positions of the readable images: complete pairs (2i, 2i + 1) first, so that mixing partners stay together."""
    good = [not isinstance(answer, str) for answer in answers]
    if all(good):
        return list(range(len(good)))
    is_paired = [good[i] and (i ^ 1) < len(good) and good[i ^ 1] for i in range(len(good))]
    alone = [i for i in range(len(good)) if good[i] and not is_paired[i]]
    return [i for i in range(len(good)) if is_paired[i]] + alone


def _pinned(value: Any) -> Any:
    """Tensors, also in lists and dicts, in pinned memory."""
    import torch

    if isinstance(value, torch.Tensor):
        return value if value.is_cuda else value.pin_memory()
    if isinstance(value, Mapping):
        return {name: _pinned(part) for name, part in value.items()}
    return [_pinned(part) for part in value] if isinstance(value, list) else value
