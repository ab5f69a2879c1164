"""The section about detected boxes, from scores of made-up scenes."""

import json
from pathlib import Path
from typing import Any

import pytest

from patchword.metrics.detection import Detections, Truths, detections, evaluate, truths
from patchword.reports.html import write_report
from support.boxes import scene
from support.page import Page
from support.run_folder import PICTURE, write_sample

BLOOD = ["red <b>cell", "white cell", "platelet", "clot", "never seen"]


def run_of(folder: Path, there: Truths, found: Detections, images: int = 12, **changes: Any) -> str:
    """The report of a run that scored these detections."""
    write_sample(folder, BLOOD)
    scores = evaluate(there, found, images=images, names=BLOOD)
    plain = scores.to_dict(names=[f"val/image-{i}.jpg" for i in range(images)])
    for worst in plain["worst"]:
        worst["thumbnail"] = PICTURE if worst["image"] % 2 else "javascript:alert(1)"
    evaluation = {
        "task": "detect",
        "split": "val",
        "images": images,
        "scored": images,
        "detection": plain | changes,
    }
    (folder / "evaluation.json").write_text(json.dumps(evaluation), encoding="utf-8")
    return write_report(folder).read_text(encoding="utf-8")


def _text(html: str) -> str:
    return " ".join(Page(html).text.split())


def test_every_part_of_the_scores_is_on_the_page(tmp_path: Path) -> None:
    there, found = scene(1, classes=4)
    html = run_of(tmp_path, there, found)
    text, scores = _text(html), evaluate(there, found, images=12, names=BLOOD)
    assert scores.ap is not None and scores.best is not None
    shown = {"ap": scores.ap, "ap50": scores.ap50, "ap75": scores.ap75}
    shown |= {s.name: s.ap for s in scores.sizes} | {c.name: c.ap for c in scores.classes if c.truths}
    shown |= {e.name: e.dap for e in scores.errors} | {str(r.detections): r.value for r in scores.ar}
    for name, value in shown.items():
        assert value is None or f'<data value="{value}">' in html, name
    assert f"Shown from a score of {scores.best.score:.2f}" in text
    assert html.count('<svg class="chart"') >= 5 and "overlap of at least 0.75" in text
    assert "<b>cell" not in html and "red <b>cell" in text and "never seen" in text
    assert all(f"val/image-{i.image}.jpg" in text for i in scores.worst(12))
    assert PICTURE in html and "javascript:alert" not in html
    assert "Confusion matrix" not in text and "Not scored yet" not in text


def test_the_most_costly_error_comes_first(tmp_path: Path) -> None:
    there, found = scene(2, classes=4)
    html = run_of(tmp_path, there, found)
    errors = evaluate(there, found, images=12, names=BLOOD).errors
    places = [
        html.index(f'<th scope="row">{e.name}</th>') for e in sorted(errors, key=lambda e: -(e.dap or 0))
    ]
    assert places == sorted(places)


def test_a_limit_above_cocos_and_boxes_that_cannot_be_found_are_reported(tmp_path: Path) -> None:
    boxes = [[i, 0, i + 1, 5] for i in range(130)] + [[3, 3, 3, 9]]
    there = truths(boxes, [0] * 131, crowd=[False] * 131)
    text = _text(run_of(tmp_path, there, detections(boxes, [0] * 131, [0.5] * 131)))
    assert (
        "Up to 200 detections of each image and class count, because an image has 131 boxes of a class."
        in text
    )
    assert "1 of the 131 boxes have no area" in text


@pytest.mark.parametrize("empty", ["detections", "boxes", "both"])
def test_a_run_without_boxes_or_detections_has_a_page(tmp_path: Path, empty: str) -> None:
    there, found = scene(3, classes=4)
    there = truths([], []) if empty != "detections" else there
    found = detections([], [], []) if empty != "boxes" else found
    text = _text(run_of(tmp_path, there, found))
    if empty == "detections":
        assert "0 % AP" in text and "No detection is right." in text
    else:
        assert "have no boxes to be found, so there is no score" in text and "Kinds of errors" not in text
