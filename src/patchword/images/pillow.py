"""Reading with Pillow, without its global switches: no bomb warnings, no leaking warnings, no plugin guessing.

The class of the one format that the content names is called directly, so that no other plugin ever sees
the bytes (EPS would start Ghostscript) and Pillow's own pixel limit, a global, plays no part.
"""

import contextlib
import importlib
import io
import re
import threading
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from PIL import Image, ImageFile

from patchword.errors import ImageError
from patchword.images.limits import Limits
from patchword.images.preprocess import ValueRange
from patchword.images.stored import Stored, scaled

FORMATS = {
    "jpeg": ("JpegImagePlugin", "JpegImageFile"),
    "png": ("PngImagePlugin", "PngImageFile"),
    "gif": ("GifImagePlugin", "GifImageFile"),
    "bmp": ("BmpImagePlugin", "BmpImageFile"),
    "tiff": ("TiffImagePlugin", "TiffImageFile"),
    "webp": ("WebPImagePlugin", "WebPImageFile"),
    "avif": ("AvifImagePlugin", "AvifImageFile"),
    "jpeg2000": ("Jpeg2KImagePlugin", "Jpeg2KImageFile"),
    "ico": ("IcoImagePlugin", "IcoImageFile"),
    "dds": ("DdsImagePlugin", "DdsImageFile"),
    "qoi": ("QoiImagePlugin", "QoiImageFile"),
    "psd": ("PsdImagePlugin", "PsdImageFile"),
    "icns": ("IcnsImagePlugin", "IcnsImageFile"),
    "sgi": ("SgiImagePlugin", "SgiImageFile"),
    "sun": ("SunImagePlugin", "SunImageFile"),
    "pcx": ("PcxImagePlugin", "PcxImageFile"),
    "tga": ("TgaImagePlugin", "TgaImageFile"),
}
_DEEP = ("I", "F", "I;16", "I;16L", "I;16B", "I;16N")
_TRUNCATED = (
    "truncat",
    "broken data stream",
    "not processed",
    "not enough",
    "unexpected end",
    "buffer is not large",
)

_UNSUPPORTED = (
    "cannot handle",
    "unknown pixel mode",
    "unsupported",
    "not supported",
    "unrecognized raw mode",
    "support not installed",
)

_quiet_lock = threading.Lock()
_quiet_depth = 0
_QUIET = ("ignore", None, Warning, re.compile(r"PIL\."), 0)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Suppress Pillow's warnings while an image is read, in any thread; other warnings are unaffected.

    `warnings.catch_warnings` swaps the whole list of filters and is not safe between threads; one entry
    that the last reader takes out again is.
    """
    global _quiet_depth
    with _quiet_lock:
        _quiet_depth += 1
        if _QUIET not in warnings.filters:
            warnings.filters.insert(0, _QUIET)  # type: ignore[attr-defined]
    try:
        yield
    finally:
        with _quiet_lock:
            _quiet_depth -= 1
            if _quiet_depth == 0 and _QUIET in warnings.filters:
                warnings.filters.remove(_QUIET)  # type: ignore[attr-defined]


def open_image(data: bytes, kind: str, name: str) -> Image.Image:
    """Read the header without decoding pixels. Raises ImageError."""
    module, class_ = FORMATS[kind]
    try:
        plugin = getattr(importlib.import_module(f"PIL.{module}"), class_)
    except ImportError as error:
        raise ImageError(
            f"{name}: the installed Pillow cannot read {kind.upper()}", "save it as PNG or JPEG"
        ) from error
    with translated(name, kind):
        image: Image.Image = plugin(io.BytesIO(data))
        return image


@contextlib.contextmanager
def translated(name: str, kind: str) -> Iterator[None]:
    """Turn any exception of Pillow on a damaged file into an ImageError, including MemoryError; keep our own errors.

    Pillow's decoders raise OSError, SyntaxError, ValueError, struct.error, IndexError, zlib.error and more, as
    the damage falls; listing them would let one through.
    """
    try:
        with quiet():
            yield
    except ImageError:
        raise
    except MemoryError as error:
        raise ImageError(f"{name}: not enough memory to decode it", "resize the image") from error
    except Exception as error:
        text = " ".join(str(error).split()) or type(error).__name__
        if any(word in text.lower() for word in _TRUNCATED):
            raise ImageError(
                f"{name}: the {kind.upper()} file is truncated ({text})", "download it again"
            ) from error
        if any(word in text.lower() for word in _UNSUPPORTED):
            raise ImageError(
                f"{name}: Pillow does not support this kind of {kind.upper()} ({text})", "save it as PNG"
            ) from error
        raise ImageError(
            f"{name}: damaged {kind.upper()} file ({text})", "download it again, or remove it"
        ) from error


def fill_background(image: Image.Image, name: str) -> None:
    """Decode the first image of a GIF; what an opaque one leaves open of its canvas gets the file's background.

    Pillow fills it with the first colour; where one colour is clear it leaves the rest clear.
    """
    tiles = image.tile if isinstance(image, ImageFile.ImageFile) else []
    places = [tile.extents for tile in tiles]
    with translated(name, "gif"):
        image.load()
        colour = image.info.get("background")
        if colour and places and places[0] != (0, 0, *image.size) and "transparency" not in image.info:
            outside = Image.new("1", image.size, 1)
            outside.paste(0, places[0])
            image.paste(colour, mask=outside)


def load(image: Image.Image, kind: str, name: str) -> None:
    """Decode the pixels, in place. Raises ImageError."""
    with translated(name, kind):
        image.load()


def without_alpha(image: Image.Image, kind: str, name: str) -> Image.Image:
    """Decoded, its fourth (or second) channel left out."""
    with translated(name, kind):
        return image.convert("L" if image.mode in ("1", "L", "LA") else "RGB")


def decode_image(
    image: Image.Image, kind: str, name: str, value_range: ValueRange | None
) -> Image.Image | Stored:
    """Any Pillow image → one of mode L, RGB or CMYK, or Stored for alpha and all that is deeper than 8 bits."""
    load(image, kind, name)
    if image.mode in _DEEP:
        return _deep(image, name, value_range)
    convert = _MODES.get(image.mode)
    if convert is None:
        raise ImageError(f"{name}: Pillow mode {image.mode!r} is not supported", "save it as PNG or JPEG")
    with translated(name, kind):
        converted: Image.Image | Stored = convert(image)
        return converted


def _deep(image: Image.Image, name: str, value_range: ValueRange | None) -> Stored:
    values = np.asarray(image)
    if values.dtype.byteorder not in "=|":
        values = values.astype(values.dtype.newbyteorder("="))
    pixels = scaled(values, name, value_range)[..., None]
    clear = image.info.get("transparency")
    if values.dtype == np.uint16 and isinstance(clear, int):
        opaque = (values != clear).astype(np.float32)[..., None]
        return Stored(pixels=np.concatenate([pixels, opaque], axis=2), meaning="grey+alpha")
    return Stored(pixels=pixels, meaning="grey")


def _opaque(image: Image.Image) -> Image.Image | Stored:
    """L and RGB, where a single colour may be declared transparent."""
    if "transparency" in image.info:
        return _alpha(image)
    return image


def _alpha(image: Image.Image) -> Image.Image | Stored:
    """Everything with transparency, as an array with its alpha: compositing waits for the wanted channels."""
    grey = image.mode in ("1", "L", "LA", "La")
    wanted = "LA" if grey else "RGBA"
    if image.mode != wanted:
        image = image.convert(wanted)
    return Stored(pixels=np.asarray(image), meaning="grey+alpha" if grey else "rgb+alpha")


def _palette(image: Image.Image) -> Image.Image | Stored:
    has_alpha = image.mode == "PA" or "transparency" in image.info
    if not has_alpha and image.palette is not None:
        has_alpha = image.palette.mode != "RGB"
    return _alpha(image) if has_alpha else image.convert("RGB")


def _one_bit(image: Image.Image) -> Image.Image | Stored:
    return _alpha(image) if "transparency" in image.info else image.convert("L")


def _as_it_is(image: Image.Image) -> Image.Image:
    return image


def _rgb(image: Image.Image) -> Image.Image:
    return image.convert("RGB")


_MODES: dict[str, Callable[[Image.Image], Any]] = {
    "1": _one_bit,
    "L": _opaque,
    "RGB": _opaque,
    "LA": _alpha,
    "La": _alpha,
    "RGBA": _alpha,
    "RGBa": _alpha,
    "P": _palette,
    "PA": _palette,
    "RGBX": _rgb,
    "CMYK": _as_it_is,
    "YCbCr": _rgb,
    "HSV": _rgb,
    "LAB": _rgb,
}


def check_size(image: Image.Image, limits: Limits, name: str) -> None:
    """Pillow holds 4 bytes a pixel for every mode of more than one channel."""
    limits.check(image.width, image.height, len(image.getbands()), 1, name)
