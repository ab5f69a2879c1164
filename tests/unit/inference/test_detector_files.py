"""`inspect`, `convert` and `load` on files of detectors."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import patchword as pw
from patchword.cli.main import run
from patchword.formats.detection.layout import capped
from patchword.inference.any_model import is_detector
from patchword.inference.detector import Detector
from patchword.model.kinds import LearnedTokens
from patchword.model.yolos_config import YolosConfig
from patchword.weights.detector_card import DetectionClass, DetectorCard
from patchword.weights.native import write_model
from support.detectors import KINDS, config_of, random_model, write_detector_file

Output = pytest.CaptureFixture[str]
FORMATS = {"detr": ("detr", "transformers-detr"), "yolos": ("yolos", "transformers-yolos")}


@pytest.mark.parametrize("kind", KINDS)
def test_a_detector_opens_by_load_and_inspect_says_what_it_is(
    kind: str, tmp_path: Path, capsys: Output
) -> None:
    path = write_detector_file(tmp_path / "d.safetensors", kind)
    assert is_detector(path) and isinstance(pw.load(path, device="cpu"), Detector)
    assert run(["inspect", str(path)]) == 0
    said = capsys.readouterr().out
    assert "a detector" in said and "7 red, 3 green, 90 blue" in said and "queries" in said
    assert run(["inspect", str(path), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["detector"]["kind"] == kind and found["classes"][0] == {"id": 7, "name": "red"}


def test_a_model_without_boxes_is_none(tmp_path: Path) -> None:
    from support.colours import write_colour_model

    path = write_colour_model(tmp_path / "m.safetensors")
    assert not is_detector(path) and not is_detector(tmp_path / "missing.pth")
    assert isinstance(pw.load(path), pw.Model)


@pytest.mark.parametrize(("kind", "to"), [(k, to) for k, formats in FORMATS.items() for to in formats])
def test_there_and_back_with_the_same_outputs(kind: str, to: str, tmp_path: Path, capsys: Output) -> None:
    classes = tuple(DetectionClass(i, name) for i, name in enumerate(("red", "green", "blue")))
    config = config_of(kind)
    if isinstance(config, YolosConfig):
        positions = LearnedTokens(resampled_by="count" if to == "yolos" else "sides")
        config = replace(config, backbone=replace(config.backbone, positions=positions))
    card = DetectorCard(
        config=config, preprocess=capped(800, 1333, 1 if kind == "detr" else 16), classes=classes
    )
    start = tmp_path / "start.safetensors"
    write_model(start, random_model(config).state_dict(), card)
    out, back = tmp_path / ("there.pth" if to in FORMATS else "there"), tmp_path / "back.safetensors"
    assert run(["convert", str(start), "--to", to, "--out", str(out)]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "largest difference" in said
    assert ("cannot store the class names" in said) == (to in FORMATS)
    names = tmp_path / "names.txt"
    names.write_text("red\ngreen\nblue\n")
    extra = ["--class-names", str(names)] if to in FORMATS else []
    extra += ["--num-heads", "2"] if to == "yolos" else []
    assert run(["convert", str(out), "--to", "patchword", "--out", str(back), *extra]) == 0
    first, last = (pw.load_detector(path, device="cpu") for path in (start, back))
    assert first.card.classes == last.card.classes
    # Readers of transformers round the longer side otherwise, which the command says.
    assert (first.card.preprocess == last.card.preprocess) == (to in FORMATS) == ("resize" not in said)
    for name, tensor in first.model.state_dict().items():
        torch.testing.assert_close(last.model.state_dict()[name], tensor, rtol=0, atol=0)


def test_what_a_format_cannot_hold_is_refused(tmp_path: Path, capsys: Output) -> None:
    path = write_detector_file(tmp_path / "d.safetensors", "vitdet")
    for to, telling in (("detr", "cannot hold"), ("timm", "no detector format is called 'timm'")):
        assert run(["convert", str(path), "--to", to, "--out", str(tmp_path / "out")]) == 2
        assert telling in capsys.readouterr().err and not (tmp_path / "out").exists()
    assert run(["inspect", str(path), "--dilation"]) == 2
    assert "--dilation does not apply" in capsys.readouterr().err


def test_numbers_with_gaps_are_said_to_be_lost(tmp_path: Path, capsys: Output) -> None:
    path = write_detector_file(tmp_path / "d.safetensors")
    card = pw.load_detector(path, device="cpu").card
    card = replace(card, preprocess=capped(800, 1333))
    write_model(path, random_model(card.config).state_dict(), card)
    assert run(["convert", str(path), "--to", "detr", "--out", str(tmp_path / "o.pth")]) == 0
    assert "numbers the classes from 0" in " ".join(capsys.readouterr().out.split())
