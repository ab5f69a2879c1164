"""Train, evaluate and predict several classes for each image, and numbers, through the command."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import patchword as pw
from patchword.cli.main import run

Output = pytest.CaptureFixture[str]
SMALL = [
    "--image-size",
    "16",
    "--patch-size",
    "8",
    "--epochs",
    "12",
    "--threads",
    "1",
    "-o",
    "run.batch_size=16",
]
N = 96


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
