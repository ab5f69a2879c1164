"""Train, evaluate and predict several classes for each image, and numbers, through the command."""

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

import patchword as pw
from patchword.cli.main import run
from patchword.data.open import open_data
from patchword.data.request import OpenRequest
from patchword.errors import DataError

Output = pytest.CaptureFixture[str]
SMALL = [
    "--image-size",
    "16",
    "--patch-size",
    "8",
    "--epochs",
    "10",
    "--threads",
    "1",
    "-o",
    "run.batch_size=16",
]
N = 132


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images of 16 pixels whose channels are bright or dark, each on its own; the table says which, and how bright red is."""
    folder = tmp_path_factory.mktemp("colours")
    rng, rows = np.random.default_rng(0), []
    for i in range(N):
        level = rng.integers(0, 256, 3)
        pixels = np.clip(level + rng.normal(0, 12, (16, 16, 3)), 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.png")
        rows.append((f"{i}.png", *(int(v > 127) for v in level), round(float(level[0]) * 3 + 1000, 1)))
    with open(folder / "t.csv", "w", newline="") as file:
        csv.writer(file).writerows([("image", "red", "green", "blue", "shade"), *rows])
    return folder


def test_several_classes_from_table_to_prediction(place: Path, capsys: Output) -> None:
    data, out = ["--label-column", "red,green,blue"], str(place / "multi")
    assert run(["train", str(place / "t.csv"), *data, "--out", out, *SMALL]) == 0
    assert "mAP" in capsys.readouterr().err
    found = json.loads((place / "multi/evaluation.json").read_text())
    assert found["task"] == "multi" and [o["name"] for o in found["outputs"]] == ["red", "green", "blue"]
    # The classes are in about half of the images, so chance is 0.5.
    assert found["scores"]["map"] > 0.75, found
    assert found["headline"].split(" (")[0] in (place / "multi/report.html").read_text()
    assert run(["evaluate", out, str(place / "t.csv"), *data, "--json"]) == 0
    again = json.loads(capsys.readouterr().out)
    assert again["scores"]["map"] == pytest.approx(found["scores"]["map"], abs=1e-6)
    assert run(["predict", out, str(place / "0.png"), "--json"]) == 0
    shares = [p["probability"] for p in json.loads(capsys.readouterr().out)[0]["predictions"]]
    assert len(shares) == 3 and sum(shares) != pytest.approx(1, abs=1e-3)
    assert run(["evaluate", out, str(place / "t.csv"), "--target-column", "shade"]) == 2
    assert "the model gives several classes per image" in capsys.readouterr().err
    _thresholds_that_are_best(place, out, found, capsys)


def _thresholds_that_are_best(place: Path, out: str, found: dict[str, Any], capsys: Output) -> None:
    """Those of the evaluation are in the file, and applied if asked for."""
    best = [o["threshold"] for o in found["outputs"]]
    model = pw.load(out)
    assert list(model.card.thresholds) == [0.5 if t is None else t for t in best] and any(best)
    files = [str(place / f"{i}.png") for i in range(12)]

    def rows(*options: str) -> list[dict[str, Any]]:
        assert run(["predict", out, *files, *options, "--jsonl"]) == 0
        return [json.loads(text) for text in capsys.readouterr().out.splitlines()]

    for options, at in (
        ((), [0.5] * 3),
        (("--thresholds", "best"), model.card.thresholds),
        (("--thresholds", "0.2"), [0.2] * 3),
    ):
        for row in rows(*options):
            shares = {p["class"]: p["probability"] for p in row["predictions"]}
            wanted = {n for n, t in zip(model.classes, at, strict=True) if shares[n] >= t}
            assert set(row["present"]) == wanted
    assert model.predict(files[0]).present("best") == tuple(rows("--thresholds", "best")[0]["present"])
    assert run(["predict", out, files[0], "--thresholds", "0"]) == 0
    text = capsys.readouterr().out
    assert all(name in text for name in ("red", "green", "blue")) and "(" not in text
    assert run(["predict", out, files[0], "--thresholds", "1"]) == 0
    assert "none   (" in capsys.readouterr().out
    assert run(["predict", out, files[0], "--thresholds", "2"]) == 2
    assert "give best, or a probability from 0 to 1" in capsys.readouterr().err


def test_predictions_of_several_classes_are_scored_against_a_table(place: Path, capsys: Output) -> None:
    """After training above: the score of `evaluate` on the same images."""
    out, names = str(place / "multi"), ("red", "green", "blue")
    lines = (place / "t.csv").read_text().splitlines()[1:]
    cells = [dict(zip(("image", *names), line.split(","), strict=False)) for line in lines]
    with open(place / "sets.csv", "w") as file:
        file.write("image,tags\n")
        file.writelines(f"{c['image']},{';'.join(n for n in names if c[n] == '1')}\n" for c in cells)
    (place / "images").mkdir()
    for cell in cells[:40]:
        shutil.copy(place / cell["image"], place / "images" / cell["image"])
    given = ["predict", out, str(place / "images"), "--against"]
    scores = []
    for options in (
        [str(place / "t.csv")],
        [str(place / "sets.csv"), "--label-column", "tags", "--label-separator", ";"],
    ):
        assert run([*given, *options, "--json"]) == 0
        scores.append(json.loads(capsys.readouterr().out))
    score = scores[0]["score"]
    assert score["scores"] == scores[1]["score"]["scores"] and score["scored"] == 40
    assert len(score["rows_without_image"]) == N - 40 and score["headline"].startswith("mAP")
    truth = {c["image"]: {n for n in names if c[n] == "1"} for c in cells}
    shown = {Path(p["file"]).name: p for p in scores[0]["predictions"]}
    assert all(set(p["true"]) == truth[name] for name, p in shown.items())
    right = sum(set(p["present"]) == truth[name] for name, p in shown.items())
    assert score["scores"]["exact_match"] == pytest.approx(right / 40)
    shutil.copy(place / "t.csv", place / "images" / "t.csv")
    (place / "images" / "t.csv").write_text("\n".join((place / "t.csv").read_text().splitlines()[:41]) + "\n")
    columns = ["--label-column", "red,green,blue", "--include-trained"]
    assert run(["evaluate", out, str(place / "images/t.csv"), *columns, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["scores"] == pytest.approx(score["scores"], abs=1e-6)
    (place / "images/t.csv").unlink()
    table = place / "rows.csv"
    assert run([*given, str(place / "t.csv"), "--thresholds", "best", "--out", str(table)]) == 0
    said = capsys.readouterr().out
    assert "F1 at the best thresholds" in said and "scored 40 images" in said
    with open(table, newline="") as file:
        rows = list(csv.DictReader(file))
    assert all(set(filter(None, row["true"].split(";"))) == truth[Path(row["file"]).name] for row in rows)
    assert run([*given, str(place / "sets.csv"), "--label-column", "image"]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 2
    (place / "odd.csv").write_text("image,tags\n0.png,red;violet\n1.png,red\n2.png,red;blue\n")
    odd = [*given, str(place / "odd.csv"), "--label-separator", ";", "--label-column", "tags"]
    assert run(odd) == 2 and "'violet'" in capsys.readouterr().err
    assert run([*odd, "--ignore-unknown-classes"]) == 0
    assert "skipped 1 image with classes unknown to the model ('violet')" in capsys.readouterr().err


def test_numbers_from_table_to_prediction_in_their_unit(place: Path, capsys: Output) -> None:
    out, data = str(place / "number"), ["--target-column", "shade"]
    assert run(["train", str(place / "t.csv"), *data, "--out", out, *SMALL]) == 0
    assert "mean error of shade" in capsys.readouterr().err
    found = json.loads((place / "number/evaluation.json").read_text())["outputs"][0]
    # Always predicting the mean has R2 0.
    assert found["r2"] > 0.5, found
    assert run(["predict", out, str(place / "0.png"), str(place / "1.png"), "--csv"]) == 0
    rows = list(csv.DictReader(capsys.readouterr().out.splitlines()))
    assert [list(row) for row in rows] == [["file", "error", "shade"]] * 2
    assert all(900 < float(row["shade"]) < 1900 for row in rows)
    model = pw.load(out)
    prediction = model.predict(str(place / "0.png"))
    assert prediction.numbers is not None
    assert prediction.numbers["shade"] == pytest.approx(float(rows[0]["shade"]), rel=1e-4)
    assert run(["evaluate", out, str(place / "t.csv"), *data]) == 0
    assert "R2" in capsys.readouterr().out


def test_predictions_of_numbers_are_scored_against_a_table(place: Path, capsys: Output) -> None:
    """After training above."""
    out, table = str(place / "number"), str(place / "numbers.parquet")
    given = ["predict", out, str(place / "images"), "--against"]
    assert run([*given, str(place / "t.csv"), "--out", table]) == 0
    said = capsys.readouterr().out
    assert "mean error of shade" in said and "scored 40 images" in said
    rows = pq.read_table(table).to_pylist()
    error = float(np.mean([abs(row["shade"] - row["true_shade"]) for row in rows]))
    assert f"shade: MAE {error:.4g}" in said
    found = pw.score(pw.load(out).predict(str(place / "images")), place / "t.csv")
    assert found.outputs[0]["mae"] == pytest.approx(error, rel=1e-5)
    assert run([*given, str(place / "t.csv"), "--target-column", "red"]) == 2
    assert "the numbers are red, but the model predicts shade" in capsys.readouterr().err
    assert run([*given, str(place / "t.csv"), "--thresholds", "best"]) == 2
    assert "--thresholds applies to models that give several classes" in capsys.readouterr().err


def test_other_images_are_evaluated_on_with_val(place: Path, capsys: Output) -> None:
    """Of several classes and of numbers, with the columns in another order; the run finds them again."""
    lines = (place / "t.csv").read_text().splitlines()
    (place / "a.csv").write_text("\n".join(lines[:31]) + "\n")
    turned = [
        ",".join([c[0], c[4], c[3], c[2], c[1]])
        for c in (line.split(",") for line in [lines[0], *lines[40:60]])
    ]
    (place / "v.csv").write_text("\n".join(turned) + "\n")
    short = [*SMALL, "--epochs", "1", "--val", str(place / "v.csv")]
    for columns, out in ((["--label-column", "blue,red"], "m"), (["--target-column", "shade"], "n")):
        assert run(["train", str(place / "a.csv"), *columns, *short, "--out", str(place / out)]) == 0, out
        found = json.loads((place / out / "evaluation.json").read_text())
        assert found["images"] == 20 and found["split"] == "val"
        (place / out / "report.html").unlink()
        assert run(["train", "--resume", str(place / out)]) == 0
        assert json.loads((place / out / "evaluation.json").read_text())["outputs"] == found["outputs"]
        capsys.readouterr()
    truth = {line.split(",")[0]: line.split(",")[3] == "1" for line in lines[40:60]}
    shown = json.loads((place / "m/evaluation.json").read_text())["outputs"]
    assert [o["name"] for o in shown] == ["blue", "red"] and shown[0]["images"] == sum(truth.values())
    (place / "s.csv").write_text("image,tags\n50.png,red;violet\n51.png,red\n52.png,blue\n")
    (place / "u.csv").write_text("image,tags\n0.png,red;blue\n1.png,red\n2.png,blue\n3.png,\n")
    options = ["--label-column", "tags", "--label-separator", ";", "--val", str(place / "s.csv")]
    assert run(["check", str(place / "u.csv"), *options]) == 2
    assert "1 class unknown to" in capsys.readouterr().err
    with pytest.raises(DataError, match=r"has one class per image, but .*u.csv has several classes"):
        open_data(place / "u.csv", OpenRequest(label_column="tags", label_separator=";", val="digits"))
