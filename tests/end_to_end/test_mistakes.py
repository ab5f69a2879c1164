"""Common user mistakes: two lines, the documented exit code, nothing lost.

Each case runs the real command on folders of real scans (scikit-learn's digits).
"""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from support.scans import write_scans

QUICK = ("--epochs", "1", "--batch-size", "8")


def patchword(*args: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "patchword.cli.main", *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd, timeout=240)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A valid data set: three classes, train/ and val/."""
    write_scans(tmp_path / "digits3" / "train", {"d0": 12, "d1": 12, "d2": 12})
    write_scans(tmp_path / "digits3" / "val", {"d0": 4, "d1": 4, "d2": 4}, first=20)
    return tmp_path / "digits3"


def assert_two_lines(said: subprocess.CompletedProcess[str], *telling: str, code: int = 2) -> None:
    """Check the message: `error:` and `fix:`, the expected words, no traceback."""
    assert said.returncode == code, said.stderr
    assert "Traceback" not in said.stderr
    lines = [line for line in said.stderr.splitlines() if line.strip()]
    errors = [i for i, line in enumerate(lines) if line.startswith("error: ")]
    assert len(errors) == 1, said.stderr
    message = "\n".join(lines[errors[0] :])
    assert "\n  fix: " in message, said.stderr
    for word in telling:
        assert word in message, said.stderr


def test_images_straight_in_train(tmp_path: Path) -> None:
    write_scans(tmp_path / "flat", {"train": 5})
    assert_two_lines(patchword("train", tmp_path / "flat", "--out", tmp_path / "run"), "train", "class")
    assert not (tmp_path / "run").exists()


def test_a_path_that_does_not_exist(folder: Path) -> None:
    said = patchword("train", folder.parent / "digits4", "--out", folder.parent / "run")
    assert_two_lines(said, "digits4", "digits3")


def test_val_classes_that_differ_from_train(folder: Path) -> None:
    (folder / "val" / "d2").rename(folder / "val" / "d2s")
    said = patchword("train", folder, "--out", folder.parent / "run")
    assert_two_lines(said, "d2s", "d2")


BROKEN_WEIGHTS: dict[str, tuple[bytes, str]] = {
    "page.safetensors": (b"<!DOCTYPE html><html><body>404 Not Found</body></html>", "HTML"),
    "pointer.safetensors": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"4d7a" * 16 + b"\nsize 346293852\n",
        "LFS",
    ),
    "empty.safetensors": (b"", "empty"),
    "page.pth": (b"<html><head><title>Sign in</title></head></html>", "HTML"),
    "names.pth": (
        b"\x80\x04\x95\x0f\x00\x00\x00\x00\x00\x00\x00]\x94(\x8c\x01a\x94\x8c\x01b\x94e.",
        "pickle",
    ),
}


@pytest.mark.parametrize("name", BROKEN_WEIGHTS)
def test_a_file_that_is_not_a_weights_file(folder: Path, name: str) -> None:
    content, telling = BROKEN_WEIGHTS[name]
    (folder.parent / name).write_bytes(content)
    said = patchword("predict", folder.parent / name, folder / "val" / "d0" / "0.png")
    assert_two_lines(said, name, telling)
    assert "weights_only" not in said.stderr, "no message may advise to turn safety off"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one epoch on three classes."""
    top = tmp_path_factory.mktemp("trained")
    write_scans(top / "data" / "train", {"d0": 12, "d1": 12, "d2": 12})
    write_scans(top / "data" / "val", {"d0": 4, "d1": 4, "d2": 4}, first=20)
    said = patchword("train", top / "data", "--out", top / "run", *QUICK)
    assert said.returncode == 0, said.stderr
    return top / "run"


def test_a_truncated_weights_file(trained: Path, tmp_path: Path) -> None:
    whole = (trained / "last.safetensors").read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(whole[: len(whole) // 2])
    said = patchword(
        "predict", tmp_path / "cut.safetensors", trained.parent / "data" / "val" / "d0" / "0.png"
    )
    assert_two_lines(said, "cut.safetensors", "truncated")


@pytest.mark.slow
def test_an_image_size_that_does_not_suit_the_patch_just_works(folder: Path) -> None:
    out = folder.parent / "run"
    said = patchword("train", folder, "--out", out, "--image-size", "30", "--patch-size", "4", *QUICK)
    assert said.returncode == 0, said.stderr
    said = patchword("predict", out, folder / "val" / "d1" / "0.png", "--json")
    assert said.returncode == 0, said.stderr


def test_an_unknown_option_and_an_unknown_key(folder: Path) -> None:
    assert_two_lines(patchword("train", folder, "--epoch", "1"), "--epoch", "--epochs")
    assert_two_lines(
        patchword("train", folder, "-o", "optim.lrr=1", "--out", folder.parent / "r"), "lrr", "'lr'"
    )
    (folder.parent / "c.toml").write_text("[optim]\nlearning_rat = 1.0\n")
    said = patchword("train", folder, "--config", folder.parent / "c.toml", "--out", folder.parent / "r")
    assert_two_lines(said, "learning_rat", "c.toml")


def test_a_class_count_that_contradicts_the_data(folder: Path) -> None:
    said = patchword("train", folder, "-o", "model.head.num_classes=7", "--out", folder.parent / "run")
    assert_two_lines(said, "7", "3")


def test_no_permission_for_the_run_folder(folder: Path) -> None:
    (folder.parent / "file").write_text("in the way")
    said = patchword("train", folder, "--out", folder.parent / "file" / "run", *QUICK)
    assert_two_lines(said, "file")


def test_no_space_for_the_run_folder(folder: Path) -> None:
    script = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000));"
        "import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "from patchword.cli.main import main; main(sys.argv[1:])"
    )
    command = [
        sys.executable,
        "-c",
        script,
        "train",
        str(folder),
        "--out",
        str(folder.parent / "run"),
        *QUICK,
    ]
    said = subprocess.run(command, capture_output=True, text=True, check=False, timeout=240)
    assert_two_lines(said, "run")


def test_one_class_or_one_image(tmp_path: Path) -> None:
    write_scans(tmp_path / "single", {"d0": 9})
    assert_two_lines(patchword("train", tmp_path / "single", "--out", tmp_path / "run"), "one class")
    write_scans(tmp_path / "one", {"d0": 1})
    assert_two_lines(patchword("train", tmp_path / "one", "--out", tmp_path / "run"), "one ")


def test_control_c_keeps_the_weights_and_reports_how_to_resume(folder: Path) -> None:
    out = folder.parent / "run"
    command = [sys.executable, "-m", "patchword.cli.main", "train", str(folder), "--out", str(out)]
    with subprocess.Popen(
        [*command, "--epochs", "5000"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as running:
        deadline = time.monotonic() + 120
        while not (out / "last.safetensors").exists() and time.monotonic() < deadline:
            time.sleep(0.1)
        running.send_signal(signal.SIGINT)
        _, said = running.communicate(timeout=120)
    assert running.returncode == 130, said
    assert "--resume" in said and "Traceback" not in said
    answer = patchword("predict", out, folder / "val" / "d0" / "0.png", "--json")
    assert answer.returncode == 0 and json.loads(answer.stdout)


def test_the_limit_on_pixels_is_one_option_everywhere(tmp_path: Path) -> None:
    """Scans of 24 x 24 under a limit of 500 pixels: every command that reads images refuses them."""
    folder = tmp_path / "scans"
    write_scans(folder, {"d0": 6, "d1": 6})
    said = patchword("check", folder, "--max-pixels", "500")
    assert said.returncode == 2 and "over the limit" in said.stdout + said.stderr
    said = patchword("train", folder, "--max-pixels", "500", "--out", tmp_path / "run")
    assert (
        said.returncode == 2
        and "576 pixels, over the limit of 500" in said.stderr
        and not (tmp_path / "run").exists()
    )
    assert patchword("check", folder, "--max-pixels", "576").returncode == 0
