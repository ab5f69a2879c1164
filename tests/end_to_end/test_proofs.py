"""Long proofs, run by `make proof`: a run killed repeatedly at random moments ends with bit-equal weights."""

import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open

pytestmark = pytest.mark.proof
COMMAND = [sys.executable, "-m", "patchword.cli.main", "train"]
KILLS, EPOCHS = 20, 16
# Everything that draws random numbers. The state is saved each 0.3 s, so that a resumed run goes on within an epoch.
OPTIONS = [
    *("--epochs", str(EPOCHS), "--threads", "1", "--batch-size", "16"),
    *("-o", "run.precision=float32", "-o", "run.save_minutes=0.005", "-o", "run.evaluate_every=4"),
    *("-o", "model.block.drop_path=0.1", "-o", "augment.mixing.mixup=0.8", "-o", "augment.mixing.cutmix=1.0"),
    *("-o", "augment.policy={kind='trivialaugment'}", "-o", "augment.erase=0.25"),
]


def _weights(file: Path) -> dict[str, bytes]:
    with safe_open(file, framework="np") as opened:
        return {key: opened.get_tensor(key).tobytes() for key in opened.keys()}  # noqa: SIM118


def _records(run: Path) -> list[dict[str, Any]]:
    """What metrics.jsonl says, without what depends on the clock."""
    keys = ("kind", "epoch", "step", "loss", "train_loss", "lr", "val_loss", "val_top1")
    lines = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [{key: record.get(key) for key in keys} for record in map(json.loads, lines)]


def _newest(run: Path) -> int:
    """The step of the newest state; -1 if there is none."""
    return max((int(path.stem) for path in (run / "state").glob("*.pt") if path.stem.isdecimal()), default=-1)


def _on_cores(count: int) -> Callable[[], None]:
    """Each core decodes in a thread of its own."""
    cores = sorted(os.sched_getaffinity(0))[:count]
    return lambda: os.sched_setaffinity(0, cores)


def _run_and_kill(command: list[str], run: Path, after: int, cores: int, drawn: random.Random) -> int | None:
    """Start, and kill soon after step `after`; the step to resume from, or None if the run ended."""
    after = max(after, _newest(run) + 1)
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, preexec_fn=_on_cores(cores)
    ) as running:
        while running.poll() is None and _newest(run) < after:
            time.sleep(0.01)
        try:
            _, said = running.communicate(timeout=drawn.uniform(0, 0.4))
        except subprocess.TimeoutExpired:
            running.kill()
            return _newest(run)
    assert running.returncode == 0 or "is finished" in said, said
    return None


def test_a_run_killed_twenty_times_within_epochs_ends_bit_equal(tmp_path: Path) -> None:
    """With other numbers of decoding threads in each part, averaged weights, a schedule and augmentation."""
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    subprocess.run([*COMMAND, "digits", "--out", str(whole), *OPTIONS], check=True, capture_output=True)
    expected = _records(whole)
    per_epoch = expected[-1]["step"] // EPOCHS
    drawn, resumed_from = random.Random(0), list[int]()
    kill_after = sorted(drawn.sample(range(1, expected[-1]["step"] - per_epoch), KILLS))
    command = [*COMMAND, "digits", "--out", str(killed), *OPTIONS]
    for number, after in enumerate(kill_after):
        step = _run_and_kill(command, killed, after, 1 + number % 2, drawn)
        assert step is not None, f"the run ended after {number} kills: make it longer"
        resumed_from.append(step)
        command = [*COMMAND, "--resume", str(killed)]
    subprocess.run(command, check=True, capture_output=True)
    within = [step for step in resumed_from if step % per_epoch]
    assert len(within) > KILLS // 2, f"resumed from {resumed_from}, epochs of {per_epoch} steps"
    assert _records(killed) == expected, "no record is missing, different or written twice"
    for name in ("last.safetensors", "best.safetensors"):
        assert _weights(killed / name) == _weights(whole / name), name
