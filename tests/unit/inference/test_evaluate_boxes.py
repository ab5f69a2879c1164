"""A detector's score: classes matched by name, every image once, and equal to what the drawn page says."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import patchword as pw
from patchword.cli.main import run
from patchword.errors import DataError
from patchword.images.geometry import Keep
from patchword.images.preprocess import Preprocess
from patchword.inference.box_scores import BoxEvaluation
from patchword.inference.detector import Detector
from patchword.weights.detector_card import DetectionClass
from support.detectors import Rectangle, colour_detector, painted, write_detector_file

SCENES: dict[str, list[Rectangle]] = {
    "a.png": [("red", 20, 12, 60, 40), ("red", 70, 12, 90, 40), ("green", 80, 50, 120, 88)],
    "b.png": [("blue", 10, 60, 40, 90)],
    "c.png": [],
}
# Other numbers and another order than the detector's.
CATEGORIES = {"green": 11, "blue": 4, "red": 2}
Output = pytest.CaptureFixture[str]


def write_data(folder: Path, scenes: dict[str, list[Rectangle]] = SCENES, **renamed: str) -> Path:
    """A COCO data set of painted images. renamed: classes that the data call otherwise."""
    images: list[dict[str, Any]] = []
    boxes: list[dict[str, Any]] = []
    for number, (name, rectangles) in enumerate(scenes.items()):
        painted((128, 96), rectangles).save(folder / name)
        images.append({"id": 40 - number, "file_name": name, "width": 128, "height": 96})
        for colour, left, top, right, bottom in rectangles:
            boxes.append(
                {
                    "id": len(boxes) + 1, "image_id": 40 - number, "category_id": CATEGORIES[colour],
                    "bbox": [left, top, right - left, bottom - top], "area": (right - left) * (bottom - top),
                    "iscrowd": 0,
                }
            )  # fmt: skip
    categories = [{"id": number, "name": renamed.get(name, name)} for name, number in CATEGORIES.items()]
    (folder / "annotations.json").write_text(
        json.dumps({"images": images, "annotations": boxes, "categories": categories})
    )
    return folder


def _detector(**changed: Any) -> Detector:
    plain = colour_detector(Preprocess(image_size=(96, 128), resize=Keep()))
    return replace(plain, card=replace(plain.card, **changed))


def _scored(detector: Detector, data: Path, **how: Any) -> BoxEvaluation:
    found = pw.evaluate(detector, data, split="all", **how)
    assert isinstance(found, BoxEvaluation)
    return found


def test_a_detector_that_finds_everything_scores_one(tmp_path: Path) -> None:
    found = _scored(_detector(), write_data(tmp_path))
    assert found.scores.ap == found.scores.ap50 == 1.0 and found.images == found.scored == 3
    assert {one.name: one.truths for one in found.scores.classes} == {"blue": 1, "green": 1, "red": 2}
    assert found.matched == "classes matched by name" and not found.worst and not found.foreign


def test_a_class_without_a_name_is_matched_by_its_number(tmp_path: Path) -> None:
    bare = tuple(DetectionClass(CATEGORIES[name]) for name in ("red", "green", "blue"))
    found = _scored(_detector(classes=bare), write_data(tmp_path))
    assert found.scores.ap == 1.0 and "by their numbers" in found.matched


def test_detections_of_classes_that_the_data_lack_are_counted_and_not_scored(tmp_path: Path) -> None:
    scenes = {name: [r for r in rects if r[0] != "blue"] for name, rects in SCENES.items()}
    data = write_data(tmp_path, scenes)
    painted((128, 96), SCENES["b.png"]).save(tmp_path / "b.png")
    kept = json.loads((data / "annotations.json").read_text())
    kept["categories"] = [one for one in kept["categories"] if one["name"] != "blue"]
    (data / "annotations.json").write_text(json.dumps(kept))
    found = _scored(_detector(), data)
    assert found.scores.ap == 1.0 and found.foreign > 0
    assert (
        sum(error.count for error in found.scores.errors if error.name == "background") < found.foreign + 40
    )


def test_a_class_that_the_detector_lacks_is_refused_or_left_out_and_counted(tmp_path: Path) -> None:
    data = write_data(tmp_path, green="gren")
    with pytest.raises(DataError, match="'gren' \\(did you mean 'green'") as caught:
        _scored(_detector(), data)
    assert "ignore_unknown_classes" in caught.value.fix
    found = _scored(_detector(), data, ignore_unknown_classes=True)
    assert found.scores.ap == 1.0 and found.scores.truths == 3
    assert any("1 box of classes unknown" in note for note in found.notes)


def test_errors_are_in_the_worst_images_and_unreadable_ones_are_not_scored(tmp_path: Path) -> None:
    data = write_data(tmp_path)
    painted((128, 96), [("red", 20, 12, 60, 40), ("blue", 80, 50, 120, 88)]).save(tmp_path / "a.png")
    (tmp_path / "c.png").write_bytes((tmp_path / "c.png").read_bytes()[:60])
    found = _scored(_detector(), data)
    assert found.scored == 2 and [one["name"] for one in found.unreadable] == ["c.png"]
    assert [one.name for one in found.worst] == ["a.png"] and len(found.worst[0].truths) == 3
    assert found.scores.ap is not None and found.scores.ap < 1


def test_data_without_boxes_are_refused(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for number in range(3):
            painted((40, 30), [("red", 1, 1, 9 + number, 9)]).save(tmp_path / name / f"{number}.png")
    with pytest.raises(DataError, match="one class per image, but a detector is scored on boxes"):
        _scored(_detector(), tmp_path)


def test_the_command_prints_writes_and_draws(tmp_path: Path, capsys: Output) -> None:
    weights, data = write_detector_file(tmp_path / "d.safetensors"), tmp_path / "data"
    data.mkdir()
    write_data(data)
    place = ["evaluate", str(weights), str(data), "--device", "cpu"]
    assert run([*place, "--report", str(tmp_path / "r.html"), "--pictures", str(tmp_path / "p")]) == 0
    said = capsys.readouterr()
    assert "AP50" in said.out and "classes matched by name" in said.out and "errors from a" not in said.err
    page = (tmp_path / "r.html").read_text()
    drawn = sorted(path.name for path in (tmp_path / "p").iterdir())
    assert page.count("data:image/jpeg") == len(drawn) > 0 and "Kinds of errors" in page
    assert "a.png" in " ".join(drawn) + page
    assert run([*place, "--json", "--out", str(tmp_path / "s.json")]) == 0
    scores = json.loads(capsys.readouterr().out)
    assert scores == json.loads((tmp_path / "s.json").read_text())
    assert scores["task"] == "detect" and scores["detection"]["truths"] == 4
    assert scores["detection"]["detections"] == 18  # all answers, whatever their score
    assert run([*place, "--probe", "knn"]) == 2
    assert "--probe applies to models of classes" in capsys.readouterr().err
    assert run([*place, "--report", "x.pdf"]) == 2
    assert "use .html" in capsys.readouterr().err


def test_options_of_boxes_are_refused_for_other_models(tmp_path: Path, capsys: Output) -> None:
    from support.colours import write_colour_model

    model = write_colour_model(tmp_path / "m.safetensors")
    for args in (["--report", str(tmp_path / "r.html")], ["--box-format", "xyxy"]):
        assert run(["evaluate", str(model), "digits", *args]) == 2
        assert f"{args[0]} applies to detectors only" in capsys.readouterr().err
