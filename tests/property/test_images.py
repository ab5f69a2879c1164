"""Whatever the array: its layout, order and type never change the picture."""

from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from patchword.images.decode import decode
from patchword.images.geometry import Patches
from patchword.images.orientation import read_orientation
from patchword.images.prepare import read
from patchword.images.preprocess import Preprocess

sides = st.integers(4, 30)
pictures = st.tuples(sides, sides, st.sampled_from([1, 3])).flatmap(
    lambda shape: arrays.arrays(np.uint8, shape)
)


@given(pictures, st.sampled_from([1, 3]))
def test_layout_and_memory_order_do_not_matter(pixels: Any, channels: int) -> None:
    expected = decode(pixels, channels=channels)
    assert expected.shape == (*pixels.shape[:2], channels)
    same = [pixels.transpose(2, 0, 1), np.asfortranarray(pixels), pixels[::-1].copy()[::-1]]
    if pixels.shape[2] == 1:
        same.append(pixels[..., 0])
    for other in same:
        np.testing.assert_array_equal(decode(other, channels=channels), expected)


@given(pictures, st.sampled_from(["<u2", ">u2", "<f4", ">f4", "f8", "f2"]))
def test_type_and_byte_order_do_not_matter(pixels: Any, kind: str) -> None:
    dtype = np.dtype(kind)
    other = (pixels.astype(np.uint16) * 257 if dtype.kind == "u" else pixels / 255).astype(dtype)
    expected = decode(pixels).astype(np.float64) / 255
    assert np.abs(decode(other) - expected).max() < (1e-3 if kind == "f2" else 1e-6)


@settings(max_examples=40)
@given(pictures, sides, sides)
def test_any_picture_fills_any_size(pixels: Any, height: int, width: int) -> None:
    preprocess = Preprocess.simple((height, width), in_channels=pixels.shape[2], mean=(0.0,), std=(1.0,))
    out = read(pixels, preprocess)
    assert out.shape == (pixels.shape[2], height, width)
    assert out.min() >= 0 and out.max() <= 1


@given(st.integers(1, 5000), st.integers(1, 5000), st.integers(1, 1024))
def test_whole_patches_never_pass_their_number(height: int, width: int, most: int) -> None:
    rows, columns = Patches(patch=(16, 16), max_patches=most).plan((height, width), (1, 1)).resized
    assert rows % 16 == 0 and columns % 16 == 0 and rows * columns <= 256 * most


@given(st.binary(max_size=60))
def test_no_exif_block_raises(block: bytes) -> None:
    assert 1 <= read_orientation(b"Exif\0\0" + block) <= 8
    assert 1 <= read_orientation(b"II*\0" + block) <= 8
