"""Near duplicates without a model: small grey thumbnails, compared under small shifts and crops.

A thumbnail is the complete image, squeezed to 48 x 48 grey pixels. Two steps compare two of them, both by correlation
(mean subtracted, divided by the deviation), so neither brightness nor contrast counts: 16 x 16 averages find
candidates, then the agreement at 24 x 24 decides, where either image may be a crop of the other.
"""

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from patchword.images.stored import Pixels

SIDE = 48
# Pixels: smaller images hold too little to tell copies from images that are merely alike.
LEAST_SIDE = 32
_COARSE, _FINE = 16, 24
# Grey levels: below this deviation an image is plain, and its correlation with others means nothing.
_LEAST_DEVIATION = 3.0
# Crops along one side: the share that is kept, and at how many places.
_CROPS = ((1.0, 1), (0.95, 3), (0.9, 5))
_PAIRS_AT_ONCE = 256
Thumbs = NDArray[np.uint8]


def thumb(picture: Pixels | Image.Image) -> Thumbs:
    """A decoded image → [48, 48] grey. Of an array with neither 1 nor 3 channels, the first."""
    image = picture if isinstance(picture, Image.Image) else _image(picture)
    small = image.convert("L").resize((SIDE, SIDE), Image.Resampling.BILINEAR)
    pixels: Thumbs = np.asarray(small)
    return pixels


def _image(pixels: Pixels) -> Image.Image:
    if pixels.dtype != np.uint8:
        pixels = np.rint(pixels.clip(0, 1) * 255).astype(np.uint8)
    return Image.fromarray(pixels if pixels.shape[2] == 3 else np.ascontiguousarray(pixels[..., 0]))


def coarse(thumbs: Thumbs) -> NDArray[np.float32]:
    """Vectors [N, 256] of length 1 whose cosine is the correlation of thumbnails [N, 48, 48]; zero for plain images."""
    step = SIDE // _COARSE
    means = thumbs.reshape(len(thumbs), _COARSE, step, _COARSE, step).mean((2, 4), dtype=np.float32)
    plain = thumbs.std((1, 2), dtype=np.float32) < _LEAST_DEVIATION
    vectors = _standardised(means.reshape(len(thumbs), _COARSE**2))
    vectors[plain] = 0
    return vectors


def agreement(one: Thumbs, other: Thumbs) -> NDArray[np.float32]:
    """The correlation [P] of thumbnails [P, 48, 48] in pairs: the highest over crops of either one, at 24 x 24."""
    found = np.empty(len(one), np.float32)
    for start in range(0, len(one), _PAIRS_AT_ONCE):
        part = slice(start, start + _PAIRS_AT_ONCE)
        a, b = one[part].astype(np.float32), other[part].astype(np.float32)
        found[part] = np.maximum(_best(a, b), _best(b, a))
    return found


def _best(cropped: NDArray[np.float32], complete: NDArray[np.float32]) -> NDArray[np.float32]:
    """The highest correlation [P] of any crop of the first thumbnails [P, 48, 48] with the complete others."""
    whole, *_ = windows = _windows()
    target = _standardised((whole @ complete @ whole.T).reshape(len(complete), -1))
    best = np.full(len(cropped), -1, np.float32)
    for rows in windows:
        bands = rows @ cropped
        for columns in windows:
            crop = _standardised((bands @ columns.T).reshape(len(cropped), -1))
            best = np.maximum(best, np.einsum("pd,pd->p", crop, target))
    return best


@cache
def _windows() -> tuple[NDArray[np.float32], ...]:
    """The matrices [24, 48] that average the pixels of each crop along one side; that of the complete side first."""
    return tuple(
        _averaging(start, kept)
        for kept, places in _CROPS
        for start in np.linspace(0, SIDE * (1 - kept), places)
    )


def _averaging(start: float, kept: float) -> NDArray[np.float32]:
    """[24, 48]: output i is the mean of the input from start + i · width to start + (i + 1) · width."""
    edges = start + np.linspace(0, SIDE * kept, _FINE + 1)
    low, high = edges[:-1, None], edges[1:, None]
    pixel = np.arange(SIDE)[None]
    overlap = np.minimum(high, pixel + 1) - np.maximum(low, pixel)
    weights = np.maximum(overlap, 0) / (high - low)
    result: NDArray[np.float32] = weights.astype(np.float32)
    return result


def _standardised(values: NDArray[Any]) -> NDArray[np.float32]:
    """Mean 0 and length 1 for each row [N, D]; a constant row becomes zero."""
    centred = values - values.mean(axis=1, keepdims=True)
    length = np.sqrt(np.square(centred).sum(axis=1, keepdims=True))
    result: NDArray[np.float32] = (centred / np.where(length, length, 1)).astype(np.float32)
    return result
