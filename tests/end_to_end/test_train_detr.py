"""Fine-tuning DETR as a user does it: what a run writes, that it opens by its path, scores as it says, and resumes bit-equal."""

import json
import shutil
from pathlib import Path

import pytest
import torch

import patchword as pw
from patchword.cli.main import run as patchword
from patchword.weights.native import read_detector
from support.cells import CELLS, IDS, NAMES
from support.detr import QUICK, write_tiny


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("detr")
    weights, out = str(write_tiny(folder / "tiny.safetensors")), folder / "run"
    given = ["train", str(CELLS), "--weights", weights, "--out", str(out), "--epochs", "2", *QUICK]
    assert patchword([*given, "-o", "run.evaluate_every=1"]) == 0
    return out


def test_a_run_opens_by_its_path_with_the_classes_of_the_data(run: Path) -> None:
    detector = pw.load_detector(run)
    assert {(one.id, one.name) for one in detector.classes} == set(zip(IDS, NAMES, strict=True))
    assert detector.card.config.kind == "detr" and detector.card.config.num_queries == 6
    assert detector.preprocess.resize.kind == "capped"
    assert detector.card.provenance.recipe == "detr"
    page = (run / "report.html").read_text(encoding="utf-8")
    assert "6 queries" in page and "Detected boxes" in page


def test_the_score_of_the_loop_is_that_of_evaluate(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    epochs = [record for record in records if record["kind"] == "epoch"]
    own = json.loads((run / "evaluation.json").read_text())
    assert own["detection"]["ap"] == pytest.approx(epochs[-1]["val_ap"], abs=1e-6)
    assert patchword(["evaluate", str(run), str(CELLS), "--device", "cpu", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["scored"] == own["scored"] == 2
    assert found["detection"]["ap50"] == pytest.approx(epochs[-1]["val_ap50"], abs=1e-6)


def test_a_run_resumes_bit_equal(run: Path, tmp_path: Path) -> None:
    stopped = tmp_path / "stopped"
    shutil.copytree(run, stopped)
    sorted((stopped / "state").glob("*.pt"))[-1].unlink()
    for name in ("last.safetensors", "evaluation.json", "report.html"):
        (stopped / name).unlink()
    assert patchword(["train", "--resume", str(stopped)]) == 0
    (_, before), (_, after) = (read_detector(folder / "last.safetensors") for folder in (run, stopped))
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_weights_of_detr_need_boxes(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert patchword(["train", "digits", "--weights", str(run), "--out", str(tmp_path / "x")]) == 2
    assert "is a detector, but digits has no boxes" in capsys.readouterr().err
