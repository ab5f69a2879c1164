"""TGA: alpha only where the header speaks of it."""

import struct

import numpy as np
import PIL
import pytest

from patchword.errors import ImageError
from patchword.images.decode import decode

Y, X = np.mgrid[:9, :14]
RGB = np.stack([X * 18, Y * 28, X * Y * 2], axis=-1).astype(np.uint8)
BGR = RGB[::-1, :, ::-1]  # from the bottom up, as the plain header says


def tga(body: bytes, depth: int, attribute_bits: int, kind: int = 2, palette: bytes = b"") -> bytes:
    height, width = RGB.shape[:2]
    colours = (1, 0, 256, 32) if palette else (0, 0, 0, 0)
    map_ = struct.pack("<HHB", *colours[1:])
    header = (
        bytes([0, colours[0], kind])
        + map_
        + struct.pack("<HHHHBB", 0, 0, width, height, depth, attribute_bits)
    )
    return header + palette + body


@pytest.mark.parametrize("fourth", [0, 90, 255])
def test_a_fourth_byte_is_alpha_only_with_attribute_bits(fourth: int) -> None:
    body = np.dstack([BGR, np.full(BGR.shape[:2], fourth, np.uint8)]).tobytes()
    np.testing.assert_array_equal(decode(tga(body, 32, 0)), RGB)
    over_white = np.rint(RGB * (fourth / 255) + 255 - fourth)
    np.testing.assert_allclose(decode(tga(body, 32, 8)), over_white, atol=1)
    grey = np.dstack([BGR[..., :1], np.full(BGR.shape[:2], fourth, np.uint8)]).tobytes()
    np.testing.assert_array_equal(decode(tga(grey, 16, 0, kind=3), channels=1), RGB[..., 2:])
    np.testing.assert_allclose(decode(tga(grey, 16, 8, kind=3), channels=1), over_white[..., 2:], atol=1)


@pytest.mark.parametrize("fourth", [0, 255])
@pytest.mark.parametrize("attribute_bits", [0, 8])
def test_a_palette_of_four_bytes_has_alpha_only_with_attribute_bits(fourth: int, attribute_bits: int) -> None:
    index = ((X + Y) * 7).astype(np.uint8)
    palette = np.stack(
        [np.arange(256), np.arange(256)[::-1], np.arange(256) // 2, np.full(256, fourth)], axis=1
    )
    data = tga(index[::-1].tobytes(), 8, attribute_bits, kind=1, palette=palette.astype(np.uint8).tobytes())
    if int(PIL.__version__.split(".")[0]) < 13:  # which knows palettes of three bytes only
        with pytest.raises(ImageError, match="kind of TGA"):
            decode(data)
        return
    pixels = decode(data)
    is_clear = attribute_bits and not fourth
    np.testing.assert_array_equal(pixels, 255 if is_clear else palette[index][..., 2::-1])


@pytest.mark.parametrize("attribute_bits", [0, 1])
@pytest.mark.parametrize("bit", [0, 0x8000])
def test_the_single_bit_of_a_16_bit_pixel_is_no_alpha(bit: int, attribute_bits: int) -> None:
    red, green, blue = np.moveaxis(RGB[::-1] // 8, 2, 0).astype(np.uint16)
    words = bit | red << 10 | green << 5 | blue
    pixels = decode(tga(words.astype("<u2").tobytes(), 16, attribute_bits))
    np.testing.assert_allclose(pixels, RGB // 8 / 31 * 255, atol=1)
