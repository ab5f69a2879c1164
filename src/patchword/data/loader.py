"""Read images ahead in threads, in order, with failures in their place.

`iterate` serves evaluation, prediction and embedding; `batches.py` serves training.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from patchword.data.dataset import Split
from patchword.data.pool import in_order
from patchword.errors import ImageError
from patchword.images.decode import Source
from patchword.images.limits import MAX_PIXELS
from patchword.images.prepare import read
from patchword.images.preprocess import Preprocess

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Named:
    """An input image and its name; `source` may be a function that fetches it later."""

    name: str
    source: Source | Callable[[], Source]

    def fetch(self) -> Source:
        """The image, for `images.decode`. Raises: ImageError, DataError."""
        return self.source() if callable(self.source) else self.source


@dataclass(frozen=True, kw_only=True)
class Failure:
    """An image that could not be read: its place among the inputs, name, and why."""

    index: int
    name: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class ReadBatch:
    """indices: places among the inputs, ascending. images: [b, C, h, w] float32, b may be 0.

    names: of the images, as many as indices. failures: of inputs that came before the
    batch's last, each reported once.
    """

    indices: list[int]
    names: list[str]
    images: "Tensor"
    failures: list[Failure]


def from_split(split: Split) -> Iterator[Named]:
    """Yield the split's images; one that cannot be fetched fails later, in its place."""
    for index, name in enumerate(split.names):
        yield Named(name=name, source=partial(split.source, index))


def iterate(
    inputs: Iterable[Named],
    preprocess: Preprocess,
    batch_size: int,
    workers: int,
    max_pixels: int = MAX_PIXELS,
) -> Iterator[ReadBatch]:
    """Read, decode and preprocess `inputs` in batches of equal shape, in their order.

    Memory does not grow with the number of inputs: at most two batches are read ahead.
    """

    def work(item: tuple[int, Named]) -> tuple[int, str, NDArray[np.float32] | Failure]:
        index, named = item
        try:
            return index, named.name, read(named.fetch(), preprocess, name=named.name, max_pixels=max_pixels)
        except ImageError as error:
            return index, named.name, Failure(index=index, name=named.name, reason=error.about(named.name))

    ahead = 2 * batch_size + max(workers, 1)
    batch: list[tuple[int, str, NDArray[np.float32]]] = []
    failures: list[Failure] = []
    for index, name, answer in in_order(work, enumerate(inputs), workers, ahead):
        if isinstance(answer, Failure):
            failures.append(answer)
            continue
        if batch and (len(batch) == batch_size or answer.shape != batch[0][2].shape):
            yield _batch(batch, failures)
            batch, failures = [], []
        batch.append((index, name, answer))
    if batch or failures:
        yield _batch(batch, failures)


def _batch(batch: list[tuple[int, str, NDArray[np.float32]]], failures: list[Failure]) -> ReadBatch:
    import torch

    images = torch.from_numpy(np.stack([a for _, _, a in batch])) if batch else torch.empty(0)
    return ReadBatch(
        indices=[i for i, _, _ in batch], names=[n for _, n, _ in batch], images=images, failures=failures
    )
