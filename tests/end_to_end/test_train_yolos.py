"""Fine-tuning YOLOS as a user does it: what a run writes, that it opens by its path, scores as it says, and resumes bit-equal."""

import json
import shutil
from pathlib import Path

import pytest
import torch

import patchword as pw
from patchword.cli.main import run as patchword
from patchword.training import sanity
from patchword.weights.native import read_detector
from support.cells import CELLS, IDS, NAMES
from support.detr import QUICK
from support.yolos import write_tiny


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_tiny(tmp_path_factory.mktemp("weights"), "transformers-yolos"))


@pytest.fixture(scope="module")
def run(weights: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("yolos") / "run"
    given = ["train", str(CELLS), "--weights", weights, "--out", str(out), "--epochs", "2", *QUICK]
    assert patchword([*given, "-o", "run.evaluate_every=1"]) == 0
    return out


def test_a_run_opens_by_its_path_and_scores_what_the_loop_scored(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    detector = pw.load_detector(run)
    assert {(one.id, one.name) for one in detector.classes} == set(zip(IDS, NAMES, strict=True))
    assert detector.card.config.kind == "yolos" and detector.card.config.num_queries == 5
    assert detector.card.provenance.recipe == "yolos" and detector.preprocess.resize.kind == "border"
    found = detector.predict(next((CELLS / "images").iterdir()), conf=0.0)
    assert len(found) == 5 and (found.boxes >= 0).all()
    page = (run / "report.html").read_text(encoding="utf-8")
    assert "5 detection tokens" in page and "Detected boxes" in page
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    last = [record for record in records if record["kind"] == "epoch"][-1]
    assert patchword(["evaluate", str(run), str(CELLS), "--device", "cpu", "--json"]) == 0
    scores = json.loads(capsys.readouterr().out)["detection"]
    assert scores["ap"] == pytest.approx(last["val_ap"], abs=1e-6)
    assert scores["ap50"] == pytest.approx(last["val_ap50"], abs=1e-6)


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


def test_adapters_are_merged_into_the_saved_detector(weights: str, tmp_path: Path) -> None:
    out = tmp_path / "run"
    given = ["train", str(CELLS), "--weights", weights, "--out", str(out), "--epochs", "1", *QUICK]
    assert patchword([*given, "--tune", "lora:2"]) == 0
    _, tensors = read_detector(out / "last.safetensors")
    assert not any("lora" in name for name in tensors)
    assert len(pw.load_detector(out).predict(next((CELLS / "images").iterdir()), conf=0.0)) == 5


def test_sanity_begins_from_the_weights_and_writes_nothing_if_it_fails(
    weights: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    usual, out = sanity.overfit, tmp_path / "run"
    monkeypatch.setattr(sanity, "overfit", lambda *args: usual(*args, steps=2))
    assert patchword(["train", str(CELLS), "--weights", weights, "--out", str(out), *QUICK, "--sanity"]) == 4
    lines = capsys.readouterr().err.strip().splitlines()
    assert lines[-2].startswith("error: ") and lines[-1].startswith("  fix: ")
    assert not out.exists()
