"""`patchword train` on data with boxes, as a user runs it: what a run writes, that it resumes bit-equal, and what is refused."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import patchword as pw
from patchword.cli.main import run as patchword
from patchword.weights.native import read_detector
from support.cells import CELLS, IDS, NAMES, options, written

QUICK = [*options(), "--epochs", "3", "-o", "run.evaluate_every=1"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("detector") / "run"
    assert patchword(["train", str(CELLS), "--out", str(out), *QUICK]) == 0
    return out


def test_a_run_writes_scores_weights_and_a_report_of_boxes(run: Path) -> None:
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    epochs = [record for record in records if record["kind"] == "epoch"]
    assert len(epochs) == 3 and all(0 <= e["val_ap"] <= e["val_ap50"] <= 1 for e in epochs)
    evaluation = json.loads((run / "evaluation.json").read_text())
    assert evaluation["task"] == "detect" and evaluation["scored"] == 2
    assert evaluation["detection"]["ap"] == pytest.approx(epochs[-1]["val_ap"], abs=1e-6)
    assert all(one["thumbnail"].startswith("data:image/jpeg") for one in evaluation["detection"]["worst"])
    page = (run / "report.html").read_text()
    for expected in ("Average precision by epoch", "Detected boxes", "Worst images", "AP50"):
        assert expected in page, expected
    assert "top-1" not in page and "one per class" not in page
    assert "refines the best 30 in 2 layers" in page
    assert "<dd>detect</dd>" in page or "detect" in page[page.index('id="provenance"') :], (
        "the origin of the weights"
    )


def test_the_weights_open_by_path_alone_with_their_own_classes(run: Path) -> None:
    detector = pw.load_detector(run / "best.safetensors")
    assert {(one.id, one.name) for one in detector.classes} == set(zip(IDS, NAMES, strict=True))
    assert detector.preprocess.resize.kind == "border" and detector.preprocess.image_size == (48, 64)
    assert detector.card.provenance.recipe == "detect"
    found = detector.model(torch.zeros(1, 3, 48, 64))
    assert found.logits.shape[-1] == 3 and found.logits.isfinite().all()


def test_evaluating_the_run_gives_its_own_score(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert patchword(["evaluate", str(run), str(CELLS), "--device", "cpu", "--json"]) == 0
    found, own = json.loads(capsys.readouterr().out), json.loads((run / "evaluation.json").read_text())
    # The images that training held out are found again.
    assert found["scored"] == own["scored"] == 2 and found["trained_on"]["images"] == 0
    for score in ("ap", "ap50", "ap75"):
        assert found["detection"][score] == pytest.approx(own["detection"][score], abs=1e-4)
    best = own["detection"]["best"]
    assert patchword(["predict", str(run), str(CELLS), "--device", "cpu", "--json"]) == 0
    said = capsys.readouterr()
    scores = [box["score"] for image in json.loads(said.out) for box in image["objects"]]
    assert all(score >= (0.3 if best is None else best["score"] - 0.01) for score in scores)
    assert best is None or "the best F1 on the evaluation images" in said.err


def test_a_run_stopped_after_an_epoch_resumes_bit_equal(run: Path, tmp_path: Path) -> None:
    """The state of the epoch before the last is kept: without the last one, the run goes on from there."""
    stopped = tmp_path / "stopped"
    shutil.copytree(run, stopped)
    newest = sorted((stopped / "state").glob("*.pt"))[-1]
    newest.unlink()
    for name in ("last.safetensors", "evaluation.json", "report.html"):
        (stopped / name).unlink()
    assert patchword(["train", "--resume", str(stopped)]) == 0
    (_, before), (_, after) = (read_detector(folder / "last.safetensors") for folder in (run, stopped))
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    scores = [
        json.loads((folder / "evaluation.json").read_text())["detection"]["ap"] for folder in (run, stopped)
    ]
    assert scores[0] == scores[1]


def test_training_goes_on_from_a_detector_with_the_rows_of_classes_that_both_have(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One class is renamed in the new data; at a rate of nearly 0, all others keep their weights."""

    def rename(plain: dict[str, Any]) -> None:
        next(one for one in plain["categories"] if one["name"] == "WBC")["name"] = "Leukocyte"

    data, out, start = written(tmp_path / "data", rename), tmp_path / "again", run / "last.safetensors"
    still = ["--lr", "1e-12", "--epochs", "1", "-o", "run.threads=1", "-o", "run.precision=float32"]
    size = ["--image-size", "48x64", "-o", "run.batch_size=4"]
    assert patchword(["train", str(data), "--weights", str(start), "--out", str(out), *still, *size]) == 0
    assert "2 of 3 classes kept from the weights" in capsys.readouterr().err
    (old, before), (new, after) = read_detector(start), read_detector(out / "last.safetensors")
    assert "Leukocyte" in {one.name for one in new.classes}
    names = [[one.name for one in card.classes] for card in (old, new)]
    for name, tensor in before.items():
        if not name.startswith(("cell_class.", "classes.")):
            assert torch.allclose(tensor, after[name], atol=1e-6), name
            continue
        for kept in ("RBC", "Platelets"):
            assert torch.allclose(tensor[names[0].index(kept)], after[name][names[1].index(kept)], atol=1e-6)
    fresh, known = names[1].index("Leukocyte"), names[0].index("WBC")
    assert not torch.allclose(
        before["cell_class.weight"][known], after["cell_class.weight"][fresh], atol=1e-3
    )


def test_a_detector_is_refused_as_the_start_of_a_classifier(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["train", "digits", "--weights", str(run / "last.safetensors"), "--out", str(tmp_path / "x")]
    assert patchword(given) == 2
    assert "is a detector, but digits has no boxes" in capsys.readouterr().err.splitlines()[-2]


def test_a_time_limit_chooses_the_epochs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    limited = ["--max-time", "0.02"]
    assert patchword(["train", str(CELLS), "--out", str(out), *options(), *limited]) == 0
    config = (out / "config.toml").read_text()
    line = next(one for one in config.splitlines() if one.startswith("epochs = "))
    assert "measured by trial steps" in line
    assert 1 <= int(line.split()[2]) < 500
    assert "what fits into 0.02 minutes" in (out / "log.txt").read_text()
    records = [json.loads(one) for one in (out / "metrics.jsonl").read_text().splitlines()]
    assert {r["epochs"] for r in records if r["kind"] == "epoch"} == {int(line.split()[2])}
    shown = [one for one in capsys.readouterr().err.splitlines() if one.startswith("epoch ")]
    assert all(f"/{line.split()[2]} " in one for one in shown)


def test_the_plan_says_what_is_chosen_and_why(capsys: pytest.CaptureFixture[str]) -> None:
    assert patchword(["train", str(CELLS), "--dry-run"]) == 0
    captured = capsys.readouterr()
    for expected in ("queries", "patches (median)", "steps of", "classes of objects", "scale 0.7 to 1.6"):
        assert expected in " ".join(captured.err.split()), expected
    assert 'kind = "detect"' in captured.out


def _sanity(monkeypatch: pytest.MonkeyPatch, steps: int) -> None:
    from patchword.training import sanity

    usual = sanity.overfit
    monkeypatch.setattr(sanity, "overfit", lambda *args: usual(*args, steps=steps))


def test_sanity_stops_before_anything_is_written_and_names_a_cause(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _sanity(monkeypatch, 2)
    out = tmp_path / "run"
    assert patchword(["train", str(CELLS), "--out", str(out), *QUICK, "--sanity"]) == 4
    lines = capsys.readouterr().err.strip().splitlines()[-2:]
    assert lines[0].startswith("error: the detector does not learn even 8 training images by heart: AP50")
    assert "after 2 steps" in lines[0] and lines[1].strip()
    assert not out.exists()


@pytest.mark.slow
def test_a_tiny_detector_learns_eight_images_by_heart(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    larger = [
        "-o",
        "model.dim=64",
        "-o",
        "task.detector.dim=64",
        "-o",
        "optim.lr=0.002",
        "-o",
        "model.depth=2",
    ]
    out = tmp_path / "run"
    sizes = ["-o", "model.image.size=[96, 128]"]
    assert patchword(["train", str(CELLS), "--out", str(out), *QUICK, *larger, *sizes, "--sanity"]) == 0
    assert "sanity: AP50 9" in capsys.readouterr().err


# Refused -----------------------------------------------------------------------------------


def _as_val(plain: dict[str, Any]) -> None:
    plain["categories"].append({"id": 99, "name": "unknown cell"})
    plain["annotations"][0]["category_id"] = 99


def _no_boxes(plain: dict[str, Any]) -> None:
    plain["annotations"] = []


def _no_images(plain: dict[str, Any]) -> None:
    plain["images"] = plain["annotations"] = []


def _all_nan(plain: dict[str, Any]) -> None:
    for one in plain["annotations"]:
        one["bbox"] = [float("nan")] * 4


@pytest.mark.parametrize(
    ("change", "said"), [(_no_boxes, "without a single box"), (_no_images, "0 images"), (_all_nan, "")]
)
def test_data_that_give_no_detector_are_refused_in_two_lines(
    change: Any, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, out = written(tmp_path / "data", change), tmp_path / "run"
    assert patchword(["train", str(data), "--out", str(out), *QUICK]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert lines[-2].startswith("error: ") and said in lines[-2] and str(data) in lines[-2], lines[-2:]
    assert not out.exists()


def test_a_class_that_training_lacks_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    val, out = written(tmp_path / "val", _as_val), tmp_path / "run"
    assert patchword(["train", str(CELLS), "--val", str(val), "--out", str(out), *QUICK]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert lines[-2].startswith("error: ") and "unknown cell" in lines[-2]
    assert not out.exists()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["digits", "--sanity"], "has no boxes"),
        (["digits", "--model", "vit-ti16-det"], "has no boxes"),
        ([str(CELLS), "--recipe", "scratch"], "has boxes"),
        ([str(CELLS), "--folds", "3"], "has boxes"),
        ([str(CELLS), "--dry-run", "--sanity"], "--sanity trains"),
        ([str(CELLS), "--balance", "loss"], "balance"),
    ],
)
def test_options_that_contradict_the_data_are_refused(
    given: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert patchword(["train", *given, "--out", str(tmp_path / "run")]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert lines[-2].startswith("error: ") and said in lines[-2], lines[-2:]
    assert not (tmp_path / "run").exists()


def test_in_python_the_run_has_its_detector_and_scores(tmp_path: Path, run: Path) -> None:
    plan = pw.plan(CELLS, settings={"schedule.epochs": 2})
    assert plan.settings.task.kind == "detect"
    assert np.isfinite(plan.seconds)
