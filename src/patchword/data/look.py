"""What the data check finds in one image; which images it decodes; and a glance at sizes without decoding."""

import hashlib
import io
import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial

import numpy as np
from PIL import Image

from patchword.data.contents import fetched, hash_of
from patchword.data.dataset import Dataset, Split
from patchword.data.findings import ImageFacts
from patchword.data.stamps import Stamps
from patchword.data.store import Store
from patchword.errors import ImageError, UserError
from patchword.images.decode import Loaded, Request, Source, load
from patchword.images.geometry import Size
from patchword.images.orientation import read_orientation
from patchword.images.prepare import request_for
from patchword.images.preprocess import ValueRange
from patchword.images.stored import Pixels
from patchword.retrieval.thumbs import LEAST_SIDE, thumb

# JPEGs may be decoded this small for mean, deviation and duplicates: seconds instead of minutes.
LOOK_SIZE = (128, 128)
GLANCES = 512
_JPEG = b"\xff\xd8"
Place = tuple[Split, int]


def sampled(dataset: Dataset, most: int | None, count: int) -> list[Place]:
    """All images; if there are more than `most`, a random sample of `count`, always the same one."""
    places = [(split, i) for split in dataset.splits.values() for i in range(len(split))]
    if most is None or len(places) <= most:
        return places
    chosen = np.random.default_rng(0).choice(len(places), count, replace=False)
    return [places[i] for i in np.sort(chosen)]


def glance(dataset: Dataset) -> Size | None:
    """The median (h, w) of up to 512 images, by their headers; None if no header can be read."""
    sizes = [
        size
        for split, index in sampled(dataset, GLANCES, GLANCES)
        if (size := header_size(partial(split.source, index)))
    ]
    if not sizes:
        return None
    height, width = np.median(np.array(sizes), axis=0).astype(int).tolist()
    return height, width


def header_size(fetch: Callable[[], Source]) -> Size | None:
    """Upright (h, w) of an image without decoding it; None if its header cannot be read."""
    try:
        source = fetch()
        if isinstance(source, np.ndarray):
            return source.shape[0], source.shape[1]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as image:  # type: ignore[arg-type]
                width, height = image.size
                exif = image.info.get("exif")
                is_turned = isinstance(exif, bytes) and read_orientation(exif) in (5, 6, 7, 8)
                return (width, height) if is_turned else (height, width)
    except (UserError, OSError, ValueError, SyntaxError, AttributeError, Image.DecompressionBombError):
        return None


class Look:
    """Decodes an image and tells its facts; the store, if there is one, keeps the pixels.

    thumbs: also make the thumbnails that near duplicates are found by.
    With a store, one decode serves both: as large as the store needs it, and then reduced as a JPEG decoder would have.
    """

    def __init__(
        self,
        channels: int,
        value_range: ValueRange | None,
        stamps: Mapping[str, Stamps],
        store: Store | None = None,
        thumbs: bool = False,
    ) -> None:
        self._request = Request(
            channels=channels, min_size=lambda size: LOOK_SIZE, value_range=value_range, apply_exif=True
        )
        self._stamps, self._store, self._thumbs = stamps, store, thumbs
        self._is_shared = False
        if store is not None:
            stored = request_for(store.preprocess)
            self._is_shared = (stored.channels, stored.value_range, stored.apply_exif) == (
                channels,
                value_range,
                True,
            )
            if self._is_shared:
                self._request = stored

    def __call__(self, place: Place) -> ImageFacts:
        split, index = place
        name = split.names[index]
        try:
            source = fetched(split.source(index), name, split.max_pixels)
            loaded = load(source, self._of(split), name)
            content = hash_of(source)
            if self._store is not None and self._store.split is split:
                if self._is_shared:
                    self._store.take(index, loaded, content)
                else:
                    self._store.fill(index, source, content)
        except ImageError as error:
            return ImageFacts(split=split.name, index=index, reason=error.about(name), fix=error.fix)
        except OSError as error:
            return ImageFacts(split=split.name, index=index, reason=error.strerror or str(error))
        self._stamps[split.name].learn(index, content)
        facts = _facts(split, index, source, loaded)
        if self._thumbs and min(loaded.size) >= LEAST_SIDE:
            facts = replace(facts, thumb=thumb(loaded.picture))
        return facts

    def _of(self, split: Split) -> Request:
        request = self._request
        return Request(
            channels=request.channels,
            max_pixels=split.max_pixels,
            value_range=request.value_range,
            min_size=request.min_size,
            apply_exif=request.apply_exif,
        )


def _facts(split: Split, index: int, source: Source, loaded: Loaded) -> ImageFacts:
    data = source if isinstance(source, bytes) else None
    mode, paged = _mode_and_pages(source, data)
    pixels = _small(loaded, data)
    flat = pixels.reshape(-1, pixels.shape[2] if pixels.ndim == 3 else 1).astype(np.float32)
    if pixels.dtype == np.uint8:
        flat /= 255
    return ImageFacts(
        split=split.name,
        index=index,
        size=loaded.size,
        mode=mode,
        plain=bool((pixels == pixels[:1, :1]).all()),
        paged=paged,
        pixels_hash=hashlib.blake2b(pixels.tobytes() + repr(loaded.size).encode(), digest_size=16).digest(),
        pixels=len(flat),
        deepest=float(flat.max()) if pixels.dtype != np.uint8 else None,
        sums=np.stack([flat.sum(0, dtype=np.float64), np.square(flat).sum(0, dtype=np.float64)]),
    )


def _small(loaded: Loaded, data: bytes | None) -> Pixels:
    """The pixels to measure: a JPEG that was decoded larger than `LOOK_SIZE` is averaged down to that by 2, 4 or 8."""
    picture = loaded.picture
    if data is not None and data.startswith(_JPEG) and isinstance(picture, Image.Image):
        shrink = min(picture.width // LOOK_SIZE[1], picture.height // LOOK_SIZE[0], 8)
        if shrink >= 2:
            picture = picture.reduce(2 ** (shrink.bit_length() - 1))
    return np.asarray(picture)


def _mode_and_pages(source: Source, data: bytes | None) -> tuple[str, bool]:
    """Pillow's mode name (or the array's dtype), and whether the file has several pages or frames."""
    if data is None:
        return f"{np.asarray(source).dtype} array", False
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(data)) as image:
                # A phone's JPEG (MPO) may hold a preview or a depth map after the image, which is not a page.
                paged = image.format != "MPO" and getattr(image, "is_animated", False)
                return image.mode, bool(paged)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return "array", False
