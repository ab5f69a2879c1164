"""A finished run made longer: the same bits as a run of that length, also when it is killed on the way."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load_file

from patchword import api
from patchword.cli.main import run as run_command
from patchword.errors import SettingsError, UserError
from patchword.training import extension
from support.scans import write_scans

TINY = {
    "run.batch_size": 8,
    "run.threads": 1,
    "run.precision": "float32",
    "model.depth": 1,
    "model.dim": 32,
    "model.attention.num_heads": 1,
    "schedule.shape": "constant",
    "schedule.warmup_epochs": 0.5,
    # After seven steps of the nine, within the third epoch.
    "schedule.cooldown": 0.2,
}
SLOW = pytest.mark.slow
WEIGHTS = ("last.safetensors", "best.safetensors")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    top = tmp_path_factory.mktemp("data") / "scans"
    write_scans(top, {"d0": 15, "d1": 15})
    return top


def train(data: Path, out: Path, epochs: int, **settings: Any) -> Path:
    api.train(data, out=out, epochs=epochs, settings={**TINY, **settings}, progress=False)
    return out


@pytest.fixture(scope="module")
def short(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(data, tmp_path_factory.mktemp("short") / "run", 3)


@pytest.fixture(scope="module")
def long(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(data, tmp_path_factory.mktemp("long") / "run", 5)


def copied(run: Path, to: Path) -> Path:
    shutil.copytree(run, to)
    return to


def records(run: Path) -> list[dict[str, Any]]:
    """The metrics without the times of this process, and without the length the run had when they were written."""
    kept = ("kind", "epoch", "step", "loss", "lr", "train_loss", "val_top1", "val_loss")
    lines = (run / "metrics.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k in kept} for line in lines]


def assert_same(run: Path, other: Path) -> None:
    for name in WEIGHTS:
        ours, theirs = load_file(run / name), load_file(other / name)
        assert ours.keys() == theirs.keys()
        assert all(ours[key].tobytes() == theirs[key].tobytes() for key in theirs), name
    assert records(run) == records(other)
    scores = [json.loads((r / "evaluation.json").read_text()) for r in (run, other)]
    assert scores[0]["top1"] == scores[1]["top1"] and scores[0]["loss"] == scores[1]["loss"]


def test_an_extended_run_is_the_run_of_that_length(
    short: Path, long: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = copied(short, tmp_path / "run")
    assert run_command(["train", "--resume", str(run), "--extend", "2"]) == 0
    err = capsys.readouterr().err
    assert "extended from 3 to 5 epochs, from step 7 on" in err and "epoch-3.safetensors" in err
    assert_same(run, long)
    assert (run / "epoch-3.safetensors").exists() and "extended from 3 epochs" in (
        run / "config.toml"
    ).read_text()
    assert (run / "report.html").exists()
    # Twice is once by the sum.
    assert run_command(["train", "--resume", str(run), "--extend", "1"]) == 0
    twice = records(run)
    assert twice[-1]["epoch"] == 6 and [r["step"] for r in twice if r["kind"] == "epoch"] == [
        3,
        6,
        9,
        12,
        15,
        18,
    ]


@pytest.mark.parametrize("cooldown", [0.0, pytest.param(1.0, marks=SLOW)])
def test_without_a_plateau_or_a_cooldown_too(data: Path, tmp_path: Path, cooldown: float) -> None:
    said = {"schedule.cooldown": cooldown, "run.evaluate_every": 2}
    run, whole = train(data, tmp_path / "run", 1, **said), train(data, tmp_path / "whole", 2, **said)
    api.resume(run, extend=1, progress=False)
    assert_same(run, whole)


@pytest.mark.parametrize(
    "call", [pytest.param(0, marks=SLOW), pytest.param(1, marks=SLOW), 2, 4, 5, pytest.param(6, marks=SLOW)]
)
def test_killed_while_the_folder_changes_a_resume_completes_it(
    short: Path, long: Path, tmp_path: Path, call: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, calls = copied(short, tmp_path / "run"), 0

    class Killed(BaseException):
        pass

    def dying(name: str) -> None:
        whole = getattr(extension, name)

        def step(*args: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == call + 1:
                raise Killed
            return whole(*args)

        monkeypatch.setattr(extension, name, step)

    for name in ("_copy", "_go_back", "saved_in", "change_config"):
        dying(name)
    with pytest.raises(Killed):
        api.resume(run, extend=2, progress=False)
    monkeypatch.undo()
    with pytest.raises(UserError, match="not finished"):
        api.resume(run, extend=2, progress=False)
    api.resume(run, progress=False)
    assert_same(run, long)


def test_what_cannot_be_extended_costs_two_lines(
    short: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cosine = train(data, tmp_path / "cosine", 1, **{"schedule.shape": "cosine"})
    with pytest.raises(SettingsError, match="cosine schedule cannot be extended") as refused:
        api.resume(cosine, extend=4, progress=False)
    assert "epochs 5" in refused.value.fix and "'schedule.shape'" in refused.value.fix
    run = copied(short, tmp_path / "run")
    (run / "state" / "cooldown.pt").write_bytes(b"cut")
    before = {
        path: path.read_bytes()
        for path in run.rglob("*")
        if path.is_file() and path.name not in ("lock", "report.html")
    }
    assert run_command(["train", "--resume", str(run), "--extend", "4"]) == 2
    assert "cooldown.pt, its state before the cooldown, is damaged" in capsys.readouterr().err
    assert before == {path: path.read_bytes() for path in before}
    assert run_command(["train", "--resume", str(run)]) == 2
    assert "--extend N" in capsys.readouterr().err
    max((run / "state").glob("0*.pt")).unlink()
    assert run_command(["train", "--resume", str(run), "--extend", "4"]) == 2
    assert "2 of 3 epochs are done, so it cannot be extended yet" in capsys.readouterr().err
    assert run_command(["train", str(data), "--extend", "4"]) == 2
    assert "no run to lengthen" in capsys.readouterr().err
    with pytest.raises(UserError, match="extend is 0"):
        api.resume(run, extend=0)
