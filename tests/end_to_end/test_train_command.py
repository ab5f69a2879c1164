"""`patchword train` as a user runs it: what a run writes, and that runs repeat and resume bit-equal."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from safetensors import safe_open

from patchword.cli.main import run as patchword_here
from patchword.training.runfolder import RunFolder
from support.scans import write_scans

QUICK = ("--epochs", "4", "--batch-size", "8", "--threads", "1", "-o", "run.precision=float32")


def patchword(*args: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "patchword.cli.main", *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=240)


def weights(file: Path) -> dict[str, bytes]:
    with safe_open(file, framework="np") as opened:
        return {key: opened.get_tensor(key).tobytes() for key in opened.keys()}  # noqa: SIM118


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    top = tmp_path_factory.mktemp("data") / "scans"
    write_scans(top, {"d0": 15, "d1": 15, "d2": 15})
    (top / "d1" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    return top


@pytest.fixture(scope="module")
def run(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "first"
    said = patchword("train", data, "--out", out, *QUICK)
    assert said.returncode == 0, said.stderr
    assert said.stdout.strip() == str(out), "the answer on standard output is the run folder"
    return out


def test_a_run_writes_the_documented_folder(run: Path) -> None:
    names = {p.name for p in run.iterdir()}
    assert names >= {
        "config.toml",
        "data.json",
        "metrics.jsonl",
        "evaluation.json",
        "best.safetensors",
        "last.safetensors",
        "state",
        "report.html",
        "log.txt",
    }
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    epochs = [r for r in records if r["kind"] == "epoch"]
    assert [e["epoch"] for e in epochs] == [1, 2, 3, 4]
    assert all(0 <= e["data_wait"] <= 1 and e["images_per_s"] > 0 for e in epochs)
    assert len(list((run / "state").glob("*.pt"))) == 2


def test_the_score_of_a_run_equals_that_of_evaluate(run: Path, data: Path) -> None:
    scored = json.loads((run / "evaluation.json").read_text())
    again = json.loads(patchword("evaluate", run, data, "--json").stdout)
    last = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()][-1]
    assert again["top1"] == scored["top1"] == pytest.approx(last["val_top1"], abs=1e-9)
    assert again["loss"] == pytest.approx(last["val_loss"], abs=1e-5)
    assert again["confusion"] == scored["confusion"]


def test_an_unreadable_image_is_counted_and_listed(run: Path) -> None:
    facts = json.loads((run / "data.json").read_text())
    assert [s["name"] for s in facts["skipped"]] == ["d1/broken.png"]


def test_the_saved_settings_repeat_the_run(run: Path, data: Path, tmp_path: Path) -> None:
    said = patchword("train", data, "--out", tmp_path / "again", "--config", run / "config.toml")
    assert said.returncode == 0, said.stderr
    assert weights(tmp_path / "again" / "last.safetensors") == weights(run / "last.safetensors")


def test_an_existing_folder_is_never_overwritten_and_another_seed_is_another_run(
    run: Path, data: Path
) -> None:
    before = (run / "metrics.jsonl").read_bytes()
    said = patchword("train", data, "--out", run, *QUICK, "--seed", "1")
    assert said.returncode == 0, said.stderr
    other = Path(f"{run}-2")
    assert said.stdout.strip() == str(other) and (run / "metrics.jsonl").read_bytes() == before
    assert weights(other / "last.safetensors") != weights(run / "last.safetensors")


def _start(data: Path, out: Path, epochs: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "patchword.cli.main", "train", str(data), "--out", str(out)]
    options = ["--epochs", epochs, "--batch-size", "8", "--threads", "1", "-o", "run.precision=float32"]
    return subprocess.Popen([*command, *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def _wait_for_epoch(out: Path, epoch: int) -> None:
    deadline = time.monotonic() + 120
    while RunFolder(out).epochs_done() < epoch:
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.slow  # tests/unit/training and the proof stop runs too
def test_a_killed_run_resumes_bit_equal(data: Path, tmp_path: Path) -> None:
    whole = patchword("train", data, "--out", tmp_path / "whole", *QUICK, "--epochs", "16")
    assert whole.returncode == 0, whole.stderr
    with _start(data, tmp_path / "killed", "16") as running:
        _wait_for_epoch(tmp_path / "killed", 3)
        running.send_signal(signal.SIGKILL)
    resumed = patchword("train", "--resume", tmp_path / "killed")
    assert resumed.returncode == 0, resumed.stderr
    assert "after epoch" in (tmp_path / "killed" / "log.txt").read_text()
    for name in ("last.safetensors", "best.safetensors"):
        assert weights(tmp_path / "killed" / name) == weights(tmp_path / "whole" / name)
    epochs = [json.loads(x) for x in (tmp_path / "killed" / "metrics.jsonl").read_text().splitlines()]
    assert [e["epoch"] for e in epochs if e["kind"] == "epoch"] == list(range(1, 17))


def test_a_finished_run_or_changed_data_is_not_resumed(run: Path, data: Path, tmp_path: Path) -> None:
    finished = patchword("train", "--resume", run)
    assert finished.returncode == 2 and "is finished" in finished.stderr
    write_scans(tmp_path, {"d0": 15, "d1": 14, "d2": 15})
    other = patchword("train", tmp_path, "--resume", run)
    assert other.returncode == 2 and "have changed" in other.stderr
    settings = patchword("train", "--resume", run, "--lr", "1")
    assert settings.returncode == 2 and "--lr" in settings.stderr


def test_a_diverged_run_is_reported_wherever_its_weights_are_used(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken, image = tmp_path / "run", str(data / "d0" / "0.png")
    given = ["train", str(data), *QUICK, "--lr", "1e30", "-o", "optim.clip_grad=0", "--out", str(broken)]
    assert patchword_here(given) == 4
    said = capsys.readouterr().err
    assert "not finite" in said and "--lr" in said and "1e+" not in said.rpartition("fix:")[2]
    assert (broken / "last.safetensors").exists() and "Training diverged" in (
        broken / "report.html"
    ).read_text()
    start = ["train", str(data), "--weights", str(broken), "--out", str(tmp_path / "next"), *QUICK]
    for args in (
        ["predict", str(broken), image],
        ["embed", str(broken), image, "--output", str(tmp_path / "vectors.npy")],
        ["evaluate", str(broken), str(data)],
        [*start, "--epochs", "1"],
    ):
        patchword_here(args)  # the output may not be a number, but the reason comes first
        said = capsys.readouterr().err
        assert said.count("from a training run that diverged: ") == 1 and "step " in said, args
    assert patchword_here(["train", "--resume", str(broken)]) == 2
    assert "cannot be resumed" in capsys.readouterr().err


def test_a_class_without_held_out_images_and_a_useless_model_are_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_scans(tmp_path / "scans", {"d0": 12, "d1": 6, "d2": 1})
    out = str(tmp_path / "run")
    # A learning rate that changes nothing: one class is predicted for everything.
    given = ["train", str(tmp_path / "scans"), *QUICK, "--epochs", "1", "--lr", "1e-12", "--out", out]
    assert patchword_here(given) == 0
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last.startswith("warning: ") and "the majority class" in last
    assert patchword_here(["evaluate", out, str(tmp_path / "scans"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert "majority class" in found["notice"] and found["majority"]["name"] == "d0"
    assert any("'d2' is held out" in note for note in found["notes"])
    assert patchword_here(["evaluate", out, str(tmp_path / "scans")]) == 0
    assert "over 2 of 3 classes (none of 'd2')" in capsys.readouterr().out
    report = " ".join((tmp_path / "run" / "report.html").read_text().split())
    assert "Check first</h2><ul> <li><strong>The model is no" in report
    assert "The score covers 2 of 3 classes" in report


def test_training_in_python_is_one_line(data: Path, tmp_path: Path) -> None:
    code = (
        "import sys, patchword as pw\n"
        "run = pw.train(sys.argv[1], out=sys.argv[2], epochs=1, settings={'run.batch_size': 8})\n"
        "print(run.folder, run.evaluation.top1, len(run.model.predict(sys.argv[1] + '/d0/0.png').top(2)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(data), str(tmp_path / "run")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[0] == str(tmp_path / "run") and done.stdout.split()[-1] == "2"


def _read_a_line_and_leave(*args: str | Path, of: str) -> tuple[int, bytes]:
    """The exit code of a command whose reader takes one line of `of` and goes, and what it said else."""
    command = [sys.executable, "-m", "patchword.cli.main", *map(str, args)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as running:
        read, kept = (running.stderr, running.stdout) if of == "stderr" else (running.stdout, running.stderr)
        assert read is not None and kept is not None
        assert read.readline()
        read.close()
        rest = kept.read()
    return running.returncode, rest


@pytest.mark.slow
def test_training_continues_if_no_one_reads_its_messages(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "alone"
    code, rest = _read_a_line_and_leave("train", data, "--out", out, *QUICK, "--epochs", "1", of="stderr")
    assert (code, rest.decode().strip()) == (0, str(out))
    assert (out / "report.html").exists()


def test_a_closed_pipe_is_not_a_bug(run: Path, data: Path) -> None:
    more_than_a_pipe_holds = [str(data / "d0" / "*.png")] * 40
    for command in (["check", str(data)], ["predict", str(run), *more_than_a_pipe_holds, "--jsonl"]):
        assert _read_a_line_and_leave(*command, of="stdout") == (0, b""), command[0]
