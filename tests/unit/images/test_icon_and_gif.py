"""ICO, CUR and GIF: the first picture and its transparency, whatever the directory or the canvas say."""

import io
import struct
from typing import Any

import numpy as np
import pytest
from PIL import Image

from patchword.errors import ImageError
from patchword.images.decode import decode

Y, X = np.mgrid[:16, :16]
RGB = np.stack([X * 15, Y * 15, X * Y], axis=-1).astype(np.uint8)
LEFT_HALF = np.broadcast_to(X < 8, (16, 16))


def upwards(rows: Any) -> bytes:
    """Rows from the bottom up, each a multiple of four bytes."""
    return b"".join(bytes(row) + bytes(-len(bytes(row)) % 4) for row in rows[::-1])


def icon(body: bytes, kind: int, depth: int) -> bytes:
    """One entry of 16x16. depth: what its directory says (in a CUR the hot spot stands there)."""
    return struct.pack("<HHHBBBBHHII", 0, kind, 1, 16, 16, 0, 0, 1, depth, len(body), 22) + body


def bitmap(pixels: bytes, depth: int, palette: bytes = b"") -> bytes:
    mask = upwards([np.packbits(row).tobytes() for row in LEFT_HALF])
    header = struct.pack("<IiiHHIIiiII", 40, 16, 32, 1, depth, 0, 0, 0, 0, 0, 0)
    return header + palette + pixels + mask


@pytest.mark.parametrize("kind", [1, 2])
@pytest.mark.parametrize("said", [0, 7, 24, 32])
def test_an_icon_has_the_alpha_of_its_picture_whatever_its_directory_says(kind: int, said: int) -> None:
    masked = np.where(LEFT_HALF[..., None], 255, RGB)
    alpha = (X * 17).astype(np.uint8)
    bgr = RGB[..., ::-1]
    over_white = RGB * (alpha[..., None] / 255) + 255 - alpha[..., None]
    palette = np.random.default_rng(0).integers(0, 256, (256, 4), np.uint8)
    file = io.BytesIO()
    Image.fromarray(RGB).save(file, "PNG")
    for body, expected in (
        (bitmap(upwards([row.tobytes() for row in bgr]), 24), masked),
        (bitmap(upwards([row.tobytes() for row in np.dstack([bgr, alpha])]), 32), over_white),
        # Alpha of zero throughout is none, as Windows takes it.
        (bitmap(upwards([row.tobytes() for row in np.dstack([bgr, alpha * 0])]), 32), masked),
        (
            bitmap(upwards([row.tobytes() for row in (X * 16 + Y).astype(np.uint8)]), 8, palette.tobytes()),
            np.where(LEFT_HALF[..., None], 255, palette[X * 16 + Y, 2::-1]),
        ),
        (file.getvalue(), RGB),
    ):
        np.testing.assert_allclose(decode(icon(body, kind, said)), expected, atol=1)


def gif(
    canvas: tuple[int, int], index: Any, palette: Any, place: tuple[int, int] = (0, 0), **how: int
) -> bytes:
    """One picture of 16 colours, uncompressed (a clear code before every 14). how: background, clear."""
    head = b"GIF89a" + struct.pack(
        "<HHBBB", *canvas[::-1], 0xF3 if palette is not None else 0, how.get("background", 0), 0
    )
    codes = [c for i, v in enumerate(index.ravel().tolist()) for c in ([16] * (i % 14 == 0) + [v])]
    bits = sum(code << 5 * i for i, code in enumerate([*codes, 17]))
    packed = bits.to_bytes(-(-5 * (len(codes) + 1) // 8), "little")
    blocks = b"".join(
        bytes([len(packed[i : i + 255])]) + packed[i : i + 255] for i in range(0, len(packed), 255)
    )
    control = b"!\xf9\4\1\0\0" + bytes([how["clear"], 0]) if "clear" in how else b""
    descriptor = b"," + struct.pack("<HHHHB", place[1], place[0], *index.shape[::-1], 0)
    colours = b"" if palette is None else palette.astype(np.uint8).tobytes()
    return head + colours + control + descriptor + b"\4" + blocks + b"\0;"


PALETTE = np.random.default_rng(1).integers(0, 256, (16, 3))
INDEX = ((X + Y) % 16)[:5, :7]


@pytest.mark.parametrize("background", [0, 3, 15])
def test_the_canvas_around_a_smaller_first_picture_has_the_background(background: int) -> None:
    expected = np.tile(PALETTE[background], (9, 12, 1))
    expected[2:7, 4:11] = PALETTE[INDEX]
    np.testing.assert_array_equal(
        decode(gif((9, 12), INDEX, PALETTE, (2, 4), background=background)), expected
    )


def test_the_canvas_around_a_picture_with_a_clear_colour_is_clear() -> None:
    expected = np.full((9, 12, 3), 255)
    expected[2:7, 4:11] = np.where(INDEX[..., None] == 6, 255, PALETTE[INDEX])
    np.testing.assert_array_equal(
        decode(gif((9, 12), INDEX, PALETTE, (2, 4), background=3, clear=6)), expected
    )


def test_a_gif_without_colours_is_an_error_not_a_black_picture() -> None:
    for how in ({}, {"clear": 6}):
        with pytest.raises(ImageError, match="no colour table"):
            decode(gif(INDEX.shape, INDEX, None, **how))
