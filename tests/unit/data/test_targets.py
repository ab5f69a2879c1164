"""Several classes or numbers for each image: read as they are written, split fairly, and refused with file and row."""

import csv
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import patchword as pw
from patchword.cli.main import run
from patchword.data.dataset import Dataset
from patchword.data.open import open_data
from patchword.data.request import OpenRequest
from patchword.data.splits import held_out
from patchword.data.targets import MultiLabels, Numbers
from patchword.errors import DataError, SettingsError
from support.scans import write_scans

N = 24
SETS = [("cat",), ("dog",), ("cat", "dog"), ()] * (N // 4)
Output = pytest.CaptureFixture[str]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """24 scans, img/0.png to img/23.png."""
    write_scans(tmp_path, {"d0": N})
    (tmp_path / "d0").rename(tmp_path / "img")
    return tmp_path


def _table(place: Path, header: Sequence[str], rows: Sequence[Sequence[object]]) -> Path:
    path = place / "t.csv"
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *((f"img/{i}.png", *row) for i, row in enumerate(rows))])
    return path


def _sets(data: Dataset) -> dict[str, tuple[str, ...]]:
    """The classes of each image by its number."""
    whole = data.everything
    assert isinstance(whole.targets, MultiLabels) and data.task_kind == "multi"
    return {
        Path(name).stem: tuple(c for c, there in zip(data.classes, row, strict=True) if there)
        for name, row in zip(whole.names, whole.targets.values, strict=True)
    }


EXPECTED = {str(i): names for i, names in enumerate(SETS)}


def test_columns_of_0_and_1_separators_and_lists_say_the_same(place: Path) -> None:
    flags = [("cat" in s, "1.0" if "dog" in s else "0") for s in SETS]
    columns = _table(place, ("image", "cat", "dog"), [(int(c), d) for c, d in flags])
    assert _sets(open_data(columns, OpenRequest(label_column="cat, dog"))) == EXPECTED
    texts = _table(place, ("image", "label"), [("; ".join(s),) for s in SETS])
    given = open_data(texts, OpenRequest(label_separator=";"))
    assert _sets(given) == EXPECTED
    assert any("6 rows of 24 have no class, the first is row 4" in p.message for p in given.problems)
    rows = [{"image": f"img/{i}.png", "label": list(s)} for i, s in enumerate(SETS)]
    (place / "t.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert _sets(open_data(place / "t.jsonl")) == EXPECTED
    content = [(place / f"img/{i}.png").read_bytes() for i in range(N)]
    pq.write_table(pa.table({"image": content, "label": [list(s) for s in SETS]}), place / "t.parquet")
    assert list(_sets(open_data(place / "t.parquet", OpenRequest(split=False))).values()) == SETS
    written = _table(place, ("image", "label"), [(str(list(s)),) for s in SETS])
    assert _sets(open_data(written)) == EXPECTED


def test_an_evident_separator_is_guessed_and_stated(place: Path) -> None:
    data = open_data(_table(place, ("image", "label"), [("|".join(s) or "owl",) for s in SETS]))
    assert data.classes == ("cat", "dog", "owl")
    assert data.readings == (
        "several classes per image: column label, separated by '|' in 6 of 24 rows (guessed; --label-separator says otherwise)",
    )


def test_columns_of_0_and_1_without_a_name_are_offered(place: Path) -> None:
    table = _table(place, ("image", "cat", "dog"), [(1, 0), (1, 1)] * 12)
    with pytest.raises(DataError) as raised:
        open_data(table)
    assert raised.value.fix == "pass them with --label-column cat,dog"


@pytest.mark.parametrize(
    ("header", "bad", "request_", "message", "fix"),
    [
        ("cat,dog", ("1", "2"), {"label_column": "cat,dog"}, "row 3: column dog has '2'", "write 0 or 1"),
        ("cat,dog", ("1", ""), {"label_column": "cat,dog"}, "row 3: column dog is empty", "write 0 or 1"),
        (
            "cat,dog",
            ("1", "1"),
            {"label_column": "cat,dgo"},
            "no column 'dgo' (did you mean 'dog'?)",
            "use one of",
        ),
        ("cat,dog", ("1", "1"), {"label_column": "cat,cat"}, "names a column twice", "once"),
        (
            "age",
            ("old",),
            {"target_column": "age"},
            "row 3: column age has 'old', which is not a num",
            "correct",
        ),
        ("age", ("1,5",), {"target_column": "age"}, "row 3: column age has '1,5'", "write 1.5"),
        ("age", ("inf",), {"target_column": "age"}, "row 3: column age has 'inf'", "correct"),
        (
            "label",
            ("1 0",),
            {"label_separator": ";"},
            "no cell of column label contains ';', e.g. '1 0'",
            "' '",
        ),
    ],
)
def test_a_cell_that_cannot_be_read_is_named_with_its_row(
    place: Path, header: str, bad: tuple[str, ...], request_: dict[str, str], message: str, fix: str
) -> None:
    names = header.split(",")
    rows = [*[("1", "0")[: len(names)]] * 2, bad, *[("0", "1")[: len(names)]] * 9]
    table = _table(place, ("image", *names), rows)
    with pytest.raises(DataError) as raised:
        open_data(table, OpenRequest(**request_))  # type: ignore[arg-type]
    assert message in raised.value.message and str(table) in raised.value.message and fix in raised.value.fix


def test_both_sides_of_a_split_have_each_class_and_adding_images_moves_none() -> None:
    rng = np.random.default_rng(0)
    values = rng.random((400, 12)) < np.geomspace(0.01, 0.5, 12)
    keys = [f"img/{i}.jpg" for i in range(400)]
    before = held_out(MultiLabels(values[:300]), keys[:300], 0)
    assert 40 < before.sum() < 90
    for column in values[:300].T:
        if column.sum() > 1:
            assert not before[column].all()
            assert before[column].any() or column.sum() < 4
    after = held_out(MultiLabels(values), keys, 0)[:300]
    assert not (after & ~before).any()


def test_numbers_are_read_and_described_and_rows_without_one_are_counted(place: Path, capsys: Output) -> None:
    rows = [(20 + i, 1.5 + i / 100) for i in range(N - 1)]
    table = _table(place, ("image", "age", "height"), [*rows, ("nan", 1.7)])
    data = open_data(table, OpenRequest(target_column="age,height", split=False))
    targets = data.everything.targets
    assert isinstance(targets, Numbers) and targets.names == ("age", "height") and data.task_kind == "number"
    assert targets.values == pytest.approx(np.array(rows, np.float32)) and data.classes == ()
    assert any("column age has no number in 1 row, the first is row 24" in p.message for p in data.problems)
    assert run(["check", str(table), "--target-column", "age,height", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["task"] == "number" and 20 < facts["numbers"]["age"]["mean"] < 43
    assert run(["check", str(table), "--target-column", "age"]) == 0
    assert "age: min 20, median" in capsys.readouterr().out


def test_a_constant_column_is_refused_and_another_unit_is_noticed(place: Path, capsys: Output) -> None:
    assert run(["check", str(_table(place, ("image", "age"), [(3,)] * N)), "--target-column", "age"]) == 2
    assert "the same number in every training row (3)" in " ".join(capsys.readouterr().out.split())
    ages = [(20 + i if i else 9999, "val" if i % 5 == 4 else "train") for i in range(N)]
    data = pw.check(str(_table(place, ("image", "age", "split"), ages)), target_column="age")
    assert any("1 number far from all others, e.g. 9999 for img/0.png" in p.message for p in data.problems)


def test_check_shows_positives_and_finds_classes_that_never_or_always_occur(
    place: Path, capsys: Output
) -> None:
    table = _table(place, ("image", "cat", "dog", "owl"), [("cat" in s, 1, 0) for s in SETS])
    assert run(["check", str(table), "--label-column", "cat,dog,owl"]) == 2
    shown = " ".join(capsys.readouterr().out.split())
    assert "no training image has the class 'owl'" in shown and "3 classes (several per image)" in shown
    assert (
        "every training image has the class 'dog'" in shown
        and "most often together: 'cat' and 'dog'" in shown
    )


def test_a_table_labels_the_images_of_a_folder_by_path_or_name(place: Path, capsys: Output) -> None:
    labels = place / "labels.csv"
    for named in ("{}.png", "./{}.png"):
        rows = [f"{named.format(i)},{'ab'[i % 2]}" for i in range(N - 2)]
        labels.write_text("\n".join(["image,label", *rows]))
        data = open_data(place / "img", OpenRequest(labels=str(labels)))
        assert data.classes == ("a", "b") and len(data.everything) == N - 2
        assert "no usable row for 2 of 24 images" in data.problems[-1].message
    assert run(["check", str(place / "img"), "--labels", str(labels)]) == 0
    (place / "deep").mkdir()
    (place / "img").rename(place / "deep" / "img")
    assert len(open_data(place / "deep", OpenRequest(labels=str(labels))).everything) == N - 2
    capsys.readouterr()
    assert run(["check", str(labels), "--labels", str(labels)]) == 2
    assert "labels the images of a folder" in capsys.readouterr().err


def test_options_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(SettingsError, match="--target-column gives numbers and --label-column gives classes"):
        OpenRequest(target_column="a", label_column="b")
    with pytest.raises(SettingsError, match="--label-separator is empty"):
        OpenRequest(label_separator="")


def test_labels_of_other_data_are_refused(place: Path) -> None:
    numbers = open_data(
        _table(place, ("image", "age"), [(i,) for i in range(N)]), OpenRequest(target_column="age")
    )
    with pytest.raises(DataError, match="numbers instead of classes"):
        assert len(numbers.training.labels)
