"""The numbers of the check: whose mean and deviation they are, and where a warning begins."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from patchword.data.check import CheckReport, check_data
from patchword.data.open import open_data
from support.scans import write_scans


def _check(folder: Path) -> CheckReport:
    return check_data(open_data(folder))


def test_mean_and_deviation_are_those_of_the_training_images_alone(tmp_path: Path) -> None:
    write_scans(tmp_path / "train", {"d0": 3, "d1": 3})
    for name in ("d0", "d1"):
        (tmp_path / "val" / name).mkdir(parents=True)
        Image.new("L", (24, 24), 255).save(tmp_path / "val" / name / f"white-{name}.png")
    report = _check(tmp_path)
    pixels = np.stack([np.asarray(Image.open(p)) for p in (tmp_path / "train").rglob("*.png")]) / 255
    assert report.channel_mean == pytest.approx([pixels.mean()] * 3, abs=1e-4)
    assert report.channel_std == pytest.approx([pixels.std()] * 3, abs=1e-4)


@pytest.mark.parametrize(("large", "is_warned"), [(20, False), (21, True)])
def test_more_than_ten_times_as_many_images_are_an_imbalance(
    tmp_path: Path, large: int, is_warned: bool
) -> None:
    write_scans(tmp_path / "train", {"d0": large, "d1": 2})
    write_scans(tmp_path / "val", {"d0": 1, "d1": 1}, first=30)
    assert any("imbalance" in problem.message for problem in _check(tmp_path).problems) == is_warned


def test_a_class_of_two_images_is_scored_on_one_and_a_single_image_is_trained_on(tmp_path: Path) -> None:
    write_scans(tmp_path, {"d0": 1, "d1": 2, "d2": 2, "d3": 2})
    data = open_data(tmp_path)
    assert data.evaluation.counts(4) == [0, 1, 1, 1]
    assert data.training.counts(4) == [1, 1, 1, 1]
