"""File names that are not valid text or contain line breaks: every output is complete and keeps the exact name."""

import csv
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

import patchword as pw
from patchword.api import resume
from patchword.cli.main import run as patchword
from support.scans import write_scans

# As unpacked archives from old Windows versions contain them, and as anyone may create them.
NO_TEXT = os.fsdecode(b"caf\xe9")
TWO_LINES = "two\nlines\x1b[31m"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    top = tmp_path_factory.mktemp("names") / "scans"
    write_scans(top, {"d0": 12, "d1": 12})
    try:
        (top / "d0").rename(top / NO_TEXT)
    except OSError:
        pytest.skip("the file system takes no such names")
    (top / "d1").rename(top / TWO_LINES)
    (top / NO_TEXT / os.fsdecode(b"\xff.png")).write_bytes(b"no picture")
    return top


@pytest.fixture(scope="module")
def run(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "run"
    quick = ("--epochs", "1", "--batch-size", "8", "--threads", "1", "-o", "run.precision=float32")
    assert patchword(["train", str(data), "--out", str(out), *quick]) == 0
    return out


def test_a_run_keeps_the_names_as_they_are(run: Path, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert pw.load(run).classes == (NO_TEXT, TWO_LINES)
    facts = json.loads((run / "data.json").read_text(encoding="utf-8"))
    assert facts["classes"] == [NO_TEXT, TWO_LINES]
    (run / "evaluation.json").unlink()
    assert resume(run).folder == run, "a run goes on under such names"
    assert patchword(["evaluate", str(run), str(data), "--json"]) == 0
    scored = json.loads(capsys.readouterr().out)
    assert [c["name"] for c in scored["classes"]] == [NO_TEXT, TWO_LINES]


def test_every_output_format_keeps_the_names(run: Path, data: Path, tmp_path: Path) -> None:
    there = sorted(str(file) for file in data.rglob("*.png"))
    escaped = sorted(name.encode("utf-8", "backslashreplace").decode() for name in there)
    for name in ("a.txt", "a.json", "a.csv", "a.parquet"):
        assert patchword(["predict", str(run), str(data), "--output", str(tmp_path / name)]) == 3
    answers = json.loads((tmp_path / "a.json").read_text(encoding="utf-8"))
    assert sorted(answer["file"] for answer in answers) == there
    text = (tmp_path / "a.csv").read_text(encoding="utf-8", errors="surrogateescape")
    assert sorted(row["file"] for row in csv.DictReader(io.StringIO(text))) == there
    assert sorted(pq.read_table(tmp_path / "a.parquet")["file"].to_pylist()) == escaped
    assert patchword(["embed", str(run), str(data), "--output", str(tmp_path / "v.parquet")]) == 3
    assert pq.read_table(tmp_path / "v.parquet").num_rows == len(there) - 1


def test_a_prediction_is_one_line_in_any_encoding(run: Path, data: Path) -> None:
    command = [sys.executable, "-m", "patchword.cli.main", "predict", str(run), str(data)]
    ascii_only = {**os.environ, "PYTHONIOENCODING": "ascii"}
    said = subprocess.run(command, capture_output=True, check=False, timeout=240, env=ascii_only)
    assert said.returncode == 3, said.stderr
    lines = said.stdout.split(b"\n")[:-1]
    assert len(lines) == sum(1 for _ in data.rglob("*.png"))
    assert b"\x1b" not in said.stdout and b"two\\nlines\\x1b" in said.stdout
    assert b"caf\xe9" in said.stdout


def test_a_run_folder_whose_weights_could_not_be_read_later_is_refused(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert patchword(["train", str(data), "--out", str(tmp_path / os.fsdecode(b"\xff"))]) == 2
    assert "not UTF-8" in capsys.readouterr().err
