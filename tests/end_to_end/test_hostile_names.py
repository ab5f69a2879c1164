"""Names with terminal control sequences: no command prints one raw, whatever its source, and files keep it exact."""

import contextlib
import io
import json
import unicodedata
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file

from patchword.cli.main import run as patchword
from patchword.errors import one_line
from support.scans import write_scans

# Clears the screen, moves up, sets the title, reverses what follows, 8-bit CSI, a line of its own.
CLASSES = ("a\x1b[2J\x1b[A", "b\nerror: forged\u202e", "c\x9b31m[red]\u2028")
FILE = "\x1b]0;title\x07\u2066.png"
ALLOWED = {"\n"}


def assert_tame(text: str) -> None:
    raw = {c for c in text if unicodedata.category(c) in ("Cc", "Cf", "Zl", "Zp")} - ALLOWED
    assert not raw, text
    assert "\nerror: forged" not in text


@pytest.fixture(scope="module")
def say() -> Callable[..., tuple[int, str]]:
    """Run the command in this process; return its exit code and everything it printed."""

    def run(*args: object) -> tuple[int, str]:
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = patchword([str(a) for a in args])
        return code, out.getvalue() + err.getvalue()

    return run


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    top = tmp_path_factory.mktemp("hostile") / "scans\x1b[31m"
    try:
        write_scans(top, {"a0": 8, "b1": 8, "c2": 8})
        for plain, name in zip(("a0", "b1", "c2"), CLASSES, strict=True):
            (top / plain).rename(top / name)
        (top / CLASSES[1] / FILE).write_bytes(b"no picture")
    except (OSError, ValueError):
        pytest.skip("the file system takes no such names")
    return top


@pytest.fixture(scope="module")
def trained(
    data: Path, say: Callable[..., tuple[int, str]], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    out = tmp_path_factory.mktemp("runs") / "run\x1b[32m"
    quick = ("--epochs", 1, "--batch-size", 8, "--threads", 1, "-o", "run.precision=float32")
    code, text = say("train", data, "--out", out, *quick)
    assert code == 0 and "cannot be read" in text, text
    assert_tame(text)
    return out


def test_printed_names_of_data_and_runs_are_escaped(
    trained: Path, data: Path, say: Callable[..., tuple[int, str]], tmp_path: Path
) -> None:
    for code, *args in (
        (0, "check", data),
        (0, "check", data, "--json"),
        (0, "evaluate", trained, data),
        (0, "evaluate", trained, data, "--json"),
        (3, "predict", trained, data),
        (3, "predict", trained, data, "--json"),
        (3, "predict", trained, data, "--jsonl"),
        (3, "predict", trained, data, "--out", tmp_path / "a.csv"),
        (3, "embed", trained, data, "--out", tmp_path / "v\x1b.npy"),
        (0, "inspect", trained),
        (0, "inspect", trained, "--json"),
        (0, "convert", trained, "--to", "patchword", "--out", tmp_path / "c\x1b.safetensors"),
        (0, "convert", trained, "--to", "patchword", "--out", tmp_path / "d\x1b.safetensors", "--json"),
        (0, "adapt", trained, "--to-classes", "new\x1b,b", "--out", tmp_path / "e\x1b.safetensors"),
    ):
        found, text = say(*args)
        assert found == code, text
        assert text or "--out" in args
        assert_tame(text)
    assert "a.csv" not in {p.name for p in tmp_path.iterdir() if not p.stat().st_size}


def test_messages_about_such_names_are_escaped(
    trained: Path, data: Path, say: Callable[..., tuple[int, str]], tmp_path: Path
) -> None:
    (tmp_path / "other" / "x\x1b\ny").mkdir(parents=True)
    Image.new("RGB", (30, 30)).save(tmp_path / "other" / "x\x1b\ny" / "1.png")
    (tmp_path / "one\x1b" / CLASSES[1]).mkdir(parents=True)
    Image.new("RGB", (30, 30)).save(tmp_path / "one\x1b" / CLASSES[1] / "1.png")
    save_file({"odd\x1b[2J\nname": np.zeros(3, np.float32)}, tmp_path / "odd\x1b.safetensors")
    for args in (
        ("predict", trained, data / "none\x1b.png"),
        ("predict", trained, data / "none\x1b*.png"),
        ("predict", trained, data, "--split", "v\x1bal"),
        ("predict", "none\x1b", data),
        ("predict", trained, data, "--out", tmp_path / "no\x1b" / "x.csv"),
        ("predict", trained, data, "--out", tmp_path / "x.c\x1bv"),
        ("predict", trained, data, "--value-range", "1\x1b"),
        ("predict", trained, "--none\x1b[2J"),
        ("no\x1bverb",),
        ("evaluate", trained, tmp_path / "other"),
        ("evaluate", trained, data, "--split", "te\x1bst"),
        ("train", tmp_path / "one\x1b", "--out", tmp_path / "r"),
        ("train", tmp_path / "none\x1b", "--out", tmp_path / "r"),
        ("train", data, "-o", "optim.l\x1br=1", "--out", tmp_path / "r"),
        ("check", tmp_path / "none\x1b"),
        ("inspect", tmp_path / "odd\x1b.safetensors"),
        ("predict", tmp_path / "odd\x1b.safetensors", data),
        ("convert", trained, "--to", "ti\x1bmm", "--out", tmp_path / "x"),
        ("convert", trained, "--to", "timm", "--out", tmp_path / "odd\x1b.safetensors"),
        ("adapt", trained, "--to-classes-from", tmp_path / "none\x1b", "--out", tmp_path / "x.safetensors"),
    ):
        code, text = say(*args)
        assert code == 2 and text.startswith(("error: ", "note: ", "warning: ")), (args, text)
        assert_tame(text)


def test_files_keep_the_names_and_the_report_escapes_them(
    trained: Path, data: Path, say: Callable[..., tuple[int, str]], tmp_path: Path
) -> None:
    code, text = say("predict", trained, data / CLASSES[0], "--json", "--top", 3)
    assert code == 0
    answers, _ = json.JSONDecoder().raw_decode(text)
    assert {p["class"] for p in answers[0]["predictions"]} == set(CLASSES)
    assert all(Path(answer["file"]).is_file() for answer in answers)
    assert tuple(json.loads((trained / "data.json").read_text(encoding="utf-8"))["classes"]) == CLASSES
    page = (trained / "report.html").read_text(encoding="utf-8")
    assert not {c for c in page if unicodedata.category(c) in ("Cc", "Zl", "Zp")} - {"\n", "\t"}
    assert "\u202e" not in page and "a\\x1b[2J" in page
    for line in (trained / "log.txt").read_text(encoding="utf-8").splitlines():
        assert_tame(line)


@pytest.mark.parametrize(
    "text", ["plain", "Ärger 山 👩‍👧 می‌خواهم", "no\u00a0break", "back\\slash", "caf\udce9"]
)
def test_names_of_every_language_are_shown_as_they_are(text: str) -> None:
    assert one_line(text) == text


def test_control_characters_are_spelt_out() -> None:
    spelt = one_line("a\nb\r\t\x1b[0m\x7f\x9b\u200e\u202e\u2066\u2029\ufeff\udc9b")
    assert spelt == r"a\nb\r\t\x1b[0m\x7f\x9b\u200e\u202e\u2066\u2029\ufeff\udc9b"
