"""Thumbnails for reports."""

import base64
import io

import numpy as np
from PIL import Image

from patchword.errors import ImageError
from patchword.images.decode import Source, decode
from patchword.images.limits import MAX_PIXELS
from patchword.images.preprocess import Preprocess

LONGER_SIDE_PX = 112


def thumbnail(source: Source, name: str, preprocess: Preprocess, max_pixels: int = MAX_PIXELS) -> str:
    """Return an upright JPEG thumbnail as a data: URL, its longer side at most 112 pixels.

    If an image has neither 1 nor 3 channels, its first channel is shown. Returns "" if the image
    has become unreadable since it was scored.
    """
    try:
        pixels = decode(
            source,
            name=name,
            channels=preprocess.in_channels,
            max_pixels=max_pixels,
            value_range=preprocess.reading.value_range,
        )
    except ImageError:
        return ""
    if pixels.dtype != np.uint8:
        pixels = np.rint(pixels.clip(0, 1) * 255).astype(np.uint8)
    image = Image.fromarray(pixels if pixels.shape[2] == 3 else pixels[..., 0])
    image.thumbnail((LONGER_SIDE_PX, LONGER_SIDE_PX), Image.Resampling.BICUBIC)
    encoded = io.BytesIO()
    image.save(encoded, "JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(encoded.getvalue()).decode("ascii")
