"""Pre-training without labels: the task in the loop, through the functions that users call."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

import patchword as pw
from patchword.errors import PatchwordError
from support.scans import write_scans

# A model of a few thousand parameters with class token, learned positions and drop path.
SMALL: dict[str, Any] = {
    "model.dim": 32,
    "model.depth": 2,
    "model.attention.num_heads": 2,
    "model.block.drop_path": 0.1,
    "task.decoder.dim": 16,
    "task.decoder.depth": 1,
    "task.decoder.num_heads": 2,
    "run.batch_size": 8,
}


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty scans of digits in a flat folder, beside a file that is no image."""
    folder = tmp_path_factory.mktemp("data")
    write_scans(folder / "classes", {"0": 20, "1": 20})
    (folder / "flat").mkdir()
    for file in sorted((folder / "classes").rglob("*.png")):
        shutil.copy(file, folder / "flat" / f"{file.parent.name}-{file.name}")
    (folder / "flat" / "notes.txt").write_text("no image")
    return folder


def pretrained(data: Path, out: Path, epochs: int = 2, **more: Any) -> Any:
    settings = SMALL | more.pop("settings", {})
    return pw.pretrain(data, out=out, epochs=epochs, settings=settings, progress=False, **more)


def records(folder: Path, kind: str) -> list[dict[str, Any]]:
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [record for record in map(json.loads, lines) if record["kind"] == kind]


def test_the_loss_falls_and_stands_beside_trivial_baselines(scans: Path, tmp_path: Path) -> None:
    run = pretrained(scans / "flat", tmp_path / "run", epochs=12, lr=3e-3)
    epochs = records(run.folder, "epoch")
    assert epochs[-1]["val_pixels"] < 0.9 * epochs[0]["val_pixels"]
    # Masks and images of the evaluation are fixed, so the baselines are too.
    for name in ("val_patch_mean", "val_nearest", "val_bilinear"):
        assert len({record[name] for record in epochs}) == 1
    assert 0.5 < epochs[0]["val_patch_mean"] <= 1
    assert run.evaluation.to_dict()["pixels"] == epochs[-1]["val_pixels"]
    assert "hidden" in (run.folder / "report.html").read_text(encoding="utf-8")


def test_a_stopped_run_ends_in_the_same_bits(scans: Path, tmp_path: Path) -> None:
    whole = pretrained(scans / "flat", tmp_path / "run")
    ends = load_file(whole.folder / "last.safetensors")
    assert any(name.startswith("decoder.") for name in ends)
    max((whole.folder / "state").glob("*.pt")).unlink()  # as it was after its first epoch
    (whole.folder / "evaluation.json").unlink()
    again = load_file(pw.resume(whole.folder, progress=False).folder / "last.safetensors")
    assert all(again[name].tobytes() == ends[name].tobytes() for name in ends)


def test_masks_do_not_depend_on_micro_batches(scans: Path, tmp_path: Path) -> None:
    losses = []
    for part in (0, 4):
        run = pretrained(scans / "flat", tmp_path / f"{part}", settings={"run.micro_batch": part})
        losses.append([record["loss"] for record in records(run.folder, "step")])
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-5)


def test_the_encoder_stays_as_it_was_while_the_decoder_warms_up(scans: Path, tmp_path: Path) -> None:
    first = pretrained(scans / "flat", tmp_path / "first", epochs=1)
    second = pretrained(
        scans / "flat",
        tmp_path / "second",
        epochs=2,
        weights=first.folder,
        settings={"task.freeze_epochs": 1.0, "average.decay": 0.0},
    )
    start, end = (load_file(run.folder / "last.safetensors") for run in (first, second))
    state = records(second.folder, "epoch")
    assert len(state) == 2
    assert any(not np.array_equal(start[n], end[n]) for n in start if n.startswith("blocks."))
    frozen = pretrained(
        scans / "flat",
        tmp_path / "frozen",
        epochs=1,
        weights=first.folder,
        settings={"task.freeze_epochs": 1.0},
    )
    kept = load_file(frozen.folder / "last.safetensors")
    assert all(np.array_equal(start[n], kept[n]) for n in start if not n.startswith("decoder."))
    assert any(not np.array_equal(start[n], kept[n]) for n in start if n.startswith("decoder.blocks."))


def test_watched_images_decide_which_weights_are_kept(scans: Path, tmp_path: Path) -> None:
    # With a rate this low nothing changes, so there is no gain over the start.
    run = pretrained(scans / "flat", tmp_path / "run", lr=1e-12, watch=scans / "classes")
    assert all("val_knn" in record for record in records(run.folder, "epoch"))
    assert "no gain over the start" in (run.folder / "log.txt").read_text(encoding="utf-8")
    facts = json.loads((run.folder / "data.json").read_text(encoding="utf-8"))
    assert 0 < facts["start_knn"] <= 1
    assert run.model.report.path.name == "best.safetensors"


def test_its_encoder_embeds_and_fine_tunes(scans: Path, tmp_path: Path) -> None:
    run = pretrained(scans / "flat", tmp_path / "run", epochs=1)
    image = next((scans / "flat").glob("*.png"))
    first, second = (np.asarray(run.model.embed(image)) for _ in range(2))
    np.testing.assert_array_equal(first, second)  # nothing is masked
    tuned = pw.train(
        scans / "classes", out=tmp_path / "tuned", weights=run.folder, tune="head", progress=False
    )
    assert tuned.evaluation.to_dict()["top1"] > 0.5


def test_only_training_images_are_used_where_there_are_splits(tmp_path: Path) -> None:
    write_scans(tmp_path / "data" / "train", {"0": 8, "1": 8})
    write_scans(tmp_path / "data" / "val", {"0": 4, "1": 4}, first=8)
    run = pretrained(tmp_path / "data", tmp_path / "run", epochs=1)
    facts = json.loads((run.folder / "data.json").read_text(encoding="utf-8"))
    assert {name: split["images"] for name, split in facts["splits"].items()} == {"train": 16, "val": 8}


@pytest.mark.parametrize(
    ("asked", "what"),
    [
        ({"mask_ratio": 0.999}, "no patch visible"),
        ({"mask_ratio": 1.0}, "mask_ratio is 1"),
        ({"recipe": "scratch"}, "needs labels"),
        ({"watch": "flat"}, "flat"),
        ({"decoder_dim": 30}, "multiple of 4"),
    ],
)
def test_mistakes_are_named_before_anything_is_written(
    scans: Path, tmp_path: Path, asked: dict[str, Any], what: str
) -> None:
    if "watch" in asked:
        asked = {"watch": scans / asked["watch"]}
    with pytest.raises(PatchwordError, match=what):
        pw.pretrain(scans / "flat", out=tmp_path / "run", progress=False, **asked)
    assert not (tmp_path / "run").exists()


def test_one_image_is_too_few(scans: Path, tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    shutil.copy(next((scans / "flat").glob("*.png")), tmp_path / "one")
    with pytest.raises(PatchwordError, match="one image"):
        pw.pretrain(tmp_path / "one", out=tmp_path / "run", progress=False)


def test_a_text_file_can_list_the_images(scans: Path, tmp_path: Path) -> None:
    files = sorted((scans / "flat").glob("*.png"))[:12]
    (tmp_path / "images.txt").write_text("".join(f"{file}\n" for file in files))
    run = pretrained(tmp_path / "images.txt", tmp_path / "run", epochs=1)
    facts = json.loads((run.folder / "data.json").read_text(encoding="utf-8"))
    assert sum(split["images"] for split in facts["splits"].values()) == 12
