"""What predict and embed take: one answer for each image, under one name, and a reason for each that has none."""

import os
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

import patchword as pw
from patchword.data.loader import Named
from patchword.data.open import open_data
from patchword.data.request import OpenRequest
from patchword.errors import CheckpointError, DataError, ImageError, SettingsError
from patchword.inference.embed import embed_to
from patchword.inference.load import load
from patchword.inference.model import Model
from patchword.inference.predict import Predictions
from patchword.inference.sources import Reading, expand

from .conftest import NAMES


def names_of(*given: object, reading: Reading | None = None) -> list[str]:
    found = expand([str(g) for g in given], reading)
    names = [item.name if isinstance(item, Named) else item for item in found]
    assert len(found) == len(names) and found.longest_name == max(map(len, names))
    return names


def reasons_of(*given: object) -> dict[str, str]:
    """Name → reason, of those that have no image."""
    found = {}
    for item in expand([str(g) for g in given]):
        if isinstance(item, Named) and callable(item.source):
            try:
                item.source()
            except (DataError, ImageError) as error:
                found[item.name] = error.message
    return found


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory, pictures: list[Path]) -> Path:
    """train/ and val/ of three classes, four pictures each; beside it the same as a zip, tables and Parquet."""
    top = tmp_path_factory.mktemp("sets")
    for i, picture in enumerate(pictures[:12]):
        place = top / "flowers" / ("val" if i % 4 == 3 else "train") / NAMES[i % 3]
        place.mkdir(parents=True, exist_ok=True)
        (place / picture.name).write_bytes(picture.read_bytes())
    files = sorted((top / "flowers").rglob("*.*"))
    with zipfile.ZipFile(top / "flowers.zip", "w") as archive:
        for file in files:
            archive.write(file, file.relative_to(top / "flowers"))
        archive.writestr("readme.txt", "read me")
    rows = [(str(file.relative_to(top)), file.parent.name, file.parent.parent.name) for file in files]
    (top / "t.csv").write_text("image,label,split\n" + "".join(f"{','.join(row)}\n" for row in rows))
    (top / "unlabelled.csv").write_text("filename\n" + "".join(f"{row[0]}\n" for row in rows))
    (top / "t.tsv").write_text("image\tlabel\n" + "".join(f"{row[0]}\t{row[1]}\n" for row in rows))
    (top / "t.jsonl").write_text("".join(f'{{"image": "{row[0]}", "label": "{row[1]}"}}\n' for row in rows))
    images = [{"bytes": file.read_bytes(), "path": file.name} for file in files]
    pq.write_table(pa.table({"image": images, "label": [row[1] for row in rows]}), top / "hf.parquet")
    (top / "list.txt").write_text("".join(f"{row[0]}\n" for row in rows))
    return top


def test_a_data_set_in_any_form_is_answered_as_its_files_are(model: Model, labelled: Path) -> None:
    files = sorted(map(str, (labelled / "flowers").rglob("*.*")))
    expected = np.sort([p.probabilities for p in model.predict(files)], axis=0)
    vectors = np.sort(model.embed(files), axis=0)
    assert len(np.unique(expected, axis=0)) == 12, "the model tells these images apart"
    forms = "flowers flowers.zip t.csv unlabelled.csv t.tsv t.jsonl hf.parquet list.txt"
    for name in forms.split():
        found = model.predict(str(labelled / name))
        assert len({p.name for p in found}) == 12 and not any(p.error for p in found), name
        assert np.abs(np.sort([p.probabilities for p in found], axis=0) - expected).max() < 1e-5, name
        assert np.allclose(np.sort(model.embed(labelled / name), axis=0), vectors, atol=1e-5), name


@pytest.mark.parametrize("name", ["flowers", "flowers.zip", "t.csv"])
def test_a_split_has_the_images_and_names_that_training_knows(labelled: Path, name: str) -> None:
    path = labelled / name
    found = names_of(path, reading=Reading(split="val"))
    assert found == list(open_data(path).splits["val"].names) and len(found) == 3
    with pytest.raises(DataError, match="did you mean 'val'"):
        names_of(path, reading=Reading(split="vall"))


@pytest.mark.parametrize(
    "name", ["flowers", "flowers.zip", "t.csv", "t.tsv", "t.jsonl", "hf.parquet", "digits"]
)
def test_predict_embed_and_evaluate_read_the_same_split(model: Model, labelled: Path, name: str) -> None:
    """Split in the data, or as `train --split-seed` splits it."""
    path = name if name == "digits" else labelled / name
    data = open_data(path, OpenRequest(split_seed=3))
    seed = {} if data.split_seed is None else {"split_seed": 3}
    split = data.evaluation.name
    names = list(data.evaluation.names)
    assert [p.name for p in model.predict(path, split=split, **seed)] == names
    assert next(model.predict_each(path, split=split, **seed)).name == names[0]
    assert len(model.embed(path, split=split, **seed)) == len(names)
    if name != "digits":  # this model knows other classes
        assert pw.evaluate(model, path, split=split, **seed).images == len(names)
    everything = [n for part in data.splits.values() for n in part.names]
    if name != "digits":  # many
        assert [p.name for p in model.predict(path, split="all", **seed)] == everything
        assert len(model.embed(path, split="all", **seed)) == len(everything)
        assert pw.evaluate(model, path, split="all", **seed).images == len(everything)
    if not seed:
        with pytest.raises(SettingsError, match=r"has its own split \(train, (val|test)\), so split_seed 3"):
            model.predict(path, split=split, split_seed=3)


def test_a_zip_names_its_images_as_training_does(labelled: Path) -> None:
    known = {n for split in open_data(labelled / "flowers.zip").splits.values() for n in split.names}
    found = expand([str(labelled / "flowers.zip")])
    assert {item.name for item in found if isinstance(item, Named)} == known
    assert found.notes == (
        f"{labelled / 'flowers.zip'}: skipped 1 file without an image file extension (.txt 1)",
    )


def test_the_held_out_images_are_those_of_the_model(model: Model, labelled: Path) -> None:
    """Data without a split of its own, which this model never saw, has one split "all"."""
    path = labelled / "t.jsonl"
    reading = Reading(split="all", origin=model.provenance)
    assert names_of(path, reading=reading) == list(
        open_data(path, OpenRequest(split=False)).splits["all"].names
    )
    with pytest.raises(DataError, match="no split 'val'"):
        names_of(path, reading=Reading(split="val", origin=model.provenance))


def test_many_forms_may_be_named_together_in_order(labelled: Path, pictures: list[Path]) -> None:
    found = names_of(pictures[0], labelled / "flowers.zip", labelled / "t.csv", labelled / "flowers" / "val")
    assert len(found) == 1 + 12 + 12 + 3
    assert found[0] == str(pictures[0]) and found[13].startswith("flowers/")
    assert found[-1].startswith(str(labelled / "flowers" / "val"))


def test_an_image_of_a_zip_can_be_fetched_again(model: Model, labelled: Path) -> None:
    """As `plot` does."""
    first = model.predict(labelled / "flowers.zip")[0]
    assert callable(first.source) and first.source() == (labelled / "flowers" / first.name).read_bytes()


def test_columns_and_splits_that_nothing_would_use_are_refused(
    model: Model, labelled: Path, pictures: list[Path]
) -> None:
    for opening, given, words in (
        (OpenRequest(image_column="x"), pictures[0], "none is given"),
        (OpenRequest(label_column="x"), labelled / "t.csv", "only applies together with a split"),
        (OpenRequest(split_column="x"), labelled / "t.csv", "only applies together with a split"),
        (OpenRequest(class_level=2), labelled / "flowers", "only applies together with a split"),
        (OpenRequest(image_column="imge"), labelled / "t.csv", "did you mean 'image'"),
    ):
        with pytest.raises((SettingsError, DataError), match=words):
            names_of(given, reading=Reading(opening=opening))
    with pytest.raises(SettingsError, match="split seed 1 only applies together with a split"):
        names_of(labelled / "t.tsv", reading=Reading(split_seed=1))
    with pytest.raises(SettingsError, match="none is given"):  # as_many: one image, in Python
        model.predict(pictures[0], image_column="x")
    with pytest.raises(DataError, match="not a data set"):
        names_of(pictures[0], reading=Reading(split="val"))


def test_images_in_python_memory_have_no_split(model: Model, pictures: list[Path]) -> None:
    with pytest.raises(SettingsError, match="split='val' only applies to the path of a data set"):
        model.predict([pictures[0]], split="val")


def test_a_stream_of_a_path_is_the_images_there(model: Model, labelled: Path, pictures: list[Path]) -> None:
    """A string is not a list of its letters."""
    assert len(list(model.predict_each(str(labelled / "flowers.zip")))) == 12
    assert [p.name for p in model.predict_each(str(pictures[0]))] == [str(pictures[0])]


def test_files_folders_and_patterns_are_found(pictures: list[Path]) -> None:
    folder = pictures[0].parent
    names = [str(p) for p in pictures]
    assert names_of(folder) == names
    assert names_of(folder / "*.png") == names[::2]


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    """Two pictures, one of them in a sub-folder; an empty sub-folder; files of other kinds."""
    (tmp_path / "in" / "a").mkdir(parents=True)
    (tmp_path / "in" / "empty").mkdir()
    for place in ("1.png", "a/2.png"):
        Image.new("RGB", (20, 20), "red").save(tmp_path / "in" / place)
    for name in ("x.cr2", "y.nef", "z.nef", ".hidden.png", "Thumbs.db"):
        (tmp_path / "in" / "a" / name).write_bytes(b"no picture")
    return tmp_path / "in"


def test_a_sub_folder_without_images_stops_no_other(mixed: Path, model: Model) -> None:
    for given in ([mixed / "1.png", mixed / "a", mixed / "empty"], [mixed / "*"]):
        assert names_of(*given) == [str(mixed / n) for n in ("1.png", "a/2.png", "empty")]
        assert list(reasons_of(*given)) == [str(mixed / "empty")]
    stream = Predictions(model, expand([str(mixed / "*")]))
    assert len(list(stream)) == 3 and stream.failed == 1
    with pytest.raises(DataError, match="no images in this folder"):
        names_of(mixed / "empty")


def test_a_pattern_over_all_levels_finds_each_image_once(mixed: Path) -> None:
    found = names_of(mixed / "**" / "*.png")
    assert found == [str(mixed / "1.png"), str(mixed / "a" / "2.png")]


def test_what_a_folder_scan_skips_is_counted(mixed: Path) -> None:
    (note,) = expand([str(mixed)]).notes
    assert note == f"{mixed}: skipped 3 files without an image file extension (.nef 2, .cr2 1)"
    (mixed / "a" / "2.png").unlink()
    with pytest.raises(DataError, match=r"no images in this folder \(3 files .*nef 2"):
        names_of(mixed / "a")


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ([""], "a path is empty"),
        (["IN/*.jpg"], "no file matches"),
        (["IN/1.pgn"], "did you mean '1.png'"),
        (["IN/none.zip"], "no such file"),
        (["-", "IN/1.png"], "cannot be combined"),
    ],
)
def test_a_wrong_name_is_an_error_alone_and_a_reason_among_others(
    mixed: Path, given: list[str], words: str
) -> None:
    places = [g.replace("IN", str(mixed)) for g in given]
    with pytest.raises(DataError, match=words):
        expand(places)
    if "-" not in given:
        assert words in " ".join(reasons_of(*places, mixed / "1.png").values()) or words.startswith("near")
        assert len(names_of(*places, mixed / "1.png")) == 2


def test_a_text_file_that_lists_nothing_is_one_answer(mixed: Path) -> None:
    (mixed / "notes.txt").write_text("buy milk\nand bread\n")
    assert names_of(mixed / "notes.txt", mixed / "1.png") == [str(mixed / "notes.txt"), str(mixed / "1.png")]


def test_a_table_row_without_an_image_is_an_answer_of_its_own(mixed: Path) -> None:
    (mixed / "t.csv").write_text("image,label\n1.png,a\n,b\nnone.png,c\n")
    assert names_of(mixed / "t.csv") == ["1.png", "row 1", "none.png"]
    assert "no image in this row" in reasons_of(mixed / "t.csv")["row 1"]


@pytest.fixture
def locked(model: Model) -> Iterator[Path]:
    """A folder with one picture and a sub-folder that this process may not read; the model is read before."""
    with tempfile.TemporaryDirectory() as name:
        top = Path(name)
        top.chmod(0o755)
        (top / "secret").mkdir()
        for place in (top, top / "secret"):
            Image.new("RGB", (20, 20), "red").save(place / "1.png")
        (top / "secret").chmod(0)
        was = os.geteuid()
        if was == 0:  # root may read everything
            os.seteuid(65534)
        try:
            yield top
        finally:
            os.seteuid(was)
            (top / "secret").chmod(0o755)


@pytest.mark.skipif(not hasattr(os, "seteuid"), reason="a right of POSIX")
def test_a_folder_that_may_not_be_read_is_named_and_the_rest_is_answered(locked: Path, model: Model) -> None:
    assert reasons_of(locked) == {
        str(locked / "secret"): f"{locked / 'secret'}: no permission to read this folder"
    }
    answers = model.predict(locked)
    assert [bool(p.error) for p in answers] == [True, False]
    with pytest.raises(DataError, match="no permission to read this folder"):
        expand([str(locked / "secret")])
    for name in ("1.png", "a.zip", "a.csv", "list.txt"):
        with pytest.raises(DataError, match="no permission to read it"):
            expand([str(locked / "secret" / name)])
        assert names_of(locked / "secret" / name, locked / "1.png")[1] == str(locked / "1.png")
    with pytest.raises(CheckpointError, match="no permission to read it"):
        load(locked / "secret" / "m.safetensors")


def test_every_row_says_what_to_do(model: Model, tmp_path: Path, pictures: list[Path]) -> None:
    (tmp_path / "a.heic").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic")
    (tmp_path / "b.jxl").write_bytes(b"\xff\x0a" + bytes(20))
    np.save(tmp_path / "c.npy", np.full((20, 20, 3), 200.0))
    Image.new("RGB", (60, 60)).save(tmp_path / "d.png")
    given = [*sorted(tmp_path.iterdir()), pictures[0]]
    for prediction, words in zip(
        model.predict(given, max_pixels=3000),
        ("JPEG or PNG", "PNG or JPEG", "value_range", "max_pixels"),
        strict=False,
    ):
        with pytest.raises(ImageError) as alone:
            model.predict(prediction.name, max_pixels=3000)
        assert words in alone.value.fix and alone.value.fix in prediction.error


def test_a_range_makes_float_images_readable(model: Model, pictures: list[Path], tmp_path: Path) -> None:
    picture = np.asarray(Image.open(pictures[0]).convert("RGB"))
    deep = picture.astype(np.float32)
    expected = model.predict(picture).probabilities
    with pytest.raises(ImageError, match="outside"):
        model.predict(deep)
    found = model.predict(deep, value_range=(0, 255))
    assert np.abs(found.probabilities - expected).max() < 0.02
    assert found.value_range == (0, 255), "it is shown by the same range"
    assert np.abs(model.embed(deep, value_range=(0, 255)) - model.embed(picture)).max() < 0.2
    np.save(tmp_path / "a.npy", deep)
    done = embed_to(model, [tmp_path / "a.npy"], tmp_path / "v.npy", value_range=(0, 255))
    assert done.count == 1 and not done.failed
    for wrong in ((255, 0), (0,), "ab", (0, float("nan"))):
        with pytest.raises(SettingsError, match="value_range"):
            model.predict(deep, value_range=wrong)  # type: ignore[arg-type]
