"""`train --dry-run` and `pw.plan`: everything that training would use is shown, and nothing is written."""

import tomllib
from pathlib import Path

import pytest

import patchword as pw
from patchword import settings as tree
from patchword.cli.main import run
from patchword.model.cost import cost
from patchword.training.config import TrainSettings
from support.scans import write_scans

QUICK = ("--threads", "1", "-o", "run.precision=float32")


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scans")
    write_scans(folder, {"train/d0": 12, "train/d1": 12, "val/d0": 4, "val/d1": 4})
    return folder


def test_a_dry_run_shows_everything_in_80_columns_and_writes_nothing(
    scans: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(["train", str(scans), "--dry-run", "--recipe", "deit", "--epochs", "40", *QUICK]) == 0
    shown = capsys.readouterr()
    assert list(tmp_path.iterdir()) == []
    settings = tree.from_plain(TrainSettings, tomllib.loads(shown.out))
    assert settings.run.recipe == "deit" and settings.schedule.epochs == 40
    assert 'method = "adamw"  # recipe deit' in shown.out and "epochs = 40  # option --epochs" in shown.out
    plan = shown.err[shown.err.index("data  ") :]
    assert all(len(line) <= 80 for line in plan.splitlines())
    for word in ("recipe deit", "GFLOPs", "each image 3 times", "x 6 / 256", "cosine", "40 epochs = 160 steps",
                 "betas 0.9, 0.999", "randaugment", "erasing: 0.25", "smoothing 0.1", "time", "MiB",
                 "384 channels for 24 training images"):  # fmt: skip
        assert word in " ".join(plan.split()), word
    assert f"{cost(settings.model).parameters:,}" in plan.splitlines()[-3]


def test_the_settings_of_a_dry_run_can_be_trained_with(
    scans: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # "none" is a value of these two, where other options read it as no value.
    options = ["--epochs", "3", "--cache", "none", "--balance", "none", *QUICK]
    assert run(["train", str(scans), "--dry-run", *options]) == 0
    (tmp_path / "plan.toml").write_text(capsys.readouterr().out)
    assert run(["train", str(scans), "--config", str(tmp_path / "plan.toml"), "--dry-run"]) == 0
    again = capsys.readouterr().out
    plain = [tomllib.loads(text) for text in ((tmp_path / "plan.toml").read_text(), again)]
    assert plain[0] == plain[1] and plain[0]["run"]["cache"] == "none"


def test_a_plan_in_python_is_that_of_the_command(scans: Path) -> None:
    plan = pw.plan(scans, epochs=3, threads=1)
    assert plan.settings.schedule.epochs == 3 and plan.seconds > 0
    assert sum(row.count for row in plan.groups) == cost(plan.settings.model).parameters
    assert str(plan) == plan.text and "schedule" in plan.text
    with pytest.raises(pw.PatchwordError, match="random weights"):
        pw.plan(scans, tune="head")


def test_a_dry_run_cannot_resume(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["train", "--resume", str(tmp_path), "--dry-run"]) == 2
    assert "--dry-run cannot be combined with --resume" in capsys.readouterr().err
