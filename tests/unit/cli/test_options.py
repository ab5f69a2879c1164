"""Options that a command has not, devices that a machine has not, files that begin with a byte order mark."""

import io
from pathlib import Path

import pytest

import patchword as pw
from patchword.cli.main import run
from patchword.inference.sources import from_stream
from patchword.settings import read_toml
from support.scans import write_scans
from unit.inference.conftest import NAMES, write_tiny

Output = pytest.CaptureFixture[str]


@pytest.mark.parametrize(
    ("command", "option", "advice"),
    [
        ("train", "--weight-decay", "use -o optim.weight_decay=VALUE"),
        ("train", "--label-smoothing", "use -o task.label_smoothing=VALUE"),
        ("train", "--mixup", "use -o augment.mixing.mixup=VALUE"),
        ("train", "--warmup", "use -o schedule.warmup_epochs=VALUE"),
        ("train", "--learning-rate", "use --lr"),
        ("train", "--optimizer", "use -o optim.method=VALUE"),
        ("train", "--epoch", "did you mean --epochs?"),
        ("train", "--image_size", "did you mean --image-size?"),
        ("check", "--device", "`patchword train` has this option"),
        ("predict", "--epochs", "`patchword train` has this option"),
        ("predict", "--batchsize", "did you mean --batch-size?"),
        ("predict", "--nothing-like-it", "see `patchword predict --help`"),
    ],
)
def test_an_unknown_option_is_answered_with_what_was_meant(
    command: str, option: str, advice: str, capsys: Output
) -> None:
    assert run([command, "x", option, "1"]) == 2
    said = capsys.readouterr().err
    assert f"patchword {command} has no option {option}" in said and advice in said


def test_every_setting_that_is_advised_can_be_set() -> None:
    from patchword.cli.main import _SYNONYMS, _settings
    from patchword.images.preprocess import Preprocess
    from patchword.model.config import ViTConfig
    from patchword.model.kinds import Rope2d
    from patchword.settings import leaves
    from patchword.training.config import TrainSettings

    known = leaves(TrainSettings(model=ViTConfig(positions=Rope2d()), preprocess=Preprocess.simple(224)))
    for text in (*_settings().values(), *_SYNONYMS.values()):
        for one in text.split(" or "):
            assert not one.startswith("-o") or one.removeprefix("-o ").removesuffix("=VALUE") in known


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("devices")
    write_tiny(folder / "m.safetensors")
    for first, split in enumerate(("train", "val")):
        write_scans(folder / "scans" / split, dict.fromkeys(NAMES, 2), first=2 * first)
    return folder


@pytest.mark.parametrize("device", ["gpu", "meta", "cuda:99"])
def test_a_device_that_is_not_there_is_answered_alike_by_every_command(
    place: Path, tmp_path: Path, device: str, capsys: Output
) -> None:
    model, scans = str(place / "m.safetensors"), str(place / "scans")
    for command in (
        ["predict", model, f"{scans}/val"],
        ["embed", model, f"{scans}/val", "--out", str(tmp_path / "v.npy")],
        ["evaluate", model, scans],
        ["train", scans, "--out", str(tmp_path / "run"), "--epochs", "1"],
    ):
        assert run([*command, "--device", device]) == 2
        error, fix, *_ = [line for line in capsys.readouterr().err.splitlines() if "device" in line]
        assert error.startswith(f"error: device {device!r} is not available; this machine has: cpu")
        assert fix.startswith("  fix: use --device ")
    assert not any(tmp_path.iterdir())


def test_columns_of_data_that_is_no_table_are_refused(place: Path, capsys: Output) -> None:
    for data in (str(place / "scans"), "digits"):
        for option in ("--image-column", "--label-column"):
            assert run(["check", data, option, "x"]) == 2
            said = capsys.readouterr().err
            assert option in said and "applies to tables only" in said and "fix: remove it" in said


def test_a_byte_order_mark_is_part_of_no_name(place: Path, tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text("[run]\nseed = 3\n", encoding="utf-8-sig")
    assert read_toml(tmp_path / "c.toml") == {"run": {"seed": 3}}
    paths = io.BufferedReader(io.BytesIO("a.png\nb.png\n".encode("utf-8-sig")))  # type: ignore[arg-type]
    assert list(from_stream(paths)) == ["a.png", "b.png"]
    rows = [f"{split}/{name}/{i}.png,{name}" for split in ("train", "val") for name in NAMES for i in (0, 1)]
    table = place / "scans" / "t.csv"
    table.write_text("\n".join(["image,label", *rows]), encoding="utf-8-sig")
    assert pw.check(table).dataset.classes == tuple(sorted(NAMES))


def test_the_answers_of_the_library_say_what_they_are_in_a_line(place: Path) -> None:
    report = pw.check(place / "scans")
    assert f"{place / 'scans'}' : 24 images".replace(" :", ":") in repr(report) and len(repr(report)) < 250
    found = pw.evaluate(place / "m.safetensors", place / "scans")
    assert "of val" in repr(found) and "top-1 " in repr(found) and len(repr(found)) < 700
    assert "m.safetensors: patchword" in repr(pw.inspect(place / "m.safetensors"))


def test_training_in_python_shows_its_progress_unless_told_not_to(
    place: Path, tmp_path: Path, capsys: Output
) -> None:
    how = {"epochs": 1, "image_size": 16, "settings": {"model.depth": 1, "model.dim": 32}}
    made = pw.train(place / "scans", out=tmp_path / "a", **how)  # type: ignore[arg-type]
    said = capsys.readouterr()
    assert "epoch   1/1" in said.err and "training " in said.err and not said.out
    assert repr(made) == f"Run({str(tmp_path / 'a')!r}, top-1 {100 * made.evaluation.top1:.1f} %)"
    pw.train(place / "scans", out=tmp_path / "b", progress=False, **how)  # type: ignore[arg-type]
    assert capsys.readouterr().err == ""
