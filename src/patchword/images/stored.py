"""Decoded images before conversion to the requested channels.

Every reader returns one of two things: a Pillow image of mode L or RGB (8 bits, alpha already over
white), or `Stored`, an array whose channels have a meaning. `to_channels` converts either to the requested channels.
"""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from patchword.errors import ImageError
from patchword.images.preprocess import ValueRange

Pixels = NDArray[Any]  # [H, W, C], uint8 or float32 in 0..1
# "rgb+band": a fourth channel that the file says is not alpha. "bands": channels of no stated meaning.
Meaning = Literal["grey", "grey+alpha", "rgb", "rgb+alpha", "rgb+band", "cmyk", "bands"]

# ITU-R BT.601 luma, the weights of Pillow's conversion to "L".
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)
# Float images written by other programs miss 0 and 1 by rounding; beyond this it is another range.
_ROUNDING = 1e-6
_GIVE_RANGE = (
    "pass the lowest and highest value of your data with --value-range LOW,HIGH (in Python value_range)"
)


@dataclass(frozen=True, kw_only=True)
class Stored:
    """pixels: [H, W, C], uint8, or float32 in 0..1 (a native-endian array that owns nothing of the file)."""

    pixels: Pixels
    meaning: Meaning


def to_channels(picture: Image.Image | Stored, channels: int, name: str) -> Image.Image | Pixels:
    """The image with `channels` channels: 1 is grey, 3 is RGB, any other number must be what is stored."""
    if isinstance(picture, Image.Image):
        return _image_to_channels(picture, channels, name)
    pixels, stored = picture.pixels, picture.pixels.shape[2]
    if channels not in (1, 3) or picture.meaning == "bands":
        if stored != channels:
            raise wrong_channels(name, stored, channels)
        return pixels
    pixels = _opaque(pixels, picture.meaning)
    if pixels.shape[2] == channels:
        return pixels
    return np.repeat(pixels, 3, axis=2) if channels == 3 else _grey(pixels)


def _image_to_channels(image: Image.Image, channels: int, name: str) -> Image.Image | Pixels:
    if channels == 4 and image.mode == "CMYK":
        return np.asarray(image)
    wanted = {1: "L", 3: "RGB"}.get(channels)
    if wanted is None:
        raise wrong_channels(name, len(image.getbands()), channels)
    if image.mode == "CMYK":
        image = image.convert("RGB")
    return image if image.mode == wanted else image.convert(wanted)


def _opaque(pixels: Pixels, meaning: Meaning) -> Pixels:
    """Grey or RGB only: alpha over white, ink to light."""
    if meaning == "cmyk":
        paper = (np.float32(1) if pixels.dtype != np.uint8 else np.uint8(255)) - pixels
        unit = paper / np.float32(255) if pixels.dtype == np.uint8 else paper
        return unit[..., :3] * unit[..., 3:]
    if meaning.endswith("+alpha"):
        return over_white(pixels[..., :-1], pixels[..., -1:])
    return pixels[..., :3] if meaning == "rgb+band" else pixels


def wrong_channels(name: str, stored: int, wanted: int) -> ImageError:
    what = {1: "grey", 3: "RGB"}.get(wanted, f"{wanted} channels")
    fix = f"use channels={stored} (a model trained with in_channels={stored}), or keep three of its channels"
    if wanted not in (1, 3):
        fix = f"give images with {wanted} channels, or use a model for {stored}"
    elif stored == 4:
        fix = "if the fourth channel is alpha, drop it or flatten it onto a background; if it is a band, use channels=4"
    return ImageError(f"{name}: {stored} channels, but expected {what}", fix)


def over_white(colour: Pixels, alpha: Pixels) -> Pixels:
    """Composite on white, on the stored values: colour·alpha + white·(1 - alpha)."""
    if colour.dtype == np.uint8:
        a = alpha.astype(np.uint16)
        mixed = colour.astype(np.uint16) * a + 255 * (255 - a)
        white: Pixels = ((mixed + 127) // 255).astype(np.uint8)
    else:
        white = colour * alpha + (np.float32(1) - alpha)
    return white


def _grey(pixels: Pixels) -> Pixels:
    if pixels.dtype == np.uint8:
        image = Image.fromarray(np.ascontiguousarray(pixels)).convert("L")
        return np.asarray(image)[..., None]
    return (pixels @ _LUMA)[..., None]


def scaled(values: NDArray[Any], name: str, value_range: ValueRange | None, top: int | None = None) -> Pixels:
    """Convert numbers of any kind to uint8 (as they are) or float32 in 0..1.

    top: the value of white in an unsigned file of another depth (a PNM's maxval); None takes the type's.
    Raises: ImageError for NaN, values outside their range, or numbers of unknown range.
    """
    kind = values.dtype.kind
    if kind == "b":
        return values.astype(np.uint8) * np.uint8(255)
    if kind not in "uif":
        raise ImageError(
            f"{name}: the array has dtype {values.dtype}, which is not numeric",
            "pass uint8, uint16 or float in 0..1",
        )
    if values.dtype == np.uint8 and top in (None, 255):
        return values
    if value_range is not None and values.dtype != np.uint8:
        low, high = value_range
        return _in_range(values, float(low), float(high), name, f"value_range ({low:g}, {high:g})")
    if kind == "u" and (top is not None or values.dtype.itemsize == 2):
        return _in_range(values, 0.0, float(top or 65535), name, f"0..{top or 65535}")
    if kind == "f":
        return _in_range(values, 0.0, 1.0, name, "0..1")
    raise ImageError(
        f"{name}: {values.dtype} values ({values.min()} to {values.max()}) have no known range",
        f"{_GIVE_RANGE}, or save it as uint8, uint16 or float in 0..1",
    )


def _in_range(values: NDArray[Any], low: float, high: float, name: str, known: str) -> Pixels:
    if not high > low:
        raise ImageError(f"{name}: value_range ({low:g}, {high:g}) is empty", "give (lowest, highest)")
    least, most = float(values.min()), float(values.max())
    if not (np.isfinite(least) and np.isfinite(most)):
        raise ImageError(f"{name}: the image contains NaN or infinity", "replace these values first")
    slack = _ROUNDING * (high - low)
    if least < low - slack or most > high + slack:
        raise ImageError(
            f"{name}: values from {least:g} to {most:g} are outside {known}",
            _GIVE_RANGE,
        )
    if low == 0:
        unit: Pixels = np.multiply(values, 1 / high, dtype=np.float32, casting="unsafe")
    else:
        unit = ((values.astype(np.float64) - low) / (high - low)).astype(np.float32)
    np.clip(unit, 0, 1, out=unit)
    return unit
