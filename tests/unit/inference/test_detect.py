"""Boxes in pixels of the upright image, whatever the preprocessing, the batch and the tiles."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import patchword as pw
from patchword.errors import ImageError, SettingsError
from patchword.formats.report import LoadReport
from patchword.images.geometry import Border, Capped, Cover, Keep, ResizeRule, Squash
from patchword.images.preprocess import Preprocess, Resample
from patchword.inference.detections import Detections, found_in
from patchword.inference.detector import Detector, best_score_of_run
from patchword.inference.tiles import Tiling, tiles_of
from support.detectors import KINDS, Rectangle, colour_detector, painted, write_detector_file

SCENE: list[Rectangle] = [("red", 20, 12, 60, 40), ("green", 80, 50, 120, 88), ("blue", 10, 60, 40, 90)]


def _detector(rule: ResizeRule, size: tuple[int, int] = (96, 128)) -> Detector:
    return colour_detector(
        Preprocess(image_size=size, resize=rule, resample=Resample(interpolation="nearest", antialias=False))
    )


def _as_scene(found: Detections) -> list[tuple[str, ...]]:
    rows = zip(found.names, found.boxes.round().astype(int).tolist(), strict=True)
    return sorted((name, *map(str, box)) for name, box in rows)


def _expected(rectangles: list[Rectangle]) -> list[tuple[str, ...]]:
    return sorted((name, *map(str, box)) for name, *box in rectangles)


def _one(found: Detections | list[Detections]) -> Detections:
    assert isinstance(found, Detections)
    return found


@pytest.mark.parametrize(
    "rule",
    [
        Keep(),
        Squash(size=(96, 128)),
        Border(size=(192, 192)),
        Capped(shorter=192, longest=300),
        Cover(size=(96, 96)),
    ],
    ids=lambda rule: rule.kind,
)
def test_boxes_are_in_pixels_of_the_image_for_each_resize_rule(rule: ResizeRule) -> None:
    size = (192, 192) if rule.kind == "border" else (96, 128)
    if rule.kind == "cover":
        # The sides are cut off, and with them what lies there.
        size, scene = (96, 96), [("red", 20, 12, 60, 40)]
        expected: list[Rectangle] = [("red", 20, 12, 60, 40)]
    else:
        scene = expected = SCENE
    found = _one(_detector(rule, size).predict(painted((128, 96), scene)))
    assert _as_scene(found) == _expected(expected)
    assert found.size == (96, 128) and (found.scores > 0.9).all()
    assert found.ids == tuple({"red": 7, "green": 3, "blue": 90}[name] for name in found.names)


def test_a_box_beyond_the_edge_is_cut_and_one_in_the_padding_is_none() -> None:
    preprocess = Preprocess(image_size=(100, 100), resize=Border(size=(100, 100)))
    scores = np.array([[0.9], [0.8]])
    values = np.concatenate([scores, [[0.5, 0.5, 1.2, 0.2], [0.5, 0.1, 0.2, 0.1]]], axis=1)
    found = found_in(values, preprocess, (50, 100), one_class_each=True)
    assert found.boxes.tolist() == [[0, 15, 100, 35]] and found.queries.tolist() == [0]


def test_boxes_lie_in_the_upright_image(tmp_path: Path) -> None:
    upright = painted((128, 96), SCENE)
    exif = Image.Exif()
    exif[0x0112] = 6  # stored turned to the left
    upright.rotate(90, expand=True).save(tmp_path / "turned.png", exif=exif)
    found = _one(_detector(Keep()).predict(tmp_path / "turned.png"))
    assert _as_scene(found) == _expected(SCENE) and found.size == (96, 128)


@pytest.mark.parametrize("kind", KINDS)
def test_an_answer_does_not_depend_on_the_other_images(kind: str, tmp_path: Path) -> None:
    detector = pw.load(write_detector_file(tmp_path / "d.safetensors", kind), device="cpu")
    assert isinstance(detector, Detector)
    rng = np.random.default_rng(0)
    images = [
        rng.integers(0, 255, (h, w, 3), dtype=np.uint8) for h, w in [(60, 90), (90, 60), (60, 90), (40, 80)]
    ]
    alone = [_one(detector.predict(image, conf=0)) for image in images]
    together = detector.predict(images, conf=0, batch_size=4)
    assert isinstance(together, list)
    for one, other in zip(alone, together, strict=True):
        assert len(one) == len(other) > 0
        assert np.abs(np.sort(one.scores) - np.sort(other.scores)).max() < 1e-4
        # Equal scores may change places.
        assert np.abs(one.boxes.mean(0) - other.boxes.mean(0)).max() < 1e-2
    assert np.abs(alone[0].boxes[:3] - alone[2].boxes[:3]).max() > 1e-3
    assert (np.diff(alone[0].scores) <= 0).all()


LARGE: list[Rectangle] = [
    ("red", 30, 30, 90, 70),
    ("red", 140, 20, 200, 60),  # on a seam
    ("red", 140, 70, 200, 100),  # a neighbour of it, which stays apart
    ("green", 20, 120, 330, 180),  # longer than a tile
    ("blue", 300, 20, 330, 50),  # in the overlap of two tiles
    ("blue", 130, 200, 260, 330),  # on a corner of four
]


@pytest.mark.parametrize("tile", [160, 200, 90])
def test_tiles_give_each_object_once_and_whole(tile: int) -> None:
    image, detector = painted((400, 360), LARGE), _detector(Keep())
    assert _as_scene(_one(detector.predict(image, tile=tile))) == _expected(LARGE)
    assert _as_scene(_one(detector.predict(image, tile=tile, overlap=0.4))) == _expected(LARGE)
    assert _as_scene(_one(detector.predict(image))) == _expected(LARGE)


def test_tiles_cover_an_image_evenly_and_a_small_image_is_one() -> None:
    assert tiles_of((100, 300), Tiling(size=400)) == [(0, 0, 300, 100)]
    tiles = tiles_of((100, 1000), Tiling(size=300, overlap=0.2))
    assert [tile[0] for tile in tiles] == [0, 233, 467, 700] and {tile[3] for tile in tiles} == {100}


def test_images_in_tiles_and_without_are_read_alike(tmp_path: Path) -> None:
    detector = pw.load_detector(write_detector_file(tmp_path / "d.safetensors"), device="cpu")
    deep = np.random.default_rng(1).uniform(0, 1000, (60, 90, 3)).astype(np.float32)
    np.save(tmp_path / "deep.npy", deep)
    (tmp_path / "broken.jpg").write_bytes(b"no image")
    sources = [tmp_path / "deep.npy", tmp_path / "broken.jpg", tmp_path / "deep.npy"]
    plain = detector.predict(sources, conf=0, value_range=(0, 1000))
    tiled = list(detector.predict_each(sources, conf=0, value_range=(0, 1000), tile=500))
    assert isinstance(plain, list) and [len(one) for one in plain] == [len(one) for one in tiled]
    np.testing.assert_allclose(plain[2].boxes, tiled[2].boxes, atol=1e-3)
    assert "not an image" in tiled[1].error and plain[1].error == tiled[1].error and tiled[1].size is None
    with pytest.raises(ImageError):
        detector.predict(tmp_path / "broken.jpg")
    with pytest.raises(ImageError):
        detector.predict(tmp_path / "missing.jpg")


def test_the_default_score_is_that_of_the_run(tmp_path: Path) -> None:
    path = tmp_path / "last.safetensors"
    detector = pw.load_detector(write_detector_file(path), device="cpu")
    assert detector.default_conf()[0] == 0.5 and "no object" in detector.default_conf()[1]
    scored = {"weights": str(path), "detection": {"best": {"score": 0.2345}}}
    (tmp_path / "evaluation.json").write_text(json.dumps(scored))
    assert best_score_of_run(path) == 0.23
    assert detector.default_conf() == (0.23, f"the best F1 on the evaluation images of {tmp_path}")
    moved = replace(detector, report=LoadReport(path=tmp_path / "best.safetensors", tensors=1, parameters=1))
    assert moved.default_conf()[0] == 0.5


@pytest.mark.parametrize(
    ("given", "telling"),
    [
        ({"conf": 1.5}, "conf is 1.5"),
        ({"tile": 0}, "tile is 0"),
        ({"tile": 100, "overlap": 0.95}, "overlap is 0.95"),
        ({"overlap": 0.2}, "not cut in tiles"),
        ({"batch_size": 0}, "batch_size is 0"),
    ],
)
def test_a_number_out_of_range_is_refused(given: dict[str, float], telling: str) -> None:
    with pytest.raises(SettingsError, match=telling) as caught:
        _detector(Keep()).predict(painted((20, 20), []), **given)  # type: ignore[call-overload]
    assert caught.value.fix and "--" not in str(caught.value)


def test_a_plot_and_a_text_of_an_answer() -> None:
    found = _one(_detector(Keep()).predict([painted((128, 96), SCENE)])[0])  # type: ignore[index]
    assert len(found.plot().axes[0].patches) == 3 and "red 0.9" in repr(found)
    assert found.above(1.1).to_dict() == {"file": "image", "width": 128, "height": 96, "objects": []}
    (red,) = [one for one in found.to_dict()["objects"] if one["class"] == "red"]
    assert {k: red[k] for k in ("id", "left", "top", "right", "bottom")} == {
        "id": 7, "left": 20, "top": 12, "right": 60, "bottom": 40,
    }  # fmt: skip
