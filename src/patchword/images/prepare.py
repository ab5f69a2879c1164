"""Turn an image into model input, as its `Preprocess` specifies.

`read` is the one route from a file to the model's input: evaluation, prediction and embedding all
take it, so their answers cannot differ.
"""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from patchword.errors import ImageError
from patchword.images.decode import Box, Loaded, Request, Source, load
from patchword.images.geometry import MAX_RESIZED_PIXELS, Plan, Size
from patchword.images.limits import MAX_PIXELS
from patchword.images.preprocess import Preprocess
from patchword.images.resample import resize
from patchword.images.stored import Pixels


def read(
    source: Source, preprocess: Preprocess, *, name: str = "", max_pixels: int = MAX_PIXELS
) -> NDArray[np.float32]:
    """A file, bytes, array or PIL image → what the model is fed, [C, h, w] float32.

    The only route for evaluation, prediction and embedding. Raises: ImageError naming the image and why.
    """
    return read_sized(source, preprocess, name=name, max_pixels=max_pixels)[0]


def read_sized(
    source: Source, preprocess: Preprocess, *, name: str = "", max_pixels: int = MAX_PIXELS
) -> tuple[NDArray[np.float32], Size]:
    """As `read`, with the size (h, w) of the upright image, in whose pixels boxes are stated."""
    loaded = load(source, request_for(preprocess, max_pixels), name)
    return _normalised(preprocess, fitted(preprocess, loaded, name or "image")), loaded.size


def read_pixels(
    source: Source, preprocess: Preprocess, *, name: str = "", max_pixels: int = MAX_PIXELS
) -> Pixels:
    """As `read`, before mean and std: [h, w, C], uint8 or, for images deeper than 8 bits, float32 in 0..1."""
    return fitted(preprocess, load(source, request_for(preprocess, max_pixels), name), name or "image")


def request_for(preprocess: Preprocess, max_pixels: int = MAX_PIXELS) -> Request:
    """How `read_pixels` decodes a file, before it resizes with `fitted`."""
    margin = preprocess.reading.draft_margin

    def min_size(size: Size) -> Size:
        height, width = preprocess.plan(size).resized
        return math.ceil(height * margin), math.ceil(width * margin)

    return Request(
        channels=preprocess.in_channels,
        max_pixels=max_pixels,
        min_size=min_size if margin else None,
        apply_exif=preprocess.reading.apply_exif,
        value_range=preprocess.reading.value_range,
    )


def prepare(preprocess: Preprocess, picture: Pixels | Image.Image, name: str) -> NDArray[np.float32]:
    """As `Preprocess.__call__`."""
    height, width = picture.size[::-1] if isinstance(picture, Image.Image) else picture.shape[:2]
    whole = (0.0, 0.0, float(width), float(height))
    loaded = Loaded(picture=picture, size=(height, width), box=whole)
    return _normalised(preprocess, fitted(preprocess, loaded, name))


def fitted(preprocess: Preprocess, loaded: Loaded, name: str) -> Pixels:
    """Resized and cut to what the model takes, [h, w, C]."""
    picture = loaded.picture
    channels = len(picture.getbands()) if isinstance(picture, Image.Image) else picture.shape[2]
    if channels != preprocess.in_channels:
        raise ImageError(
            f"{name}: {channels} channels, but the model expects {preprocess.in_channels}",
            f"decode it with channels={preprocess.in_channels}",
        )
    plan, box = preprocess.plan(loaded.size), loaded.box
    if plan.resized[0] * plan.resized[1] > MAX_RESIZED_PIXELS and min(plan.top, plan.left) >= 0:
        plan, box = _kept_part(plan, box)
    resized = resize(picture, plan.resized, preprocess.resample, box)
    return _cut(resized, plan, _fill(preprocess, resized.dtype))


def _kept_part(plan: Plan, box: Box) -> tuple[Plan, Box]:
    """The plan for a very thin image: resize only what the crop keeps."""
    across, down = (box[2] - box[0]) / plan.resized[1], (box[3] - box[1]) / plan.resized[0]
    left, top = box[0] + plan.left * across, box[1] + plan.top * down
    kept = (left, top, left + plan.output[1] * across, top + plan.output[0] * down)
    return Plan(resized=plan.output, output=plan.output), kept


def _cut(pixels: Pixels, plan: Plan, fill: NDArray[Any]) -> Pixels:
    """The plan's rectangle of [H, W, C]; what lies outside is `fill`."""
    height, width = plan.output
    top, left = max(plan.top, 0), max(plan.left, 0)
    inside = pixels[top : plan.top + height, left : plan.left + width]
    if inside.shape[:2] == plan.output:
        return inside
    out = np.empty((height, width, pixels.shape[2]), pixels.dtype)
    out[:] = fill
    row, column = max(-plan.top, 0), max(-plan.left, 0)
    out[row : row + inside.shape[0], column : column + inside.shape[1]] = inside
    return out


def _fill(preprocess: Preprocess, dtype: np.dtype[Any]) -> NDArray[Any]:
    """The colour of padding: the mean, rounded to 8 bits as timm does; black where a crop is too large."""
    if preprocess.resize.kind != "border":
        return np.zeros(preprocess.in_channels, dtype)
    mean = np.broadcast_to(np.asarray(preprocess.mean), (preprocess.in_channels,))
    levels = np.rint(mean * 255)
    fill: NDArray[Any] = levels if dtype == np.uint8 else levels / 255
    return fill.astype(dtype)


def _normalised(preprocess: Preprocess, pixels: Pixels) -> NDArray[np.float32]:
    """[h, w, C] → [C, h, w], in the order of torchvision's arithmetic: /255, - mean, / std, each in float32."""
    planes = np.empty((pixels.shape[2], *pixels.shape[:2]), np.float32)
    planes[...] = pixels.transpose(2, 0, 1)
    if pixels.dtype == np.uint8:
        planes /= np.float32(255)
    planes -= np.array(preprocess.mean, np.float32)[:, None, None]
    planes /= np.array(preprocess.std, np.float32)[:, None, None]
    return planes
