"""`patchword inspect` and `convert`: files of other programs, through the real command."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import patchword as pw
from patchword.cli.main import run
from support.parity import Case, cases_in, committed

CASES = {c.name: c for c in cases_in([committed()], {"backbone"})}
TORCHVISION = CASES["torchvision_small_vit"]
CLIP = CASES["openai_clip_visual_small_variance"]


def patchword(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "patchword.cli.main", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=os.environ | environment)


def options(case: Case) -> list[object]:
    said: list[object] = []
    for name, value in case.meta["hints"].items():
        said += [f"--{name.replace('_', '-')}", value]
    return said


def test_inspect_describes_a_file_and_the_source_of_each_fact() -> None:
    told = patchword("inspect", TORCHVISION.path, "--num-heads", 2)
    assert told.returncode == 0, told.stderr
    for words in (
        "torchvision VisionTransformer",
        "100 % of the backbone",
        "num_heads",
        "option",
        "grid 4 x 4",
    ):
        assert words in told.stdout
    # Makes rich assume a plain terminal of 80 columns.
    shown = patchword("inspect", TORCHVISION.path, "--num-heads", 2, FORCE_COLOR="1", TERM="dumb").stdout
    assert max(map(len, shown.splitlines()[1:])) <= 80
    plain = json.loads(patchword("inspect", TORCHVISION.path, "--num-heads", 2, "--json").stdout)
    assert plain["filled"] == 1 and plain["config"]["dim"] == 8
    assert {"name": "num_heads", "value": 2, "source": "option"} in plain["facts"]


def test_inspect_reports_what_is_resampled_for_the_images(capsys: pytest.CaptureFixture[str]) -> None:
    path = str(CASES["dinov2_dinov2_518_to_224_odd"].path)
    told = "positions from 10 x 10 to 4 x 4: bicubic, offset 0.1"
    assert run(["inspect", path, "--num-heads", "2", "--image-size", "56", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["resampled"] == [told]
    assert run(["inspect", path, "--num-heads", "2", "--image-size", "140", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["resampled"] == []
    assert pw.load(path, num_heads=2, image_size=56).report.resampled == (told,)


@pytest.mark.parametrize("name", ["lucidrains_small_simple_vit_register", "transformers_small_vit"])
def test_inspect_imports_neither_torch_nor_numpy(name: str) -> None:
    code = (
        "import sys; from patchword.cli.main import run; run(sys.argv[1:]); "
        "print([m for m in ('torch', 'numpy', 'PIL') if m in sys.modules], file=sys.stderr)"
    )
    case = CASES[name]
    command = [sys.executable, "-c", code, "inspect", str(case.path), *map(str, options(case))]
    said = subprocess.run(command, capture_output=True, text=True)
    assert "100 % of the backbone" in said.stdout and said.stderr.strip().splitlines()[-1] == "[]"


def test_a_missing_fact_is_reported_with_its_option() -> None:
    told = patchword("inspect", TORCHVISION.path)
    assert told.returncode == 2
    assert "no file states the number of attention heads" in told.stderr and "--num-heads" in told.stderr


def test_predict_accepts_other_layouts(tmp_path: Path) -> None:
    picture = tmp_path / "grey.png"
    from PIL import Image

    Image.new("RGB", (40, 30), (90, 120, 60)).save(picture)
    told = patchword("predict", TORCHVISION.path, picture, "--num-heads", 2, "--json")
    assert told.returncode == 0, told.stderr
    (row,) = json.loads(told.stdout)
    assert row["file"] == str(picture)


@pytest.mark.parametrize("to", ["transformers", "patchword"])
def test_a_converted_model_predicts_the_same(tmp_path: Path, to: str) -> None:
    out = tmp_path / ("folder" if to == "transformers" else "model.safetensors")
    told = patchword("convert", TORCHVISION.path, "--num-heads", 2, "--to", to, "--out", out, "--json")
    assert told.returncode == 0, told.stderr
    done = json.loads(told.stdout)
    assert done["difference"] < 1e-5
    import patchword as pw

    image = torch.from_numpy(TORCHVISION.arrays()["image"])
    with torch.inference_mode():
        answer = pw.load(out, device="cpu")(image)
    recorded = TORCHVISION.arrays()["logits"]
    assert np.abs(answer.numpy() - recorded).max() < TORCHVISION.meta["tolerance"] * np.abs(recorded).max()
    provenance = json.loads(patchword("inspect", out, "--json").stdout)["provenance"]
    assert to == "transformers" or provenance["source_sha256"]


def test_converting_there_and_back_restores_every_tensor(tmp_path: Path) -> None:
    there, back = tmp_path / "there.safetensors", tmp_path / "back.pth"
    assert (
        patchword("convert", CLIP.path, *options(CLIP), "--to", "patchword", "--out", there).returncode == 0
    )
    told = patchword("convert", there, "--to", "openai-clip", "--out", back)
    assert told.returncode == 0, told.stderr
    assert f"num_heads = {CLIP.meta['hints']['num_heads']}" in told.stdout
    first, last = torch.load(CLIP.path, weights_only=True), torch.load(back, weights_only=True)
    assert first.keys() == last.keys()
    assert all(
        torch.equal(first[name], last[name]) and first[name].dtype == last[name].dtype for name in first
    )


def test_what_a_format_cannot_hold_is_refused_by_name_and_no_file_remains(tmp_path: Path) -> None:
    out = tmp_path / "out.pth"
    told = patchword("convert", CLIP.path, *options(CLIP), "--to", "torchvision", "--out", out)
    assert told.returncode == 2 and "has no place for" in told.stderr
    assert not list(tmp_path.iterdir())
    unknown = patchword("convert", CLIP.path, "--to", "tim", "--out", out)
    assert "did you mean 'timm'" in unknown.stderr and unknown.returncode == 2


@pytest.mark.slow
def test_class_names_go_next_to_a_format_that_cannot_hold_them(tmp_path: Path) -> None:
    names, out = tmp_path / "names", tmp_path / "out.pth"
    names.write_text("ash\nred beech\ncedar\nelm\nfir\n")
    facts = ("--num-heads", 2, "--class-names", names)
    told = patchword("convert", TORCHVISION.path, *facts, "--to", "torchvision", "--out", out)
    assert told.returncode == 0, told.stderr
    beside = Path(f"{out}.classes.txt")
    assert f"class_names = {beside}" in told.stdout and beside.read_text() == names.read_text()
    classes = pw.load(out, num_heads=2, classes=tuple(beside.read_text().splitlines())).classes
    assert classes == ("ash", "red beech", "cedar", "elm", "fir")
    out.unlink()
    Path(f"{out}.provenance.json").unlink()
    again = patchword("convert", TORCHVISION.path, *facts, "--to", "torchvision", "--out", out)
    assert again.returncode == 2 and f"{beside} already exists" in again.stderr
    assert set(tmp_path.iterdir()) == {names, beside}


@pytest.mark.slow
def test_differences_in_rounding_and_resampling_by_readers_are_reported(tmp_path: Path) -> None:
    dino = CASES["dino_dino_linear_head_interleaved"]
    done = patchword(
        "convert", dino.path, "--num-heads", dino.meta["hints"]["num_heads"], "--to", "transformers",
        "--out", tmp_path / "hf",
    )  # fmt: skip
    assert "resize (rounding only, at most one pixel)" in done.stdout
    assert "elsewhere  at another size, positions are resampled by" in done.stdout


def test_existing_files_are_not_overwritten(tmp_path: Path) -> None:
    out = tmp_path / "there.safetensors"
    out.write_bytes(b"mine")
    told = patchword("convert", CLIP.path, *options(CLIP), "--to", "patchword", "--out", out)
    assert told.returncode == 2 and out.read_bytes() == b"mine"


def test_a_detector_is_recognised_by_name(tmp_path: Path) -> None:
    file = tmp_path / "detr.pth"
    torch.save({"model": {"query_embed.weight": torch.zeros(10, 4), "input_proj.bias": torch.zeros(4)}}, file)
    told = patchword("inspect", file)
    assert told.returncode == 2 and "a DETR detector" in told.stderr and "Traceback" not in told.stderr


def test_a_large_file_is_inspected_from_its_header(tmp_path: Path) -> None:
    """Inspect a sparse file of one gigabyte; reading its tensors would take seconds."""
    names = {"weight": {"dtype": "F32", "shape": [16384, 16384], "data_offsets": [0, 2**30]}}
    text = json.dumps(names).encode()
    file = tmp_path / "large.safetensors"
    with file.open("wb") as opened:
        opened.write(len(text).to_bytes(8, "little") + text)
        opened.truncate(8 + len(text) + 2**30)
    told = patchword("inspect", file)
    assert "one linear layer and no backbone" in told.stderr


def test_adapt_prints_what_happened_to_each_tensor_and_the_result_loads(tmp_path: Path) -> None:
    out = tmp_path / "larger.safetensors"
    told = patchword("adapt", TORCHVISION.path, "--num-heads", 2, "--to-image-size", 24, "--out", out)
    assert told.returncode == 0, told.stderr
    assert "positions.grid" in told.stdout and "4 x 4" in told.stdout and "6 x 6" in told.stdout
    assert max(map(len, told.stdout.splitlines()[:-1])) <= 80
    plain = json.loads(patchword("inspect", out, "--json").stdout)
    assert plain["config"]["image"]["size"] == plain["preprocess"]["image_size"] == [24, 24]
    assert (
        plain["provenance"]["source_sha256"] and "positions.grid" in plain["provenance"]["facts"]["adapted"]
    )
    nothing = patchword("adapt", TORCHVISION.path, "--num-heads", 2, "--out", tmp_path / "x")
    assert nothing.returncode == 2 and "there is nothing to change" in nothing.stderr
