"""`patchword check` on boxes: what is there, what is wrong, and a picture; mistakes cost two lines."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import patchword as pw
from patchword.cli.main import run
from patchword.errors import SettingsError
from support.box_sets import CLASSES, FORMATS, Picture, coco_of, random_set, save, write, zipped

Output = pytest.CaptureFixture[str]
IDS = {name: i + 1 for i, name in enumerate(CLASSES)}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("boxes") / "insects", random_set(1, train=14, val=5), "coco")


def _check(output: Output, *args: str | Path) -> tuple[int, str]:
    code = run(["check", *map(str, args)])
    said = output.readouterr()
    return code, " ".join((said.out + said.err).split())


@pytest.mark.parametrize("form", FORMATS)
def test_the_screen_says_what_is_there(form: str, tmp_path: Path, capsys: Output) -> None:
    splits = random_set(2)
    root = zipped(write(tmp_path / "x", splits, form))
    code, said = _check(capsys, root)
    assert code == 0
    total = sum(len(p.boxes) for pictures in splits.values() for p in pictures)
    assert f"{total} boxes of 3 classes, 9 images" in said
    count = {n: sum(b[0] == "ant" for p in splits[n] for b in p.boxes) for n in ("train", "val")}
    assert f"ant {count['train']} {count['val']}" in said and "images 6 3" in said
    assert "2 images without boxes (kept as images without objects)" in said
    assert "object sizes: " in said and "boxes per image: median" in said


def test_json_has_boxes_ids_and_sizes(place: Path, capsys: Output) -> None:
    assert run(["check", str(place), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["task"] == "boxes" and found["classes"] == ["ant", "bee", "zebra"]
    train = found["boxes"]["train"]
    assert (
        sum(train["boxes_per_class"])
        == train["boxes"]
        == sum(train["sizes"][s] for s in ("small", "medium", "large"))
    )
    assert train["without_boxes"] == 1 and train["class_ids"] == [2, 3, 1]
    assert found["splits"]["train"]["images"] == 14


def test_the_picture_shows_sixteen_images_with_their_boxes(
    place: Path, tmp_path: Path, capsys: Output
) -> None:
    picture = tmp_path / "x.png"
    code, said = _check(capsys, place, "--draw", picture)
    assert code == 0 and f"16 annotated images: {picture}" in said
    with Image.open(picture) as image:
        pixels = np.asarray(image.convert("RGB"))
    assert pixels.shape[1] > 1600
    # The colours of all three classes: boxes, names and the list below.
    from patchword.reports.box_pictures import colour_of

    for label in range(3):
        colour = tuple(int(colour_of(label)[i : i + 2], 16) for i in (1, 3, 5))
        assert (pixels == colour).all(axis=2).sum() > 500
    report = pw.check(place, draw=tmp_path / "y.png")
    assert (tmp_path / "y.png").read_bytes() == picture.read_bytes() and report.dataset.task_kind == "boxes"


def test_boxes_are_drawn_where_they_are() -> None:
    from patchword.reports.box_pictures import Annotated, colour_of, draw_annotated

    image = Annotated(
        name="a",
        pixels=np.zeros((400, 400, 3), np.uint8),
        corners=np.array([[100.0, 200.0, 300.0, 350.0]]),
        labels=np.array([0]),
        dashed=np.array([False]),
        scores=np.array([0.5]),
    )
    page = np.asarray(draw_annotated([image], ["thing"], ["title"]))
    colour = tuple(int(colour_of(0)[i : i + 2], 16) for i in (1, 3, 5))
    black = (page == 0).all(axis=2)
    top, left = (int(np.flatnonzero(black.sum(axis=axis) > 200)[0]) for axis in (1, 0))
    found = (page[top : top + 400, left : left + 400] == colour).all(axis=2)
    rows, columns = np.flatnonzero(found.sum(axis=1) > 150), np.flatnonzero(found.sum(axis=0) > 100)
    assert rows[0] == 200 and rows[-1] == 349 and columns[0] == 100 and columns[-1] == 299


def test_training_views_are_drawn_with_their_boxes(place: Path, capsys: Output, tmp_path: Path) -> None:
    out = tmp_path / "views.png"
    assert run(["check", str(place), "--augment", str(out)]) == 0
    assert "recipe detect" in capsys.readouterr().err
    with Image.open(out) as page:
        assert page.width > 400 and len(page.convert("RGB").getcolors(2**24) or ()) > 100


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("--draw", "v.jpg"), ("--draw is 'v.jpg'", ".png")),
        (("--box-format", "yxyx"), ("--box-format is 'yxyx'", "xyxy")),
        (("--annotations", "annotations/instance_train.json"), ("did you mean", "instances_train.json")),
        (
            ("--annotations", "annotations/instances_train.json", "--annotations", "x.json"),
            ("no annotations called 'x.json'", "correct --annotations"),
        ),
        (("--class-level", "2"), ("has boxes", "--class-level", "remove it")),
        (("--image-column", "x"), ("has boxes as COCO JSON", "--image-column", "remove it")),
    ],
)
def test_options_that_do_not_apply_are_refused_in_two_lines(
    args: tuple[str, ...],
    words: tuple[str, ...],
    place: Path,
    capsys: Output,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(["check", str(place), *args]) == 2
    said = capsys.readouterr()
    assert said.out == "" and len(said.err.strip().splitlines()) == 2
    assert all(word in said.err for word in words)
    assert not list(tmp_path.glob("*.png"))


@pytest.mark.parametrize("option", [("--draw", "x.png"), ("--box-format", "xyxy"), ("--annotations", "a*")])
def test_options_of_boxes_are_refused_without_boxes(option: tuple[str, ...], capsys: Output) -> None:
    code, said = _check(capsys, "digits", *option)
    assert code == 2 and option[0] in said and "fix: remove it" in said


def _lists(root: Path, change: Any) -> None:
    for name in ("train", "val"):
        place = root / "annotations" / f"instances_{name}.json"
        content = json.loads(place.read_text())
        change(content, name)
        place.write_text(json.dumps(content))


def _nan(content: dict[str, Any], name: str) -> None:
    content["annotations"][0]["bbox"][0] = float("nan")


def _orphans(content: dict[str, Any], name: str) -> None:
    content["images"] = content["images"][1:]


def _missing(content: dict[str, Any], name: str) -> None:
    if name == "val":
        content["images"][0]["file_name"] = "gone.png"


def _new_class(content: dict[str, Any], name: str) -> None:
    if name == "val":
        content["categories"][0]["name"] = "wasp"


def _no_boxes(content: dict[str, Any], name: str) -> None:
    content["annotations"] = []


def _no_boxes_to_train_on(content: dict[str, Any], name: str) -> None:
    if name == "train":
        content["annotations"] = []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_nan, ("instances_train.json", "annotation 0", "nan")),
        (_orphans, ("instances_train.json", "an image that is not in the list", "annotation 0: image 1000")),
        (_missing, ("instances_val.json", "gone.png", "1 of 3 images is not in")),
        (_new_class, ("instances_val.json", "val has a class that train lacks: 'wasp'")),
        (_no_boxes, ("without a single box",)),
        (_no_boxes_to_train_on, ("0 boxes in the 6 training images",)),
    ],
)
def test_data_that_cannot_be_trained_on_exit_with_2(
    change: Any, words: tuple[str, ...], tmp_path: Path, capsys: Output
) -> None:
    root = write(tmp_path / "x", random_set(3), "coco")
    _lists(root, change)
    code, said = _check(capsys, root)
    assert code == 2 and "error: " in said and "fix: " in said and "Traceback" not in said
    assert all(word in said for word in words)


def test_likely_mistakes_of_annotators_are_found(tmp_path: Path, capsys: Output) -> None:
    rng = np.random.default_rng(0)
    pictures = []
    for i in range(40):
        # Two classes of their own size, each in every image.
        x, y = (int(v) for v in rng.integers(0, 20, 2))
        small = int(rng.integers(9, 12))
        pictures.append(
            Picture(f"p{i:02d}", (120, 100), [("ant", x, y, x + 50, y + 50), ("bee", x + 60, y + 60, x + 60 + small, y + 60 + small)])
        )  # fmt: skip
    pictures[3].boxes[1] = ("bee", 60, 40, 110, 90)
    pictures[4].boxes.pop()
    x, y, right, bottom = pictures[5].boxes[0][1:]
    pictures[5].boxes.append(("ant", x + 1, y + 1, right + 1, bottom + 1))
    x, y, right, bottom = pictures[6].boxes[0][1:]
    pictures[6].boxes.append(("zebra", x, y, right, bottom))
    pictures[7].boxes.append(("ant", 10, 90, 40, 91))
    for picture in pictures:
        save(tmp_path / f"{picture.name}.png", picture.size)
    (tmp_path / "boxes.json").write_text(json.dumps(coco_of(pictures, IDS)))
    code, said = _check(capsys, tmp_path / "boxes.json")
    assert code == 0
    assert (
        "1 box has a size far from all others of the class: p03.png bee (60, 40, 110, 90), the size of ant"
        in said
    )
    assert "1 image is without 'bee', which 97.5 % of the images have: p04.png" in said
    assert (
        "1 pair of boxes of one class overlaps so much that an object is probably boxed twice: p05.png ant"
        in said
    )
    assert "1 place has boxes of two classes: p06.png ant and zebra" in said
    assert "1 box is narrower than 2 pixels: p07.png" in said
    assert "1 class has fewer than 10 training boxes: 'zebra' 1" in said


def test_a_table_of_boxes_is_not_read_as_classes(tmp_path: Path, capsys: Output) -> None:
    for i in range(8):
        save(tmp_path / f"{i}.png", (40, 30))
    rows = [f"{i}.png,{i % 3},{i},{i + 8},{i + 9},cat" for i in range(8)]
    (tmp_path / "boxes.csv").write_text("\n".join(["image,x,y,w,h,species", *rows]))
    code, said = _check(capsys, tmp_path)
    assert code == 0 and "8 boxes of 1 class" in said
    assert (
        "image from `image`, class from `species`, boxes from `x`, `y`, `w`, `h`: [left, top, width, height]"
        in said
    )
    code, refused = _check(capsys, tmp_path, "--group-column", "species")
    assert code == 2 and "has boxes, and --group-column applies to images with classes only" in refused


def test_the_python_call_refuses_as_the_command_does(place: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="draws boxes"):
        pw.check("digits", draw=tmp_path / "a.png")
    assert pw.check(place, annotations="annotations/*", box_format="xywh").dataset.task_kind == "boxes"
    files = [f"annotations/instances_{split}.json" for split in ("train", "val")]
    assert set(pw.check(place, annotations=files).dataset.splits) == {"train", "val"}
