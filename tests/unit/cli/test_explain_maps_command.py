"""`patchword explain` of classifiers and backbones, and `pw.explain`."""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import patchword as pw
from patchword.cli.main import run
from patchword.explaining.methods.base import Job, Maps, Method
from patchword.explaining.methods.table import METHODS
from patchword.images.preprocess import Preprocess
from patchword.model.config import HeadConfig, ViTConfig
from patchword.model.vit import ViT
from patchword.weights.card import ModelCard
from patchword.weights.native import write_model
from support.autoencoder import small_mae, write_mae
from support.page import Page
from support.photos import write_photos
from support.planted import coloured, hand_set
from support.vit_configs import REGISTERS, tiny

Output = pytest.CaptureFixture[str]
NAMES = ("daisy", "rose", "tulip", "dandelion", "sunflower")


def write_vit(path: Path, config: ViTConfig, classes: tuple[str, ...] = (), **card: Any) -> Path:
    vit = ViT(config, torch.Generator().manual_seed(3))
    with torch.no_grad():
        for parameter in vit.parameters():
            parameter.mul_(2)
    preprocess = Preprocess.simple(config.image.size, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.25))
    write_model(
        path, vit.state_dict(), ModelCard(config=config, preprocess=preprocess, classes=classes, **card)
    )
    return path


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with models and photographs."""
    folder = tmp_path_factory.mktemp("given")
    write_vit(folder / "flowers.safetensors", tiny(tokens=REGISTERS), NAMES)
    write_vit(folder / "numbers.safetensors", tiny(), NAMES, task="number", mean=(0.0,) * 5, std=(1.0,) * 5)
    write_vit(folder / "untrained.safetensors", tiny(), NAMES, untrained=("head",))
    write_vit(folder / "backbone.safetensors", tiny(head=HeadConfig(num_classes=0)))
    write_mae(folder / "mae.safetensors", small_mae())
    write_photos(folder / "photos")
    return folder


@pytest.fixture(autouse=True)
def _here(given: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(given)


def test_it_draws_every_method_and_says_which_know_the_class(capsys: Output) -> None:
    methods = ",".join(METHODS)
    arguments = ["explain", "flowers.safetensors", "photos/00.png", "photos/01.png", "--method", methods]
    assert run([*arguments, "--steps", "4", "--out", "all.png"]) == 0
    printed = capsys.readouterr()
    assert "2 images drawn: all.png" in printed.err
    assert "attention, rollout, value-norm, pca, outliers know no class" in " ".join(printed.out.split())
    lines = printed.out.splitlines()
    assert max(len(line) for line in lines if not line.startswith("photos/")) <= 80
    for name in METHODS.values():
        assert name.title in printed.out.replace("\n", " ")
        assert any(line.startswith(name.name[:25]) and line.count("0.") >= 4 for line in lines) == name.scored
    assert sum(line.startswith(("random order", "centre first")) for line in lines) == 2
    assert "% on the class token" in printed.out and "% on registers" in printed.out
    with Image.open("all.png") as page:
        assert page.width > len(METHODS) * 192


def test_without_a_method_the_most_faithful_one_is_chosen_and_the_reason_printed(capsys: Output) -> None:
    assert run(["explain", "flowers.safetensors", "photos/00.png", "--json", "--score-fill", "mean"]) == 0
    found = json.loads(capsys.readouterr().out)
    [image], [(label, scored)] = found["images"], found["faithfulness"].items()
    assert found["why"].startswith(
        f"{image['maps'][0]['method']} has the highest insertion less deletion of 9"
    )
    assert label == image["maps"][0]["label"] and np.array(image["maps"][0]["map"]).shape == (2, 4)
    mean = scored["map"]["mean"]
    assert scored["gain"] == pytest.approx(mean["insertion"] - mean["deletion"])
    assert {"random", "centre", "shuffled_weights"} <= scored.keys()
    # A class is asked for, so only methods that know it are tried.
    assert run(["explain", "flowers.safetensors", "photos/00.png", "--json", "--class", "tulip"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert "of 6 methods" in found["why"] and found["images"][0]["maps"][0]["class_aware"]
    assert found["images"][0]["explained"] == "tulip"


def test_the_answer_is_bit_equal_to_that_of_predict() -> None:
    model = pw.load("flowers.safetensors")
    photos = [f"photos/{i:02d}.png" for i in range(5)]
    for methods in (["rollout"], ["occlusion", "relevance"]):
        found = pw.explain(model, photos, methods=methods, score=0)
        for image, (answer, prediction) in zip(found.images, model.answer_each(photos), strict=True):
            assert np.array_equal(image.logits, answer.values)
            assert (image.answer, image.probability) == prediction.top(1)[0]


def test_arrays_are_those_of_the_picture_and_maps_are_found_for_the_asked_class(tmp_path: Path) -> None:
    vit = hand_set().float()
    card = ModelCard(
        config=vit.config,
        preprocess=Preprocess.simple((32, 32), mean=(0.0,), std=(1.0,)),
        classes=("red", "green"),
    )
    write_model(tmp_path / "m.safetensors", vit.state_dict(), card)
    pixels = (coloured([9, 50], [30, 5]) * 255).byte().permute(0, 2, 3, 1).numpy()
    for name, places in (("red", [9, 50]), ("green", [30, 5])):
        found = pw.explain(tmp_path / "m.safetensors", list(pixels), class_name=name, methods="occlusion")
        assert [int(image.maps[0].values.argmax()) for image in found.images] == places
        assert np.array_equal(found.images[0].pixels, pixels[0])
        assert found.images[0].explained == name
        scored = found.faithfulness["occlusion"]
        assert scored.curves.gain > scored.random.gain + 0.1 and scored.curves.images == 2
        assert scored.curves.gain > scored.centre.gain
    again = pw.explain(tmp_path / "m.safetensors", list(pixels), methods="occlusion")
    assert again.faithfulness.keys() == {"occlusion"}  # callable twice


def test_a_map_that_ignores_the_weights_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def edges(job: Job) -> list[Maps]:
        grid = job.vit.layout(job.images).grid
        return [Maps(label="edges", values=torch.nn.functional.adaptive_max_pool2d(job.images.mean(1), grid))]

    method = Method(
        name="edges", title="edges", class_aware=True, run=edges, passes=lambda config, settings: 1
    )
    monkeypatch.setitem(METHODS, "edges", method)
    found = pw.explain(
        "flowers.safetensors", ["photos/00.png", "photos/03.png"], methods=["edges", "occlusion"]
    )
    assert found.faithfulness["edges"].shuffled == pytest.approx(1)
    assert found.faithfulness["occlusion"].shuffled < 0.8


def test_a_class_that_the_model_does_not_see_is_said(capsys: Output) -> None:
    found = pw.explain("flowers.safetensors", "photos/02.png", methods="relevance", score=0)
    [logits] = [image.logits for image in found.images]
    least = NAMES[int(logits.argmin())]
    arguments = ["explain", "flowers.safetensors", "photos/02.png", "--class", least, "--score", "0"]
    assert run([*arguments, "--method", "relevance", "--out", "class.html"]) == 0
    printed = capsys.readouterr().out
    share = pw.load("flowers.safetensors").predict("photos/02.png").probabilities
    assert ("not that it is there" in " ".join(printed.split())) == (share.min() < 0.1)
    assert f"explained: {least}" in Page(Path("class.html").read_text("utf-8")).text


def test_a_backbone_is_explained_without_classes_and_scored_by_its_embedding(capsys: Output) -> None:
    for model in ("backbone.safetensors", "untrained.safetensors"):
        assert run(["explain", model, "photos/00.png", "--out", "b.html"]) == 0
        printed = capsys.readouterr().out
        assert "of 3 methods" in " ".join(
            printed.split()
        ) and "similarity to the whole embedding" in " ".join(printed.split())
    page = Page(Path("b.html").read_text("utf-8"))
    assert "the same for every class" in page.text


def test_numbers_are_explained_by_relevance_because_nothing_can_be_measured(capsys: Output) -> None:
    assert run(["explain", "numbers.safetensors", "photos/00.png", "--json", "--class", "tulip"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert "model of numbers" in found["why"] and found["faithfulness"] == {}
    assert found["images"][0]["explained"] == "tulip" and found["images"][0]["probability"] is None


def test_a_masked_autoencoder_is_explained_if_a_method_is_asked_for(capsys: Output) -> None:
    arguments = ["explain", "mae.safetensors", "photos/00.png", "--json"]
    assert run(arguments) == 0 and "losses" in capsys.readouterr().out
    assert run([*arguments, "--method", "pca,outliers"]) == 0
    maps = json.loads(capsys.readouterr().out)["images"][0]["maps"]
    assert [each["method"] for each in maps] == ["pca", "outliers"] and maps[1]["facts"]["outliers"] == 0
    assert np.array(maps[0]["map"]).shape == (4, 4, 3)


def test_layers_and_heads_are_drawn_side_by_side(capsys: Output) -> None:
    how = ["--method", "attention", "--layers", "0,-1", "--heads", "all", "--score", "0"]
    assert run(["explain", "flowers.safetensors", "photos/00.png", *how, "--json"]) == 0
    labels = [each["label"] for each in json.loads(capsys.readouterr().out)["images"][0]["maps"]]
    assert labels == [f"attention, block {block}, head {head}" for block in (0, 1) for head in range(3)]


def test_unreadable_images_are_listed_and_the_others_explained(capsys: Output) -> None:
    Path("broken.jpg").write_bytes(b"no image")
    files = ["broken.jpg", "photos/00.png"]
    assert run(["explain", "flowers.safetensors", *files, "--method", "pca,rollout", "--json"]) == 3
    printed = capsys.readouterr()
    assert "1 of 2 images could not be read: broken.jpg" in printed.err
    assert len(json.loads(printed.out)["images"]) == 1
    assert run(["explain", "flowers.safetensors", "broken.jpg"]) == 3
    with pytest.raises(pw.PatchwordError, match="broken"):
        pw.explain("flowers.safetensors", files)


@pytest.mark.parametrize(
    ("arguments", "found", "fix"),
    [
        (
            ["backbone.safetensors", "--method", "relevance"],
            "relevance explains a class, and this model has no classes",
            "rollout",
        ),
        (["backbone.safetensors", "--class", "rose"], "no classes", "train a head"),
        (["untrained.safetensors", "--method", "occlusion"], "head is untrained", "train"),
        (
            ["flowers.safetensors", "--class", "tulpi"],
            "no class 'tulpi' (did you mean 'tulip'?)",
            "daisy, rose",
        ),
        (
            ["flowers.safetensors", "--method", "roll-out"],
            "'roll-out' (did you mean 'rollout'?)",
            "use one of",
        ),
        (
            ["flowers.safetensors", "--method", "attention", "--layers", "2"],
            "no layer 2: the model has 2 blocks",
            "0 to 1",
        ),
        (
            ["flowers.safetensors", "--method", "attention", "--heads", "3"],
            "no head 3: the model has 3 heads",
            "0 to 2",
        ),
        (
            ["flowers.safetensors", "--method", "attention", "--layers", "first"],
            "--layers is 'first'",
            "0,11",
        ),
        (
            ["flowers.safetensors", "--method", "pca", "--fuse", "max"],
            "--fuse only applies to rollout",
            "remove --fuse",
        ),
        (["flowers.safetensors", "--heads", "0"], "no method is given", "--method attention"),
        (["flowers.safetensors", "--method", "rollout", "--discard", "1.5"], "discard is 1.5", "below 1"),
        (["flowers.safetensors", "--mask-ratio", "0.5"], "--mask-ratio only applies", "remove"),
        (
            ["flowers.safetensors", "--method", "integrated-gradients", "--fill", "drop"],
            "left-out tokens",
            "occlusion",
        ),
    ],
)
def test_mistakes_cost_two_lines(capsys: Output, arguments: list[str], found: str, fix: str) -> None:
    model, *options = arguments
    assert run(["explain", model, "photos/00.png", *options, "--out", "no.png"]) == 2
    first, second = capsys.readouterr().err.splitlines()[-2:]
    assert first.startswith("error: ") and found in first
    assert second.strip().startswith("fix: ") and fix in second
    assert not Path("no.png").exists()


def test_any_grid_works_and_images_of_several_shapes_in_one_run() -> None:
    config = replace(tiny(), patch=replace(tiny().patch, edge="pad"))
    write: Callable[..., Path] = write_vit
    path = Path("wide.safetensors")
    if not path.exists():
        write(path, replace(config, image=replace(config.image, size=(20, 31))), NAMES)
    found = pw.explain(path, "photos/00.png", methods=["occlusion", "integrated-gradients"], steps=8)
    assert {each.values.shape for each in found.images[0].maps} == {(3, 6)}


def test_the_python_code_of_the_page_runs(given: Path) -> None:
    (given / "photo.jpg").write_bytes((given / "photos/05.png").read_bytes())
    page = Path(__file__).parents[3] / "docs" / "explain.md"
    [block] = [
        b
        for b in re.findall(r"```python\n(.*?)```", page.read_text("utf-8"), re.DOTALL)
        if "pw.explain(" in b
    ]
    names: dict[str, Any] = {}
    exec(compile(block, str(page), "exec"), names)
    assert names["image"].explained == "tulip" and names["map"].values.shape == (2, 4)


def test_the_page_lists_every_method() -> None:
    page = (Path(__file__).parents[3] / "docs" / "explain.md").read_text("utf-8")
    for method in METHODS.values():
        assert f"| `{method.name}` | {'yes' if method.class_aware else 'no'} |" in page


def test_help_imports_no_torch() -> None:
    code = "import sys; from patchword.cli.main import run; run(['explain', '--help']); print('torch' in sys.modules)"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.splitlines()[-1] == "False"
