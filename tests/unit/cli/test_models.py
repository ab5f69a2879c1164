"""`patchword models`: the table fits 80 columns, answers at once, and errors name the nearest."""

import json
import subprocess
import sys

import pytest

from patchword.cli.main import run


def test_the_table_names_every_size_and_fits_80_columns(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["models"]) == 0
    lines = capsys.readouterr().out.splitlines()
    tiny = next(line.split() for line in lines if line.startswith("ViT-Ti/16"))
    assert tiny == ["ViT-Ti/16", "192", "12", "3", "5,717,416", "2.51", "197"]
    assert max(map(len, lines)) <= 80 and len(lines) == 19


def test_size_and_classes_change_the_cost(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["models", "ti/4", "--image-size", "32x48", "--classes", "10", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["name"], row["tokens"], row["classes"], row["image_size"]) == ("ViT-Ti/4", 97, 10, [32, 48])


@pytest.mark.parametrize(
    "args", [["ViT-Q/16"], ["--image-size", "0"], ["--image-size", "axb"], ["--classes", "-1"]]
)
def test_what_cannot_be_is_refused_in_two_lines(args: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["models", *args]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and "\n  fix: " in error and "Traceback" not in error


def test_no_torch_is_imported() -> None:
    code = "from patchword.cli.main import run; run(['models']); import sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0
