"""PNG: what the pixels need and nothing else goes to Pillow; 16-bit colour is decoded here.

Comments, profiles, animation and times are dropped before decoding: a comment that unpacks to gigabytes or
has a wrong checksum says nothing about the picture. Pillow keeps only the upper byte of 16-bit colour, which
would make a dark picture black.
Source: the PNG specification, third edition (W3C), sections 5, 7, 8 (Adam7) and 9 (filters).
"""

import struct
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from patchword.errors import ImageError
from patchword.images.limits import Limits
from patchword.images.orientation import read_orientation
from patchword.images.stored import Meaning, Stored, ValueRange, scaled

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
# Adam7: first column, first row, step across, step down of each pass.
_ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))


@dataclass(frozen=True, kw_only=True)
class Png:
    """The parts of a file. data: a PNG that holds only what the pixels need."""

    width: int
    height: int
    depth: int
    colour: int
    interlaced: bool
    orientation: int
    data: bytes


def parse_png(data: bytes, name: str, limits: Limits) -> Png:
    """Raises: ImageError for a file cut off in its header, sizes of zero or over the limits."""
    if len(data) < 33 or data[12:16] != b"IHDR":
        raise ImageError(f"{name}: the PNG file is cut off or its header is damaged", "get it again")
    width, height, depth, colour, _, _, interlace = struct.unpack(">IIBBBBB", data[16:29])
    channels = _DEEP[colour][0] if colour in _DEEP else 1
    limits.check(width, height, channels, 2 if depth == 16 else 1, name)
    kept, exif = [_SIGNATURE], b""
    dropped = False
    position = 8
    while position + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        end = position + 12 + length
        if kind == b"IEND":
            break
        if kind in _PIXEL_CHUNKS:
            kept.append(data[position:end])
        else:
            dropped = True
            if kind == b"eXIf":
                exif = data[position + 8 : end - 4]
        position = end
    clean = b"".join([*kept, _END]) if dropped else data
    return Png(
        width=width,
        height=height,
        depth=depth,
        colour=colour,
        interlaced=interlace == 1,
        orientation=read_orientation(exif),
        data=clean,
    )


def is_deep_colour(png: Png) -> bool:
    """Whether Pillow would cut it down to 8 bits (16-bit grey it reads whole)."""
    return png.depth == 16 and png.colour in (2, 4, 6)


def read_deep(png: Png, name: str, limits: Limits, value_range: ValueRange | None) -> Stored:
    """16-bit grey+alpha, RGB or RGBA → float32 in 0..1. Raises: ImageError for damaged or missing data."""
    channels, meaning = _DEEP[png.colour]
    # The unpacked rows, their 16-bit values and the floats are held at once.
    limits.check_bytes(png.width * png.height * channels * (2 + 2 + 4), name)
    chunks = _chunks(png.data)
    values = _unpack(png, channels, b"".join(body for kind, body in chunks if kind == b"IDAT"), name)
    pixels = scaled(values, name, value_range)
    clear = next((body for kind, body in chunks if kind == b"tRNS"), b"")
    if png.colour == 2 and len(clear) == 6:
        opaque = (values != np.frombuffer(clear, ">u2")).any(axis=2, keepdims=True)
        return Stored(pixels=np.concatenate([pixels, opaque.astype(np.float32)], axis=2), meaning="rgb+alpha")
    if meaning.endswith("+alpha") and value_range is not None:
        pixels[..., -1:] = scaled(values[..., -1:], name, None)
    return Stored(pixels=pixels, meaning=meaning)


def _chunks(data: bytes) -> list[tuple[bytes, bytes]]:
    found = []
    position = 8
    while position + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        found.append((kind, data[position + 8 : position + 8 + length]))
        position += 12 + length
    return found


def _unpack(png: Png, channels: int, packed: bytes, name: str) -> NDArray[np.uint16]:
    """zlib, filters and interlacing undone: [H, W, channels]."""
    pixel = channels * 2
    passes = [(0, 0, 1, 1)]
    if png.interlaced:
        passes = [p for p in _ADAM7 if p[0] < png.width and p[1] < png.height]
    sizes = [(-(-(png.height - y) // dy), -(-(png.width - x) // dx)) for x, y, dx, dy in passes]
    needed = sum(rows * (1 + columns * pixel) for rows, columns in sizes)
    try:
        raw = zlib.decompressobj().decompress(packed, needed)
    except zlib.error as error:
        raise ImageError(f"{name}: damaged PNG file ({error})", "get it again") from error
    if len(raw) < needed:
        raise ImageError(
            f"{name}: the PNG file is cut off ({len(raw)} of {needed} bytes of pixels)", "get it again"
        )
    out = np.empty((png.height, png.width, channels), np.uint16)
    start = 0
    for (x, y, dx, dy), (rows, columns) in zip(passes, sizes, strict=True):
        length = rows * (1 + columns * pixel)
        lines = np.frombuffer(raw, np.uint8, length, start).reshape(rows, 1 + columns * pixel)
        if lines[:, 0].max() > 4:
            raise ImageError(f"{name}: damaged PNG file (filter {lines[:, 0].max()})", "get it again")
        plain = _unfilter(lines[:, 0], lines[:, 1:].reshape(rows, columns, pixel))
        out[y::dy, x::dx] = plain.view(">u2")
        start += length
    return out


def _unfilter(filters: NDArray[np.uint8], pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Undo the five row filters, all rows at once along the diagonals: [rows, columns, bytes a pixel].

    A pixel needs its left, upper and upper left neighbours, so all pixels of one diagonal are free together.
    In the flattened picture (with a border of zeros) a diagonal is a slice with a stride.
    """
    rows, columns, width = pixels.shape
    stride = columns + 1
    plain = np.zeros((rows + 1, stride, width), np.uint8)
    plain[1:, 1:] = pixels
    if not filters.any():
        return np.ascontiguousarray(plain[1:, 1:])
    flat = plain.reshape(-1, width)
    kinds = [(filters == kind)[:, None] for kind in range(5)]
    for diagonal in range(rows + columns - 1):
        first, last = max(0, diagonal - columns + 1), min(rows - 1, diagonal)
        start = (first + 1) * stride + diagonal - first + 1
        stop = (last + 1) * stride + diagonal - last + 2

        def neighbour(back: int, start: int = start, stop: int = stop) -> NDArray[np.int16]:
            return flat[start - back : stop - back : stride - 1].astype(np.int16)

        left, up, corner = neighbour(1), neighbour(stride), neighbour(stride + 1)
        add = _predict(left, up, corner, [kind[first : last + 1] for kind in kinds])
        flat[start : stop : stride - 1] += add.astype(np.uint8)
    return np.ascontiguousarray(plain[1:, 1:])


def _predict(
    left: NDArray[np.int16], up: NDArray[np.int16], corner: NDArray[np.int16], kinds: list[NDArray[Any]]
) -> NDArray[np.int16]:
    """What each filter adds to a pixel; kinds: for each filter which rows use it."""
    add = np.where(kinds[1], left, np.where(kinds[2], up, np.int16(0)))
    if kinds[3].any():
        add = np.where(kinds[3], (left + up) >> 1, add)
    if kinds[4].any():
        by_left, by_up, by_corner = np.abs(up - corner), np.abs(left - corner), np.abs(left + up - 2 * corner)
        paeth = np.where(
            (by_left <= by_up) & (by_left <= by_corner), left, np.where(by_up <= by_corner, up, corner)
        )
        add = np.where(kinds[4], paeth, add)
    return add
