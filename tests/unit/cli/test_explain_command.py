"""`patchword explain`: reconstructions of a masked autoencoder, and the redundancy of images."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import patchword as pw
from patchword.cli.main import run
from support.autoencoder import small_mae, write_mae
from support.page import Page
from support.parity import committed
from support.photos import write_photos

Output = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with models and photographs."""
    folder = tmp_path_factory.mktemp("given")
    mae = small_mae()
    write_mae(folder / "mae.safetensors", mae)
    write_mae(folder / "pixels.safetensors", small_mae(norm_targets=False))
    write_mae(folder / "encoder.safetensors", mae, with_decoder=False)
    write_photos(folder / "photos")
    return folder


@pytest.fixture(autouse=True)
def _here(given: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def failed(arguments: list[str], capsys: Output) -> list[str]:
    """The two lines of an error with exit code 2."""
    assert run(arguments) == 2
    lines = capsys.readouterr().err.splitlines()[-2:]
    assert lines[0].startswith("error: ") and lines[1].strip().startswith("fix: ")
    return lines


def test_it_draws_and_prints_the_loss_next_to_the_baselines(given: Path, capsys: Output) -> None:
    photo = str(given / "photos/00.png")
    assert run(["explain", str(given / "mae.safetensors"), photo, str(given / "photos/01.png")]) == 0
    printed = capsys.readouterr()
    assert "2 images drawn: explain.png" in printed.err
    head, first, _, mean, *notes = printed.out.splitlines()
    assert head.split()[-6:] == ["model", "patch", "mean", "nearest", "patch", "bilinear"]
    assert max(map(len, [first, *notes])) <= 80 and "standardised" in " ".join(notes)
    assert mean.startswith("mean of 2 images")
    # Of standardised patches of 192 values; see model.baselines.
    assert first.split()[-3] == "0.995"
    with Image.open("explain.png") as page:
        assert page.width > 6 * 192 and page.height > 2 * 192


def test_the_arrays_agree_with_the_picture_and_the_numbers(given: Path, capsys: Output) -> None:
    photo = given / "photos/03.png"
    [found] = pw.reconstruct(given / "mae.safetensors", photo)
    hidden = found.hidden.repeat(8, axis=0).repeat(8, axis=1)
    assert found.hidden.shape == (4, 4) and found.hidden.sum() == 12
    assert found.original.shape == (32, 32, 3) and (found.masked[hidden] == 128).all()
    assert found.borrowed is not None and found.borrowed_pasted is not None
    for picture in (found.masked, found.pasted, found.borrowed_pasted):
        assert np.array_equal(picture[~hidden], found.original[~hidden])
    assert np.array_equal(found.pasted[hidden], found.full[hidden])
    # What the model was given, without its normalisation.
    resized = np.asarray(Image.open(photo).resize((32, 32), Image.Resampling.BICUBIC)).astype(int)
    assert abs(resized - found.original).max() <= 1
    assert run(["explain", str(given / "mae.safetensors"), str(photo), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["images"][0]["losses"] == pytest.approx(found.losses)
    assert printed["images"][0]["hidden"] == 12 and printed["mask_ratio"] == 0.75
    assert not Path("explain.png").exists()


def test_the_same_image_gets_the_same_mask_anywhere_and_another_with_another_seed(
    given: Path, tmp_path: Path
) -> None:
    def hidden(path: Path, **how: int) -> list[bool]:
        [found] = pw.reconstruct(given / "mae.safetensors", path, **how)  # type: ignore[arg-type]
        return found.hidden.ravel().tolist()

    (tmp_path / "02.png").write_bytes((given / "photos/02.png").read_bytes())
    first = hidden(given / "photos/02.png")
    assert hidden(tmp_path / "02.png") == first
    assert hidden(given / "photos/03.png") != first != hidden(given / "photos/02.png", seed=1)


def test_a_page_shows_both_kinds_of_reconstruction_only_if_there_are_two(given: Path) -> None:
    photo = str(given / "photos/00.png")
    for name, columns in (("mae", 6), ("pixels", 4)):
        out = f"{name}.html"
        model = str(given / f"{name}.safetensors")
        assert run(["explain", model, photo, "--out", out, "--mask-ratio", "0.5"]) == 0
        page = Page(Path(out).read_text("utf-8"))
        text = Path(out).read_text("utf-8")
        assert text.count("data:image/png") == columns
        assert ("true mean and contrast" in text) == (name == "mae")
        assert "8 of 16 patches hidden" in page.text


def test_a_file_of_the_original_code_is_explained_with_the_facts_it_lacks(
    given: Path, capsys: Output
) -> None:
    model = str(committed() / "mae_mae_norm_pix" / "mae_visualize_vit_large.pth")
    arguments = ["explain", model, str(given / "photos/00.png"), "--json", "--num-heads", "2"]
    for option, normalised in (("--norm-pix-loss", True), ("--no-norm-pix-loss", False)):
        assert run([*arguments, "--decoder-num-heads", "4", option]) == 0
        assert json.loads(capsys.readouterr().out)["normalised_targets"] is normalised
    assert "--decoder-num-heads" in failed(arguments, capsys)[1]


def test_a_sample_is_drawn_and_too_many_images_are_refused(
    given: Path, capsys: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, folder = str(given / "mae.safetensors"), str(given / "photos")
    assert run(["explain", model, folder, "--images", "3", "--json"]) == 0
    names = [row["file"] for row in json.loads(capsys.readouterr().out)["images"]]
    assert len(names) == 3 and names == sorted(names)
    monkeypatch.setattr("patchword.explaining.drawing.reconstruction.MOST_ROWS", 5)
    found, fix = failed(["explain", model, folder], capsys)
    assert "12 images are too many" in found and "--images 5" in fix


def test_unreadable_images_are_listed_and_the_others_drawn(given: Path, capsys: Output) -> None:
    Path("broken.jpg").write_bytes(b"no image")
    photo = str(given / "photos/00.png")
    assert run(["explain", str(given / "mae.safetensors"), "broken.jpg", photo]) == 3
    assert "1 of 2 images could not be read: broken.jpg" in capsys.readouterr().err
    assert Path("explain.png").exists()
    assert run(["explain", str(given / "mae.safetensors"), "broken.jpg", "--out", "none.png"]) == 3
    assert not Path("none.png").exists()
    with pytest.raises(pw.PatchwordError, match="broken"):
        pw.reconstruct(given / "mae.safetensors", ["broken.jpg"])


def test_the_python_code_of_the_page_runs(given: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(given)
    (given / "photo.jpg").write_bytes((given / "photos/05.png").read_bytes())
    page = Path(__file__).parents[3] / "docs" / "explain.md"
    block, *_ = re.findall(r"```python\n(.*?)```", page.read_text("utf-8"), re.DOTALL)
    names: dict[str, Any] = {}
    exec(compile(block, str(page), "exec"), names)
    assert names["image"].losses.keys() == {"model", "patch_mean", "nearest", "bilinear"}
    assert names["found"].count == 12


def test_weights_that_diverged_are_named(tmp_path: Path, given: Path, capsys: Output) -> None:
    mae = small_mae()
    with torch.no_grad():
        mae.decoder.pred.bias[0] = torch.nan
    found, _ = failed(
        ["explain", str(write_mae(tmp_path / "nan.safetensors", mae)), str(given / "photos/00.png")], capsys
    )
    assert "00.png is NaN or infinite" in found


@pytest.mark.parametrize(
    ("arguments", "found", "fix"),
    [
        (
            ["encoder.safetensors", "photos/00.png", "--mask-ratio", "0.5"],
            "--mask-ratio only applies",
            "remove",
        ),
        (["mae.safetensors"], "MODEL and an image are needed", "--redundancy"),
        (["mae.safetensors", "photos/00.png", "--mask-ratio", "0.99"], "no patch visible", "0.75"),
        (["mae.safetensors", "photos/00.png", "--out", "a.pdf"], "'.pdf'", ".png or .html"),
        (["mae.safetensors", "photos/00.png", "--out", "no/a.png"], "no", ""),
        (["mae.safetensors", "nothing.png"], "nothing.png", ""),
        (["--redundancy", "empty"], "no images", "images"),
        (["--redundancy", "photos/00.png"], "at least 4 images, and there is 1", "more images"),
        (["--redundancy", "photos", "--patch-size", "64"], "fewer than two patches", "at most 48"),
        (["--redundancy", "photos", "--patch-size", "8x4"], "8x4", "--patch-size 4"),
        (["--redundancy", "photos", "--mask-ratio", "0.5"], "--mask-ratio only applies", "remove"),
        (["--redundancy", "photos", "--num-heads", "3"], "--num-heads only applies", "remove"),
    ],
)
def test_mistakes_cost_two_lines(
    given: Path, monkeypatch: pytest.MonkeyPatch, capsys: Output, arguments: list[str], found: str, fix: str
) -> None:
    monkeypatch.chdir(given)
    (given / "empty").mkdir(exist_ok=True)
    problem, cure = failed(["explain", *arguments], capsys)
    assert found in problem and fix in cure


def test_redundancy_prints_tables_of_80_columns_and_draws(given: Path, capsys: Output) -> None:
    folder = str(given / "photos")
    options = ["--patch-size", "8", "--seed", "2", "--image-size", "64"]
    assert run(["explain", "--redundancy", folder, *options, "--out", "a.png"]) == 0
    printed = capsys.readouterr()
    assert "drawn: a.png" in printed.err
    with Image.open("a.png") as page:
        assert page.width > 900
    lines = printed.out.splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[0] == "all 12 images; 64 x 64 pixels, patches of 8 x 8; seed 2"
    assert "Neighbouring patches explain" in printed.out
    assert run(["explain", "--redundancy", folder, *options, "--json", "--out", "a.html"]) == 0
    numbers = json.loads(capsys.readouterr().out)
    found = pw.redundancy(folder, patch_size=8, seed=2, image_size=64)
    assert numbers["sources"]["images"]["ridge"]["1"] == pytest.approx(found.images.ridge[1])
    html = Page(Path("a.html").read_text("utf-8"))
    assert "distance in patches" in html.text and f"{found.images.ridge[1]:.2f}" in html.text


def test_redundancy_counts_enlarged_and_unreadable_images(
    given: Path, tmp_path: Path, capsys: Output
) -> None:
    folder = tmp_path / "mixed"
    write_photos(folder)
    Image.open(folder / "00.png").resize((40, 40)).save(folder / "00.png")
    (folder / "bad.png").write_bytes(b"")
    assert run(["explain", "--redundancy", str(folder), "--patch-size", "8"]) == 3
    printed = capsys.readouterr()
    assert "1 image smaller than 96 x 96 pixels" in printed.out
    assert "1 of 13 images could not be read" in printed.err
    assert run(["explain", "--redundancy", str(folder), "--image-size", "32", "--images", "5"]) in (0, 3)
    assert "5 of 13 images, chosen at random; 32 x 32" in capsys.readouterr().out
