"""Near duplicates in photographs: copies as people make them are found, and different photographs are not."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

import patchword as pw
from patchword.cli.main import run
from patchword.data.check import CheckReport
from patchword.images.preprocess import Preprocess
from patchword.model.sizes import sized
from patchword.model.vit import ViT
from patchword.weights.card import ModelCard
from patchword.weights.native import write_model

PHOTOS = sorted((Path(__file__).parents[2] / "data" / "flowers").glob("*.jpg"))
Output = pytest.CaptureFixture[str]


def _share(image: Image.Image, left: float, top: float, right: float, bottom: float) -> Image.Image:
    width, height = image.size
    return image.crop(
        (round(left * width), round(top * height), round(right * width), round(bottom * height))
    )


COPIES: dict[str, Callable[[Image.Image, Path], None]] = {
    "compressed again": lambda image, path: image.save(path, quality=30),
    "half the size": lambda image, path: image.resize((image.width // 2, image.height // 2)).save(path),
    "squeezed to a square": lambda image, path: image.resize((100, 100)).save(path),
    "brighter": lambda image, path: image.point(lambda v: min(int(1.1 * v) + 8, 255)).save(path),
    "without its edges": lambda image, path: _share(image, 0.025, 0.025, 0.975, 0.975).save(path),
    "without a corner": lambda image, path: _share(image, 0.05, 0.05, 1, 1).save(path),
    "cropped, smaller and compressed": lambda image, path: (
        _share(image, 0.05, 0, 1, 0.95).resize((110, 90)).save(path, quality=50)
    ),
}


def _data(folder: Path) -> Path:
    """Photographs in two classes and two splits. They were chosen as the most similar pairs of 1,800 photographs of flowers."""
    for i, photo in enumerate(PHOTOS):
        place = folder / ("val" if i % 3 == 2 else "train") / "ab"[i % 2]
        place.mkdir(parents=True, exist_ok=True)
        shutil.copy(photo, place)
    return folder


def _near(folder: Path, **how: Any) -> tuple[CheckReport, list[dict[str, Any]]]:
    report = pw.check(folder, near_duplicates=True, **how)
    pairs: list[dict[str, Any]] = report.to_dict()["near_duplicates"]["pairs"]
    return report, pairs


def test_different_photographs_raise_no_alarm(tmp_path: Path) -> None:
    report, pairs = _near(_data(tmp_path))
    assert not pairs and report.to_dict()["near_duplicates"]["compared"] == len(PHOTOS) == 12
    assert any("no near duplicates among 12 images" in p.message for p in report.problems)
    assert not any(p.severity == "warning" and "near dup" in p.message for p in report.problems)


@pytest.mark.parametrize("how", COPIES)
def test_a_copy_in_another_split_is_a_warning_with_both_names(tmp_path: Path, how: str) -> None:
    """More than nine in ten copies are found; the misses are photographs of fine texture, of which one is here."""
    data = _data(tmp_path)
    originals = sorted((data / "train").glob("*/*.jpg"))
    for original in originals:
        copy = data / "val" / original.parent.name / f"copy-{original.name}"
        COPIES[how](Image.open(original), copy)
    report, pairs = _near(data)
    expected = {tuple(sorted((o.name, f"copy-{o.name}"))) for o in originals}
    found = {tuple(sorted(Path(name).name for name in pair["files"])) for pair in pairs}
    assert found <= expected and len(found) >= len(expected) - 1
    (warning,) = (p for p in report.problems if "near duplicates across splits" in p.message)
    assert warning.severity == "warning" and f"{len(found)} pairs" in warning.message and warning.fix
    assert all(name in warning.message for name in pairs[0]["files"])  # the worst is shown
    assert [pair["score"] for pair in pairs] == sorted((pair["score"] for pair in pairs), reverse=True)


def test_within_a_split_it_is_a_note_and_exact_copies_are_reported_once(
    tmp_path: Path, capsys: Output
) -> None:
    data = _data(tmp_path)
    first, second, *_ = sorted((data / "train" / "a").glob("*.jpg"))
    Image.open(first).save(first.with_name("again.jpg"), quality=60)
    shutil.copy(second, data / "val" / "a" / "exact.jpg")
    assert run(["check", str(data), "--near-duplicates"]) == 0
    said = capsys.readouterr().out
    assert "note: 1 pair of near duplicates within a split" in said and "again.jpg" in said
    assert "2 images have a copy in another split" in said and "near duplicates across" not in said
    assert run(["check", str(data), "--near-duplicates", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["near_duplicates"]
    assert found["threshold"] < found["pairs"][0]["score"] <= 1
    assert found["pairs"][0]["splits"] == ["train", "train"]


def test_plain_and_tiny_images_are_counted_and_not_compared(tmp_path: Path) -> None:
    data = _data(tmp_path)
    for i, colour in enumerate(("white", "#fefefe")):
        Image.new("RGB", (90, 90), colour).save(data / "train" / "a" / f"plain{i}.png")
    Image.open(PHOTOS[0]).resize((20, 20)).save(data / "val" / "a" / "tiny.png")
    report, pairs = _near(data)
    assert not pairs and report.to_dict()["near_duplicates"]["not_compared"] == 3
    assert any("3 images not compared" in p.message for p in report.problems)


def test_without_being_asked_for_nothing_is_compared(tmp_path: Path) -> None:
    assert "near_duplicates" not in pw.check(_data(tmp_path)).to_dict()


def test_weights_need_something_to_do(tmp_path: Path, capsys: Output) -> None:
    assert run(["check", str(_data(tmp_path)), "--weights", "x.safetensors"]) == 2
    said = capsys.readouterr().err
    assert (
        "--weights only applies to the training views" in said and "--near-duplicates takes --weights" in said
    )


def test_embeddings_of_a_model_find_copies_too(tmp_path: Path, capsys: Output) -> None:
    vit = ViT(replace(sized("ViT-Ti/16", image_size=32), dim=192, depth=2), torch.Generator().manual_seed(0))
    card = ModelCard(config=vit.config, preprocess=Preprocess.simple(32))
    write_model(tmp_path / "m.safetensors", vit.state_dict(), card)
    data = _data(tmp_path / "data")
    report, pairs = _near(data, weights=tmp_path / "m.safetensors")
    assert not pairs and report.to_dict()["near_duplicates"]["compared"] == len(PHOTOS)
    original = next((data / "train" / "a").glob("*.jpg"))
    Image.open(original).save(data / "val" / "a" / "copy.jpg", quality=60)
    assert run(["check", str(data), "--near-duplicates", "--weights", str(tmp_path / "m.safetensors")]) == 0
    said = capsys.readouterr().out
    assert "warning: 1 pair of near duplicates across splits (cosine of embeddings" in said
    assert "copy.jpg" in said and original.name in said
