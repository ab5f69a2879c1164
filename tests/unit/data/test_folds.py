"""Folds and a separate validation path, as data: who is held out where, and what is refused."""

from pathlib import Path

import numpy as np
import pytest

from patchword.data.check import check_data
from patchword.data.folds import fold_numbers, folds
from patchword.data.open import open_data
from patchword.data.request import OpenRequest
from patchword.errors import DataError, SettingsError
from patchword.metrics import t_interval
from support.scans import scans_of, write_scans


def numbers_of(path: Path, k: int, seed: int = 0) -> dict[str, int]:
    data = open_data(path, OpenRequest(split=False))
    pool = data.everything
    return dict(zip(pool.names, fold_numbers(pool, data.classes, k, seed).tolist(), strict=True))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    write_scans(tmp_path / "scans", {"d0": 25, "d1": 9, "d2": 5})
    return tmp_path / "scans"


def test_each_image_is_held_out_once_and_each_class_is_in_every_fold(data: Path) -> None:
    made = folds(open_data(data, OpenRequest(split=False)), 5)
    held = [name for fold in made for name in fold.splits["val"].names]
    assert len(made) == 5 and len(held) == len(set(held)) == 39
    for fold in made:
        names = {*fold.splits["train"].names, *fold.splits["val"].names}
        assert len(names) == 39 and len(fold.splits["train"]) + len(fold.splits["val"]) == 39
        assert min(fold.splits["val"].counts(3)) >= 1
        assert 3 <= fold.splits["val"].counts(3)[0] <= 7, "numbered files spread evenly over the folds"
    assert numbers_of(data, 5, seed=1) != numbers_of(data, 5)


def test_an_image_keeps_its_fold_when_others_are_added_or_the_data_move(data: Path, tmp_path: Path) -> None:
    before = numbers_of(data, 3)
    data = data.rename(tmp_path / "elsewhere")
    for i, scan in enumerate(scans_of(0, 8, first=60)):
        scan.save(data / "d0" / f"new {i}.png")
    after = numbers_of(data, 3)
    assert len(after) == len(before) + 8 and all(after[name] == fold for name, fold in before.items())


def test_copies_are_in_one_fold_whatever_their_class(data: Path) -> None:
    for i in range(5):
        (data / "d1" / f"copy of {i}.png").write_bytes((data / "d0" / f"{i}.png").read_bytes())
    found = numbers_of(data, 5)
    assert all(found[f"d1/copy of {i}.png"] == found[f"d0/{i}.png"] for i in range(5))


def _table(folder: Path, split: str = "") -> Path:
    """Six patients with five images each, of both classes; every file has its own name."""
    write_scans(folder, {"d0": 15, "d1": 15})
    rows = [
        f"{d}/{i}.png,{d},p{i % 6}{',train' if i < 8 else ',val'}" for d in ("d0", "d1") for i in range(15)
    ]
    table = folder / "table.csv"
    text = "\n".join(["image,label,patient,split", *rows])
    table.write_text(text if split else "\n".join(line.rpartition(",")[0] for line in text.split("\n")))
    return table


def test_a_group_is_on_one_side_of_folds_and_of_the_usual_split(tmp_path: Path) -> None:
    table = _table(tmp_path)
    requests = [OpenRequest(group_column="patient", folds=3, fold=fold) for fold in (1, 2, 3)]
    for request in (*requests, OpenRequest(group_column="patient")):
        splits = open_data(table, request).splits
        sides = [set(split.groups or ()) for split in splits.values()]
        assert len(sides) == 2 and all(sides) and not sides[0] & sides[1]
    without = open_data(table, OpenRequest(folds=3)).splits
    patients = [
        {int(name.split("/")[1].split(".")[0]) % 6 for name in split.names} for split in without.values()
    ]
    assert patients[0] & patients[1], "without the column, patients are on both sides"


def test_a_group_in_both_of_the_tables_own_splits_is_reported(tmp_path: Path) -> None:
    found = check_data(open_data(_table(tmp_path, split="own"), OpenRequest(group_column="patient")))
    assert any("6 groups have images in several splits ('p0', " in p.message for p in found.problems)
    with pytest.raises(DataError, match="no column 'patent' \\(did you mean 'patient'"):
        open_data(tmp_path / "table.csv", OpenRequest(group_column="patent"))


def test_own_splits_are_pooled_and_folds_that_are_too_many_refused(tmp_path: Path) -> None:
    write_scans(tmp_path / "train", {"d0": 6, "d1": 4})
    write_scans(tmp_path / "val", {"d0": 3, "d1": 2}, first=30)
    data = open_data(tmp_path, OpenRequest(folds=3))
    assert sum(map(len, data.splits.values())) == 15
    assert any("are pooled for 3 folds (train 10, val 5 images)" in reading for reading in data.readings)
    with pytest.raises(
        DataError, match="--folds 7 is more than class 'd1' has, which has 6 images"
    ) as refused:
        open_data(tmp_path, OpenRequest(folds=7))
    assert "--folds 6" in refused.value.fix
    for wrong in ({"folds": 1}, {"folds": 2, "val": "x"}):
        with pytest.raises(SettingsError, match="--folds"):
            OpenRequest(**wrong)  # type: ignore[arg-type]
    write_scans(tmp_path / "one", {"d0": 6})
    with pytest.raises(DataError, match="only one class"):
        open_data(tmp_path / "one", OpenRequest(folds=2))


def test_val_is_matched_by_class_name_and_named_apart(data: Path, tmp_path: Path) -> None:
    write_scans(tmp_path / "v", {"d2": 3, "d1": 2}, first=30)
    (tmp_path / "v.csv").write_text("image,klass\nv/d2/0.png,d2\nv/d1/1.png,d1\n")
    found = open_data(data, OpenRequest(val=str(tmp_path / "v")))
    assert {name: len(split) for name, split in found.splits.items()} == {"train": 39, "val": 5}
    assert found.splits["val"].counts(3) == [0, 2, 3] and found.split_seed is None
    assert set(found.splits["val"].names).isdisjoint(found.splits["train"].names)
    assert any("no images of 'd0'" in p.message for p in check_data(found).problems)
    table = open_data(data, OpenRequest(val=str(tmp_path / "v.csv"), label_column="klass"))
    assert table.splits["val"].counts(3) == [0, 1, 1], "a table's option applies to the one that is a table"
    with pytest.raises(DataError, match="tables only"):
        open_data(data, OpenRequest(val=str(tmp_path / "v"), label_column="klass"))


def test_a_val_that_cannot_be_used_is_refused(data: Path, tmp_path: Path) -> None:
    write_scans(tmp_path / "v" / "train", {"d0": 3, "d1": 3}, first=30)
    write_scans(tmp_path / "v" / "val", {"d0": 2, "d1x": 2, "d1": 1}, first=40)
    val = str(tmp_path / "v" / "val")
    with pytest.raises(DataError, match=r"1 class unknown to .*: 'd1x' \(did you mean 'd1'"):
        open_data(data, OpenRequest(val=val))
    kept = open_data(data, OpenRequest(val=val, ignore_unknown_classes=True))
    assert len(kept.splits["val"]) == 3 and any("skipped 2 images" in p.message for p in kept.problems)
    with pytest.raises(DataError, match="has its own val split"):
        open_data(tmp_path / "v", OpenRequest(val=str(data), ignore_unknown_classes=True))
    with pytest.raises(DataError, match="is DATA itself"):
        open_data(data, OpenRequest(val=f"{data}/"))


def test_the_interval_over_folds_is_students() -> None:
    # scipy.stats.t.interval(0.95, 4, mean, standard error) of these values.
    assert t_interval([0.8, 0.84, 0.88, 0.82, 0.86]) == pytest.approx((0.84, 0.80073, 0.87927), abs=1e-5)
    assert t_interval([1.0, 1.0]) == (1.0, 1.0, 1.0) and t_interval([0.1, 0.9])[1:] == (0.0, 1.0)
    assert np.isfinite(t_interval([0.2, 0.3])[0])
