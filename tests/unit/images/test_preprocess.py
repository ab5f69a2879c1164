"""What travels with a model: the same picture gives the same numbers from any source, for ever."""

import dataclasses
import hashlib
import importlib.util
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from patchword.errors import ImageError, SettingsError
from patchword.images.decode import decode
from patchword.images.geometry import Border, Capped, Cover, Keep, Patches, Shorter, Squash
from patchword.images.prepare import prepare, read
from patchword.images.preprocess import Preprocess, Reading, Resample
from patchword.settings import from_plain, to_plain

Y, X = np.mgrid[:90, :140]
RGB = np.stack([X * 17 // 10 + Y % 7, Y * 28 // 10, X * Y // 20 % 256], axis=-1).astype(np.uint8)
RULES = {
    "squash": Squash(size=(48, 56)),
    "shorter": Shorter(size=64),
    "cover": Cover(size=(48, 56)),
    "border": Border(size=(48, 56)),
    "capped": Capped(shorter=50, longest=70, multiple=16),
    "patches": Patches(patch=(16, 16), max_patches=20),
    "keep": Keep(),
}
RESAMPLES = [
    Resample(interpolation=interpolation, antialias=antialias, rounding=rounding)
    for interpolation in ("nearest", "bilinear", "bicubic", "lanczos", "area")
    for antialias in (True, False)
    for rounding in ("uint8", "torch-uint8", "truncate", "none")
    if not (interpolation == "lanczos" and not antialias)
    and not (rounding == "torch-uint8" and not (antialias and interpolation in ("bilinear", "bicubic")))
]


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def photos() -> list[Path]:
    """The two photographs that scikit-learn carries (427x640, CC BY)."""
    spec = importlib.util.find_spec("sklearn")
    assert spec is not None and spec.origin is not None
    found = sorted((Path(spec.origin).parent / "datasets" / "images").glob("*.jpg"))
    assert len(found) == 2
    return found


def named(resample: Resample) -> str:
    return f"{resample.interpolation}-{'anti' if resample.antialias else 'no'}alias-{resample.rounding}"


@pytest.mark.parametrize("resample", RESAMPLES, ids=named)
def test_every_kind_of_source_gives_the_same_numbers(resample: Resample, tmp_path: Path) -> None:
    preprocess = Preprocess(
        image_size=(48, 48), resize=Shorter(size=53), resample=resample, mean=(0.0,), std=(1.0,)
    )
    (tmp_path / "a.png").write_bytes(encoded(Image.fromarray(RGB), "PNG"))
    expected = read(tmp_path / "a.png", preprocess)
    assert expected.shape == (3, 48, 48) and expected.dtype == np.float32 and expected.std() > 0.1
    for same in (Image.fromarray(RGB), RGB, np.asfortranarray(RGB), RGB.transpose(2, 0, 1)):
        np.testing.assert_array_equal(read(same, preprocess), expected)
    np.testing.assert_array_equal(prepare(preprocess, RGB, "image"), expected)
    for deep in (RGB.astype(np.uint16) * 257, RGB / 255, (RGB / 255).astype(np.float32)):
        assert (
            np.abs(read(deep, preprocess) - expected).max() <= 1.25 / 255
        )  # 8 bits are rounded after each pass


@pytest.mark.parametrize("kind", RULES)
def test_settings_survive_the_weights_file(kind: str) -> None:
    preprocess = Preprocess(
        image_size=(48, 56),
        resize=RULES[kind],
        in_channels=5,
        resample=Resample(interpolation="area", rounding="none"),
        mean=(0.1, 0.2, 0.3, 0.4, 0.5),
        reading=Reading(apply_exif=False, value_range=(0, 4095), draft_margin=0),
    )
    again = from_plain(Preprocess, json.loads(json.dumps(to_plain(preprocess))))
    assert again == preprocess and again.resize.kind == kind


# sha256 of the 8-bit levels that come out, by rule. They may never change: a saved model says version 1.
GOLDEN = json.loads((Path(__file__).parents[2] / "data" / "preprocess-version-1.json").read_text())


def golden(name: str) -> str:
    kind, _, filter_ = name.partition(" ")
    resample = next(r for r in RESAMPLES if named(r) == filter_)
    size = (48, 56)
    preprocess = Preprocess(image_size=size, resize=RULES[kind], resample=resample, mean=(0.0,), std=(1.0,))
    # Floats may differ in their last bit between machines; a quarter of a level may not.
    levels = np.rint(read(RGB, preprocess).astype(np.float64) * 255 * 4 + 0.001).astype(np.int32)
    return f"{levels.shape[1]}x{levels.shape[2]} {hashlib.sha256(levels.tobytes()).hexdigest()[:16]}"


@pytest.mark.parametrize("name", GOLDEN)
def test_version_1_gives_the_pixels_it_always_gave(name: str) -> None:
    assert golden(name) == GOLDEN[name]


@pytest.mark.parametrize("photo", photos(), ids=lambda path: path.name)
@pytest.mark.parametrize("size", [32, 48, 64])
def test_decoding_a_jpeg_smaller_stays_within_the_stated_tolerance(photo: Path, size: int) -> None:
    """docs/images.md: on average below one level of 255, 999 values of 1000 within 4."""
    fast = Preprocess.simple(size, mean=(0.0,), std=(1 / 255,))
    whole = dataclasses.replace(fast, reading=Reading(draft_margin=0))
    difference = np.abs(read(photo, fast) - read(photo, whole))
    assert 0 < difference.max() <= 12
    assert difference.mean() < 1 and np.quantile(difference, 0.999) <= 4


@pytest.mark.parametrize("orientation", range(1, 9))
def test_eight_orientations_give_the_same_prediction_input(orientation: int) -> None:
    """Also where the JPEG is decoded smaller, of odd size, so that its last column lies half outside."""
    upright = Image.open(photos()[0]).resize((317, 251))
    turned = {
        1: upright,
        2: upright.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
        3: upright.transpose(Image.Transpose.ROTATE_180),
        4: upright.transpose(Image.Transpose.FLIP_TOP_BOTTOM),
        5: upright.transpose(Image.Transpose.TRANSPOSE),
        6: upright.transpose(Image.Transpose.ROTATE_90),
        7: upright.transpose(Image.Transpose.TRANSVERSE),
        8: upright.transpose(Image.Transpose.ROTATE_270),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    preprocess = Preprocess.simple((24, 40), mean=(0.0,), std=(1 / 255,))
    expected = read(encoded(upright, "JPEG", quality=95, subsampling=0), preprocess)
    data = encoded(turned, "JPEG", quality=95, subsampling=0, exif=exif)
    assert np.abs(read(data, preprocess) - expected).mean() < 1
    assert np.abs(decode(data).astype(int) - np.asarray(upright)).mean() < 4
    lying = dataclasses.replace(preprocess, reading=Reading(apply_exif=False))
    assert orientation == 1 or np.abs(read(data, lying) - expected).mean() > 5


def test_a_draft_keeps_both_sides_above_what_is_asked() -> None:
    data = encoded(Image.open(photos()[0]), "JPEG")
    assert decode(data).shape == (427, 640, 3)
    for least in ((100, 100), (213, 100), (214, 100), (53, 80), (1, 1)):
        height, width = decode(data, min_size=least).shape[:2]
        assert height >= least[0] and width >= least[1]
    assert decode(data, min_size=(200, 200)).shape == (214, 320, 3)


def test_a_grey_picture_through_one_channel_equals_the_replicated_one() -> None:
    grey = encoded(Image.fromarray(RGB[..., 0]), "PNG")
    one = read(grey, Preprocess.simple(48, in_channels=1))
    three = read(grey, Preprocess.simple(48))
    assert one.shape == (1, 48, 48)
    np.testing.assert_array_equal(three, np.repeat(one, 3, axis=0))


def test_many_channels_are_read_where_the_model_takes_them() -> None:
    bands = np.repeat(RGB[..., :1], 6, axis=2).astype(np.uint16) * 257
    many = read(bands, Preprocess.simple(48, in_channels=6))
    assert many.shape == (6, 48, 48)
    assert np.abs(many[0] - read(RGB[..., 0], Preprocess.simple(48, in_channels=1))[0]).max() <= 2.01 / 255
    with pytest.raises(ImageError, match="6 channels"):
        read(bands, Preprocess.simple(48))


def test_the_value_range_travels_with_the_model() -> None:
    ranged = dataclasses.replace(Preprocess.simple(48), reading=Reading(value_range=(0, 4080)))
    twelve = read(RGB.astype(np.uint16) * 16, ranged)
    assert np.abs(twelve - read(RGB, Preprocess.simple(48))).max() <= 2.5 / 255


@pytest.mark.parametrize("size", [(20, 20), (48, 20), (31, 64), (224, 160)])
@pytest.mark.parametrize("shape", [(7, 300), (300, 7), (1, 1), (90, 140), (64, 31)])
def test_simple_gives_any_size_from_any_picture(size: tuple[int, int], shape: tuple[int, int]) -> None:
    picture = np.full((*shape, 3), 200, np.uint8)
    pixels = read(picture, Preprocess.simple(size, mean=(0.0,), std=(1 / 255,)))
    assert pixels.shape == (3, *size)
    np.testing.assert_allclose(pixels, 200, atol=1e-3)  # covered: nothing is padding


@pytest.mark.parametrize("shape", [(1, 5000), (5000, 1), (2, 300_000)])
def test_a_very_thin_picture_is_resized_only_where_it_is_kept(shape: tuple[int, int]) -> None:
    """Whole, the first would be 250 million pixels."""
    ramp = (np.arange(shape[0] * shape[1]) % 251).astype(np.uint8).reshape(*shape, 1)
    pixels = read(ramp, Preprocess.simple(224, in_channels=1, mean=(0.0,), std=(1 / 255,)))
    assert pixels.shape == (1, 224, 224)
    row, column = shape[0] // 2, shape[1] // 2
    middle = ramp[max(row - 1, 0) : row + 1, max(column - 1, 0) : column + 1].mean()
    assert abs(pixels.mean() - middle) < 2


def test_the_kept_part_equals_the_crop_of_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    preprocess = Preprocess.simple((40, 24), mean=(0.0,), std=(1 / 255,))
    whole = read(RGB, preprocess)
    monkeypatch.setattr("patchword.images.prepare.MAX_RESIZED_PIXELS", 0)
    assert np.abs(read(RGB, preprocess) - whole).max() <= 1


@pytest.mark.parametrize(
    "wrong",
    [
        {"image_size": (0, 4)},
        {"in_channels": 0},
        {"mean": (0.5, 0.5)},
        {"std": (0.0,)},
        {"mean": (float("nan"),)},
        {"version": 2},
    ],
)
def test_settings_that_make_no_sense_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(SettingsError):
        dataclasses.replace(Preprocess.simple(8), **wrong)
    with pytest.raises(SettingsError):
        Resample(interpolation="lanczos", antialias=False)
    with pytest.raises(SettingsError):
        Reading(value_range=(1, 1))


def test_border_fills_with_the_mean_colour_and_a_large_crop_with_black() -> None:
    white = np.full((10, 40, 3), 255, np.uint8)
    bordered = Preprocess(image_size=(20, 20), resize=Border(size=(20, 20)), mean=(0.25,), std=(1.0,))
    pixels = read(white, bordered)
    assert np.allclose(pixels[:, 0], 0, atol=1 / 255) and np.allclose(pixels[:, 10], 0.75)
    cropped = Preprocess(image_size=(20, 20), resize=Squash(size=(10, 10)), mean=(0.0,), std=(1.0,))
    assert (read(white, cropped)[:, 0] == 0).all() and (read(white, cropped)[:, 10, 5:15] == 1).all()
