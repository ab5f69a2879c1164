"""The command itself: help, mistyped names, exit codes."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from support.scans import write_scans

FULL = Path("/dev/full")


def patchword(*args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "patchword", *args], capture_output=True, text=True, check=False
    )


def test_help_lists_every_verb_within_80_columns() -> None:
    from patchword.cli.verbs import VERBS

    shown = patchword("--help")
    assert shown.returncode == 0
    assert all(verb in shown.stdout for verb in VERBS)
    assert max(map(len, shown.stdout.splitlines())) <= 80


def test_a_mistyped_verb_gets_a_suggestion() -> None:
    said = patchword("docter")
    assert said.returncode == 2
    assert "'docter'" in said.stderr and "'doctor'" in said.stderr
    assert len(said.stderr.splitlines()) == 2 and not said.stdout


def test_a_mistyped_option_gets_a_suggestion() -> None:
    said = patchword("doctor", "--jsn")
    assert said.returncode == 2
    assert "--jsn" in said.stderr and "--json" in said.stderr
    assert len(said.stderr.splitlines()) == 2


def test_doctor_finds_no_problems_in_the_test_environment() -> None:
    said = patchword("doctor", "--json")
    facts = json.loads(said.stdout)
    assert said.returncode == 0 and facts["faults"] == [] and facts["mend"] == ""
    assert facts["torch"]["product"] == 8.0
    assert 1 <= facts["machine"]["threads_granted"] <= facts["machine"]["cores"]


@pytest.mark.skipif(not FULL.exists(), reason="no device that is always full")
@pytest.mark.parametrize("options", [(), ("--json",)])
def test_output_to_a_full_disk_is_reported_in_two_lines(options: tuple[str, ...]) -> None:
    with FULL.open("w") as full:
        command = [sys.executable, "-m", "patchword.cli.main", "models", *options]
        said = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert said.returncode == 2 and "Traceback" not in said.stderr
    error, fix = said.stderr.splitlines()[-2:]
    assert error.startswith("error: standard output cannot be written: ") and fix.startswith("  fix: ")


@pytest.mark.skipif(not FULL.exists(), reason="no device that is always full")
def test_messages_to_a_full_disk_do_not_stop_the_work() -> None:
    with FULL.open("w") as full:
        command = [sys.executable, "-m", "patchword.cli.main", "models"]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=full, text=True, check=False)
    assert done.returncode == 0 and "ViT-B/16" in done.stdout


def test_a_pipe_gets_every_line_complete(tmp_path: Path) -> None:
    name = "a class with a name of more than eighty characters, as people have who describe what they see"
    write_scans(tmp_path, {name: 4, "b": 1})
    shown = patchword("check", str(tmp_path)).stdout.splitlines()
    assert any(line.startswith(name) and line.split()[-2:] == ["3", "1"] for line in shown)
    assert not [line for line in shown if line != line.rstrip() and len(line) > 200]
    assert shown[0] == f"{tmp_path}: folder, 2 classes, 5 images"
    assert all(line.startswith(("warning: ", "note: ", "  fix: ")) for line in shown if name in line[1:])
