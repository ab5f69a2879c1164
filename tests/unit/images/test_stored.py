"""What stored numbers become: the nearest level where 8 bits stay 8, and a range that is missed by rounding alone."""

import io

import numpy as np
import pytest

from patchword.errors import ImageError
from patchword.images.decode import decode
from patchword.images.stored import over_white


def test_8_bit_alpha_over_white_gives_the_nearest_level() -> None:
    colour, alpha = np.meshgrid(np.arange(256, dtype=np.uint8), np.arange(256, dtype=np.uint8))
    exact = 255 + (colour.astype(np.float64) - 255) * alpha / 255
    np.testing.assert_array_equal(over_white(colour, alpha), np.rint(exact).astype(np.uint8))


def _npy(*values: float) -> bytes:
    file = io.BytesIO()
    np.save(file, np.array([[values]], np.float64).reshape(1, len(values), 1))
    return file.getvalue()


def test_a_float_that_misses_its_range_by_rounding_is_brought_back() -> None:
    assert decode(_npy(-5e-7, 0.5, 1 + 5e-7), channels=1)[0, :, 0].tolist() == [0, 0.5, 1]


@pytest.mark.parametrize("value", [1.01, -0.01])
def test_a_float_that_misses_its_range_by_more_is_refused(value: float) -> None:
    with pytest.raises(ImageError, match=r"outside 0\.\.1"):
        decode(_npy(0.5, value), channels=1)
