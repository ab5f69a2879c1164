"""`patchword predict` with a detector: every format holds the same boxes, and nothing is lost on the way."""

import csv
import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

import patchword as pw
from patchword.cli.main import run
from patchword.data.box_targets import Boxes
from patchword.data.open import open_data
from patchword.data.request import OpenRequest
from patchword.inference.detector import Detector
from support.detectors import IDS, write_detector_file

Output = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def detector(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_detector_file(tmp_path_factory.mktemp("detector") / "d.safetensors")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for name, (width, height) in {"000000000139.jpg": (80, 60), "7.png": (60, 90)}.items():
        coarse = Image.fromarray(rng.integers(0, 255, (5, 6, 3), dtype=np.uint8))
        coarse.resize((width, height)).save(folder / name)
    return folder


def _predict(output: Output, *args: str | Path) -> tuple[int, str, str]:
    code = run(["predict", *map(str, args), "--device", "cpu"])
    said = output.readouterr()
    return code, said.out, said.err


def test_every_format_holds_the_same_boxes(
    detector: Path, images: Path, tmp_path: Path, capsys: Output
) -> None:
    loaded = pw.load(detector, device="cpu")
    assert isinstance(loaded, Detector)
    expected = [one.to_dict() for one in loaded.predict(images, conf=0.3)]
    boxes = [{"file": one["file"], **box} for one in expected for box in one["objects"]]
    assert len(boxes) > 3
    code, out, err = _predict(capsys, detector, images, "--conf", "0.3", "--json")
    assert code == 0 and json.loads(out) == expected
    assert "left, top, right, bottom in pixels of the upright image" in err
    _, out, _ = _predict(capsys, detector, images, "--conf", "0.3", "--jsonl")
    assert [json.loads(line) for line in out.splitlines()] == expected
    for name in ("boxes.csv", "boxes.parquet"):
        assert _predict(capsys, detector, images, "--conf", "0.3", "--out", tmp_path / name)[0] == 0
    rows = pq.read_table(tmp_path / "boxes.parquet").to_pylist()
    kept = ("file", "class", "id", "score", "left", "top", "right", "bottom")
    assert [{k: row[k] for k in kept} for row in rows] == boxes
    with (tmp_path / "boxes.csv").open() as file:
        assert [float(row["left"]) for row in csv.DictReader(file)] == [box["left"] for box in boxes]
    _, out, _ = _predict(capsys, detector, images, "--conf", "0.3")
    heads = [line for line in out.splitlines() if not line.startswith(" ")]
    assert len(heads) == 2 and "80 x 60" in heads[0] and len(out.splitlines()) == 2 + len(boxes)
    first = next(line for line in out.splitlines() if line.startswith(" ")).split()
    assert first[0] == boxes[0]["class"] and float(first[2]) == pytest.approx(boxes[0]["left"], abs=0.06)


def test_a_written_table_is_read_as_annotations(
    detector: Path, images: Path, tmp_path: Path, capsys: Output
) -> None:
    table = images / "found.csv"
    _predict(capsys, detector, images / "7.png", "--conf", "0.3", "--out", tmp_path / "found.csv")
    table.write_text((tmp_path / "found.csv").read_text().replace(str(images) + "/", ""))
    try:
        read = open_data(table, OpenRequest(boxes=True, split=False)).splits["all"].targets
    finally:
        table.unlink()
    assert isinstance(read, Boxes)
    found = pw.load_detector(detector, device="cpu").predict(images / "7.png", conf=0.3)
    assert not isinstance(found, list)
    wide = ((found.boxes[:, 2:] - found.boxes[:, :2]) > 0.01).all(axis=1)
    order = np.lexsort(found.boxes[wide].T)
    np.testing.assert_allclose(read.corners[np.lexsort(read.corners.T)], found.boxes[wide][order], atol=0.02)


def test_an_unreadable_image_gets_a_row_and_an_image_without_objects_too(
    detector: Path, images: Path, tmp_path: Path, capsys: Output
) -> None:
    (tmp_path / "broken.jpg").write_bytes(b"no image")
    code, out, err = _predict(capsys, detector, images, tmp_path / "broken.jpg", "--conf", "0.99", "--csv")
    rows = list(csv.DictReader(out.splitlines()))
    assert code == 3 and len(rows) == 3 and "1 of 3 images could not be read" in err
    assert rows[0]["width"] == "80" and rows[0]["left"] == "" and "not an image" in rows[2]["error"]


def test_coco_results_have_the_ids_of_the_data(
    detector: Path, images: Path, tmp_path: Path, capsys: Output
) -> None:
    results = tmp_path / "r.json"
    code, _, err = _predict(capsys, detector, images, "--coco", results)
    found = json.loads(results.read_text())
    # Of all scores, whatever the terminal shows.
    assert code == 0 and len(found) == 12 and min(one["score"] for one in found) < 0.5
    assert {one["image_id"] for one in found} == {139, 7}
    assert {one["category_id"] for one in found} <= set(IDS.values())
    assert "12 boxes of all scores" in err
    one, loaded = (
        found[0],
        pw.load_detector(detector, device="cpu").predict(images / "000000000139.jpg", conf=0),
    )
    assert not isinstance(loaded, list)
    left, top, right, bottom = loaded.boxes[0]
    assert one["bbox"] == pytest.approx([left, top, right - left, bottom - top])

    data = {
        "images": [{"id": "a", "file_name": "000000000139.jpg"}, {"id": 5, "file_name": "x/9.png"}],
        "annotations": [],
        "categories": [{"id": 40, "name": "red"}, {"id": 1, "name": "green"}],
    }
    (tmp_path / "data.json").write_text(json.dumps(data))
    code, _, err = _predict(
        capsys, detector, images, "--coco", results, "--annotations", tmp_path / "data.json", "--conf", "0"
    )
    found = json.loads(results.read_text())
    assert code == 0 and {one["image_id"] for one in found} == {"a"}
    assert {one["category_id"] for one in found} <= {40, 1} and "1 image not in" in err
    blue = 6 - len(found)
    assert not blue or f"blue ({blue})" in err


def test_pictures_are_drawn_one_for_each_image(
    detector: Path, images: Path, tmp_path: Path, capsys: Output
) -> None:
    (tmp_path / "other").mkdir()
    Image.open(images / "7.png").save(tmp_path / "other" / "7.png")
    code, _, err = _predict(
        capsys, detector, images, tmp_path / "other", "--conf", "0.3", "--pictures", tmp_path / "drawn"
    )
    assert code == 0 and "3 images drawn" in err
    assert sorted(p.name for p in (tmp_path / "drawn").iterdir()) == ["000000000139.jpg", "7-2.jpg", "7.jpg"]
    drawn, plain = (Image.open(p).convert("RGB") for p in (tmp_path / "drawn" / "7.jpg", images / "7.png"))
    assert drawn.size == (427, 640)
    apart = np.abs(np.asarray(drawn, float) - np.asarray(plain.resize(drawn.size), float)).max(axis=2)
    assert 0.01 < (apart > 80).mean() < 0.7


@pytest.mark.parametrize(
    ("args", "telling", "fix"),
    [
        (["--top", "3"], "--top applies to models of classes", "remove --top"),
        (["--against", "x.csv"], "x.csv", ""),
        (["--pool", "mean"], "--pool does not apply", "remove it"),
        (["--overlap", "0.2"], "not cut in tiles", "--tile"),
        (["--annotations", "x.json"], "--coco, which is missing", "add --coco"),
        (
            ["--annotations", "x.json", "--annotations", "y.json"],
            "--annotations is given 2 times",
            "by themselves",
        ),
        (["--coco", "x.csv"], "JSON only", ".json"),
        (["--coco", "no/folder/x.json"], "does not exist", ""),
        (["--coco", "{tmp}/r.json", "--annotations", "{tmp}/none.json"], "cannot be read", "COCO file"),
    ],
)
def test_a_mistake_costs_two_lines(
    detector: Path, images: Path, tmp_path: Path, capsys: Output, args: list[str], telling: str, fix: str
) -> None:
    code, out, err = _predict(capsys, detector, images, *[a.format(tmp=tmp_path) for a in args])
    lines = err.strip().splitlines()
    assert (
        code == 2
        and not out
        and telling in lines[-2]
        and lines[-1].startswith("  fix: ")
        and fix in lines[-1]
    )
    assert not list(tmp_path.iterdir())


def test_two_images_of_one_id_are_refused_before_anything_is_computed(
    detector: Path, images: Path, tmp_path: Path, capsys: Output
) -> None:
    Image.open(images / "7.png").save(tmp_path / "7.png")
    code, out, err = _predict(capsys, detector, images, tmp_path, "--coco", tmp_path / "r.json")
    assert code == 2 and not out and "have the same image id 7" in err
    assert not (tmp_path / "r.json").exists()


def test_options_of_detectors_are_refused_for_other_models(tmp_path: Path, capsys: Output) -> None:
    from support.colours import write_colour_model

    model = write_colour_model(tmp_path / "m.safetensors")
    Image.new("RGB", (32, 32)).save(tmp_path / "a.png")
    for args in (["--conf", "0.5"], ["--tile", "100"], ["--dilation"]):
        code, _, err = _predict(capsys, model, tmp_path / "a.png", *args)
        assert code == 2 and f"{args[0]} applies to detectors only" in err
