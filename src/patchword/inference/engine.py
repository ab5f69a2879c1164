"""The engine behind predict, embed and evaluate: runs the model on a stream of images, in order.

On a CPU, each worker reads its own images and computes with one thread. Reading and computing
overlap, no thread waits at the end of a parallel region, and other processes cost only the cores
they use. Only a single image is computed by all threads together. Measurements:
docs/decisions/0006-threads-and-allocator.md.
"""

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from patchword import machine
from patchword.data.loader import Named
from patchword.data.pool import in_order
from patchword.errors import (
    CheckpointError,
    DataError,
    ImageError,
    NotEnoughMemory,
    is_out_of_memory,
    plural,
)
from patchword.images.decode import Source
from patchword.images.geometry import Size
from patchword.images.limits import MAX_PIXELS
from patchword.images.prepare import read_sized
from patchword.images.preprocess import Preprocess
from patchword.model.config import ViTConfig
from patchword.model.memory import inference_bytes

if TYPE_CHECKING:
    from torch import Tensor, device, dtype

Array = NDArray[Any]
_BATCH_CPU, _BATCH_GPU = 8, 64
# Finished chunks that may wait for their turn, in addition to those being computed.
_AHEAD = 2


@dataclass(frozen=True, kw_only=True)
class Output:
    """The model's output for one image, or the reason why there is none.

    values: the output. brightness: mean of the model's input; it distinguishes identical images from
    identical outputs. again: loads the image once more, if its name is not enough for that. size: (h, w) of the upright image.
    """

    index: int
    name: str
    values: Array | None = None
    brightness: float = 0.0
    error: ImageError | DataError | None = None
    again: Callable[[], Source] | None = None
    size: Size | None = None


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How to use the machine: the number of workers and the batch size of each.

    threads: torch threads per worker. alone: only one worker at a time runs the model (GPU).
    """

    workers: int
    threads: int
    batch_size: int
    alone: bool = False


def make_plan(num_items: int | None, device: "device", batch_size: int | None = None) -> Plan:
    """Plan for `num_items` images (None if unknown) on this device."""
    granted = machine.granted_threads()
    if device.type != "cpu":
        return Plan(
            workers=min(granted, 16), threads=granted, batch_size=batch_size or _BATCH_GPU, alone=True
        )
    if num_items == 1:
        return Plan(workers=1, threads=granted, batch_size=1)
    size = batch_size or _BATCH_CPU
    if num_items is not None and batch_size is None:
        # Distribute a few images evenly instead of giving them all to the first worker.
        size = max(1, min(size, -(-num_items // granted)))
    return Plan(workers=granted, threads=1, batch_size=size)


def fitted(plan: Plan, config: ViTConfig, size: tuple[int, int], requested: int | None) -> Plan:
    """Reduce the plan's batches if they do not fit into memory; the outputs do not depend on this.

    requested: the user's batch size. Raises: NotEnoughMemory if that cannot fit.
    """
    left = machine.most_memory_left_bytes() - inference_bytes(config, size, 0)
    each = inference_bytes(config, size, 1) - inference_bytes(config, size, 0)
    if plan.workers * plan.batch_size * each <= left:
        return plan
    fitting = max(left // (2 * each), 1)
    if requested is not None and requested * each > left:
        raise NotEnoughMemory(
            f"not enough memory: a batch of {requested} images of {size[1]}x{size[0]} pixels needs at least "
            f"{requested * each / 2**30:,.1f} GiB, but this process can get only {max(left, 0) / 2**30:,.1f} GiB",
            f"use --batch-size {fitting}, which fits by this estimate",
        )
    workers = min(plan.workers, fitting)
    return replace(plan, workers=workers, batch_size=requested or max(fitting // workers, 1))


@dataclass(frozen=True, kw_only=True)
class Route:
    """How to compute the output for an image: preprocessing, function, device and dtype.

    compute: [b, C, h, w] of `dtype` on `device` → a tensor whose first axis is b.
    """

    preprocess: Preprocess
    compute: "Callable[[Tensor], Tensor]"
    device: "device"
    dtype: "dtype"
    max_pixels: int = MAX_PIXELS


def answers(items: Iterable[Named], route: Route, plan: Plan) -> Iterator[Output]:
    """Yield an output for every item, in order, holding only a few batches in memory.

    For an unreadable image, its own output holds the error; other outputs are not affected.
    Raises: CheckpointError if the model produces NaN or infinite values.
    """
    import torch

    threads_before = torch.get_num_threads()
    torch.set_num_threads(plan.threads)
    try:
        worker = _Worker(route, threading.Lock() if plan.alone else nullcontext())
        chunks = _chunks(items, plan.batch_size)
        if plan.workers == 1:
            done: Iterator[list[Output]] = map(worker, chunks)
        else:
            done = in_order(worker, chunks, plan.workers, plan.workers + _AHEAD)
        for chunk in done:
            yield from chunk
    finally:
        torch.set_num_threads(threads_before)


def _chunks(items: Iterable[Named], size: int) -> Iterator[list[tuple[int, Named]]]:
    numbered = enumerate(items)
    while chunk := list(islice(numbered, size)):
        yield chunk


class _Worker:
    """Reads a chunk of images and computes those that are readable, keeping the order."""

    def __init__(self, route: Route, turn: AbstractContextManager[Any]) -> None:
        self.route, self.turn = route, turn

    def __call__(self, chunk: list[tuple[int, Named]]) -> list[Output]:
        fed: dict[int, Array] = {}
        sizes: dict[int, Size] = {}
        found: dict[int, Output] = {}
        for index, item in chunk:
            try:
                fed[index], sizes[index] = read_sized(
                    item.fetch(), self.route.preprocess, name=item.name, max_pixels=self.route.max_pixels
                )
            except (ImageError, DataError) as error:
                found[index] = Output(index=index, name=item.name, error=error)
        names = {index: item.name for index, item in chunk}
        again = {index: item.source if callable(item.source) else None for index, item in chunk}
        # Preprocessing that keeps the aspect ratio gives several sizes; batch images of equal size.
        for same in _by_shape(fed):
            for index, values in zip(same, self._compute([fed[i] for i in same]), strict=True):
                _check_numbers(values, names[index])
                found[index] = Output(
                    index=index,
                    name=names[index],
                    values=values,
                    brightness=float(fed[index].mean()),
                    again=again[index],
                    size=sizes[index],
                )
        return [found[index] for index, _ in chunk]

    def _compute(self, images: list[Array]) -> Array:
        import torch

        # A single image becomes a batch without a copy.
        batch = torch.from_numpy(images[0][None] if len(images) == 1 else np.stack(images))
        with torch.inference_mode(), self.turn, _memory_reported(len(images)):
            return self.route.compute(batch.to(self.route.device, self.route.dtype)).float().cpu().numpy()


@contextmanager
def _memory_reported(images: int) -> Iterator[None]:
    """Raises: NotEnoughMemory instead of the original error of a failed allocation."""
    try:
        yield
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        fix = (
            f"use a smaller --batch-size, such as {images // 2}" if images > 1 else "use a smaller image size"
        )
        raise NotEnoughMemory(
            f"not enough memory to compute {plural(images, 'image')} at once", fix
        ) from error


def _by_shape(fed: dict[int, Array]) -> list[list[int]]:
    groups: dict[tuple[int, ...], list[int]] = {}
    for index, image in fed.items():
        groups.setdefault(image.shape, []).append(index)
    return list(groups.values())


def _check_numbers(values: Array, name: str) -> None:
    if not np.isfinite(values).all():
        raise CheckpointError(
            f"the model's output for {name} is NaN or infinite: its weights are broken",
            "use weights saved before training diverged",
        )


class SameAnswers:
    """Detects a model that gives the same output for every image.

    Add every output; `notice` is a warning if the model does so, else "".
    """

    SURE_AFTER = 4

    def __init__(self) -> None:
        self.count = 0
        self._first: Array | None = None
        self._brightness = 0.0
        self._differs = False
        self._images_differ = False

    def add(self, answer: Output) -> None:
        if answer.values is None or self._differs:
            return
        self.count += 1
        if self._first is None:
            self._first, self._brightness = answer.values, answer.brightness
            return
        self._images_differ |= abs(answer.brightness - self._brightness) > 1e-3
        spread = float(np.abs(self._first).max()) + 1e-6
        same_shape = answer.values.shape == self._first.shape
        self._differs = not same_shape or float(np.abs(answer.values - self._first).max()) > 1e-4 * spread

    @property
    def notice(self) -> str:
        if self._differs or not self._images_differ or self.count < self.SURE_AFTER:
            return ""
        return (
            f"all {self.count} images give the same output, although they differ: the model may be untrained "
            "or collapsed, or these pixel values are far from those it was trained on"
        )
