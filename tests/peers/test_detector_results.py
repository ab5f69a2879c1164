"""COCO's own evaluation of the file that `predict --coco` writes gives the score that `evaluate` prints."""

import contextlib
import io
import json
from pathlib import Path

import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

import patchword as pw
from patchword.cli.main import run
from support.detectors import CLASSES, painted, write_detector_file

pytestmark = pytest.mark.peers


@pytest.mark.parametrize("kind", ["detr", "vitdet"])
def test_results_score_as_evaluate_says(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights, data = write_detector_file(tmp_path / "d.safetensors", kind), tmp_path / "data"
    data.mkdir()
    detector = pw.load_detector(weights, device="cpu")
    images, boxes = [], []
    for number in range(8):
        box = (2 + number, 2 + number // 2, 60 + 2 * number, 40 + number)
        label = number % 3
        painted((80 + number, 60), [(CLASSES[label].name, *box)]).save(data / f"{number + 1}.png")
        images.append(
            {"id": number + 1, "file_name": f"{number + 1}.png", "width": 80 + number, "height": 60}
        )
        # Two pixels beside what the untrained detector answers, so that some boxes are found.
        answers = detector.predict(data / f"{number + 1}.png", conf=0.0).boxes
        for crowd, one in enumerate(CLASSES):
            left, top, right, bottom = answers[crowd].tolist()
            box, right, bottom = (left, top), min(right + 2 * crowd, 80 + number), min(bottom + 2, 60)
            spread = (right - left, bottom - top)
            boxes.append(
                {
                    "id": len(boxes) + 1, "image_id": number + 1, "category_id": one.id, "iscrowd": int(crowd == 2),
                    "bbox": [box[0], box[1], *spread], "area": spread[0] * spread[1] * 0.8,
                }
            )  # fmt: skip
    categories = [{"id": one.id, "name": one.name} for one in CLASSES]
    content = {"images": images, "annotations": boxes, "categories": categories}
    (data / "truth.json").write_text(json.dumps(content))
    place = [str(weights), str(data), "--device", "cpu"]
    assert run(["predict", *place, "--coco", str(tmp_path / "r.json")]) == 0
    capsys.readouterr()
    assert run(["evaluate", *place, "--split", "all", "--json"]) == 0
    ours = json.loads(capsys.readouterr().out)["detection"]
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(data / "truth.json"))
        evaluation = COCOeval(truth, truth.loadRes(str(tmp_path / "r.json")), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    theirs = evaluation.stats.tolist()
    assert theirs[1] > 0.01
    recalls = [one["value"] for one in ours["ar"] if one["detections"] in (1, 10, 100)]
    found = [ours["ap"], ours["ap50"], ours["ap75"], *(size["ap"] for size in ours["sizes"]), *recalls]
    expected = [None if value == -1 else pytest.approx(value, abs=1e-6) for value in theirs[: len(found)]]
    assert found == expected
