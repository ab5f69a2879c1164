"""`patchword predict` and related commands as a user runs them: rows, formats, exit codes, imports."""

import csv
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from patchword.cli.main import run
from support.colours import COLOURS, write_colour_model


def patchword(
    *args: object, stdin: bytes = b"", path: Path | None = None, code: str = ""
) -> subprocess.CompletedProcess[bytes]:
    """Run the command in its own process; `path` is prepended to Python's import path."""
    places = [str(p) for p in (path, *sys.path) if p]
    code = code or "from patchword.cli.main import main; main()"
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code, *map(str, args)],
        input=stdin,
        capture_output=True,
        check=False,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(places), "NO_COLOR": "1"},
    )


@pytest.fixture(scope="module")
def model_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_colour_model(tmp_path_factory.mktemp("model") / "colours.safetensors")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    for name in COLOURS:
        Image.new("RGB", (50, 40), name).save(folder / f"{name}.png")
    return folder


def test_images_are_classified_on_standard_output(model_file: Path, folder: Path, tmp_path: Path) -> None:
    """Names are printed in full, however long, because programs that read the pipe use them."""
    long = tmp_path / ("a long name " * 8 + ".png")
    long.write_bytes((folder / "red.png").read_bytes())
    said = patchword("predict", model_file, folder, long, "--top", 2)
    assert said.returncode == 0 and not said.stderr
    lines = said.stdout.decode().splitlines()
    assert [line.partition("   ")[0].rstrip() for line in lines] == [
        *(str(folder / f"{name}.png") for name in ("blue", "green", "red")),
        str(long),
    ]
    assert [line.partition(".png")[2].split()[0] for line in lines] == ["blue", "green", "red", "red"]


def test_a_bad_image_costs_one_row_and_exit_code_3(model_file: Path, folder: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.png"
    bad.write_bytes((folder / "red.png").read_bytes()[:40])
    said = patchword("predict", model_file, folder / "red.png", bad, folder / "blue.png", "--json")
    assert said.returncode == 3
    red, none, blue = json.loads(said.stdout)
    assert red["predictions"][0]["class"] == "red" and blue["predictions"][0]["class"] == "blue"
    assert none["file"] == str(bad) and none["error"] and "predictions" not in none
    assert b"1 of 3 images" in said.stderr and b"fix:" in said.stderr


def inside(capsys: pytest.CaptureFixture[str], *args: object) -> str:
    """Run the command in this process (torch is already imported); return what it prints."""
    assert run([str(a) for a in args]) == 0
    return capsys.readouterr().out


def test_every_format_has_the_same_content(
    model_file: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ("predict", model_file, folder, "--top", 2)
    rows = json.loads(inside(capsys, *given, "--json"))
    lines = [json.loads(line) for line in inside(capsys, *given, "--jsonl").splitlines()]
    assert rows == lines and [len(row["predictions"]) for row in rows] == [2, 2, 2]
    table = list(csv.DictReader(io.StringIO(inside(capsys, *given, "--csv"))))
    assert [r["class_1"] for r in table] == [r["predictions"][0]["class"] for r in rows]
    for ending in ("json", "csv", "parquet"):
        assert not inside(capsys, *given, "--output", tmp_path / f"answers.{ending}")
    assert json.loads((tmp_path / "answers.json").read_text()) == rows
    assert list(csv.DictReader((tmp_path / "answers.csv").read_text().splitlines())) == table
    import pyarrow.parquet as pq

    stored = pq.read_table(tmp_path / "answers.parquet").to_pylist()
    assert [r["file"] for r in stored] == [r["file"] for r in rows]
    assert stored[0]["probability_1"] == pytest.approx(rows[0]["predictions"][0]["probability"])
    assert sorted(p.name for p in tmp_path.iterdir()) == ["answers.csv", "answers.json", "answers.parquet"]


def test_standard_input_accepts_paths_or_one_image(
    model_file: Path, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def answers(content: bytes) -> list[str]:
        stdin = io.TextIOWrapper(io.BufferedReader(io.BytesIO(content)))  # type: ignore[arg-type]
        monkeypatch.setattr("sys.stdin", stdin)
        rows = json.loads(inside(capsys, "predict", model_file, "-", "--json"))
        return [r["predictions"][0]["class"] for r in rows]

    assert answers("\n".join(str(folder / f"{name}.png") for name in COLOURS).encode()) == list(COLOURS)
    assert answers((folder / "green.png").read_bytes()) == ["green"]


@pytest.mark.parametrize(
    ("given", "words"), [(["-"], "standard input (-) is empty"), (["-", "more"], "cannot be combined")]
)
def test_standard_input_that_is_empty_or_combined_with_files_is_reported(
    model_file: Path, folder: Path, given: list[str], words: str
) -> None:
    said = patchword("predict", model_file, *(folder if name == "more" else name for name in given))
    lines = said.stderr.decode().splitlines()
    assert said.returncode == 2 and not said.stdout
    assert len(lines) == 2 and words in lines[0] and lines[1].startswith("  fix: ")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"<!DOCTYPE html><title>Not found</title>", "web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0f\n", "Git LFS pointer"),
        (b"", "is empty"),
        (None, "truncated"),
        (b"\x80\x04}\x94\x8c\x01a\x94K\x01s.", "Python pickle"),
    ],
)
def test_a_wrong_weights_file_is_reported_in_two_lines(
    model_file: Path, folder: Path, tmp_path: Path, content: bytes | None, words: str
) -> None:
    wrong = tmp_path / "wrong.safetensors"
    wrong.write_bytes(model_file.read_bytes()[:-100] if content is None else content)
    said = patchword("predict", wrong, folder)
    lines = said.stderr.decode().splitlines()
    assert said.returncode == 2 and not said.stdout
    assert len(lines) == 2 and words in lines[0] and lines[1].startswith("  fix: ")


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("MODL", "FOLDER"), "did you mean 'colours.safetensors'"),
        (("MODEL", "FOLDER/rde.png"), "did you mean 'red.png'"),
        (("MODEL", "FOLDER", "--output", "x.xlsx"), "unknown ending '.xlsx'"),
        (("MODEL", "FOLDER", "--output", "x.cvs"), "did you mean 'csv'"),
        (("MODEL", "FOLDER", "--csv", "--output", "x.json"), "different formats"),
    ],
)
def test_a_mistake_is_reported_in_two_lines(
    model_file: Path, folder: Path, args: tuple[str, ...], words: str
) -> None:
    places = {"MODL": model_file.with_name("colors.safetensors"), "MODEL": model_file}
    given = [places.get(a, a.replace("FOLDER", str(folder))) for a in args]
    said = patchword("predict", *given)
    lines = said.stderr.decode().splitlines()
    assert said.returncode == 2 and not said.stdout
    assert len(lines) == 2 and words in lines[0]


@pytest.mark.parametrize(
    ("option", "words"),
    [
        (("--device", "warp"), "device 'warp' is not available"),
        (("--out", "none/x.csv"), "folder none does not exist"),
    ],
)
def test_late_errors_are_also_reported_in_two_lines(
    model_file: Path, folder: Path, capsys: pytest.CaptureFixture[str], option: tuple[str, str], words: str
) -> None:
    assert run(["predict", str(model_file), str(folder), *option]) == 2
    said = capsys.readouterr()
    assert not said.out and len(said.err.splitlines()) == 2 and words in said.err


def test_a_mistyped_model_is_reported_before_torch_is_imported(folder: Path) -> None:
    code = """
import sys
from patchword.cli.main import run
assert run(sys.argv[1:]) == 2
print("torch" in sys.modules)
"""
    said = patchword("predict", folder / "none.safetensors", folder, code=code)
    assert said.stdout.split() == [b"False"]


def test_predicting_imports_only_what_it_needs(model_file: Path, folder: Path) -> None:
    code = """
import sys
from patchword.cli.main import run
assert run(sys.argv[1:]) == 0
heavy = "torchvision sklearn scipy matplotlib pyarrow pandas rich jinja2 timm transformers torch._dynamo"
print([m for m in heavy.split() if m in sys.modules], file=sys.stderr)
"""
    said = patchword("predict", model_file, folder / "red.png", code=code)
    assert said.stderr.strip() == b"[]", said.stderr


@pytest.mark.parametrize("broken", [True, False])
def test_predicting_works_with_a_broken_or_missing_torchvision(
    model_file: Path, folder: Path, tmp_path: Path, broken: bool
) -> None:
    # A stub precedes any installed package; "absent" is a stub that raises the error of a missing one.
    error = "RuntimeError('operator torchvision::nms does not exist')"
    missing = "ModuleNotFoundError(\"No module named 'torchvision'\", name='torchvision')"
    (tmp_path / "torchvision").mkdir()
    (tmp_path / "torchvision" / "__init__.py").write_text(f"raise {error if broken else missing}\n")
    said = patchword("predict", model_file, folder, path=tmp_path)
    assert said.returncode == 0 and said.stdout.count(b".png") == 3


@pytest.mark.parametrize(
    "error", ["ImportError('libtorch_cpu.so: cannot open')", "ModuleNotFoundError('No torch', name='torch')"]
)
def test_a_torch_that_cannot_be_loaded_is_reported_in_two_lines(
    model_file: Path, folder: Path, tmp_path: Path, error: str
) -> None:
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "__init__.py").write_text(f"raise {error}\n")
    said = patchword("predict", model_file, folder, path=tmp_path)
    lines = said.stderr.decode().splitlines()
    assert said.returncode == 2 and len(lines) == 2
    assert "torch cannot be loaded" in lines[0] and "patchword doctor" in lines[1]


def test_evaluating_prints_and_writes_the_score(
    model_file: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in COLOURS:
        (tmp_path / "data" / name).mkdir(parents=True)
        for other in COLOURS[: 2 if name == "red" else 3]:
            Image.open(folder / f"{name}.png").save(tmp_path / "data" / name / f"{other}.png")
    given = ("evaluate", model_file, tmp_path / "data")
    score = json.loads(inside(capsys, *given, "--json", "--output", tmp_path / "score.json"))
    assert score == json.loads((tmp_path / "score.json").read_text())
    assert score["top1"] == 1 and score["scored"] == 8 and "top5" not in score
    assert "100.0 %" in inside(capsys, *given)
    (tmp_path / "data" / "red" / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    assert run([str(g) for g in given]) == 3
    said = capsys.readouterr()
    assert "8 of 9 images" in said.out and "1 of 9 images could not be read" in said.err


def test_embedding_writes_vectors_and_names(
    model_file: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    inside(capsys, "embed", model_file, folder, "--output", tmp_path / "v.npy")
    assert len((tmp_path / "v.names.txt").read_text().splitlines()) == 3
    assert run(["embed", str(model_file), str(folder), "--output", str(tmp_path / "v.txt")]) == 2
