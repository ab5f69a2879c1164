"""Resizing pixels: one documented filter for each way the originals resize.

`antialias=True` is Pillow's: the filter widens when shrinking, so every source pixel counts; 8-bit
pixels are computed in fixed point and rounded, the two passes apart. `antialias=False` samples at
half-pixel centres without widening, as TensorFlow and torch's `interpolate(align_corners=False)`.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from patchword.images.geometry import Size
from patchword.images.preprocess import Resample
from patchword.images.stored import Pixels

Box = tuple[float, float, float, float]  # left, top, right, bottom

# Half the width of the antialiased filters, in source pixels when enlarging.
_SUPPORT = {"bilinear": 1.0, "bicubic": 2.0}
_FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


def resize(picture: Image.Image | Pixels, size: Size, how: Resample, box: Box) -> Pixels:
    """[H, W, C] uint8 or float32 in 0..1, or a PIL image of mode L or RGB → [h, w, C], uint8 or float32.

    box: (left, top, right, bottom) in pixels of `picture`, the part that becomes the whole result.
    """
    through_pillow = how.antialias and how.interpolation != "area"
    is_8bit = isinstance(picture, Image.Image) or picture.dtype == np.uint8
    if through_pillow and is_8bit and how.rounding == "uint8":
        return _pillow_8bit(picture, size, how, box)
    pixels = _to_array(picture)
    if is_8bit and how.rounding == "torch-uint8":
        return _torch_8bit(pixels, size, how, box)
    pixels = pixels.astype(np.float32) if is_8bit else pixels * np.float32(255)
    resized = _pillow_float(pixels, size, how, box) if through_pillow else _sampled(pixels, size, how, box)
    if how.rounding == "truncate":
        return np.floor(np.clip(resized, 0, 255)).astype(np.uint8)
    if how.rounding in ("uint8", "torch-uint8"):
        resized = np.clip(resized, 0, 255)
        if is_8bit:
            return np.rint(resized).astype(np.uint8)
    return resized / np.float32(255)


def _to_array(picture: Image.Image | Pixels) -> Pixels:
    if isinstance(picture, Image.Image):
        pixels = np.asarray(picture)
        return pixels[..., None] if pixels.ndim == 2 else pixels
    return picture


def _pillow_8bit(picture: Image.Image | Pixels, size: Size, how: Resample, box: Box) -> NDArray[np.uint8]:
    height, width = size
    filter_ = _FILTERS[how.interpolation]
    if isinstance(picture, Image.Image):
        return _to_array(picture.resize((width, height), filter_, box=box))
    if picture.shape[2] in (1, 3):
        image = Image.fromarray(np.ascontiguousarray(picture if picture.shape[2] == 3 else picture[..., 0]))
        return _to_array(image.resize((width, height), filter_, box=box))
    planes = [_pillow_8bit(picture[..., c : c + 1], size, how, box) for c in range(picture.shape[2])]
    return np.concatenate(planes, axis=2)


def _pillow_float(pixels: NDArray[Any], size: Size, how: Resample, box: Box) -> NDArray[np.float32]:
    """Plane by plane in Pillow's mode F. Under 8-bit rounding each pass is clipped, as 8 bits clip it."""
    left, top, right, bottom = box
    filter_ = _FILTERS[how.interpolation]
    planes = []
    for c in range(pixels.shape[2]):
        plane = Image.fromarray(np.ascontiguousarray(pixels[..., c], np.float32))
        if how.rounding in ("uint8", "torch-uint8"):
            across = plane.resize((size[1], plane.height), filter_, box=(left, 0, right, plane.height))
            plane = Image.fromarray(np.asarray(across).clip(0, 255))
            resized = plane.resize((size[1], size[0]), filter_, box=(0, top, size[1], bottom))
        else:
            resized = plane.resize((size[1], size[0]), filter_, box=box)
        planes.append(np.asarray(resized))
    return np.stack(planes, axis=2)


def _sampled(pixels: NDArray[Any], size: Size, how: Resample, box: Box) -> NDArray[np.float32]:
    """Without antialias, or by area: rows first, then columns, each output a weighted sum of a few inputs."""
    left, top, right, bottom = box
    rows = _taps(how.interpolation, size[0], top, bottom, pixels.shape[0])
    columns = _taps(how.interpolation, size[1], left, right, pixels.shape[1])
    return _weighted(_weighted(pixels, rows, 0), columns, 1)


Taps = tuple[NDArray[np.int64], NDArray[Any]]  # [taps, out]: source index and weight


def _weighted(pixels: NDArray[Any], taps: Taps, axis: int) -> NDArray[np.float32]:
    index, weight = taps
    shape = [1, 1, 1]
    shape[axis] = index.shape[1]
    total: NDArray[np.float32] | None = None
    for i, w in zip(index, weight, strict=True):
        part = np.take(pixels, i, axis=axis) * w.reshape(shape)
        total = part if total is None else total + part
    assert total is not None
    return total.astype(np.float32, copy=False)


def _taps(interpolation: str, out: int, start: float, end: float, length: int) -> Taps:
    scale = (end - start) / out
    if interpolation == "area":
        return _area_taps(out, start, scale, length)
    centre = start + (np.arange(out) + 0.5) * scale
    if interpolation == "nearest":
        index = np.clip(np.floor(centre), 0, length - 1).astype(np.int64)
        return index[None], np.ones((1, out), np.float32)
    position = centre - 0.5
    base = np.floor(position)
    t = position - base
    if interpolation == "bilinear":
        offsets, weights = [0, 1], [1 - t, t]
    else:  # Keys' cubic with a = -0.75, as torch without antialias (Pillow's antialiased one has -0.5)
        offsets, weights = [-1, 0, 1, 2], [_cubic(t + 1), _cubic(t), _cubic(1 - t), _cubic(2 - t)]
    index = np.stack([np.clip(base + o, 0, length - 1) for o in offsets]).astype(np.int64)
    return index, np.stack(weights).astype(np.float32)


def _cubic(x: NDArray[np.float64], a: float = -0.75) -> NDArray[np.float64]:
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = ((a * x - 5 * a) * x + 8 * a) * x - 4 * a
    return np.where(x <= 1, near, far)


def _area_taps(out: int, start: float, scale: float, length: int) -> Taps:
    lower = start + np.arange(out) * scale
    upper = lower + scale
    first = np.floor(lower).astype(np.int64)
    count = int((np.ceil(upper).astype(np.int64) - first).max())
    index = first[None] + np.arange(count)[:, None]
    cover = np.minimum(index + 1, upper) - np.maximum(index, lower)
    weight = np.clip(cover, 0, None) / scale
    return np.clip(index, 0, length - 1), weight.astype(np.float32)


def _torch_8bit(pixels: NDArray[Any], size: Size, how: Resample, box: Box) -> NDArray[np.uint8]:
    """Columns then rows in integers, each pass rounded, weights cut to 16 bits: torch's kernel for uint8.

    Source: ATen/native/cpu/UpSampleKernelAVXAntialias.h, from pillow-simd.
    """
    left, top, right, bottom = box
    columns = _antialiased_taps(how.interpolation, size[1], left, right, pixels.shape[1])
    rows = _antialiased_taps(how.interpolation, size[0], top, bottom, pixels.shape[0])
    return _integer_pass(_integer_pass(pixels, columns, 1), rows, 0)


def _antialiased_taps(interpolation: str, out: int, start: float, end: float, length: int) -> Taps:
    scale = (end - start) / out
    widened = max(scale, 1.0)
    support = _SUPPORT[interpolation] * widened
    centre = start + (np.arange(out) + 0.5) * scale
    first = np.maximum((centre - support + 0.5).astype(np.int64), 0)
    last = np.minimum((centre + support + 0.5).astype(np.int64), length)
    index = first[None] + np.arange(int((last - first).max()))[:, None]
    distance = np.abs((index - centre + 0.5) / widened)
    weight = np.clip(1 - distance, 0, None) if interpolation == "bilinear" else _cubic(distance, a=-0.5)
    weight = np.where((index < last) & (distance < _SUPPORT[interpolation]), weight, 0.0)
    return np.minimum(index, length - 1), weight / weight.sum(axis=0)


def _integer_pass(pixels: NDArray[Any], taps: Taps, axis: int) -> NDArray[np.uint8]:
    index, weight = taps
    bits = 0
    while bits < 22 and int(0.5 + weight.max() * (1 << (bits + 1))) < 1 << 15:
        bits += 1
    whole = np.trunc(weight * (1 << bits) + np.copysign(0.5, weight)).astype(np.int32)
    shape = [1, 1, 1]
    shape[axis] = index.shape[1]
    total = np.full((1, 1, 1), 1 << (bits - 1), np.int32)
    for i, w in zip(index, whole, strict=True):
        total = total + np.take(pixels, i, axis=axis).astype(np.int32) * w.reshape(shape)
    total = total >> bits
    return total.clip(0, 255).astype(np.uint8)
