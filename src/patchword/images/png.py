"""PNG: Pillow gets only the chunks that the pixels need; 16-bit colour is decoded here.

Comments, profiles, animation and times are dropped before decoding: a comment that unpacks to gigabytes or
has a wrong checksum does not matter for the image. Pillow keeps only the upper byte of 16-bit colour, which
would make a dark image black; asked a second time for the order of the other machines, it gives the lower one.
Source: the PNG specification, third edition (W3C), sections 5, 7 and 11.3.2 (tRNS).
"""

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import ImageFile

from patchword.errors import ImageError
from patchword.images import pillow
from patchword.images.limits import Limits
from patchword.images.orientation import read_orientation
from patchword.images.preprocess import ValueRange
from patchword.images.stored import Meaning, Stored, scaled

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PIXEL_CHUNKS = (b"IHDR", b"PLTE", b"tRNS", b"IDAT")
_END = b"\0\0\0\0IEND\xaeB`\x82"
# Colour type → channels stored, and their meaning.
_DEEP: dict[int, tuple[int, Meaning]] = {
    0: (1, "grey"),
    2: (3, "rgb"),
    4: (2, "grey+alpha"),
    6: (4, "rgb+alpha"),
}


@dataclass(frozen=True, kw_only=True)
class Png:
    """The parts of a file. data: a PNG that holds only what the pixels need."""

    width: int
    height: int
    depth: int
    colour: int
    orientation: int
    data: bytes


def parse_png(data: bytes, name: str, limits: Limits) -> Png:
    """Raises: ImageError for a truncated header, sizes of zero or over the limits."""
    if len(data) < 33 or data[12:16] != b"IHDR":
        raise ImageError(f"{name}: the PNG file is truncated or its header is damaged", "download it again")
    width, height, depth, colour = struct.unpack(">IIBB", data[16:26])
    channels = _DEEP[colour][0] if colour in _DEEP else 1
    limits.check(width, height, channels, 2 if depth == 16 else 1, name)
    kept, exif = [_SIGNATURE], b""
    has_palette, end = False, 0
    for kind, start, end in _chunks(data):
        if kind == b"eXIf":
            exif = data[start + 8 : end - 4]
        if kind == b"tRNS" and colour == 0 and depth < 8:
            kept.append(_clear_in_8_bits(data[start + 8 : end - 4], depth))
        elif kind in _PIXEL_CHUNKS:
            kept.append(data[start:end])
        has_palette |= kind == b"PLTE" and end - start > 12
    if end <= len(data):  # else the end marker would be read as pixels
        kept.append(_END)
    if colour == 3 and not has_palette:  # Pillow would make it black
        raise ImageError(f"{name}: damaged PNG file (its palette is missing)", "download it again")
    return Png(
        width=width,
        height=height,
        depth=depth,
        colour=colour,
        orientation=read_orientation(exif),
        data=b"".join(kept),
    )


def _chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Each chunk's kind and where it begins and ends, to IEND or the end of the file."""
    position = 8
    while position + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        if kind == b"IEND":
            return
        yield kind, position, position + 12 + length
        position += 12 + length


def _clear_in_8_bits(body: bytes, depth: int) -> bytes:
    """The clear level of a grey image of 1, 2 or 4 bits as Pillow compares it: with pixels widened to 8 bits."""
    top = 2**depth - 1
    level = (int.from_bytes(body[:2], "big") & top) * 255 // top
    chunk = b"tRNS" + struct.pack(">H", level)
    return struct.pack(">I", 2) + chunk + struct.pack(">I", zlib.crc32(chunk))


def is_deep_colour(png: Png) -> bool:
    """Whether Pillow would reduce it to 8 bits (it reads 16-bit grey in full)."""
    return png.depth == 16 and png.colour in (2, 4, 6)


def read_deep(png: Png, name: str, limits: Limits, value_range: ValueRange | None) -> Stored:
    """16-bit grey+alpha, RGB or RGBA → float32 in 0..1. Raises: ImageError for damaged or missing data."""
    channels, meaning = _DEEP[png.colour]
    # Two images of Pillow's, the 16-bit values and the floats are held at once.
    limits.check_bytes(png.width * png.height * channels * (2 + 2 + 4), name)
    values = _values(png, name)
    pixels = scaled(values, name, value_range)
    clear = next((png.data[at + 8 : end - 4] for kind, at, end in _chunks(png.data) if kind == b"tRNS"), b"")
    if png.colour == 2 and len(clear) == 6:
        opaque = (values != np.frombuffer(clear, ">u2")).any(axis=2, keepdims=True)
        return Stored(pixels=np.concatenate([pixels, opaque.astype(np.float32)], axis=2), meaning="rgb+alpha")
    if meaning.endswith("+alpha") and value_range is not None:
        pixels[..., -1:] = scaled(values[..., -1:], name, None)
    return Stored(pixels=pixels, meaning=meaning)


def _values(png: Png, name: str) -> NDArray[np.uint16]:
    """The 16-bit values [H, W, channels]."""
    if png.colour == 4:
        # Two bytes of grey and two of alpha are packed and filtered as four channels of a byte.
        header = b"IHDR" + struct.pack(">IIBB", png.width, png.height, 8, 6) + png.data[26:29]
        data = b"".join([png.data[:12], header, struct.pack(">I", zlib.crc32(header)), png.data[33:]])
        return _decoded(data, None, name).view(">u2").astype(np.uint16)
    mode = "RGB" if png.colour == 2 else "RGBA"
    values = _decoded(png.data, f"{mode};16B", name).astype(np.uint16)
    values <<= 8
    values |= _decoded(png.data, f"{mode};16L", name)
    return values


def _decoded(data: bytes, layout: str | None, name: str) -> NDArray[np.uint8]:
    """The pixels that Pillow returns if it reads the unpacked bytes in `layout` (its "raw mode")."""
    image = pillow.open_image(data, "png", name)
    with pillow.translated(name, "png"):
        if layout is not None and isinstance(image, ImageFile.ImageFile):
            image.tile = [tile._replace(args=layout) for tile in image.tile]
        return np.asarray(image)
