"""Long proofs, run by `make proof`: a run killed repeatedly at random moments ends with bit-equal weights."""

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from safetensors import safe_open

pytestmark = pytest.mark.proof
COMMAND = [sys.executable, "-m", "patchword.cli.main", "train"]
OPTIONS = ["--epochs", "40", "--threads", "1", "-o", "run.precision=float32"]


def _weights(file: Path) -> dict[str, bytes]:
    with safe_open(file, framework="np") as opened:
        return {key: opened.get_tensor(key).tobytes() for key in opened.keys()}  # noqa: SIM118


def _epochs(run: Path) -> int:
    metrics = run / "metrics.jsonl"
    lines = metrics.read_text(encoding="utf-8").splitlines() if metrics.exists() else []
    return sum('"kind": "epoch"' in line for line in lines)


def _run_and_kill(command: list[str], run: Path, drawn: random.Random) -> bool:
    """Start, then kill at a random moment after more epochs are complete; return whether the run had finished.

    A run may be killed after it writes its last file; it then reports that it is finished.
    """
    begun = _epochs(run)
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as running:
        while running.poll() is None and _epochs(run) < begun + 3:
            time.sleep(0.05)
        try:
            _, said = running.communicate(timeout=drawn.uniform(0, 1.5))
            return running.returncode == 0 or b"is finished" in said
        except subprocess.TimeoutExpired:
            running.send_signal(signal.SIGKILL)
            return False


def test_a_run_killed_at_random_moments_ends_bit_equal(tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    subprocess.run([*COMMAND, "digits", "--out", str(whole), *OPTIONS], check=True, capture_output=True)
    drawn = random.Random(0)
    command, kills = [*COMMAND, "digits", "--out", str(killed), *OPTIONS], 0
    while not _run_and_kill(command, killed, drawn):
        kills += 1
        assert list((killed / "state").glob("*.pt")), "no state was kept before the first kill"
        assert kills < 40, "the run does not get on"
        command = [*COMMAND, "--resume", str(killed)]
    assert kills >= 3, "the run was not killed often enough to prove anything"
    for name in ("last.safetensors", "best.safetensors"):
        assert _weights(killed / name) == _weights(tmp_path / "whole" / name)
