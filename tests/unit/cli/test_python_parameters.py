"""Every option of a command is a parameter of its function in Python, and the other way round: they cannot drift."""

import inspect
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
from PIL import Image

import patchword as pw
from patchword.cli.main import patchword
from patchword.formats.detection.layout import DetectorOptions
from patchword.python_words import as_python
from support.colours import write_colour_model
from support.scans import write_scans

# How a command prints; in Python the answer is an object.
PRINTING = {"json", "jsonl", "csv", "top"}
LOADING = {"class_names" if f.name == "classes" else f.name for f in fields(DetectorOptions)}
# (command, functions, options under another name in Python, options that Python has no need of)
TABLE: list[tuple[str, tuple[Callable[..., Any], ...], dict[str, str], set[str]]] = [
    ("train", (pw.train,), {"overrides": "settings"}, {"dry_run"}),  # pw.plan
    # pictures and report are files, drawn from what Python returns.
    ("evaluate", (pw.evaluate,), {}, {"output", "pictures", "report"}),
    ("check", (pw.check,), {"overrides": "settings"}, set()),
    ("inspect", (pw.inspect,), {}, set()),
    ("convert", (pw.convert,), {}, set()),
    (
        "adapt",
        (pw.adapt,),
        {f"to_{name}": name for name in ("image_size", "patch_size", "channels", "classes")},
        {"to_classes_from"},  # a file or folder of names; Python takes the names
    ),
    (
        "predict",
        (
            *(pw.load, pw.Model.predict, pw.Model.predict_each, pw.score),
            *(pw.load_detector, pw.Detector.predict, pw.Detector.predict_each),
        ),
        {"class_names": "classes", "against": "labels"},
        # Files of a detector: `Detections.plot` draws, and `CocoResults` writes.
        {"output", "pictures", "coco", "annotations"},
    ),
    (
        "explain",
        (pw.explain, pw.reconstruct, pw.explain_detector, pw.redundancy),
        {"method": "methods", "class": "class_name", "score_fill": "score_fills"},
        {"output", "redundancy"},
    ),
    ("embed", (pw.load, pw.Model.embed), {"class_names": "classes"}, {"output"}),
    ("search", (pw.search,), {}, {"output"}),
    ("diagnose", (pw.diagnose,), {}, set()),
    ("learn", (pw.learn,), {}, {"output"}),
]


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scans")
    write_scans(folder, {"train/d0": 3, "train/d1": 3, "val/d0": 2, "val/d1": 2})
    return folder


def _options(name: str) -> set[str]:
    command = patchword.get_command(click.Context(patchword), name)
    assert command is not None
    names = {p.opts[0].lstrip("-").replace("-", "_") for p in command.params if isinstance(p, click.Option)}
    plain = {p.name for p in command.params if p.name in ("overrides", "source", "output")}
    return {n for n in names if n not in ("o", "map", "out")} | {str(p) for p in plain} | (names & {"out"})


@pytest.mark.parametrize(("command", "functions", "renamed", "without"), TABLE, ids=[row[0] for row in TABLE])
def test_each_option_of_a_command_is_a_parameter_in_python(
    command: str, functions: tuple[Callable[..., Any], ...], renamed: dict[str, str], without: set[str]
) -> None:
    parameters: set[str] = set()
    for function in functions:
        parameters |= set(inspect.signature(function).parameters)
    options = {renamed.get(o, o) for o in _options(command) - PRINTING - without}
    if "output" in without:
        options -= {"out"}
    if "options" in parameters:
        own = set(renamed.values()) | (parameters & options)
        assert options - own <= LOADING
        options = (options - (LOADING - own)) | {"options"}
    assert options - parameters == set()
    free = {"self", "data", "model", "path", "to", "out", "progress", "source", "index"}
    free |= {"sources", "predictions", "top", "module", "image"}
    assert parameters - options - free == set()


def test_a_plan_takes_what_training_takes() -> None:
    of_train, of_plan = (set(inspect.signature(function).parameters) for function in (pw.train, pw.plan))
    assert of_train - of_plan == {"resume", "extend", "progress", "sanity"} and of_plan <= of_train


@pytest.mark.parametrize(
    ("text", "python"),
    [
        ("give --image-size, or leave out --class-names", "give image_size, or leave out classes"),
        ("give --num-heads (in Python num_heads=…)", "give num_heads=…"),
        ("pass -o run.device=cpu", "pass settings={'run.device': cpu}"),
        ("give --to-channels", "give channels"),
        ("resume with `patchword train --resume runs/a`", "resume with `pw.train(resume='runs/a')`"),
        ("`patchword adapt` changes the patch", "`pw.adapt` changes the patch"),
        ("`patchword convert a.pth --to timm` writes it", "`patchword convert a.pth --to timm` writes it"),
        ("a -- b, x--y and /a--b", "a -- b, x--y and /a--b"),
    ],
)
def test_a_message_is_spoken_in_pythons_words(text: str, python: str) -> None:
    assert as_python(text) == python


@pytest.mark.parametrize(
    ("given", "telling"),
    [
        ({"epochs": 0}, "epochs 0"),
        ({"batch_size": 0}, "batch_size 0"),
        ({"lr": 0}, "lr 0"),
        ({"threads": -1}, "threads -1"),
        ({"image_size": 0}, "image_size is 0"),
        ({"seed": -1}, "run.seed is -1"),
        ({"max_pixels": 0}, "max_pixels is 0"),
        ({"device": "gpu"}, "device 'gpu' is not available; this machine has: "),
        ({"weights": ""}, "weights is empty"),
        ({"recipe": ""}, "unknown recipe ''"),
        ({"model": ""}, "unknown model size ''"),
        ({"out": ""}, "is not a new folder"),
        ({"resume": "x", "epochs": 3, "seed": 0}, "epochs, seed cannot be combined with resume"),
    ],
)
def test_a_value_of_nothing_is_refused_and_not_taken_as_unset(
    scans: Path, given: dict[str, Any], telling: str
) -> None:
    with pytest.raises(pw.PatchwordError) as caught:
        pw.train(scans, progress=False, **given)
    assert telling in caught.value.message and caught.value.fix and "--" not in str(caught.value)


def test_errors_of_a_models_methods_name_parameters_too(tmp_path: Path) -> None:
    model = pw.load(write_colour_model(tmp_path / "m.safetensors"))
    deep = tmp_path / "deep"
    for place in ("north/red", "north/blue", "south/red", "south/blue"):
        (deep / place).mkdir(parents=True)
        for i in range(2):
            Image.new("RGB", (32, 32), place[6:]).save(deep / place / f"{i}.png")
    calls: list[Callable[..., Any]] = [
        model.predict,
        model.embed,
        lambda *a, **k: list(model.predict_each(*a, **k)),
    ]
    for call in calls:
        with pytest.raises(pw.PatchwordError) as caught:
            call(deep, split="all")
        assert "pass class_level 2" in caught.value.fix and "--" not in str(caught.value)
        assert len(call(deep, split="all", class_level=2)) == 8
    np.save(tmp_path / "big.npy", np.full((32, 32, 3), 900.0))
    (found,) = model.predict([tmp_path / "big.npy"])
    assert "value_range" in found.error and "--" not in found.error
