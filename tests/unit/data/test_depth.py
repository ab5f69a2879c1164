"""Deep pictures keep their levels on the way to training, 8-bit ones their bytes, and the range is the user's."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from patchword.cli.main import run
from patchword.data.check import check_data
from patchword.data.feed import Fed, Feed, stacked
from patchword.data.open import open_data
from patchword.data.request import OpenRequest
from patchword.data.store import Cache, open_store
from patchword.images.prepare import read
from patchword.images.preprocess import Preprocess, Reading
from patchword.settings import read_toml
from patchword.training.augment.geometry import as_unit_float
from support.scans import write_scans

SIDE = 64
TWELVE_BITS = Reading(value_range=(0.0, 4095.0))


def _preprocess(reading: Reading) -> Preprocess:
    return replace(Preprocess.simple(SIDE, in_channels=1, mean=(0.0,), std=(1.0,)), reading=reading)


def _write_xray(path: Path, seed: int = 0) -> None:
    """All 4,096 values that a 12-bit detector gives, in a 16-bit PNG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    levels = np.random.default_rng(seed).permutation(SIDE * SIDE).reshape(SIDE, SIDE)
    Image.fromarray(levels.astype(np.uint16)).save(path)


def _batch(folder: Path, reading: Reading, cache: Cache = "memory") -> Fed:
    """All images of the folder in one batch."""
    split = open_data(folder, OpenRequest(split=False)).splits["all"]
    store = open_store(split, _preprocess(reading), cache)

    def collate(pixels: Sequence[torch.Tensor], rows: Sequence[int]) -> tuple[torch.Tensor, None]:
        return stacked(pixels), None

    (batch,) = Feed(split, store, collate, batch_size=len(split), seed=0, workers=1).epoch(0)
    return batch


@pytest.mark.parametrize("cache", ["memory", "none"])
@pytest.mark.parametrize("reading", [TWELVE_BITS, Reading()])
def test_a_12_bit_x_ray_trains_with_all_its_4096_levels_as_it_is_evaluated(
    tmp_path: Path, reading: Reading, cache: Cache
) -> None:
    _write_xray(tmp_path / "a" / "0.png")
    _write_xray(tmp_path / "b" / "1.png", seed=1)
    batch = _batch(tmp_path, reading, cache)
    for image, name in zip(as_unit_float(batch.images), batch.names, strict=True):
        evaluated = read(str(tmp_path / name), _preprocess(reading))
        assert np.array_equal(image.numpy(), evaluated) and len(np.unique(evaluated)) == 4096


def test_8_bit_pictures_stay_bytes_and_are_equal_beside_deep_ones(tmp_path: Path) -> None:
    write_scans(tmp_path, {"d0": 3, "d1": 3})
    shallow = _batch(tmp_path, Reading())
    assert shallow.images.dtype == torch.uint8
    _write_xray(tmp_path / "d1" / "deep.png")
    for cache in ("memory", "none"):
        mixed = _batch(tmp_path, Reading(), cache)
        by_name = dict(zip(mixed.names, as_unit_float(mixed.images), strict=True))
        for name, image in zip(shallow.names, as_unit_float(shallow.images), strict=True):
            assert torch.equal(by_name[name], image)


def test_the_check_measures_with_the_range_and_says_when_one_is_wanted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for i in range(4):
        _write_xray(tmp_path / "ab"[i % 2] / f"{i}.png", seed=i)
    data = open_data(tmp_path)
    plain, ranged = check_data(data), check_data(data, value_range=(0.0, 4095.0))
    assert ranged.channel_mean == [0.5] * 3 and plain.channel_mean[0] == pytest.approx(0.5 / 16, abs=1e-4)
    (fix,) = [p.fix for p in plain.problems if "of 65535" in p.message]
    assert fix == "if 4095 is white, pass --value-range 0,4095"
    assert not any("of 65535" in p.message for p in ranged.problems)
    run(["check", str(tmp_path), "--value-range", "0,4095"])
    assert "mean 0.5000" in capsys.readouterr().out


@pytest.fixture
def floats(tmp_path: Path) -> Path:
    """Floats in 0..255, whose range no file says."""
    write_scans(tmp_path / "scans", {"d0": 4, "d1": 4})
    for file in sorted((tmp_path / "scans").rglob("*.png")):
        Image.fromarray(np.asarray(Image.open(file)).astype(np.float32)).save(file.with_suffix(".tif"))
        file.unlink()
    return tmp_path / "scans"


def test_following_the_advice_on_floats_trains_and_the_run_and_what_follows_it_keep_the_range(
    floats: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny = ["--epochs", "1", "--image-size", "8", "-o", "run.precision=float32"]
    assert run(["train", str(floats), "--out", str(tmp_path / "no"), *tiny]) == 2
    assert "--value-range" in capsys.readouterr().err
    ways = {
        "option": ["--value-range", "0,255"],
        "setting": ["-o", "preprocess.reading.value_range=[0.0,255.0]"],
        "file": ["--config", str(tmp_path / "option" / "config.toml")],
        "weights": ["--weights", str(tmp_path / "option")],
    }
    means = {}
    for name, said in ways.items():
        assert run(["train", str(floats), "--out", str(tmp_path / name), *tiny, *said]) == 0, (
            capsys.readouterr().err
        )
        settings = read_toml(tmp_path / name / "config.toml")["preprocess"]
        assert settings["reading"]["value_range"] == [0.0, 255.0]
        means[name] = settings["mean"]
    assert all(mean == means["option"] for mean in means.values()) and 0.2 < means["option"][0] < 0.5
    assert run(["evaluate", str(tmp_path / "option"), str(floats)]) == 0
