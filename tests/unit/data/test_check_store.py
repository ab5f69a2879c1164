"""The check before training: one decode for both, and a sample of large data."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from patchword.cli.main import run
from patchword.data import check as checking
from patchword.data import look
from patchword.data.check import CheckReport, check_data
from patchword.data.look import glance
from patchword.data.open import open_data
from patchword.data.stamps import Stamps
from patchword.data.store import open_store
from patchword.images.preprocess import Preprocess
from patchword.runs.prepare import TrainRequest, prepare
from patchword.training.overlay import Overlay
from support.scans import write_scans


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Pieces of a photograph of scikit-learn's, as JPEGs of 600 x 400 pixels, with two copies across the splits."""
    from sklearn.datasets import load_sample_images

    for number, photo in enumerate(load_sample_images().images):
        for split, count in (("train", 5), ("val", 2)):
            for i in range(count):
                place = tmp_path / "photos" / split / f"c{number}" / f"{i}.jpg"
                place.parent.mkdir(parents=True, exist_ok=True)
                first = 4 * i
                Image.fromarray(photo[first : first + 400, first : first + 600]).save(place, quality=90)
    return tmp_path / "photos"


def _messages(report: CheckReport) -> list[str]:
    return [problem.message for problem in report.problems]


@pytest.mark.parametrize("side", [40, 96])
def test_the_check_finds_the_same_with_a_store_whose_pixels_are_those_of_training(
    photos: Path, side: int
) -> None:
    data = open_data(photos)
    stored = Preprocess.simple(side)
    store = open_store(data.training, stored, "memory")
    alone, both = check_data(data), check_data(data, store=store)
    assert _messages(alone) == _messages(both)
    assert any("copy in another split" in message for message in _messages(both))
    assert np.allclose(alone.channel_mean, both.channel_mean, atol=0.002)
    assert np.allclose(alone.channel_std, both.channel_std, atol=0.01)
    assert alone.sizes == both.sizes and alone.modes == both.modes
    plain = open_store(data.training, stored, "none")
    for index in range(len(data.training)):
        kept = store.in_memory(index)
        assert kept is not None and np.array_equal(kept, plain[index])
    assert both.stamps["train"] is store.stamps and store.stamps.known.all()


def test_after_preparing_a_training_no_image_needs_to_be_read_again(tmp_path: Path) -> None:
    write_scans(tmp_path / "data", {"d0": 30, "d1": 30})
    overlay = Overlay()
    prepared = prepare(TrainRequest(data=str(tmp_path / "data"), overlay=overlay, out=str(tmp_path / "run")))
    assert prepared.store is not None and prepared.store.kind == "memory"
    assert prepared.store.preprocess.image_size == prepared.chosen.settings.run.stored_size
    shutil.rmtree(tmp_path / "data")
    assert all(not isinstance(prepared.store[i], str) for i in range(len(prepared.dataset.training)))


def test_large_data_are_sampled_before_training_and_not_when_all_are_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_scans(tmp_path, {"d0": 30, "d1": 30})
    for i in range(30):
        (tmp_path / "d1" / f"{i}.png").write_bytes(b"\x89PNG\r\n\x1a\n cut off")
    write_scans(tmp_path, {"d1": 28})
    data = open_data(tmp_path)
    monkeypatch.setattr(checking, "MAX_BEFORE_TRAINING", 50)
    monkeypatch.setattr(checking, "SAMPLE", 20)
    sample = check_data(data, before_training=True)
    assert sample.looked_at == 20 == sum(int(stamps.known.sum()) for stamps in sample.stamps.values())
    assert any("training checks the others when it reads them" in message for message in _messages(sample))
    assert sample.to_dict() == check_data(data, before_training=True).to_dict()
    assert check_data(data).looked_at == 60
    monkeypatch.setattr(checking, "MAX_IMAGES", 50)
    assert check_data(data).looked_at == 50
    assert check_data(data, every=True).looked_at == 60


def test_a_sample_does_not_say_that_a_class_has_no_readable_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_scans(tmp_path, {"d0": 30, "d1": 30})
    data = open_data(tmp_path)
    monkeypatch.setattr(checking, "MAX_BEFORE_TRAINING", 5)
    monkeypatch.setattr(checking, "SAMPLE", 8)
    chosen = look.sampled(data, 5, 8)
    for split, index in chosen:
        if split.name == "train" and split.labels[index] == 1:
            Path(str(split.source(index))).write_bytes(b"\x89PNG\r\n\x1a\n cut off")
    report = check_data(data, before_training=True)
    assert report.skipped and not any("of class" in message for message in _messages(report))


def test_a_glance_at_headers_gives_the_upright_median_size(tmp_path: Path) -> None:
    for i, (width, height) in enumerate([(60, 40), (60, 40), (90, 50)]):
        image = Image.new("RGB", (width, height))
        exif = image.getexif()
        exif[0x0112] = 6  # turned: its height is its width
        (tmp_path / f"c{i % 2}").mkdir(exist_ok=True)
        image.save(tmp_path / f"c{i % 2}" / f"{i}.jpg", exif=exif)
    assert glance(open_data(tmp_path)) == (60, 40)
    (size,) = {tuple(check_data(open_data(tmp_path)).sizes["median"])}
    assert size == (60, 40)


def test_images_that_are_also_training_images_are_found_without_decoding(photos: Path) -> None:
    data = open_data(photos)
    training, evaluation = Stamps.of(data.training), Stamps.of(data.evaluation)
    training.read_rest(data.training)
    assert evaluation.seen_in(data.evaluation, frozenset()) == [] and not evaluation.known.any()
    assert (
        len(evaluation.seen_in(data.evaluation, training.contents())) == 4
    )  # each is a copy of a training image


def test_the_command_checks_every_image_with_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_scans(tmp_path, {"d0": 20, "d1": 20})
    monkeypatch.setattr(checking, "MAX_IMAGES", 30)
    assert run(["check", str(tmp_path)]) == 0
    assert "only 30 of 40 images were checked" in capsys.readouterr().out
    assert run(["check", str(tmp_path), "--all"]) == 0
    assert "readable: 40 of 40" in capsys.readouterr().out
