"""Going on with a run: what is taken up, what is refused, what is kept when numbers break."""

import hashlib
import io
import json
import re
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.numpy import load_file

import patchword as pw
from patchword import api
from patchword.cli.main import run as run_command
from patchword.errors import (
    DataError,
    Interrupted,
    NotEnoughMemory,
    OutputError,
    SettingsError,
    TrainingBroken,
    UserError,
)
from patchword.runs import _reported, run
from patchword.runs.prepare import TrainRequest, prepare
from patchword.training.meter import Meter
from patchword.training.runfolder import free_folder, make_folder
from patchword.training.state import TrainingState
from support.scans import write_scans

TINY = {
    "run.batch_size": 8,
    "run.threads": 1,
    "run.precision": "float32",
    "model.depth": 1,
    "model.dim": 32,
    "model.attention.num_heads": 1,
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    top = tmp_path_factory.mktemp("data") / "scans"
    write_scans(top, {"d0": 12, "d1": 12})
    return top


@pytest.fixture(scope="module")
def trained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "run"
    api.train(data, out=out, epochs=2, seed=3, settings=TINY)
    return out


def newest_state(run: Path) -> Path:
    return max((run / "state").glob("*.pt"))


@pytest.mark.parametrize("content", ["{}", "[]", "no json"])
def test_facts_that_say_nothing_of_the_data_are_refused(trained: Path, tmp_path: Path, content: str) -> None:
    shutil.copytree(trained, tmp_path / "run")
    (tmp_path / "run" / "data.json").write_text(content)
    with pytest.raises(UserError, match=r"data\.json"):
        api.resume(tmp_path / "run")


def test_the_next_free_folder_lies_beside_the_one_that_exists(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "run" / "inside").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "run")
    for wanted in (f"{tmp_path}/run", f"{tmp_path}/run/", "../run/"):
        assert free_folder(wanted).resolve() == tmp_path / "run-2", wanted
    for wanted in (".", "./", "..", "inside/.."):
        with pytest.raises(OutputError, match="is not a new folder"):
            free_folder(wanted)
    (tmp_path / "empty").mkdir()
    assert free_folder(tmp_path / "empty") == tmp_path / "empty"
    assert (make_folder(tmp_path / "empty").path / "state").is_dir()
    assert free_folder(tmp_path / "empty") == tmp_path / "empty-2"
    with pytest.raises(OutputError, match="cannot be written"):
        free_folder("x" * 5000)


@pytest.mark.parametrize(
    "said", [{"run.seed": -1}, {"run.threads": 10**6}, {"run.seed": 2**64}, {"optim.lr": float("nan")}]
)
def test_numbers_that_nothing_can_be_done_with_are_refused(data: Path, said: dict[str, float]) -> None:
    with pytest.raises(SettingsError):
        api.train(data, settings=said)


@pytest.fixture
def stopped(trained: Path, tmp_path: Path) -> Path:
    """The run as it was after its first epoch."""
    run = tmp_path / "run"
    shutil.copytree(trained, run)
    newest_state(run).unlink()
    (run / "evaluation.json").unlink()
    return run


def test_a_stopped_run_ends_in_the_same_bits(stopped: Path, trained: Path) -> None:
    api.resume(stopped)
    ours, theirs = (load_file(run / "last.safetensors") for run in (stopped, trained))
    assert all(ours[key].tobytes() == theirs[key].tobytes() for key in theirs)


@pytest.mark.parametrize("steps", [1, 4])
def test_a_run_that_was_stopped_within_an_epoch_ends_in_the_same_bits(
    trained: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steps: int
) -> None:
    """Stopped by a signal after so many of its 4 steps, and resumed with another number of workers."""
    added = 0

    def stop_after(self: Meter, *values: Any) -> None:
        nonlocal added
        add(self, *values)
        added += 1
        if added == steps:
            signal.raise_signal(signal.SIGTERM)

    add = Meter.add
    with monkeypatch.context() as patched, pytest.raises(Interrupted, match="goes on from here"):
        patched.setattr(Meter, "add", stop_after)
        api.train(data, out=tmp_path / "run", epochs=2, seed=3, settings=TINY)
    assert int(newest_state(tmp_path / "run").stem) == steps
    monkeypatch.setattr("patchword.machine.granted_cores", lambda: 3)
    api.resume(tmp_path / "run")
    for name in ("last.safetensors", "best.safetensors"):
        ours, theirs = (load_file(run / name) for run in (tmp_path / "run", trained))
        assert all(ours[key].tobytes() == theirs[key].tobytes() for key in theirs)
    ours, theirs = (records(run) for run in (tmp_path / "run", trained))
    assert ours == theirs, "no record is missing or written twice"


def records(run: Path) -> list[dict[str, Any]]:
    """What metrics.jsonl says of steps and epochs, without what depends on the clock."""
    told = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    keys = ("kind", "epoch", "step", "loss", "train_loss", "lr", "val_loss", "val_top1")
    return [{key: record.get(key) for key in keys} for record in told]


def test_a_state_cut_in_half_falls_back_to_the_one_before(trained: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(trained, run)
    newest = newest_state(run)
    newest.write_bytes(newest.read_bytes()[: newest.stat().st_size // 2])
    (run / "evaluation.json").unlink()
    api.resume(run)
    assert "is damaged; using" in (run / "log.txt").read_text()
    ours, theirs = (load_file(r / "last.safetensors") for r in (run, trained))
    assert all(ours[key].tobytes() == theirs[key].tobytes() for key in theirs)


def test_a_run_that_was_stopped_before_its_score_is_scored(trained: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(trained, run)
    (run / "evaluation.json").unlink()
    (run / "report.html").unlink()
    api.resume(run)
    assert json.loads((run / "evaluation.json").read_text()) == json.loads(
        (trained / "evaluation.json").read_text()
    ) | {"weights": str(run / "last.safetensors")}
    assert (run / "report.html").exists()
    with pytest.raises(UserError, match="is finished"):
        api.resume(run)


def test_a_run_that_was_killed_between_its_score_and_its_report_is_told(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    shutil.copytree(trained, run)
    (run / "evaluation.json").unlink()  # as after Ctrl-C: the report is one of a run on its way

    def killed(folder: Path) -> None:
        raise MemoryError

    with monkeypatch.context() as patched, pytest.raises(NotEnoughMemory, match="resume"):
        patched.setattr("patchword.reports.html.write_report", killed)
        api.resume(run)
    assert (run / "evaluation.json").exists() and not (run / "report.html").exists()
    api.resume(run)
    assert (run / "report.html").exists()


def test_settings_that_were_edited_on_the_way_are_refused(stopped: Path) -> None:
    config = stopped / "config.toml"
    config.write_text(re.sub(r"(?m)^lr = \S+", "lr = 0.5", config.read_text()))
    with pytest.raises(UserError, match=r"optim\.lr is 0\.5, was 0\.00"):
        api.resume(stopped)


def test_a_run_begun_before_a_setting_existed_goes_on_at_its_default(stopped: Path) -> None:
    for path in (stopped / "state").glob("*.pt"):
        stored = torch.load(io.BytesIO(path.read_bytes()[:-32]), weights_only=True)
        begun_with = json.loads(stored["settings"])
        del begun_with["optim"]["beta2"]
        content = io.BytesIO()
        torch.save(stored | {"settings": json.dumps(begun_with)}, content)
        path.write_bytes(content.getvalue() + hashlib.sha256(content.getvalue()).digest())
    api.resume(stopped)
    assert (stopped / "report.html").exists()


def test_images_that_changed_under_the_same_names_are_refused(
    stopped: Path, data: Path, tmp_path: Path
) -> None:
    shutil.copytree(data, tmp_path / "scans")
    for grey, file in enumerate((tmp_path / "scans" / "d0").iterdir()):
        Image.new("L", (24, 24), grey).save(file)
    with pytest.raises(UserError, match="have different content"):
        api.resume(stopped, data=str(tmp_path / "scans"))


def test_a_run_goes_on_from_any_folder_and_says_what_to_do_where_its_data_moved(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(data, tmp_path / "scans")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    api.train("scans", out="run", epochs=1, settings=TINY, progress=False)
    for name in ("evaluation.json", "report.html"):
        (tmp_path / "run" / name).unlink()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert api.train(resume="../run", progress=False).evaluation.scored > 0
    (tmp_path / "scans").rename(tmp_path / "moved")
    (tmp_path / "run" / "report.html").unlink()
    assert run_command(["train", "--resume", "../run"]) == 2
    with pytest.raises(DataError, match="does not exist") as caught:
        api.train(resume="../run")
    assert caught.value.fix == "give its new location: `pw.train('DATA', resume='../run')`"
    assert run_command(["train", "../moved", "--resume", "../run"]) == 0


def test_a_table_is_opened_again_as_it_was(data: Path, tmp_path: Path) -> None:
    from patchword.data.request import OpenRequest
    from patchword.training.overlay import make_overlay

    rows = [f"{d}/{i}.png,{d},{'odd' if d == 'd1' else 'even'}" for d in ("d0", "d1") for i in range(12)]
    (data / "list.csv").write_text("file,digit,parity\n" + "\n".join(rows) + "\n")
    options = [(path, "settings", value) for path, value in (TINY | {"schedule.epochs": 1}).items()]
    request = TrainRequest(
        data=str(data / "list.csv"),
        overlay=make_overlay(options=options),
        out=str(tmp_path / "run"),
        opening=OpenRequest(image_column="file", label_column="parity"),
    )
    made = run(prepare(request))
    newest_state(made.folder).unlink()
    (made.folder / "evaluation.json").unlink()
    assert api.resume(made.folder).model.classes == ("even", "odd")


def test_the_saved_settings_hold_the_same_images_out(trained: Path, data: Path, tmp_path: Path) -> None:
    from patchword.training.overlay import make_overlay

    overlay = make_overlay(trained / "config.toml")
    again = run(prepare(TrainRequest(data=str(data), overlay=overlay, out=str(tmp_path / "again"))))
    first, second = (json.loads((run / "data.json").read_text()) for run in (trained, again.folder))
    assert first["held_out"] == second["held_out"] and first["split_seed"] == second["split_seed"] == 0
    ours, theirs = (load_file(run / "last.safetensors") for run in (again.folder, trained))
    assert all(ours[key].tobytes() == theirs[key].tobytes() for key in theirs)


def test_when_numbers_break_the_last_whole_epoch_stays(data: Path, tmp_path: Path) -> None:
    # The rate climbs step by step, so that some epochs end before a gradient overflows.
    settings = TINY | {"optim.lr": 300.0, "schedule.warmup_epochs": 200.0}
    with pytest.raises(TrainingBroken, match=r"the weights of epoch \d+ are kept") as caught:
        api.train(data, out=tmp_path / "run", epochs=400, settings=settings)
    kept = re.search(r"weights of epoch (\d+)", caught.value.message)
    assert kept and pw.load(tmp_path / "run").provenance.facts["epoch"] == int(kept[1])
    assert "stopped: " in (tmp_path / "run" / "log.txt").read_text()
    # Never above the recipe's 4e-3 or 2e-3, whatever rate blew up.
    advised = float(re.search(r"lr[ =]([-\d.e]+)", caught.value.fix)[1])  # type: ignore[index]
    assert 0 < advised <= 4e-3
    for weights in ("last.safetensors", "best.safetensors"):
        (note,) = pw.load(tmp_path / "run" / weights).report.notes
        assert re.search(
            r"from a training run that diverged: the \w+ is not finite in epoch \d+, step \d+", note
        )
    with pytest.raises(UserError, match=r"cannot be resumed: the .* is not finite"):
        api.resume(tmp_path / "run")
    report = (tmp_path / "run" / "report.html").read_text()
    assert "Training diverged" in report and "interrupted" not in report


def test_an_evaluation_that_is_no_number_is_no_score(data: Path, tmp_path: Path) -> None:
    # One step an epoch: its weights are first used by the evaluation.
    settings = TINY | {"run.batch_size": 64, "optim.lr": 1e38, "optim.clip_grad": 0.0}
    with pytest.raises(TrainingBroken, match="not finite"):
        api.train(data, out=tmp_path / "run", epochs=3, settings=settings)
    assert not (tmp_path / "run" / "evaluation.json").exists()


def test_control_c_before_the_first_epoch_promises_no_weights(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "0.pt").touch()
    with pytest.raises(Interrupted, match="no weights"), _reported(tmp_path):
        raise KeyboardInterrupt
    (tmp_path / "last.safetensors").touch()
    with pytest.raises(Interrupted, match="is kept"), _reported(tmp_path):
        raise KeyboardInterrupt


@pytest.mark.parametrize("ending", [KeyboardInterrupt, OutputError])
def test_a_run_that_ends_before_its_first_state_leaves_no_folder(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: type[BaseException]
) -> None:
    def end(*_: object) -> None:
        raise ending("the disk is full")

    monkeypatch.setattr(TrainingState, "save", end)
    expected = "no run folder was kept" if ending is KeyboardInterrupt else "the disk is full"
    with pytest.raises((Interrupted, OutputError), match=expected):
        api.train(data, out=tmp_path / "run", epochs=1, settings=TINY)
    assert not (tmp_path / "run").exists()
