"""Long proofs, run by `make proof`: a run killed again and again at random moments ends in the same bits."""

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


def _run_and_kill(command: list[str], after_s: float) -> bool:
    """Start, kill after some seconds; whether it had finished by itself before."""
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as running:
        try:
            return running.wait(timeout=after_s) == 0
        except subprocess.TimeoutExpired:
            running.send_signal(signal.SIGKILL)
            return False


def test_a_run_killed_at_random_moments_ends_in_the_same_bits(tmp_path: Path) -> None:
    started = time.monotonic()
    subprocess.run(
        [*COMMAND, "digits", "--out", str(tmp_path / "whole"), *OPTIONS], check=True, capture_output=True
    )
    whole_s = time.monotonic() - started
    killed = tmp_path / "killed"
    drawn = random.Random(0)
    command, kills = [*COMMAND, "digits", "--out", str(killed), *OPTIONS], 0
    # A life is long enough to start and finish some epochs, and too short for the run.
    while not _run_and_kill(command, whole_s * drawn.uniform(0.3, 0.45)):
        kills += 1
        assert list((killed / "state").glob("*.pt")), "no state was kept before the first kill"
        assert kills < 20, "the run does not get on"
        command = [*COMMAND, "--resume", str(killed)]
    assert kills >= 3, "the run was not killed often enough to prove anything"
    for name in ("last.safetensors", "best.safetensors"):
        assert _weights(killed / name) == _weights(tmp_path / "whole" / name)
