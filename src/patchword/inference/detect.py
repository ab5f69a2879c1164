"""Run a detector on a stream of images, complete or in tiles, through the engine of all predictions."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from patchword import machine
from patchword.data.loader import Named
from patchword.errors import DataError, ImageError, NotEnoughMemory
from patchword.images.decode import Picture, decode
from patchword.images.geometry import Size
from patchword.images.preprocess import Preprocess, ValueRange
from patchword.inference.detections import Found, found_in
from patchword.inference.engine import Output, Plan, Route, answers, make_plan
from patchword.inference.inputs import check_at_least_one, named
from patchword.inference.sources import Given
from patchword.inference.tiles import Box, Tiling, merged, tiles_of

if TYPE_CHECKING:
    from torch import Tensor, device, dtype

# Images of one batch rarely have the same size, and one fills the cores.
_BATCH_CPU, _BATCH_GPU = 1, 8
# The largest tensors of a ResNet-50 or ViT-B at one time, for each pixel of the model's input; measured on DETR-R50.
_BYTES_PER_PIXEL = 500


class FindsBoxes(Protocol):
    """What a detector is here; see `Detector`."""

    @property
    def preprocess(self) -> Preprocess: ...
    @property
    def device(self) -> "device": ...
    @property
    def dtype(self) -> "dtype": ...
    @property
    def one_class_each(self) -> bool: ...
    def outputs(self, images: "Tensor") -> "Tensor": ...


@dataclass(frozen=True, kw_only=True)
class Answer:
    """output: of the engine; of an image in tiles, of its first tile. found: None if the image could not be read.

    image: what was given, to read it again.
    """

    output: Output
    image: Named
    found: Found | None = None
    size: Size | None = None

    @property
    def error(self) -> ImageError | DataError | None:
        return self.output.error


def detect_each(
    detector: FindsBoxes,
    sources: Iterable[Any],
    *,
    tiling: Tiling | None = None,
    value_range: ValueRange | None = None,
    batch_size: int | None = None,
    max_pixels: int,
    count: int | None = None,
) -> Iterator[Answer]:
    """Yield an answer for every source, in order, unreadable ones too; an answer does not depend on the other images.

    sources: images, or `Named` ones. count: their number, if the iterable has no length. Raises: SettingsError;
    CheckpointError for an output that is not finite; NotEnoughMemory.
    """
    check_at_least_one(batch_size=batch_size, max_pixels=max_pixels)
    count = len(sources) if isinstance(sources, list | tuple | Given) else count
    preprocess = detector.preprocess.with_range(value_range)
    # A tile is cut from decoded pixels, which are in 0..1 if they are not 8-bit.
    read = preprocess if tiling is None else _without_range(preprocess)
    feed = _Feed(map(named, sources), tiling, preprocess, max_pixels)
    route = Route(
        preprocess=read,
        compute=detector.outputs,
        device=detector.device,
        dtype=detector.dtype,
        max_pixels=max_pixels,
    )
    # With tiles, one image is several inputs.
    plan = _plan(detector, count if tiling is None else None, batch_size)
    outputs = answers(feed, route, plan)
    for first in outputs:
        image, tiles, size = feed.taken.popleft()
        parts = [first, *(next(outputs) for _ in tiles[1:])]
        yield _answer(detector, image, parts, (tiles, size))


def _answer(
    detector: FindsBoxes, image: Named, parts: list[Output], where: tuple[list[Box], Size | None]
) -> Answer:
    tiles, size = where
    first = parts[0]
    if any(part.error is not None for part in parts):
        return Answer(output=next(part for part in parts if part.error is not None), image=image)
    found: list[Found] = []
    for part, (left, top, _, _) in zip(parts, tiles or [(0, 0, 0, 0)], strict=True):
        assert part.values is not None and part.size is not None
        one = found_in(part.values, detector.preprocess, part.size, one_class_each=detector.one_class_each)
        found.append(replace(one, boxes=one.boxes + np.array([left, top, left, top], np.float64)))
    whole = size or first.size
    assert whole is not None
    return Answer(
        output=first,
        image=image,
        size=whole,
        found=merged(found, tiles, whole) if len(found) > 1 else found[0],
    )


class _Feed:
    """The images for the engine, cut in tiles. taken: what was given to it and not yet answered, in order:
    the image, its tiles (none without tiling), and its size if it was decoded here.
    """

    def __init__(
        self, images: Iterable[Named], tiling: Tiling | None, preprocess: Preprocess, max_pixels: int
    ) -> None:
        self.images, self.tiling, self.preprocess, self.max_pixels = images, tiling, preprocess, max_pixels
        self.taken: deque[tuple[Named, list[Box], Size | None]] = deque()

    def __iter__(self) -> Iterator[Named]:
        for image in self.images:
            if self.tiling is None:
                self.taken.append((image, [], None))
                yield image
            else:
                yield from self._tiles(image, self.tiling)

    def _tiles(self, image: Named, tiling: Tiling) -> Iterator[Named]:
        try:
            pixels = self._pixels(image)
        except (ImageError, DataError) as error:
            self.taken.append((image, [], None))
            yield Named(name=image.name, source=_raising(error))
            return
        size = pixels.shape[0], pixels.shape[1]
        tiles = tiles_of(size, tiling)
        self.taken.append((image, tiles, size))
        for left, top, right, bottom in tiles:
            yield Named(name=image.name, source=pixels[top:bottom, left:right])

    def _pixels(self, image: Named) -> Picture:
        reading = self.preprocess.reading
        return decode(
            image.fetch(),
            name=image.name,
            channels=self.preprocess.in_channels,
            max_pixels=self.max_pixels,
            value_range=reading.value_range,
            apply_exif=reading.apply_exif,
        )


def _raising(error: ImageError | DataError) -> Callable[[], Any]:
    def fail() -> Any:
        raise error

    return fail


def _without_range(preprocess: Preprocess) -> Preprocess:
    return replace(preprocess, reading=replace(preprocess.reading, value_range=None))


def _plan(detector: FindsBoxes, count: int | None, batch_size: int | None) -> Plan:
    """As `make_plan`, with fewer workers if their images would not fit in memory."""
    on_cpu = detector.device.type == "cpu"
    size = batch_size or (_BATCH_CPU if on_cpu else _BATCH_GPU)
    plan = replace(make_plan(count, detector.device, size), batch_size=size)
    if not on_cpu:
        return plan
    height, width = detector.preprocess.image_size
    each, left = _BYTES_PER_PIXEL * height * width, machine.most_memory_left_bytes()
    if each * size > left and batch_size is not None and batch_size > 1:
        raise NotEnoughMemory(
            f"not enough memory: a batch of {batch_size} images of {width}x{height} pixels needs at least "
            f"{each * batch_size / 2**30:,.1f} GiB, but this process can get only {max(left, 0) / 2**30:,.1f} GiB",
            f"use --batch-size {max(left // each, 1)}, which fits by this estimate",
        )
    return replace(plan, workers=max(min(plan.workers, left // (each * size)), 1))
