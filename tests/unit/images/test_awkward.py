"""Files that go wrong elsewhere: each comes out as its manifest says, or is refused with a reason.

A subset is committed; PATCHWORD_AWKWARD names a folder (or zip) that holds the whole pack.
"""

import csv
import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from patchword.errors import ImageError
from patchword.images.decode import decode

COMMITTED = Path(__file__).parents[2] / "data" / "awkward"
Row = dict[str, str]
# What the pack's bomb of 169 megapixels is to be refused by.
MAX_PIXELS = 100_000_000


def _pack() -> dict[str, tuple[bytes, Row]]:
    place = Path(os.environ.get("PATCHWORD_AWKWARD") or COMMITTED)
    if place.suffix == ".zip":
        with zipfile.ZipFile(place) as pack:
            files = {Path(name).name: pack.read(name) for name in pack.namelist() if not name.endswith("/")}
    else:
        files = {path.name: path.read_bytes() for path in place.iterdir()}
    rows = csv.DictReader(files["manifest.csv"].decode().splitlines())
    return {row["file"]: (files[row["file"]], row) for row in rows}


PACK = _pack()


def _numbers(text: str) -> Any:
    return np.array([float(number) for number in text.split(";")])


def _mean(pixels: Any) -> Any:
    """Of each channel, in 0..1; of a gigapixel without a copy in floats."""
    return pixels.mean((0, 1), dtype=np.float64) / (255 if pixels.dtype == np.uint8 else 1)


@pytest.mark.parametrize("file", PACK)
def test_a_file_comes_out_as_its_manifest_says(file: str) -> None:
    data, row = PACK[file]
    try:
        pixels = decode(data, name=file, max_pixels=MAX_PIXELS)
    except ImageError as error:
        assert row["expect"] in ("error", "either"), error
        assert file in error.message and error.fix
        return
    assert row["expect"] in ("ok", "either"), f"read as {pixels.shape}, mean {_mean(pixels)}"
    height, width, tolerance = int(row["height"]), int(row["width"]), float(row["tol"])
    assert pixels.shape == (height, width, 3)
    corner = pixels[: max(height // 2, 1), : max(width // 2, 1)]
    assert np.abs(_mean(pixels) - _numbers(row["mean_rgb"])).max() <= tolerance
    assert np.abs(_mean(corner) - _numbers(row["topleft_rgb"])).max() <= 2 * tolerance


@pytest.mark.parametrize("file", [name for name, (_, row) in PACK.items() if int(row["channels"] or 0) > 4])
def test_many_channels_come_as_they_are_when_asked_for(file: str) -> None:
    data, row = PACK[file]
    pixels = decode(data, name=file, channels=int(row["channels"]))
    assert np.abs(_mean(pixels) - _numbers(row["raw_channels_mean"])).max() <= 0.001


@pytest.mark.parametrize("file", [name for name, (_, row) in PACK.items() if row["expect"] == "ok"])
def test_a_path_and_its_bytes_give_the_same_picture(file: str, tmp_path: Path) -> None:
    path = tmp_path / file
    path.write_bytes(PACK[file][0])
    np.testing.assert_array_equal(decode(path), decode(PACK[file][0]))
