"""JPEG: a file of which a part is missing is an error, whatever stands in the place of that part."""

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from patchword.errors import ImageError
from patchword.images.decode import decode

Y, X = np.mgrid[:64, :96]
GREY = (X * 2 + Y * 3 % 50).astype(np.uint8)
RGB = np.stack([GREY, 255 - GREY, X + Y * 2], axis=-1).astype(np.uint8)
END = b"\xff\xd9"


def jpeg(values: Any, **options: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(values).save(file, "JPEG", **{"quality": 90, **options})
    return file.getvalue()


def test_a_jpeg_that_lacks_only_its_end_marker_is_whole_and_any_shorter_one_is_cut_off() -> None:
    data = jpeg(GREY)
    for missing in (1, 2):
        np.testing.assert_array_equal(decode(data[:-missing]), decode(data))
    for missing in (6, 20, 100, len(data) // 2):
        with pytest.raises(ImageError, match="truncated"):
            decode(data[:-missing])


@pytest.mark.parametrize("values", [GREY, RGB])
@pytest.mark.parametrize("restarts", [{}, {"restart_marker_blocks": 2}, {"restart_marker_rows": 1}])
@pytest.mark.parametrize("filling", [b"", END, bytes(9000), bytes(200)])
def test_a_jpeg_cut_anywhere_is_refused_whatever_fills_its_end(
    values: Any, restarts: Any, filling: bytes
) -> None:
    data = jpeg(values, **restarts)
    # The last block may end early unnoticed: zeros are a block too.
    lengths = set(range(2, len(data) - 120, 29)) | {
        i for i in range(2, len(data) - 120) if data[i - 1] == 255
    }
    for length in lengths:
        with pytest.raises(ImageError):
            decode(data[:length] + filling)


def test_a_cut_off_jpeg_is_refused_where_it_is_decoded_smaller() -> None:
    data = jpeg(np.tile(RGB, (4, 4, 1)))
    with pytest.raises(ImageError, match="truncated"):
        decode(data[: len(data) // 2] + END, min_size=(20, 30))


@pytest.mark.parametrize("restarts", [{}, {"restart_marker_blocks": 1}])
@pytest.mark.parametrize("progressive", [False, True])
def test_a_whole_picture_may_end_in_grey_and_be_followed_by_anything(
    restarts: Any, progressive: bool
) -> None:
    values = RGB.copy()
    values[24:, 40:] = 128
    data = jpeg(values, progressive=progressive, **restarts)
    whole = decode(data)
    assert (whole[-1, -1] == 128).all()
    for junk in (b"", bytes(9000), b"x" * 9000, END, data, b"\xff\xd8\xff"):
        np.testing.assert_array_equal(decode(data + junk), whole)
