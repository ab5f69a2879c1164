"""Every Pillow mode, depth and array layout has one defined route, and none becomes a constant picture."""

import io
import threading
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageFile

from patchword.errors import ImageError
from patchword.images.decode import decode

Y, X = np.mgrid[:40, :60]
GREY = (X * 3 + Y).astype(np.uint8)
RGB = np.stack([X * 4, Y * 6, X + Y * 2], axis=-1).astype(np.uint8)
ALPHA = (X * 4).astype(np.uint8)
DEEP = (RGB.astype(np.uint16) * 257 + 31).clip(0, 65535).astype(np.uint16)


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def over_white(colour: Any, alpha: Any) -> Any:
    a = alpha[..., None] / 255
    return np.rint(colour * a + 255 * (1 - a))


GREY3 = np.repeat(GREY[..., None], 3, axis=2)
MODES = {
    "1": (Image.fromarray(GREY).convert("1"), None),
    "L": (Image.fromarray(GREY), GREY3),
    "LA": (Image.merge("LA", [Image.fromarray(GREY), Image.fromarray(ALPHA)]), over_white(GREY3, ALPHA)),
    "P": (Image.fromarray(GREY).convert("P"), GREY3),
    "PA": (Image.fromarray(GREY).convert("P").convert("PA"), GREY3),
    "RGB": (Image.fromarray(RGB), RGB),
    "RGBA": (Image.fromarray(np.dstack([RGB, ALPHA])), over_white(RGB, ALPHA)),
    "CMYK": (Image.fromarray(RGB).convert("CMYK"), RGB),
    "YCbCr": (Image.fromarray(RGB).convert("YCbCr"), RGB),
    "HSV": (Image.fromarray(RGB).convert("HSV"), RGB),
    "LAB": (Image.new("LAB", (8, 6), (128, 128, 128)), None),
    "I;16": (Image.fromarray(GREY.astype(np.uint16) * 257), GREY3),
    "F": (Image.fromarray(GREY.astype(np.float32) / 255), GREY3),
}


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_of_pillow_has_its_route(mode: str) -> None:
    image, expected = MODES[mode]
    assert image.mode == mode
    pixels = decode(image)
    assert pixels.shape == (image.height, image.width, 3)
    if expected is not None:
        levels = pixels * (1 if pixels.dtype == np.uint8 else 255)
        tolerance = {"YCbCr": 4, "HSV": 8}.get(mode, 1e-3 if pixels.dtype == np.float32 else 1)
        assert np.abs(levels - expected.astype(float)).max() <= tolerance


@pytest.mark.parametrize("mode", [mode for mode in MODES if mode != "LAB"])
def test_no_mode_becomes_a_constant_picture(mode: str) -> None:
    pixels = decode(MODES[mode][0], channels=1)
    assert pixels.shape[2] == 1 and pixels.std() > 0.05 * (255 if pixels.dtype == np.uint8 else 1)


def test_grey_is_rec_601_as_pillow_makes_it() -> None:
    grey = decode(encoded(Image.fromarray(RGB), "PNG"), channels=1)
    np.testing.assert_array_equal(grey[..., 0], np.asarray(Image.fromarray(RGB).convert("L")))
    deep = decode(RGB.astype(np.float32) / 255, channels=1)
    assert np.abs(deep * 255 - grey).max() <= 0.51


def test_the_first_frame_of_an_animation_counts() -> None:
    frames = [Image.fromarray(RGB), Image.new("RGB", (60, 40)), Image.new("RGB", (60, 40), "red")]
    for kind, options in (("PNG", {}), ("WEBP", {"lossless": True}), ("TIFF", {}), ("MPO", {"quality": 95})):
        data = encoded(frames[0], kind, save_all=True, append_images=frames[1:], **options)
        assert np.abs(decode(data).astype(int) - RGB).mean() < 2, kind


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_few_bits_span_black_to_white(bits: int) -> None:
    image = Image.fromarray((X % 2**bits).astype(np.uint8)).convert("P")
    image.putpalette([round(i * 255 / (2**bits - 1)) for i in range(2**bits) for _ in range(3)])
    pixels = decode(encoded(image, "PNG", bits=bits))
    assert sorted(np.unique(pixels)) == [round(i * 255 / (2**bits - 1)) for i in range(2**bits)]


def test_channels_as_stored_come_only_when_asked_for() -> None:
    data = encoded(Image.fromarray(np.dstack([RGB, ALPHA])), "PNG")
    np.testing.assert_array_equal(decode(data, channels=4), np.dstack([RGB, ALPHA]))
    with pytest.raises(ImageError, match="3 channels"):
        decode(encoded(Image.fromarray(RGB), "PNG"), channels=5)


def test_a_picture_given_by_hand_is_not_changed() -> None:
    image = Image.fromarray(np.dstack([RGB, ALPHA]))
    array = RGB.copy()
    decode(image)
    decode(array)[:] = 0
    assert image.mode == "RGBA"
    decode(image, channels=3)
    np.testing.assert_array_equal(np.asarray(image)[..., :3], RGB)


def test_warnings_of_pillow_do_not_leak_and_its_switches_stay() -> None:
    broken = (Path(__file__).parents[2] / "data" / "awkward" / "exif-broken.jpg").read_bytes()
    before = (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES, list(warnings.filters))
    decode(broken)
    assert (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES, list(warnings.filters)) == before


def test_pictures_above_pillows_own_limit_follow_ours_without_a_warning() -> None:
    data = encoded(Image.new("1", (14000, 6600)), "PNG")  # 92 megapixels: Pillow warns from 89
    assert decode(data, channels=1).shape == (6600, 14000, 1)


def test_threads_may_decode_together() -> None:
    data = encoded(Image.fromarray(RGB), "PNG")
    failures: list[object] = []

    def work() -> None:
        for _ in range(20):
            if not np.array_equal(decode(data), RGB):
                failures.append("differs")

    filters = list(warnings.filters)
    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures and list(warnings.filters) == filters
