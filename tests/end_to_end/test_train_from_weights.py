"""`patchword train --weights`: training starts from the weights, adapts them to the data, and records them."""

import hashlib
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

import patchword as pw
from patchword.cli.main import run
from patchword.images.prepare import read
from patchword.training.runfolder import RunFolder
from patchword.weights.card import ModelCard
from patchword.weights.native import read_card
from support.parity import cases_in, committed
from support.scans import write_scans

QUICK = ("--batch-size", "8", "--threads", "1", "-o", "run.precision=float32")
# So small that a step changes nothing visible.
STILL = ("--epochs", "1", "--lr", "1e-12", *QUICK)
PARITY = cases_in([committed()], {"backbone"})
TORCHVISION = next(case for case in PARITY if case.name == "torchvision_small_vit")
# Its positions are computed from the grid, so no tensor shows the image size.
SIZELESS = next(case for case in PARITY if case.name == "lucidrains_small_simple_vit_register")


def patchword(*args: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "patchword.cli.main", *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=240)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on three digits."""
    top = tmp_path_factory.mktemp("base")
    write_scans(top / "scans", {"d0": 15, "d1": 15, "d2": 15})
    said = patchword("train", top / "scans", "--out", top / "run", "--epochs", "4", *QUICK)
    assert said.returncode == 0, said.stderr
    return top / "run"


@pytest.fixture(scope="module")
def others(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two of these digits in another order, and a new one."""
    top = tmp_path_factory.mktemp("others") / "scans"
    write_scans(top, {"a3": 15, "d2": 15, "d0": 15}, first=20)
    return top


def trained(*args: str | Path) -> Path:
    said = patchword("train", *args)
    assert said.returncode == 0, said.stderr
    return Path(said.stdout.strip())


def logits(model: Any, picture: str) -> dict[str, float]:
    with torch.inference_mode():
        answer = model(torch.from_numpy(read(picture, model.preprocess))[None])[0]
    return dict(zip(model.classes, answer.tolist(), strict=True))


@pytest.mark.slow
def test_shared_classes_predict_as_before_and_new_ones_are_reported(
    base: Path, others: Path, tmp_path: Path
) -> None:
    said = patchword("train", others, "--weights", base, "--out", tmp_path / "run", *STILL)
    assert said.returncode == 0, said.stderr
    assert "2 rows by name, 1 new" in said.stderr and "recipe finetune" in said.stderr
    before, after = pw.load(base), pw.load(tmp_path / "run")
    assert after.classes == ("a3", "d0", "d2")
    pictures = sorted(others.glob("*/*.png"))[::5]
    for picture in map(str, pictures):
        old, new = logits(before, picture), logits(after, picture)
        for name in ("d0", "d2"):
            assert new[name] == pytest.approx(old[name], abs=1e-4)


@pytest.mark.slow
def test_every_file_of_the_run_records_its_initial_weights(base: Path, others: Path, tmp_path: Path) -> None:
    out = trained(others, "--weights", base, "--out", tmp_path / "run", *STILL)
    digest = hashlib.sha256((base / "last.safetensors").read_bytes()).hexdigest()
    for name in ("last.safetensors", "best.safetensors"):
        where = read_card(out / name).provenance
        assert (where.source, where.source_sha256) == ("run/last.safetensors", digest)
    assert json.loads((out / "data.json").read_text())["begun_from"]["sha256"] == digest
    report = (out / "report.html").read_text()
    assert digest in report and "Initialised from" in report
    assert f"starting from the weights of <bdi>{base}</bdi>" in report


@pytest.mark.slow
def test_two_epochs_from_weights_are_worth_twelve_from_scratch(tmp_path: Path) -> None:
    quick = ("--threads", "1", "-o", "run.precision=float32")
    first = trained("digits", "--epochs", "12", *quick, "--out", tmp_path / "first")
    second = trained("digits", "--weights", first, "--epochs", "2", *quick, "--out", tmp_path / "second")
    nothing = trained("digits", "--epochs", "2", *quick, "--out", tmp_path / "nothing")
    scores = [json.loads((run / "evaluation.json").read_text())["top1"] for run in (first, second, nothing)]
    assert scores[1] > scores[0] - 0.05 and scores[1] > scores[2] + 0.3, scores


@pytest.mark.slow
def test_a_killed_run_resumes_bit_equal_without_the_weights(base: Path, others: Path, tmp_path: Path) -> None:
    moved = tmp_path / "base"
    shutil.copytree(base, moved)
    args = [others, "--weights", moved, "--epochs", "30", *QUICK]
    whole = trained(*args, "--out", tmp_path / "whole")
    command = [sys.executable, "-m", "patchword.cli.main", "train", *args, "--out", tmp_path / "killed"]
    with subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.PIPE) as running:
        deadline = time.monotonic() + 120
        while RunFolder(tmp_path / "killed").epochs_done() < 3:
            assert time.monotonic() < deadline and running.poll() is None
            time.sleep(0.01)
        running.kill()
    shutil.rmtree(moved)
    resumed = trained("--resume", tmp_path / "killed")
    assert "after epoch" in (resumed / "log.txt").read_text()
    assert (resumed / "last.safetensors").stat().st_size == (whole / "last.safetensors").stat().st_size
    first, second = pw.load(whole).state_dict(), pw.load(resumed).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert read_card(resumed / "last.safetensors").provenance.source_sha256


@pytest.mark.slow
def test_the_saved_settings_repeat_the_run(base: Path, others: Path, tmp_path: Path) -> None:
    first = trained(others, "--weights", base, "--epochs", "2", *QUICK, "--out", tmp_path / "first")
    again = trained(others, "--config", first / "config.toml", "--out", tmp_path / "again")
    one, two = pw.load(first).state_dict(), pw.load(again).state_dict()
    assert all(torch.equal(one[name], two[name]) for name in one)


@pytest.mark.slow
def test_another_size_and_another_programs_file(others: Path, tmp_path: Path) -> None:
    """A file of torchvision, at a size it was not made for; grey scans go in as colours."""
    facts = ("--weights", TORCHVISION.path, "--num-heads", "2")
    out = trained(others, *facts, "--image-size", "40x24", "--out", tmp_path / "run", *STILL)
    card: ModelCard = read_card(out / "last.safetensors")
    assert card.config.image.size == card.preprocess.image_size == (40, 24)
    assert card.config.image.channels == 3 and card.config.dim == 8
    # The first block comes from the file: nothing was reinitialised.
    theirs = pw.load(TORCHVISION.path, num_heads=2).state_dict()
    ours = pw.load(out).state_dict()
    same = [name for name in theirs if "head." not in name and "positions" not in name]
    assert len(same) > 20
    for name in same:
        torch.testing.assert_close(ours[name], theirs[name], atol=1e-5, rtol=1e-5)


def test_a_size_that_no_file_specifies_is_the_requested_one(
    others: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    heads = str(SIZELESS.meta["hints"]["num_heads"])
    command = ["train", str(others), "--weights", str(SIZELESS.path), "--num-heads", heads, *STILL]
    assert run([*command, "--out", str(tmp_path / "none")]) == 2
    assert "no file states the image size" in capsys.readouterr().err
    assert run([*command, "--out", str(tmp_path / "run"), "--image-size", "32x48"]) == 0
    assert "assuming 32x48 (option --image-size)" in capsys.readouterr().err
    assert read_card(tmp_path / "run" / "last.safetensors").config.image.size == (32, 48)


def test_in_python(base: Path, others: Path, tmp_path: Path) -> None:
    still = {"optim.lr": 1e-12, "run.batch_size": 8, "run.precision": "float32"}
    settings = pw.train(others, weights=base, out=tmp_path / "run", epochs=1, settings=still).settings
    assert settings.run.recipe == "finetune" and settings.run.weights == str(base)


@pytest.mark.parametrize(
    ("args", "found", "fix"),
    [
        (("--num-heads", "3"), "--num-heads", "--weights"),
        (("--weights", "BASE", "--recipe", "scratch"), "trains from scratch", "--recipe or --weights"),
        (("--weights", "BASE", "--model", "ti/16"), "cannot be combined", "remove --model"),
        (
            ("--weights", "BASE", "-o", "model.depth=3"),
            "model.depth is 3, but the weights have 4",
            "without --weights",
        ),
        (("--recipe", "finetune"), "needs weights", "--weights"),
        (("--weights", "runs/nosuch"), "no such weights file", "that exists"),
        (("--weights", "deit/deit_tiny_patch16_22"), "deit", ""),
    ],
)
def test_mistakes_are_reported_in_two_lines(
    args: tuple[str, ...],
    found: str,
    fix: str,
    base: Path,
    others: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    given = [str(base) if arg == "BASE" else arg for arg in args]
    assert run(["train", str(others), "--out", str(tmp_path / "run"), *given, "--offline"]) == 2
    told = capsys.readouterr().err
    assert "error: " in told and found in told and fix in told and "Traceback" not in told
    assert not (tmp_path / "run").exists()
