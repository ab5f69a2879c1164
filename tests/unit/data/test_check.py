"""The check finds what was planted, and nothing in sound data."""

import json
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from patchword.data.align import align
from patchword.data.check import CheckReport, check_data
from patchword.data.open import open_data
from patchword.data.request import OpenRequest
from patchword.errors import DataError
from support.scans import write_scans


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_scans(tmp_path / "train", {"d0": 12, "d1": 12})
    write_scans(tmp_path / "val", {"d0": 4, "d1": 4}, first=20)
    return tmp_path


def _check(folder: Path) -> CheckReport:
    return check_data(open_data(folder))


def _said(report: CheckReport, severity: str) -> str:
    return "\n".join(p.message for p in report.problems if p.severity == severity)


def test_sound_data_have_no_problem_and_their_facts(folder: Path) -> None:
    report = _check(folder)
    assert report.problems == () and report.looked_at == report.images == 32
    assert report.sizes["min"] == report.sizes["max"] == [24, 24] and report.modes == {"L": 32}
    assert len(report.channel_mean) == 3 and 0.2 < report.channel_mean[0] < 0.5
    assert report.to_dict()["splits"]["train"] == {"images": 24, "per_class": [12, 12]}


def test_an_image_in_both_splits_is_a_leak(folder: Path) -> None:
    shutil.copy(folder / "train" / "d0" / "1.png", folder / "val" / "d0" / "copy.png")
    assert "2 images have a copy in another split" in _said(_check(folder), "warning")


def test_an_image_under_two_classes_is_found(folder: Path) -> None:
    shutil.copy(folder / "train" / "d0" / "1.png", folder / "train" / "d1" / "again.png")
    assert "2 images have a copy in another class" in _said(_check(folder), "warning")


def test_unreadable_files_are_listed_with_their_reason(folder: Path) -> None:
    (folder / "train" / "d1" / "x.jpg").write_bytes(b"<html>not found</html>")
    report = _check(folder)
    assert [name for name, _ in report.skipped] == ["train/d1/x.jpg"]
    assert "1 of 33 images cannot be read" in _said(report, "warning")


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_split_that_cannot_be_read_at_all_is_fatal(folder: Path, split: str) -> None:
    for file in (folder / split).rglob("*.png"):
        file.write_bytes(b"no image")
    said = _said(_check(folder), "error")
    assert f"images in {split} can be read" in said and f"{split}/d0/0.png: text" in said


def test_a_class_that_cannot_be_read_at_all_is_told(folder: Path) -> None:
    for file in (folder / "train" / "d1").iterdir():
        file.write_bytes(b"no image")
    report = _check(folder)
    assert "12 training images of class 'd1' can be read" in _said(report, "warning")
    assert report.to_dict()["splits"]["train"]["unreadable"] == [0, 12]
    assert not report.fatal


def test_imbalance_few_images_and_empty_classes_are_told(folder: Path) -> None:
    (folder / "train" / "d2").mkdir()
    write_scans(folder / "train", {"d3": 1})
    said = _said(_check(folder), "warning")
    assert (
        "imbalance" in said
        and "'d3' has only 1 training image (" in said
        and "'d2' in train is empty" in said
    )


def test_classes_that_only_val_has_are_fatal_with_a_guess(folder: Path) -> None:
    (folder / "val" / "d1").rename(folder / "val" / "d1s")
    report = _check(folder)
    assert "'d1s' (did you mean 'd1'?)" in report.fatal[0].message
    left_out = check_data(open_data(folder, OpenRequest(ignore_unknown_classes=True)))
    assert not left_out.fatal and len(left_out.dataset.evaluation) == 4


@pytest.mark.parametrize(("classes", "telling"), [({"d0": 9}, "one class"), ({"d0": 1}, "one image")])
def test_one_class_or_one_image_is_fatal(tmp_path: Path, classes: dict[str, int], telling: str) -> None:
    write_scans(tmp_path, classes)
    assert telling in _check(tmp_path).fatal[0].message


def test_classes_are_matched_to_a_model_by_name(folder: Path) -> None:
    data = open_data(folder)
    turned = align(data, ("other", "d1", "d0"))
    names = [turned.classes[i] for i in turned.evaluation.labels]
    assert names == [data.classes[i] for i in data.evaluation.labels]
    with pytest.raises(DataError, match="did you mean 'd0s'"):
        align(data, ("d0s", "d1"))
    assert len(align(data, ("d1",), ignore_unknown=True).evaluation) == 4


def test_splits_that_nothing_is_scored_on_are_fatal(tmp_path: Path) -> None:
    write_scans(tmp_path, {"flat0": 4})
    rows = "".join(f"flat0/{i}.png,{'ab'[i % 2]},{'train' if i < 2 else 'holdout'}\n" for i in range(4))
    (tmp_path / "t.csv").write_text("path,label,split\n" + rows)
    (problem,) = check_data(open_data(tmp_path / "t.csv")).fatal
    assert "only holdout" in problem.message and "val" in problem.fix


def test_a_name_without_images_makes_no_second_class(tmp_path: Path) -> None:
    write_scans(tmp_path, {"flat0": 4})
    features = {"label": {"names": ["a", "b"], "_type": "ClassLabel"}}
    table = pa.table({"path": [f"flat0/{i}.png" for i in range(4)], "label": [1, 1, 1, 1]})
    meta = {"huggingface": json.dumps({"info": {"features": features}})}
    pq.write_table(table.replace_schema_metadata(meta), tmp_path / "t.parquet")
    (problem,) = check_data(open_data(tmp_path / "t.parquet")).fatal
    assert "one class ('b')" in problem.message
