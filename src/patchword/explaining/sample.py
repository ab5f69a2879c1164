"""Choose images at random, and read them at one size."""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from patchword import machine
from patchword.data.loader import Named
from patchword.data.look import header_size
from patchword.data.pool import in_order
from patchword.errors import DataError, ImageError, SettingsError
from patchword.explaining.redundancy import require_measurable
from patchword.images.limits import MAX_PIXELS
from patchword.images.prepare import read_pixels
from patchword.images.preprocess import Preprocess, ValueRange
from patchword.inference.failures import Failures
from patchword.inference.sources import Reading
from patchword.weights.card import Provenance

LARGEST = 224


@dataclass(frozen=True, kw_only=True)
class Sample:
    """images: [n, S, S, 3], 0 to 255. names: of each. total: images to choose from. enlarged: how many were smaller than S."""

    images: NDArray[np.float32]
    names: tuple[str, ...]
    total: int
    enlarged: int


def as_named(source: Any) -> Named:
    """source: a path, or the bytes of an image from standard input."""
    if isinstance(source, Named):
        return source
    return Named(name="image" if isinstance(source, bytes) else os.fspath(source), source=source)


def sources_of(sources: Any, reading: Reading, origin: Provenance) -> list[Named]:
    """All images that a Python caller names: one image, a list, or a path of one or many.

    origin: of the model, whose split of a data set is found again. Raises: as `many_of`.
    """
    from patchword.inference.inputs import many_of, named

    many = many_of(sources, reading, origin)
    return [named(source) for source in ([sources] if many is None else many)]


def square(size: tuple[int, int] | None, option: str) -> int | None:
    """Pixels per side. Raises: SettingsError if the sides differ."""
    if size is None or size[0] == size[1]:
        return None if size is None else size[0]
    raise SettingsError(
        f"{option} is {size[0]}x{size[1]}, but redundancy is measured in squares", f"use {option} {min(size)}"
    )


def chosen(sources: Iterable[Any], count: int | None, seed: int) -> list[Any]:
    """A random sample of `count` sources, in their order; all of them if there are not more or count is None."""
    everything = list(sources)
    if count is None or len(everything) <= count:
        return everything
    return [everything[i] for i in np.sort(_order(len(everything), seed)[:count])]


def read_sample(
    sources: Sequence[Named],
    *,
    count: int,
    patch: int,
    size: int | None = None,
    seed: int = 0,
    value_range: ValueRange | None = None,
    max_pixels: int = MAX_PIXELS,
    failures: Failures | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Sample:
    """Read `count` random images, resized to cover a square of S pixels and cut to its centre.

    size: S; None for the median shorter side of the sample, at most 224, as whole patches. failures: takes those that
    cannot be read, and others come in their place; without it, the first of them is raised.
    Raises: as `redundancy`, before any image is decoded if that can be known.
    """
    mixed = [sources[i] for i in _order(len(sources), seed)]
    sides = [min(known) if (known := header_size(item.fetch)) else None for item in mixed[:count]]
    measured = [side for side in sides if side is not None]
    side = size or min(LARGEST, int(np.median(measured)) if measured else LARGEST)
    require_measurable(min(len(sources), count), side, patch)
    side = side // patch * patch
    names: list[str] = []
    images: list[NDArray[np.float32]] = []
    for name, image in _read(mixed, side, value_range, max_pixels, count):
        if isinstance(image, ImageError | DataError):
            if failures is None:
                raise image
            failures.add(name, image)
        else:
            names.append(name)
            images.append(image)
            if progress:
                progress(len(images), min(count, len(sources)))
        if len(images) == count:
            break
    require_measurable(len(images), side, patch)
    return Sample(
        images=np.stack(images),
        names=tuple(names),
        total=len(sources),
        enlarged=sum(known < side for known in measured),
    )


def _order(number: int, seed: int) -> NDArray[np.int64]:
    return np.random.default_rng((seed, 1)).permutation(number)


def _read(
    sources: Sequence[Named], side: int, value_range: ValueRange | None, max_pixels: int, count: int
) -> Iterator[tuple[str, NDArray[np.float32] | ImageError | DataError]]:
    preprocess = Preprocess.simple(side).with_range(value_range)
    work = partial(_one, preprocess=preprocess, max_pixels=max_pixels)
    workers = machine.granted_threads()
    yield from in_order(work, sources, workers, ahead=min(2 * workers, count))


def _one(
    item: Named, *, preprocess: Preprocess, max_pixels: int
) -> tuple[str, NDArray[np.float32] | ImageError | DataError]:
    try:
        pixels = read_pixels(item.fetch(), preprocess, name=item.name, max_pixels=max_pixels)
    except (ImageError, DataError) as error:
        return item.name, error
    # Images deeper than 8 bits are 0 to 1.
    return item.name, pixels.astype(np.float32) * np.float32(1 if pixels.dtype == np.uint8 else 255)
