"""`patchword predict --against`: rows with the truth, the score, and what could not be matched."""

import csv
import io
import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

import patchword as pw
from patchword.cli.main import run
from patchword.data.contents import hash_of, pack
from patchword.weights.card import Provenance
from support.colours import COLOURS, write_colour_model

Output = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def model_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_colour_model(tmp_path_factory.mktemp("model") / "colours.safetensors")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four images of each colour in class folders, and labels.csv, in which one of them has a wrong label."""
    top = tmp_path_factory.mktemp("against")
    drawn, rows = np.random.default_rng(0), []
    for label in COLOURS:
        (top / "images" / label).mkdir(parents=True)
        for i in range(4):
            image = Image.new("RGB", (50, 40), label)
            image.putpixel((0, 0), tuple(map(int, drawn.integers(0, 255, 3))))  # no two are equal
            image.save(top / "images" / label / f"{i}.png")
            rows.append((f"{label}/{i}.png", "green" if (label, i) == ("red", 3) else label))
    (top / "labels.csv").write_text("image,label\n" + "".join(f"{a},{b}\n" for a, b in rows))
    return top


def said(capsys: Output, *args: object, code: int = 0) -> tuple[str, str]:
    assert run([str(a) for a in args]) == code
    found = capsys.readouterr()
    return found.out, found.err


def test_every_format_has_the_truth_next_to_the_prediction(
    model_file: Path, folder: Path, tmp_path: Path, capsys: Output
) -> None:
    given = ("predict", model_file, folder / "images", "--against", folder / "labels.csv")
    whole = json.loads(said(capsys, *given, "--json")[0])
    rows = whole["predictions"]
    assert [r["correct"] for r in rows].count(False) == 1
    assert next(r["true"] for r in rows if not r["correct"]) == "green"
    lines, score = said(capsys, *given, "--jsonl")
    assert [json.loads(line) for line in lines.splitlines()] == rows
    assert "top-1  91.7 %" in score and "scored 12 images" in score
    table = list(csv.DictReader(io.StringIO(said(capsys, *given, "--csv")[0])))
    assert [r["true"] for r in table] == [r["true"] for r in rows]
    assert [r["correct"] for r in table] == [str(r["correct"]).lower() for r in rows]
    for ending in ("json", "csv", "parquet"):
        out, _ = said(capsys, *given, "--out", tmp_path / f"rows.{ending}")
        assert out.startswith("top-1  91.7 %")
    assert json.loads((tmp_path / "rows.json").read_text()) == rows
    stored = pq.read_table(tmp_path / "rows.parquet").to_pylist()
    assert [(r["true"], r["correct"]) for r in stored] == [(r["true"], r["correct"]) for r in rows]
    out, _ = said(capsys, *given)
    assert out.count("   correct\n") == 11 and out.count("   wrong: green\n") == 1
    # With the rows in a file, --json prints the score alone, in the same place.
    alone = json.loads(said(capsys, *given, "--json", "--out", tmp_path / "rows.csv")[0])
    assert alone == {"score": whole["score"]}


def test_the_score_is_that_of_evaluate_and_of_python(model_file: Path, folder: Path, capsys: Output) -> None:
    given = ("predict", model_file, folder / "images", "--against", folder / "labels.csv")
    score = json.loads(said(capsys, *given, "--json")[0])["score"]
    table = folder / "images" / "labels.csv"
    table.write_bytes((folder / "labels.csv").read_bytes())
    try:
        evaluated = json.loads(said(capsys, "evaluate", model_file, table, "--json")[0])
    finally:
        table.unlink()
    for name in ("top1", "top1_interval", "scored", "images", "classes", "confusion", "majority"):
        assert score[name] == evaluated[name], name
    model = pw.load(model_file)
    found = pw.score(model.predict(folder / "images"), folder / "labels.csv")
    assert found.to_dict() == score and [p.correct for p in found.predictions].count(False) == 1


def test_images_without_a_row_and_rows_without_an_image_are_counted_and_listed(
    model_file: Path, folder: Path, tmp_path: Path, capsys: Output
) -> None:
    labels = tmp_path / "few.csv"
    labels.write_text("file,label\nred/0.png,red\nblue/0.png,\nred/9.png,red\nblue/1.png,blue\n")
    out, err = said(capsys, "predict", model_file, folder / "images", "--against", labels, "--json")
    images = folder / "images"
    assert f"9 images without a row in {labels}: {images / 'blue' / '2.png'}, " in err
    assert f"1 image without a label in {labels}: {images / 'blue' / '0.png'}" in err
    assert f"1 row of {labels} without an image: red/9.png" in err
    found = json.loads(out)
    assert found["score"]["scored"] == 2 and len(found["score"]["images_without_row"]) == 9
    assert [r["file"] for r in found["predictions"] if "true" in r] == [
        str(images / name) for name in ("blue/1.png", "red/0.png")
    ]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("image,label\nred/0.png,redd\n", "'redd' (did you mean 'red'?)"),
        ("image,label\nx.png,red\ny.png,red\n", "none of its 2 rows names one of the 12 images"),
        ("image,label\nred/0.png,red\nred/0.png,blue\n", "different labels"),
        ("image\nred/0.png\n", "which column holds the label"),
        ("image,label\nred/0.png,\n", "no row has both an image and a label"),
    ],
)
def test_a_table_that_cannot_score_is_reported_in_two_lines_before_any_row(
    content: str, words: str, model_file: Path, folder: Path, tmp_path: Path, capsys: Output
) -> None:
    labels = tmp_path / "labels.csv"
    labels.write_text(content)
    given = ("predict", model_file, folder / "images", "--against", labels)
    out, err = said(capsys, *given, "--json", code=2)
    assert not out and len(err.splitlines()) == 2 and words in err
    with pytest.raises(pw.PatchwordError) as caught:
        pw.score(pw.load(model_file).predict(folder / "images"), labels)
    assert words in caught.value.message and "--" not in str(caught.value)


def test_unknown_classes_are_skipped_and_counted_on_request(
    model_file: Path, folder: Path, tmp_path: Path, capsys: Output
) -> None:
    labels = tmp_path / "labels.jsonl"
    labels.write_text(
        '{"who": "red/0.png", "what": "red"}\n{"who": "red/1.png", "what": "pink"}\n', encoding="utf-8"
    )
    columns = ("--image-column", "who", "--label-column", "what")
    given = ("predict", model_file, folder / "images", "--against", labels, *columns)
    assert "'pink'" in said(capsys, *given, code=2)[1]
    out, err = said(capsys, *given, "--ignore-unknown-classes", "--json")
    assert json.loads(out)["score"]["scored"] == 1
    assert "skipped 1 image of classes unknown to the model ('pink')" in err
    assert (
        "only applies together with --against"
        in said(capsys, *given[:3], "--ignore-unknown-classes", code=2)[1]
    )


def test_an_unreadable_image_is_not_scored(
    model_file: Path, folder: Path, tmp_path: Path, capsys: Output
) -> None:
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"\x89PNG\r\n\x1a\n")
    good = folder / "images" / "red" / "0.png"
    (tmp_path / "labels.csv").write_text(f"image,label\n{bad},red\n{good},red\n")
    given = ("predict", model_file, good, bad, "--against", tmp_path / "labels.csv", "--json")
    found = json.loads(said(capsys, *given, code=3)[0])
    assert found["score"]["scored"] == 1 and found["score"]["unreadable"][0]["name"] == str(bad)
    assert found["predictions"][1]["true"] == "red" and "correct" not in found["predictions"][1]
    given = ("predict", model_file, bad, "--against", tmp_path / "labels.csv", "--json")
    out, err = said(capsys, *given, code=2)
    assert "none of the 1 image has both" in err and json.loads(out)["predictions"][0]["error"]


def test_images_that_the_model_was_trained_on_are_pointed_out(
    folder: Path, tmp_path: Path, capsys: Output
) -> None:
    seen = [folder / "images" / "red" / f"{i}.png" for i in range(2)]
    provenance = Provenance(trained_on=pack(hash_of(path.read_bytes()) for path in seen))
    model = write_colour_model(tmp_path / "m.safetensors", provenance)
    given = ("predict", model, folder / "images", "--against", folder / "labels.csv", "--json")
    out, err = said(capsys, *given)
    assert "trained on 2 of these 12 images, so the score is optimistic" in err
    assert json.loads(out)["score"]["trained_on"] == {"images": 2, "of": 12, "scored": True}


def test_standard_input_can_be_scored(
    model_file: Path, folder: Path, capsys: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = "".join(f"{folder / 'images' / name / '0.png'}\n" for name in COLOURS)
    stdin = io.TextIOWrapper(io.BufferedReader(io.BytesIO(paths.encode())))  # type: ignore[arg-type]
    monkeypatch.setattr("sys.stdin", stdin)
    given = ("predict", model_file, "-", "--against", folder / "labels.csv", "--json")
    assert json.loads(said(capsys, *given)[0])["score"]["scored"] == 3
