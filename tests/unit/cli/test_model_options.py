"""Every option of a model, on every command that takes one and on every kind of file: obeyed, or refused by name."""

import json
from pathlib import Path

import click
import pytest
import torch
from safetensors.torch import save_file

from patchword.cli.main import patchword, run
from support.parity import cases_in, committed
from support.scans import write_scans
from unit.inference.conftest import NAMES, write_tiny

Output = pytest.CaptureFixture[str]
CASES = {c.name: c for c in cases_in([committed()], {"backbone"})}
# Files of other programs, each of another container and layout.
FOREIGN = ["torchvision_small_vit", "transformers_small_vit", "dinov2_dinov2_518_to_224_odd"]
# Another value than the tiny model's own, and what becomes of it with a file that patchword wrote.
OBEYED = {
    "--image-size": ("48", "image_size"),
    "--mean": ("0.1,0.2,0.3", "mean"),
    "--std": ("0.7", "std"),
    "--class-names": ("NAMES", "classes"),
}
REFUSED = {
    "--patch-size": "8",
    "--num-heads": "3",
    "--pool": "mean",
    "--act": "quick_gelu",
    "--eps": "0.5",
    "--head": "HEAD",
    "--below": "blocks.",
    "--drop": "head.*",
    "--allow-partial": None,
    "--decoder-num-heads": "4",
    "--norm-pix-loss": None,
}
# Only commands that read or write a decoder have them.
OF_A_DECODER = {"--decoder-num-heads", "--norm-pix-loss"}
# Refused for a model without boxes.
OF_A_DETECTOR = {"--dilation", "--mid-image-size"}
# They leave tensors out or add some: what is wrong then is said of the tensors.
SELECTING = {"--below", "--drop", "--head"}
SAME = {"--patch-size": "16", "--num-heads": "2", "--pool": "class", "--act": "gelu", "--eps": "1e-06"}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that patchword wrote, pictures, class names and a linear head."""
    folder = tmp_path_factory.mktemp("options")
    write_tiny(folder / "m.safetensors")
    write_scans(folder / "scans", {f"{split}/{name}": 2 for split in ("train", "val") for name in NAMES})
    (folder / "names.txt").write_text("".join(f"n{i}\n" for i in range(len(NAMES))), encoding="utf-8-sig")
    save_file({"weight": torch.zeros(5, 24), "bias": torch.zeros(5)}, folder / "head.safetensors")
    return folder


def _value(place: Path, value: str | None) -> list[str]:
    places = {"NAMES": "names.txt", "HEAD": "head.safetensors"}
    return [] if value is None else [str(place / places[value]) if value in places else value]


def _commands(place: Path, tmp_path: Path) -> dict[str, list[str]]:
    model, scans = str(place / "m.safetensors"), str(place / "scans")
    out = str(tmp_path / "out.safetensors")
    return {
        "predict": [model, f"{scans}/val", "--csv"],
        "embed": [model, f"{scans}/val", "--out", str(tmp_path / "v.npy")],
        "evaluate": [model, scans],
        "inspect": [model],
        "convert": [model, "--to", "patchword", "--out", out],
        "adapt": [model, "--to-channels", "1", "--out", out],
        "train": [scans, "--weights", model, "--out", str(tmp_path / "run"), "--epochs", "1"],
    }


def _options(name: str) -> set[str]:
    command = patchword.get_command(click.Context(patchword), name)
    assert command is not None
    return {p.opts[0] for p in command.params if isinstance(p, click.Option)}


def test_the_tables_name_every_option_of_a_model() -> None:
    about_models = set(OBEYED) | set(REFUSED) | OF_A_DETECTOR
    assert _options("inspect") - {"--offline", "--json"} <= about_models


@pytest.mark.parametrize("option", REFUSED)
def test_an_option_that_a_file_of_our_own_contradicts_is_refused_by_every_command(
    place: Path, tmp_path: Path, capsys: Output, option: str
) -> None:
    tried = 0
    for name, arguments in _commands(place, tmp_path).items():
        if option not in _options(name) or (name, option) == ("train", "--patch-size"):
            continue  # there it is the new model's own
        assert run([name, *arguments, option, *_value(place, REFUSED[option])]) == 2
        said = capsys.readouterr().err
        assert f"{option} " in said and "m.safetensors" in said and "\n  fix: remove it" in said
        tried += 1
    assert tried >= (3 if option in OF_A_DECODER else 6) and not any(tmp_path.iterdir())


def test_an_option_that_agrees_with_the_file_changes_nothing(place: Path, capsys: Output) -> None:
    arguments = ["inspect", str(place / "m.safetensors"), "--json"]
    assert run(arguments) == 0
    before = capsys.readouterr().out
    assert run([*arguments, *(text for pair in SAME.items() for text in pair)]) == 0
    assert capsys.readouterr().out == before


@pytest.mark.parametrize("option", OBEYED)
def test_an_option_that_changes_the_use_of_a_model_changes_it_in_every_command(
    place: Path, tmp_path: Path, capsys: Output, option: str
) -> None:
    value, field = OBEYED[option]
    given = [option, *_value(place, value)]
    commands = _commands(place, tmp_path)
    assert run(["predict", *commands["predict"]]) == 0
    before = capsys.readouterr().out
    assert run(["predict", *commands["predict"], *given]) == 0
    assert capsys.readouterr().out != before
    assert run(["convert", *commands["convert"], *given]) == 0
    capsys.readouterr()
    for model in (commands["inspect"] + given, [commands["convert"][-1]]):
        assert run(["inspect", *model, "--json"]) == 0
        found = json.loads(capsys.readouterr().out)
        expected = {"image_size": [48, 48], "mean": [0.1, 0.2, 0.3], "std": [0.7]}.get(field)
        is_name = field == "classes"
        assert (found["classes"][0] == "n0") if is_name else found["preprocess"][field] == expected


def test_too_many_or_too_few_class_names_are_refused_with_both_numbers(
    place: Path, tmp_path: Path, capsys: Output
) -> None:
    (tmp_path / "two.txt").write_text("a\nb\n")
    for path in (place / "m.safetensors", CASES["transformers_small_vit"].path):
        assert run(["inspect", str(path), "--class-names", str(tmp_path / "two.txt")]) == 2
        said = capsys.readouterr().err
        assert "--class-names gives 2 names" in said and "the " in said and "fix: " in said


@pytest.mark.parametrize("name", FOREIGN)
def test_no_option_passes_a_file_of_another_program_in_silence(
    name: str, place: Path, capsys: Output
) -> None:
    """It changes what `inspect` says, or it is refused by its name."""
    case = CASES[name]
    hints = {f"--{k.replace('_', '-')}": str(v) for k, v in case.meta["hints"].items()}

    def inspected(options: dict[str, str | None]) -> tuple[int, str]:
        flat = [text for flag, value in options.items() for text in (flag, *_value(place, value))]
        code = run(["inspect", str(case.path), "--json", *flat])
        said = capsys.readouterr()
        return code, said.out or said.err

    code, before = inspected(dict(hints))
    assert code == 0
    for option, value in {**REFUSED, **{o: v for o, (v, _) in OBEYED.items()}}.items():
        if option == "--allow-partial":
            continue  # a permission, which a whole file does not need
        code, said = inspected({**hints, option: value})
        assert said != before and (code == 0 or option in SELECTING or option in said), (option, said)
