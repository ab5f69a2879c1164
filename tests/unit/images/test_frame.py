"""Boxes follow their image into the model's input and back."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from patchword.images.frame import Frame
from patchword.images.geometry import Border, Capped, Cover, ResizeRule, Squash
from patchword.images.prepare import read_pixels
from patchword.images.preprocess import Preprocess

SIDES = st.integers(8, 900)
RULES: tuple[ResizeRule, ...] = (
    Border(size=(240, 320)),
    Squash(size=(240, 320)),
    Capped(shorter=200, longest=333),
)


@given(SIDES, SIDES, st.sampled_from(RULES), st.integers(0, 99))
def test_there_and_back_is_the_same_place(height: int, width: int, rule: ResizeRule, seed: int) -> None:
    preprocess = Preprocess(image_size=(240, 320), resize=rule)
    frame = Frame.of(preprocess.plan((height, width)), (height, width))
    inside = np.sort(np.random.default_rng(seed).random((5, 2, 2)), axis=1).reshape(5, 4)
    corners = inside * [width, height, width, height]
    moved = frame.forward(corners)
    assert np.allclose(frame.back(moved), corners)
    rows, columns = frame.output
    assert (moved >= -1e-9).all() and (moved <= np.array([columns, rows] * 2) + 1e-9).all()
    assert np.allclose(frame.shares_to_pixels(moved / [columns, rows, columns, rows]), corners)


def test_what_lies_outside_the_image_is_cut_off_at_its_edge() -> None:
    frame = Frame.of(
        Preprocess(image_size=(100, 100), resize=Border(size=(100, 100))).plan((50, 200)), (50, 200)
    )
    assert frame.back(np.array([[0.0, 0.0, 100.0, 100.0]])).tolist() == [[0.0, 0.0, 200.0, 50.0]]


@pytest.mark.parametrize("rule", [Border(size=(60, 80)), Squash(size=(60, 80)), Cover(size=(60, 80))])
def test_the_frame_is_where_the_pixels_are(rule: ResizeRule) -> None:
    """A white square on black lies in the prepared pixels where its corners are moved to."""
    image = np.zeros((90, 100, 3), np.uint8)
    image[40:60, 30:50] = 255
    preprocess = Preprocess(image_size=(60, 80), resize=rule, mean=(0.0,))
    pixels = read_pixels(image, preprocess)[..., 0]
    left, top, right, bottom = Frame.of(preprocess.plan((90, 100)), (90, 100)).forward(
        np.array([[30.0, 40.0, 50.0, 60.0]])
    )[0]
    rows, columns = (np.flatnonzero((pixels > 127).any(axis=axis)) for axis in (1, 0))
    assert abs(rows[0] - top) <= 1 and abs(rows[-1] + 1 - bottom) <= 1
    assert abs(columns[0] - left) <= 1 and abs(columns[-1] + 1 - right) <= 1
