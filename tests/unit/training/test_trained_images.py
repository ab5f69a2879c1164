"""A run knows which images it was trained on, wherever its weights go and whatever the images are called."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from patchword import api
from patchword.cli.main import run
from patchword.data.contents import hashes_of, pack, unpack
from patchword.data.open import open_data
from patchword.data.request import OpenRequest
from patchword.errors import DataError
from patchword.weights.native import read_card, read_model, write_model
from support.scans import scans_of, write_scans

TINY = {
    "run.batch_size": 8,
    "run.threads": 1,
    "run.precision": "float32",
    "model.depth": 1,
    "model.dim": 32,
    "model.attention.num_heads": 1,
}
OVERRIDES = [
    part for path, value in TINY.items() if not path.startswith("model") for part in ("-o", f"{path}={value}")
]
Output = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    top = tmp_path_factory.mktemp("data") / "scans"
    write_scans(top, {"d0": 15, "d1": 15})
    return top


@pytest.fixture(scope="module")
def trained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "run"
    api.train(data, out=out, epochs=1, settings=TINY)
    return out


def _grown(data: Path, to: Path, more: int = 4) -> Path:
    shutil.copytree(data, to)
    for digit in (0, 1):
        for i, scan in enumerate(scans_of(digit, more, first=40)):
            scan.save(to / f"d{digit}" / f"new {i}.png")
    return to


def _evaluated(*args: str | Path, capsys: Output) -> dict[str, object]:
    assert run(["evaluate", *map(str, args), "--json"]) == 0
    found: dict[str, object] = json.loads(capsys.readouterr().out)
    return found


def test_the_weights_alone_hold_the_contents_of_the_training_images(data: Path, trained: Path) -> None:
    for file in ("last.safetensors", "best.safetensors"):
        record = read_card(trained / file).provenance
        assert unpack(record.trained_on) == set(hashes_of(open_data(data).training))
        assert record.num_trained_on == len(open_data(data).training)
    assert len(pack(bytes([i // 256, i % 256, 0, 0, 0, 0]) for i in range(1000))) == 8000


def test_images_more_or_less_bring_no_trained_image_into_the_score(
    data: Path, trained: Path, tmp_path: Path, capsys: Output
) -> None:
    known, held = len(open_data(data).training), len(open_data(data).evaluation)
    alone = shutil.copy(trained / "last.safetensors", tmp_path / "alone.safetensors")
    grown = _evaluated(alone, _grown(data, tmp_path / "grown"), capsys=capsys)
    assert grown["trained_on"] == {"images": known, "of": known + held + 8, "scored": False}
    assert grown["images"] == held + 8
    fewer = shutil.copytree(data, tmp_path / "fewer")
    (fewer / open_data(data).training.names[0]).unlink()
    assert _evaluated(trained, fewer, capsys=capsys)["scored"] == held
    assert _evaluated(trained, data, capsys=capsys)["trained_on"] == {
        "images": 0,
        "of": held,
        "scored": False,
    }


def test_a_trained_image_is_known_under_another_name_and_first_in_the_answer(
    data: Path, trained: Path, tmp_path: Path, capsys: Output
) -> None:
    renamed = tmp_path / "renamed"
    for place in data.iterdir():
        (renamed / place.name).mkdir(parents=True)
        for file in place.iterdir():
            shutil.copy(file, renamed / place.name / f"x{file.name}")
    known, held = len(open_data(data).training), len(open_data(data).evaluation)
    overlap = f"this model was trained on {known} of these {known + held} images"
    assert run(["evaluate", str(trained), str(renamed)]) == 0
    answer = " ".join(capsys.readouterr().out.split())
    assert f"{overlap}; the score is for the other {held}" in answer
    assert answer.index(overlap) < answer.index("top-1")
    assert run(["evaluate", str(trained), str(renamed), "--include-trained"]) == 0
    answer = " ".join(capsys.readouterr().out.split())
    assert f"{overlap}, so the score is optimistic" in answer and f"scored {known + held} images" in answer


def test_where_every_image_was_trained_on_there_is_no_score_unless_it_is_asked_for(
    data: Path, trained: Path, tmp_path: Path, capsys: Output
) -> None:
    for name in open_data(data).training.names:
        (tmp_path / "only" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(data / name, tmp_path / "only" / name)
    assert run(["evaluate", str(trained), str(tmp_path / "only")]) == 2
    assert "was trained on all" in (said := capsys.readouterr().err) and "--include-trained" in said
    on_train = _evaluated(trained, data, "--split", "train", capsys=capsys)
    assert on_train["trained_on"] == {"images": on_train["images"], "of": on_train["images"], "scored": True}


def test_training_on_from_weights_scores_no_image_that_they_were_trained_on(
    data: Path, trained: Path, tmp_path: Path, capsys: Output
) -> None:
    start = ["--weights", str(trained), "--epochs", "1", *OVERRIDES]
    grown = _grown(data, tmp_path / "grown")
    assert run(["train", str(grown), "--out", str(tmp_path / "a"), *start]) == 0
    assert "are not scored" not in capsys.readouterr().err, "their sides have not changed"
    before = unpack(read_card(trained / "last.safetensors").provenance.trained_on)
    held, seed, new = next(
        (held, seed, new)
        for seed in range(1, 100)
        if (held := open_data(data, OpenRequest(split_seed=seed)).evaluation)
        and 0 < len(new := [content for content in hashes_of(held) if content not in before]) < len(held)
    )
    assert run(["train", str(data), "--out", str(tmp_path / "b"), "--split-seed", str(seed), *start]) == 0
    assert "also used for training" in capsys.readouterr().err
    after = unpack(read_card(tmp_path / "b" / "last.safetensors").provenance.trained_on)
    score = json.loads((tmp_path / "b" / "evaluation.json").read_text())
    assert before < after and 0 < score["images"] == len(new) < len(held)
    assert score["trained_on"] == {"images": len(held) - len(new), "of": len(held), "scored": False}
    assert "are not scored" in (tmp_path / "b" / "report.html").read_text()
    # The last epoch's score on the way is of the same images.
    epoch = json.loads((tmp_path / "b" / "metrics.jsonl").read_text().splitlines()[-1])
    assert epoch["val_top1"] == pytest.approx(score["top1"])


def test_copies_of_training_images_in_the_authors_val_are_left_out_and_all_copies_refused(
    tmp_path: Path,
) -> None:
    write_scans(tmp_path / "train", {"d0": 6, "d1": 6})
    write_scans(tmp_path / "val", {"d0": 3, "d1": 3})
    with pytest.raises(DataError, match="all 6 images of val are also training images"):
        api.train(tmp_path, out=tmp_path / "no", epochs=1, settings=TINY)
    assert not (tmp_path / "no").exists()
    Image.new("L", (24, 24), 99).save(tmp_path / "val" / "d0" / "new.png")
    done = api.train(tmp_path, out=tmp_path / "run", epochs=1, settings=TINY)
    assert done.evaluation.images == 1 and done.evaluation.trained_on is not None


def test_weights_without_a_record_say_so(data: Path, trained: Path, tmp_path: Path, capsys: Output) -> None:
    card, tensors = read_model(trained / "last.safetensors")
    old = replace(card, provenance=replace(card.provenance, trained_on=""))
    write_model(tmp_path / "old.safetensors", tensors, old)
    found = _evaluated(tmp_path / "old.safetensors", _grown(data, tmp_path / "grown"), capsys=capsys)
    assert "trained_on" not in found and "do not record their training images" in str(found["notes"])
