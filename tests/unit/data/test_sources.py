"""The same images are the same data set, however they lie."""

import csv
import importlib.util
import json
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from patchword.data.check import check_data
from patchword.data.dataset import Dataset
from patchword.data.open import open_data
from patchword.data.request import OpenRequest
from patchword.data.sources import digits
from patchword.errors import DataError
from patchword.images.decode import decode
from support.scans import write_scans


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    top = tmp_path_factory.mktemp("forms") / "digits"
    write_scans(top, {"d0": 7, "d1": 9, "d2": 8})
    return top


def _rows(folder: Path) -> list[tuple[Path, str]]:
    return [(file, file.parent.name) for file in sorted(folder.rglob("*.png"))]


def _zip(folder: Path, out: Path) -> Path:
    with zipfile.ZipFile(out / "digits.zip", "w") as archive:
        for file, label in _rows(folder):
            archive.write(file, f"wrapped/{label}/{file.name}")
        archive.writestr("__MACOSX/wrapped/d0/._0.png", b"resource fork")
    return out / "digits.zip"


def _csv(folder: Path, out: Path) -> Path:
    shutil.copytree(folder, out / "moved")
    with open(out / "moved" / "digits.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["file", "label"])
        writer.writerows([(f"./{label}/{f.name}", label) for f, label in _rows(folder)])
    return out / "moved" / "digits.csv"


def _jsonl(folder: Path, out: Path) -> Path:
    shutil.copytree(folder, out / "moved")
    rows = [(out / "moved" / label / f.name, label) for f, label in _rows(folder)]
    lines = [json.dumps({"image": str(f), "label": label}) for f, label in rows]
    (out / "moved" / "digits.jsonl").write_text("\n".join(lines) + "\n")
    return out / "moved" / "digits.jsonl"


def _parquet(folder: Path, out: Path) -> Path:
    """As Hugging Face's datasets write images and class labels."""
    rows = _rows(folder)
    names = sorted({label for _, label in rows})
    images = [{"bytes": f.read_bytes(), "path": f.name} for f, _ in rows]
    labels = [names.index(label) for _, label in rows]
    features = {"label": {"names": names, "_type": "ClassLabel"}, "image": {"_type": "Image"}}
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    table = pa.table({"image": images, "label": labels}).replace_schema_metadata(metadata)
    pq.write_table(table, out / "digits.parquet", row_group_size=5)
    return out / "digits.parquet"


def _pixels(data: Dataset, split: str) -> dict[str, list[bytes]]:
    chosen = data.splits[split]
    found: dict[str, list[bytes]] = {name: [] for name in data.classes}
    for i, label in enumerate(chosen.labels):
        found[data.classes[label]].append(decode(chosen.source(i), channels=1).tobytes())
    return found


@pytest.mark.parametrize("write", [_zip, _csv, _jsonl])
def test_moving_zipping_or_listing_the_images_changes_neither_classes_nor_split(
    folder: Path, tmp_path: Path, write: object
) -> None:
    plain = open_data(folder, OpenRequest(split_seed=3))
    other = open_data(write(folder, tmp_path), OpenRequest(split_seed=3))  # type: ignore[operator]
    assert other.classes == plain.classes == ("d0", "d1", "d2")
    for split in ("train", "val"):
        assert _pixels(other, split) == _pixels(plain, split)


def test_images_without_names_are_the_same_ones_and_are_split_by_content(
    folder: Path, tmp_path: Path
) -> None:
    table = _parquet(folder, tmp_path)
    whole, first = open_data(table, OpenRequest(split=False)), open_data(table)
    assert _pixels(whole, "all") == _pixels(open_data(folder, OpenRequest(split=False)), "all")
    rows = pq.read_table(table)
    pq.write_table(rows.take(list(range(len(rows)))[::-1][:-2]), tmp_path / "fewer.parquet")
    fewer = open_data(tmp_path / "fewer.parquet")
    for split in ("train", "val"):
        kept, before = (set().union(*_pixels(data, split).values()) for data in (fewer, first))
        assert kept <= before and first.splits[split].counts(3) > [0, 0, 0]


def test_the_digits_are_always_split_alike() -> None:
    data = open_data("digits")
    assert (len(data.training), len(data.evaluation), data.classes[3]) == (1437, 360, "3")
    assert data.training.counts(10)[0] == 142


def test_the_digits_and_their_split_are_scikit_learns(monkeypatch: pytest.MonkeyPatch) -> None:
    digits_file = load_digits()
    rows = np.arange(len(digits_file.target))
    train, test = train_test_split(rows, test_size=0.2, random_state=0, stratify=digits_file.target)
    data = open_data("digits")
    for split, chosen in ((data.training, np.sort(train)), (data.evaluation, np.sort(test))):
        assert split.names == tuple(f"digits/{row}" for row in chosen)
        assert np.array_equal(split.labels, digits_file.target[chosen])
        shown = np.stack([np.asarray(split.source(i)) for i in range(len(split))])
        assert np.array_equal(shown[..., 0], np.rint(digits_file.images[chosen] * 255 / 16))
    # The same where scikit-learn keeps its file elsewhere.
    seen = digits._table()
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    for ours, theirs in zip(digits._table(), seen, strict=True):
        assert np.array_equal(ours, theirs)


@pytest.mark.parametrize("spelling", ["val", "valid", "validation", "Val", "test"])
def test_split_folders_are_known_by_their_usual_names(tmp_path: Path, spelling: str) -> None:
    write_scans(tmp_path / "train", {"d0": 3, "d1": 3})
    write_scans(tmp_path / spelling, {"d0": 1, "d1": 2}, first=5)
    data = open_data(tmp_path)
    assert len(data.training) == 6 and len(data.evaluation) == 3 and data.split_seed is None


def test_split_folders_are_known_by_a_word_of_their_names(tmp_path: Path) -> None:
    write_scans(tmp_path / "training_set", {"d0": 3, "d1": 3})
    write_scans(tmp_path / "test_set", {"d0": 1, "d1": 2}, first=5)
    data = open_data(tmp_path)
    assert data.classes == ("d0", "d1")
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 6, "test": 3}


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    write_scans(tmp_path, {"car0": 2, "plane1": 2, "train2": 2})
    (tmp_path / "train2").rename(tmp_path / "train")
    assert open_data(tmp_path).classes == ("car0", "plane1", "train")


def test_a_folder_beside_train_that_is_no_split_is_told(tmp_path: Path) -> None:
    write_scans(tmp_path / "train", {"d0": 3, "d1": 3})
    write_scans(tmp_path / "vall", {"d0": 1, "d1": 2}, first=5)
    (problem,) = open_data(tmp_path).problems
    assert "vall is not a split (near: 'val'" in problem.message and "3 images are skipped" in problem.message


def test_a_folder_of_tables_names_one(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "train.parquet").write_bytes(b"PAR1")
    with pytest.raises(DataError) as raised:
        open_data(tmp_path)
    assert f"{tmp_path}/data/train.parquet" in raised.value.fix


@pytest.mark.parametrize("zipped", [False, True])
def test_an_image_of_a_table_that_is_not_there_is_one_that_cannot_be_read(
    tmp_path: Path, zipped: bool
) -> None:
    write_scans(tmp_path, {"flat0": 2})
    place = tmp_path / "flat0"
    (place / "labels.csv").write_text("file,label\n0.png,a\n1.png,b\ngone.png,a\n")
    if zipped:
        with zipfile.ZipFile(tmp_path / "flat.zip", "w") as archive:
            for file in place.iterdir():
                archive.write(file, file.name)
        place = tmp_path / "flat.zip"
    report = check_data(open_data(place, OpenRequest(split=False)))
    ((name, reason),) = report.skipped
    assert report.images == 3 and name == "gone.png" and "no such file" in reason


def test_hugging_faces_images_may_be_paths_alone(tmp_path: Path) -> None:
    write_scans(tmp_path, {"flat0": 2})
    images = pa.array([{"bytes": None, "path": f"flat0/{i}.png"} for i in range(2)])
    pq.write_table(pa.table({"image": images, "label": ["a", "b"]}), tmp_path / "t.parquet")
    report = check_data(open_data(tmp_path / "t.parquet", OpenRequest(split=False)))
    assert report.images == 2 and not report.skipped


def test_numbers_as_class_names_are_in_order_of_number(tmp_path: Path) -> None:
    write_scans(tmp_path, {"2": 2, "1": 2, "3": 2})
    (tmp_path / "3").rename(tmp_path / "10")
    assert open_data(tmp_path).classes == ("1", "2", "10")


def test_nested_folders_belong_to_their_class_and_other_files_are_counted(tmp_path: Path) -> None:
    write_scans(tmp_path / "d0", {"deep0": 2})
    write_scans(tmp_path, {"d1": 2})
    (tmp_path / "d1" / "notes.txt").write_text("not an image")
    (tmp_path / "d1" / "._0.png").write_bytes(b"resource fork")
    data = open_data(tmp_path)
    assert data.classes == ("d0", "d1")
    assert data.passed_by == {".txt": 1, "hidden": 1}


def test_a_table_beside_flat_images_labels_them(tmp_path: Path) -> None:
    write_scans(tmp_path, {"flat0": 4})
    flat = tmp_path / "flat0"
    (flat / "labels.csv").write_text(
        "file,label\n" + "".join(f"{i}.png,{'even' if i % 2 == 0 else 'odd'}\n" for i in range(4))
    )
    data = open_data(flat, OpenRequest(split=False))
    assert data.classes == ("even", "odd") and len(data.splits["all"]) == 4


@pytest.mark.parametrize(
    ("content", "telling"),
    [
        ("a,b\n1,2\n", "which column holds the image"),
        ("file,thing\nx.png,2\n", "which column holds the label"),
        ("file,label\n", "no image"),
        ("file,label\na.png\n", "line 2"),
        (
            "file,label\nnot-there.png,a\n",
            "none of the images in column file exists; the first is not-there.png",
        ),
        ("file,label,label\na.png,x,y\n", "two columns named 'label'"),
        ('file,label\n"' + "never closed\n" * 20_000, "line"),
    ],
)
def test_a_table_that_cannot_be_used_says_why(tmp_path: Path, content: str, telling: str) -> None:
    (tmp_path / "t.csv").write_text(content)
    with pytest.raises(DataError) as raised:
        open_data(tmp_path / "t.csv")
    assert telling in raised.value.message and raised.value.fix


@pytest.mark.parametrize("labels", ["x y", "x|y"])
def test_line_ends_and_delimiters_of_other_programs(tmp_path: Path, labels: str) -> None:
    write_scans(tmp_path, {"flat0": 4})
    mark = "|" if "|" in labels else ","
    lines = [f"file{mark}label", *(f"{i}.png{mark}{'xy'[i % 2]}" for i in range(4))]
    (tmp_path / "flat0" / "t.csv").write_text("\r".join(lines))
    assert open_data(tmp_path / "flat0" / "t.csv").classes == ("x", "y")


def test_labels_that_are_none_and_labels_that_are_several(tmp_path: Path) -> None:
    write_scans(tmp_path, {"flat0": 5})
    table = tmp_path / "flat0" / "t.jsonl"
    rows = [{"image": f"{i}.png", "label": "xy"[i % 2]} for i in range(4)]
    table.write_text("\n".join(json.dumps(row) for row in [*rows, {"image": "4.png", "label": float("nan")}]))
    data = open_data(table)
    assert data.classes == ("x", "y") and "has 1 row without a label" in data.problems[0].message
    table.write_text(json.dumps({"image": "0.png", "label": {"x": 1}}))
    with pytest.raises(DataError, match="1 label of 1 holds a list instead of one class"):
        open_data(table)


def test_a_column_of_splits_that_is_not_used_is_told(tmp_path: Path) -> None:
    write_scans(tmp_path, {"flat0": 6})
    rows = "".join(f"{i}.png,{'xy'[i % 2]},fold{i % 3}\n" for i in range(6))
    (tmp_path / "flat0" / "t.csv").write_text("file,label,split\n" + rows)
    data = open_data(tmp_path / "flat0" / "t.csv")
    assert set(data.splits) == {"train", "val"} and "is not used" in data.problems[0].message


def test_each_column_of_a_parquet_file_has_its_own_class_names(tmp_path: Path) -> None:
    (tmp_path / "scans").mkdir()
    write_scans(tmp_path / "scans", {"d0": 2})
    content = [(tmp_path / "scans" / "d0" / f"{i}.png").read_bytes() for i in range(2)]
    features = {"fine_label": {"names": ["oak", "rose"]}, "coarse_label": {"names": ["tree", "flower"]}}
    table = pa.table({"image": content, "fine_label": [1, 0], "coarse_label": [1, 0]})
    table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    pq.write_table(table, tmp_path / "t.parquet")
    assert open_data(tmp_path / "t.parquet").classes == ("oak", "rose")
    data = open_data(tmp_path / "t.parquet", OpenRequest(label_column="coarse_label"))
    assert data.classes == ("tree", "flower")
    table = table.set_column(1, "fine_label", pa.array([1, 5]))
    pq.write_table(table, tmp_path / "t.parquet")
    said = open_data(tmp_path / "t.parquet").problems[0]
    assert (
        "has the class '5', but its own list of 2 class names does not" in said.message
        and "skip 1 image" in said.fix
    )


def test_an_empty_path_is_told_as_such() -> None:
    with pytest.raises(DataError, match="is empty"):
        open_data("")


def test_an_asked_column_that_is_not_there_names_the_nearest(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("photo,kind\na.png,x\n")
    with pytest.raises(DataError, match="'photo'"):
        open_data(tmp_path / "t.csv", OpenRequest(image_column="foto", label_column="kind"))


@pytest.mark.parametrize("spelling", ["./{}/{}", "{}\\{}", "a wrapper/{}/{}"])
def test_zips_of_other_programs(folder: Path, tmp_path: Path, spelling: str) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        for file in sorted(folder.rglob("*.png")):
            archive.writestr(spelling.format(file.parent.name, file.name), file.read_bytes())
    data, plain = open_data(tmp_path / "x.zip"), open_data(folder)
    assert data.classes == plain.classes
    assert data.training.source(0) == Path(str(plain.training.source(0))).read_bytes()


def test_a_broken_zip_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.zip").write_bytes(b"PK\x03\x04 and no more")
    with pytest.raises(DataError, match=r"x\.zip"):
        open_data(tmp_path / "x.zip")
