"""PNG whose chunks say more than their pixels, or less."""

import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image

from patchword.errors import ImageError
from patchword.images.decode import decode

Y, X = np.mgrid[:11, :13]


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(values: Any, depth: int, colour: int, *extra: bytes) -> bytes:
    """[H, W] or [H, W, C] in the file's own numbers, unfiltered; `extra` chunks before the pixels."""
    height, width = values.shape[:2]
    if depth < 8:
        bits = (values[..., None] >> np.arange(depth)[::-1]) & 1
        rows = np.packbits(bits.reshape(height, -1).astype(np.uint8), axis=1)
    else:
        rows = np.ascontiguousarray(values.astype(f">u{depth // 8}").reshape(height, -1)).view(np.uint8)
    raw = b"".join(b"\0" + row.tobytes() for row in rows)
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    body = header + b"".join(extra) + chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


@pytest.mark.parametrize("depth", [1, 2, 4, 8, 16])
def test_the_clear_level_of_a_grey_picture_is_white_at_every_depth(depth: int) -> None:
    top = 2**depth - 1
    values = (X + Y) % 7 * (top // 6) if depth > 2 else (X + Y) % (top + 1)
    for level in np.unique(values):
        unit = np.where(values == level, 1.0, values / top)
        stray = int(level) if depth == 16 else int(level) | 1 << depth  # bits beyond the depth say nothing
        for sample in (int(level), stray):
            pixels = decode(png(values, depth, 0, chunk(b"tRNS", struct.pack(">H", sample))), channels=1)
            scale = 255 if pixels.dtype == np.uint8 else 1
            np.testing.assert_allclose(pixels[..., 0] / scale, unit, atol=1e-4)


@pytest.mark.parametrize("palette", [b"", chunk(b"PLTE", b"")])
def test_a_palette_that_is_missing_is_an_error_not_a_black_picture(palette: bytes) -> None:
    with pytest.raises(ImageError, match="palette is missing"):
        decode(png(X % 4, 8, 3, palette))


@pytest.mark.parametrize(("depth", "colour"), [(8, 2), (16, 2), (16, 4), (16, 6), (8, 0)])
def test_a_file_cut_anywhere_is_whole_or_an_error(depth: int, colour: int) -> None:
    channels = {0: 1, 2: 3, 4: 2, 6: 4}[colour]
    values = np.random.default_rng(0).integers(0, 2**depth, (7, 9, channels))
    data = png(values, depth, colour, chunk(b"pHYs", bytes(9)))
    whole = decode(data)
    for length in range(len(data)):
        try:
            pixels = decode(data[:length])
        except ImageError:
            continue
        np.testing.assert_array_equal(pixels, whole)


def test_an_orientation_behind_the_pixels_counts_in_an_open_picture_too() -> None:
    exif = b"MM\0*" + struct.pack(">IHHHIHHI", 8, 1, 0x112, 3, 1, 6, 0, 0)
    data = png(X * 20 + Y, 8, 0)
    data = data[:-12] + chunk(b"eXIf", exif) + data[-12:]
    upright = (X * 20 + Y)[::-1].T
    for source in (data, Image.open(io.BytesIO(data))):
        np.testing.assert_array_equal(decode(source, channels=1)[..., 0], upright)
