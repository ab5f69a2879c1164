"""Tables as other people write them: read as they mean it, or refused with what is wrong; and what was taken is told."""

import csv
import json
import re
import shutil
import unicodedata
from collections.abc import Callable, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from patchword.cli.main import run
from patchword.data.dataset import Dataset
from patchword.data.open import open_data
from patchword.data.request import OpenRequest
from patchword.errors import DataError
from support.scans import write_scans

LABELS = ["cat", "dog", "owl"] * 4
Output = pytest.CaptureFixture[str]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Twelve scans, img/0.png to img/11.png."""
    write_scans(tmp_path, {"d0": len(LABELS)})
    (tmp_path / "d0").rename(tmp_path / "img")
    return tmp_path


def _table(place: Path, header: Sequence[str] | None, rows: Sequence[Sequence[object]]) -> Path:
    path = place / "t.csv"
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([*([header] if header else []), *rows])
    return path


def _labelled(place: Path, labels: Sequence[object]) -> Path:
    return _table(place, ("image", "label"), [(f"img/{i}.png", label) for i, label in enumerate(labels)])


def _said(data: Dataset) -> str:
    return "\n".join(problem.message for problem in data.problems)


WRITTEN: dict[str, Callable[[int], str]] = {
    "a blank after the comma": lambda i: f" img/{i}.png",
    "a blank at the end": lambda i: f"img/{i}.png ",
    "backslashes": lambda i: f"img\\{i}.png",
    "./": lambda i: f"./img/{i}.png",
    "no folder": lambda i: f"{i}.png",
    "no ending": lambda i: f"{i}",
    "folder, no ending": lambda i: f"img/{i}",
    "a path of another machine": lambda i: f"/home/someone/data/img/{i}.png",
    "a path of Windows": lambda i: f"C:\\data\\img\\{i}.png",
}


@pytest.mark.parametrize("written", WRITTEN)
def test_a_path_is_found_as_it_was_meant_and_its_split_does_not_hang_on_the_spelling(
    place: Path, written: str
) -> None:
    plain = open_data(_labelled(place, LABELS))
    rows = [(WRITTEN[written](i), label) for i, label in enumerate(LABELS)]
    data = open_data(_table(place, ("image", "label"), rows))
    for split in ("train", "val"):
        sources = [
            [Path(str(s.source(i))).resolve() for i in range(len(s))]
            for s in (plain.splits[split], data.splits[split])
        ]
        assert sources[0] == sources[1] and all(source.is_file() for source in sources[0])
    is_guess = written.startswith(("no", "folder", "a path"))
    assert ("found by name below" in _said(data)) == is_guess


def test_accents_are_found_however_each_part_is_composed(place: Path) -> None:
    folder, file = unicodedata.normalize("NFD", "café"), unicodedata.normalize("NFC", "é.png")
    (place / folder).mkdir()
    shutil.copy(place / "img/0.png", place / folder / file)
    rows = [("café/é.png", "cat"), (unicodedata.normalize("NFD", "café/é.png"), "cat"), ("img/1.png", "dog")]
    data = open_data(_table(place, ("image", "label"), rows), OpenRequest(split=False))
    assert all(Path(str(data.splits["all"].source(i))).is_file() for i in range(3))


def test_a_missing_image_is_not_replaced_by_another_of_its_name(place: Path) -> None:
    (place / "old").mkdir()
    shutil.copy(place / "img/0.png", place / "old/gone.png")
    rows = [*((f"img/{i}.png", label) for i, label in enumerate(LABELS)), ("img/gone.png", "cat")]
    data = open_data(_table(place, ("image", "label"), rows), OpenRequest(split=False))
    assert not Path(str(data.splits["all"].source(12))).exists()
    (place / "img").rename(place / "old" / "img")
    shutil.copytree(place / "old" / "img", place / "new" / "img")
    with pytest.raises(DataError, match=r"2 files have this name, e.g. new/img/0\.png and old/img/0\.png"):
        open_data(_table(place, ("image", "label"), [(f"{i}.png", label) for i, label in enumerate(LABELS)]))


@pytest.mark.parametrize(
    ("cells", "telling"),
    [
        (lambda i: f"img/{i}.PNG", r"img/0\.png exists and differs only in letter case"),
        (
            lambda i: f"img/{i}.{'png' if i else 'PNG'}",
            r"1 path not found, img/0\.PNG for example; img/0\.png exists",
        ),
        (
            lambda i: f"https://a.b/{i}.png",
            r"12 cells of 12 in column image are URLs, e.g. https://a\.b/0\.png",
        ),
        (
            lambda i: f"/gone/{i}x.png",
            r"the first is /gone/0x\.png, which may be a path from another machine",
        ),
    ],
)
def test_paths_that_lead_nowhere_are_named_with_what_is_near(
    place: Path, cells: Callable[[int], str], telling: str, capsys: Output
) -> None:
    table = _table(place, ("image", "label"), [(cells(i), label) for i, label in enumerate(LABELS)])
    run(["check", str(table)])
    shown = " ".join("".join(capsys.readouterr()).split())
    assert re.search(telling, shown) and "Traceback" not in shown


@pytest.mark.parametrize("extra", [[], ["cat"], [0, 0], ["cat", "train", 1]])
@pytest.mark.parametrize("written", ["img/{}.png", "img\\{}.png"])
def test_a_table_without_a_header_line_loses_no_image(place: Path, extra: list[object], written: str) -> None:
    table = _table(place, None, [(written.format(i), *extra) for i in range(12)])
    for request in (OpenRequest(), OpenRequest(image_column=written.format(0), label_column="cat")):
        with pytest.raises(DataError, match="the table has no header line"):
            open_data(table, request)


@pytest.mark.parametrize(
    ("header", "row", "taken"),
    [
        (
            ("image", "x", "y", "w", "h"),
            (1, 2, 3, 4),
            "which column holds the label (columns: image, x, y, w, h)",
        ),
        (("file", "name", "breed"), ("Rex", "LABEL"), "image from `file`, label from `breed` (also: name)"),
        (("id", "y"), ("LABEL",), "image from `id`, label from `y`"),
        (("Image_Name", "Class Name"), ("LABEL",), "image from `Image_Name`, label from `Class Name`"),
        (("image", "name"), ("LABEL",), "image from `image`, label from `name`"),
        (("image", "cat", "dog"), (1, 0), "has a column for each class ('cat', 'dog')"),
    ],
)
def test_the_columns_that_were_taken_are_told_and_a_doubt_is_asked(
    place: Path, header: tuple[str, ...], row: tuple[object, ...], taken: str, capsys: Output
) -> None:
    rows = [(f"img/{i}.png", *(label if v == "LABEL" else v for v in row)) for i, label in enumerate(LABELS)]
    table = _table(place, header, rows)
    code = run(["check", str(table)])
    shown = " ".join("".join(capsys.readouterr()).split())
    assert taken in shown
    if taken.startswith("image from") and code == 0:
        run(["check", str(table), "--json"])
        columns = json.loads(capsys.readouterr().out)["columns"]
        assert columns["image"] == header[0] and f"`{columns['label']}`" in taken


SPLITS: dict[str, tuple[list[object], dict[str, int]]] = {
    "data set": (["train", "valid", "test"], {"train": 4, "val": 4, "test": 4}),
    "anything": (["Train", "TEST", "train set"], {"train": 8, "test": 4}),
    "Usage": (["Training", "PublicTest", "PrivateTest"], {"train": 4, "val": 4, "test": 4}),
    "is_valid": ([False, True, False], {"train": 8, "val": 4}),
    "is_train": ([1, 1, 0], {"train": 8, "val": 4}),
    "is_test": (["no", "no", "yes"], {"train": 8, "test": 4}),
}


@pytest.mark.parametrize("name", SPLITS)
def test_the_authors_split_is_used_under_any_name(place: Path, name: str) -> None:
    values, expected = SPLITS[name]
    rows = [(f"img/{i}.png", "xy"[i % 2], values[i % 3]) for i in range(12)]
    data = open_data(_table(place, ("image", "label", name), rows))
    assert {split: len(of) for split, of in data.splits.items()} == expected
    assert data.columns is not None and data.columns.split == name and data.split_seed is None


@pytest.mark.parametrize(
    ("name", "values"),
    [("fold", [0, 1, 2]), ("split", [0, 1, 0]), ("dataset", ["a", "b", "a"]), ("set", ["train"] * 3)],
)
def test_a_column_that_may_be_a_split_and_does_not_say_which_is_told(
    place: Path, name: str, values: list[object], capsys: Output
) -> None:
    rows = [(f"img/{i}.png", "xy"[i % 2], values[i % 3]) for i in range(12)]
    table = _table(place, ("image", "label", name), rows)
    data = open_data(table)
    assert set(data.splits) == {"train", "val"} and f"column {name} holds" in data.problems[0].message
    assert data.problems[0].severity == "warning"
    assert run(["check", str(table), "--split-column", name]) == 2
    assert "does not say which rows are for training" in capsys.readouterr().err


def test_of_two_splits_one_is_used_the_other_is_named_and_either_can_be_asked_for(place: Path) -> None:
    rows = [(f"img/{i}.png", "xy"[i % 2], ["train", "test"][i % 4 == 0], i % 4 == 1) for i in range(12)]
    table = _table(place, ("image", "label", "phase", "is_valid"), rows)
    data = open_data(table)
    assert set(data.splits) == {
        "train",
        "test",
    } and "is_valid holds 'False', 'True' and is not used" in _said(data)
    other = open_data(table, OpenRequest(split_column="is_valid"))
    assert {name: len(split) for name, split in other.splits.items()} == {"train": 9, "val": 3}


def test_a_row_without_a_split_is_left_out_and_counted(place: Path) -> None:
    rows = [(f"img/{i}.png", "xy"[i % 2], ["train", "val", ""][i % 3]) for i in range(12)]
    data = open_data(_table(place, ("image", "label", "split"), rows))
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 4, "val": 4}
    assert "4 rows without a split" in _said(data)


@pytest.mark.parametrize(
    "both", ["cat,dog", "cat, dog", "cat|dog", "dog;cat", "cat/dog", "cat and dog", "['cat', 'dog']"]
)
def test_several_labels_in_a_cell_are_refused_with_an_example(place: Path, both: str) -> None:
    with pytest.raises(DataError) as raised:
        open_data(_labelled(place, [both, *LABELS[1:]]))
    assert "1 label of 12" in raised.value.message and both in raised.value.message


def test_labels_apart_by_a_blank_are_refused_where_it_is_sure_and_told_where_not(place: Path) -> None:
    with pytest.raises(DataError, match="2 labels of 12 in column label hold several names: 'cat dog'"):
        open_data(_labelled(place, ["cat dog", "dog owl", *LABELS[2:]]))
    data = open_data(_labelled(place, ["cat dog", *LABELS[1:]]))
    assert "cat dog" in data.classes and "consists of the labels 'cat' and 'dog'" in _said(data)
    combined = ["clear road", "haze road", "clear", "clear road water", "haze road water", "farm clear road"]
    assert "looks like several labels" in _said(open_data(_labelled(place, combined * 2)))


HONEST = [
    ["black bear", "brown bear", "black cat", "brown cat"],
    ["bear, black", "bear, brown", "cat, black", "cat, brown"],
    ["dog", "dog, black", "dog, white", "cat", "cat, black", "cat, white"],
    ["red", "green", "dark red", "light green"],
    ["Siberian husky, dog", "tench, Tinca tinca", "(unknown)", "AT&T", "and/or", "[other]x"],
]


@pytest.mark.parametrize("names", HONEST)
def test_names_with_blanks_and_commas_stay_names(place: Path, names: list[str]) -> None:
    data = open_data(_labelled(place, (names * 4)[:12]), OpenRequest(split=False))
    assert set(data.classes) == set((names * 4)[:12]) and len(data.problems) == 1


def test_an_image_in_rows_of_different_labels_is_told_and_many_are_refused(place: Path) -> None:
    rows = [(f"img/{i}.png", label) for i, label in enumerate(LABELS)]
    data = open_data(_table(place, ("image", "label"), [*rows, ("./img/0.png", "dog")]))
    assert "1 image is in several rows with different labels, e.g. img/0.png (cat, dog)" in _said(data)
    with pytest.raises(DataError, match="12 images are in several rows"):
        open_data(_table(place, ("image", "label"), [*rows, *((name, "zebra") for name, _ in rows)]))


def test_one_path_twice_in_a_table_is_on_one_side(place: Path) -> None:
    rows = [(f"img/{i}.png", "xy"[i % 2]) for i in range(12)]
    data = open_data(
        _table(place, ("image", "label"), [*rows, *((f"./{name}", label) for name, label in rows)])
    )
    sides = {split: {name.removeprefix("./") for name in of.names} for split, of in data.splits.items()}
    assert not sides["train"] & sides["val"] and len(data.training) == 2 * len(sides["train"]) < 24


def test_labels_that_are_numbers_of_the_rows_are_no_classes(place: Path, capsys: Output) -> None:
    assert run(["check", str(_labelled(place, range(100, 112)))]) == 2
    shown = " ".join(capsys.readouterr().out.split())
    assert "each of the 12 labels in column label is in only one training row, e.g. '100'" in shown


def test_parquet_names_columns_of_lists_and_finds_image_bytes_under_any_name(place: Path) -> None:
    content = [(place / f"img/{i}.png").read_bytes() for i in range(12)]
    table = {"pixels": content, "cls": LABELS, "__key__": [str(i) for i in range(12)]}
    pq.write_table(pa.table(table), place / "t.parquet")
    data = open_data(place / "t.parquet")
    assert data.columns is not None and (data.columns.image, data.columns.label) == ("pixels", "cls")
    boxes = [[{"label": name}] for name in LABELS]
    pq.write_table(pa.table({"jpg": content, "labels": boxes}), place / "u.parquet")
    for request in (OpenRequest(), OpenRequest(label_column="labels")):
        with pytest.raises(DataError, match=r"column labels holds records, e.g. \[{'label': 'cat'}\]"):
            open_data(place / "u.parquet", request)
    pq.write_table(pa.table({"jpg": content, "what": LABELS}), place / "v.parquet")
    with pytest.raises(DataError, match="columns: jpg, what"):
        open_data(place / "v.parquet")


@pytest.mark.parametrize(
    ("content", "telling"),
    [
        ("image,label\n".encode("utf-16"), "UTF-16"),
        (b"PAR1", "a Parquet file, not text"),
        (b"<!DOCTYPE html><html>", "an HTML page"),
        ("image,label\né".encode("latin-1"), "not UTF-8 text"),
    ],
)
def test_what_is_no_text_is_named(tmp_path: Path, content: bytes, telling: str) -> None:
    (tmp_path / "t.csv").write_bytes(content)
    with pytest.raises(DataError, match=telling):
        open_data(tmp_path / "t.csv")
