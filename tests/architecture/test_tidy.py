"""The pre-commit hook refuses untidy files, and the tree has none."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TIDY = ROOT / ".ci" / "tidy.py"


def _tidy(*paths: Path | str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, TIDY, *paths], capture_output=True, text=True, check=False, cwd=ROOT
    )
    return done.returncode, done.stdout


def test_the_tree_is_tidy() -> None:
    listed = subprocess.run(["git", "ls-files"], capture_output=True, text=True, check=False, cwd=ROOT)
    if listed.returncode:  # an unpacked archive has no git history
        files = [p for folder in ("src", "tests", "docs") for p in (ROOT / folder).rglob("*") if p.is_file()]
        names = [str(p) for p in files if "__pycache__" not in p.parts]
    else:
        names = listed.stdout.splitlines()
    assert names and _tidy(*names) == (0, "")


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"no end", "no line break at the end"),
        (b"too much\n\n", "empty lines at the end"),
        (b"a\n" + b"<" * 7 + b" HEAD\n", "mark of a merge in line 2"),
        (b"x" * 1_000_001 + b"\n", "1,000,002 bytes"),
    ],
    # pytest passes test names to its processes, and a name of a megabyte is too long.
    ids=("no end", "empty lines", "merge", "too large"),
)
def test_each_fault_is_reported_with_its_file(tmp_path: Path, content: bytes, fault: str) -> None:
    path = tmp_path / "file.txt"
    path.write_bytes(content)
    code, output = _tidy(path)
    assert code == 1 and str(path) in output and fault in output


def test_images_and_empty_files_pass(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"\x89PNG\0\0")
    (tmp_path / "__init__.py").write_bytes(b"")
    assert _tidy(*tmp_path.iterdir()) == (0, "")
