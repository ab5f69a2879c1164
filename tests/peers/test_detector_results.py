"""COCO's own evaluation of the file that `predict --coco` writes gives the score that `evaluate` prints."""

import contextlib
import io
import json
from pathlib import Path

import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from patchword.cli.main import run
from support.detectors import CLASSES, painted, write_detector_file

pytestmark = pytest.mark.peers


@pytest.mark.parametrize("kind", ["detr", "vitdet"])
def test_results_score_as_evaluate_says(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights, data = write_detector_file(tmp_path / "d.safetensors", kind), tmp_path / "data"
    data.mkdir()
    images, boxes = [], []
    for number in range(8):
        # Near where the untrained detectors answer, so that some boxes are found.
        box = (2 + number, 2 + number // 2, 60 + 2 * number, 40 + number)
        label = number % 3
        painted((80 + number, 60), [(CLASSES[label].name, *box)]).save(data / f"{number + 1}.png")
        images.append(
            {"id": number + 1, "file_name": f"{number + 1}.png", "width": 80 + number, "height": 60}
        )
        for crowd, one in enumerate(CLASSES):
            spread = (box[2] - box[0] + crowd, box[3] - box[1])
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
