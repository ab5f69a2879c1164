"""The sections about training, from made-up runs."""

import json
from pathlib import Path
from typing import Any

import pytest

from patchword.reports import watching
from patchword.reports.html import page, write_report
from patchword.reports.run_files import read_run
from support.page import Page
from support.run_folder import write_sample

FLOWERS = ["daisy", "dandelion", "roses", "sunflowers", "tulips"]


def _text(folder: Path, **changes: Any) -> str:
    evaluation = write_sample(folder, FLOWERS) | changes
    (folder / "evaluation.json").write_text(json.dumps(evaluation))
    return " ".join(Page(write_report(folder).read_text(encoding="utf-8")).text.split())


def test_the_page_has_a_section_for_everything_the_run_recorded(tmp_path: Path) -> None:
    text = _text(tmp_path)
    assert "The gap of 12.4 points" in text
    assert "Before training, the unchanged weights with a linear classifier scored 71.2 %" in text
    assert "Training beat it by 14.5 points." in text
    cells = text.replace(" ", "")
    assert "blocks0to5––no,frozen700,123" in cells and "1,925702,048" in cells
    assert "readfiles2s" in cells and "waited for images 2.0 % of the time" in text
    assert "calibrationerror12.8%2.1%" in cells and "--calibrated" in text
    assert "daisy as dandelion: 1 of 7. The other way: 0 of 7." in text


def test_a_run_that_recorded_none_of_it_has_none_of_the_sections(tmp_path: Path) -> None:
    evaluation = write_sample(tmp_path, FLOWERS)
    for name in ("training", "calibration", "pairs"):
        evaluation.pop(name)
    (tmp_path / "evaluation.json").write_text(json.dumps(evaluation))
    data = json.loads((tmp_path / "data.json").read_text())
    (tmp_path / "data.json").write_text(
        json.dumps({k: v for k, v in data.items() if k not in ("groups", "floor")})
    )
    records = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    kept = [{k: v for k, v in r.items() if not k.endswith("_s") or k == "images_per_s"} for r in records]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in kept))
    text = Page(write_report(tmp_path).read_text(encoding="utf-8")).text
    for heading in (
        "Calibration",
        "Floor",
        "Where the time went",
        "Parameter groups",
        "Skipped",
        "Thresholds",
    ):
        assert heading not in text


@pytest.mark.parametrize(
    ("training", "held_out", "words"),
    [
        ((0.99, 0.01), (0.7, 0.03), "is over-fitting"),
        ((0.99, 0.01), (0.9, 0.1), "too few images to call it over-fitting"),
        ((0.6, 0.02), (0.58, 0.03), "under-fits"),
        ((0.97, 0.01), (0.96, 0.02), "no sign of over-fitting"),
    ],
)
def test_the_gap_is_explained_only_as_far_as_the_intervals_allow(
    training: tuple[float, float], held_out: tuple[float, float], words: str
) -> None:
    scores = [{"top1": t, "top1_interval": [t - h, t + h]} for t, h in (training, held_out)]
    found = watching.training_gap(scores[1] | {"training": scores[0]})
    assert found is not None and words in found["sentence"]


@pytest.mark.parametrize(
    ("top1", "words"),
    [(0.7, "did not beat it"), (0.73, "lies in its 95 % interval"), (0.9, "beat it by 18.8")],
)
def test_the_floor_is_compared_with_the_score_and_its_interval(
    tmp_path: Path, top1: float, words: str
) -> None:
    write_sample(tmp_path, FLOWERS)
    found = watching.floor(read_run(tmp_path), {"top1": top1, "top1_interval": [top1 - 0.05, top1 + 0.05]})
    assert found is not None and words in found["sentence"]


def test_few_images_make_calibration_a_rough_guide(tmp_path: Path) -> None:
    bins = [{"images": 35, "confidence": 0.9, "accuracy": 0.8}]
    text = _text(
        tmp_path, calibration={"images": 35, "ece": 0.1, "nll": 0.4, "bins": bins, "temperature": None}
    )
    assert "Only 35 images were scored." in text and "--calibrated" not in text


def test_a_temperature_that_does_not_help_is_not_advertised(tmp_path: Path) -> None:
    evaluation = write_sample(tmp_path, FLOWERS)
    text = _text(tmp_path, calibration=evaluation["calibration"] | {"nll_after": 0.44})
    assert "It does not help here." in text and "--calibrated" not in text


def test_skipped_steps_are_listed_once(tmp_path: Path) -> None:
    write_sample(tmp_path, FLOWERS)
    record = json.dumps({"kind": "skipped", "epoch": 2, "step": 12, "what": "loss"})
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write(f"{record}\n{record}\n")
    text = " ".join(Page(write_report(tmp_path).read_text(encoding="utf-8")).text.split())
    assert "1 step was skipped" in text and "Epoch 2, step 12: loss not finite" in text


def test_the_advice_on_waiting_follows_the_slower_stage() -> None:
    assert "Reading files took longer" in watching.waiting_advice({"read_s": 9, "decode_s": 2})
    assert "Decoding took longer" in watching.waiting_advice({"read_s": 1, "decode_s": 2})


def test_thresholds_are_listed_when_the_evaluation_has_them(tmp_path: Path) -> None:
    rows = [
        {"name": "cat", "images": 30, "threshold": 0.31, "f1_default": 0.5, "f1_held_out": 0.7},
        {"name": "newt", "images": 3, "threshold": None, "f1_default": 0.2, "f1_held_out": None},
    ]
    text = _text(tmp_path, thresholds=rows)
    cells = text.replace(" ", "")
    assert "cat300.3150.0%70.0%" in cells and "newt3–20.0%" in cells


def test_a_fitted_head_is_the_probe_and_has_no_curves(tmp_path: Path) -> None:
    write_sample(tmp_path, ["a", "b"])
    data = json.loads((tmp_path / "data.json").read_text())
    (tmp_path / "data.json").write_text(json.dumps(data | {"floor": {"kind": "linear", "top1": 0.8}}))
    with (tmp_path / "config.toml").open("a") as file:
        file.write('\n[tune]\nkind = "head"\n')
    run = read_run(tmp_path)
    found = watching.floor(run, {"top1": 0.8, "top1_interval": [0.7, 0.9]})
    assert found is not None and "It is the result" in found["sentence"]
    assert page(run)["charts"] == []
