"""Files of boxes with a mistake in them: an error that names file and place, and never a traceback."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from patchword.data.open import open_data
from patchword.data.request import OpenRequest
from patchword.errors import DataError, PatchwordError
from support.box_sets import CLASSES, coco_of, random_set, write

IDS = {name: i + 1 for i, name in enumerate(CLASSES)}
READ = OpenRequest(boxes=True)
ODD = st.sampled_from([None, "x", "", -1, 0, 1e400, float("nan"), [], {}, [1, "a"], [[1, 2]], True, "1", 2.5])


def _paths(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [at] if at else []
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, one in items:
        found += _paths(one, (*at, key))
    return found


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("fuzz") / "x", random_set(1, train=2, val=2), "coco")


CONTENT = coco_of(random_set(1, train=2, val=2)["train"], IDS)


@given(at=st.sampled_from(_paths(CONTENT)), value=ODD, drop=st.booleans())
@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_value_of_a_coco_file_may_be_wrong(
    small: Path, at: tuple[Any, ...], value: Any, drop: bool
) -> None:
    content = json.loads(json.dumps(CONTENT))
    place = content
    for key in at[:-1]:
        place = place[key]
    if drop:
        del place[at[-1]]
    else:
        place[at[-1]] = value
    file = small / "annotations" / "instances_train.json"
    file.write_text(json.dumps(content))
    try:
        open_data(small, READ)
    except PatchwordError as error:
        assert error.fix
    finally:
        file.write_text(json.dumps(CONTENT))


@pytest.mark.parametrize(
    ("form", "file", "old", "new", "words"),
    [
        ("voc", "train/train_000.xml", "</annotation>", "", ("train_000.xml", "not valid XML")),
        ("voc", "train/train_000.xml", "<ymax>", "<y>", ("not valid XML",)),
        ("voc", "train/train_000.xml", "<xmin>", "<xmin>a", ("train_000.xml: object 0", "xmin is 'a")),
        (
            "voc",
            "train/train_000.xml",
            "<xmin>",
            "<xmin>nan</xmin><xmin>",
            ("train_000.xml, object 0", "nan"),
        ),
        ("voc", "train/train_000.xml", "<name>zebra</name>", "", ("train_000.xml: object 0 has no name",)),
        ("yolo", "labels/train/train_000.txt", "0 ", "a ", ("train_000.txt, line 1", "not a class index")),
        ("yolo", "labels/train/train_000.txt", "0 ", "0.5 ", ("train_000.txt, line 1", "not a class index")),
        ("yolo", "labels/train/train_000.txt", "0 ", "0 nan ", ("train_000.txt, line 1", "nan")),
        ("yolo", "labels/train/train_000.txt", "0 ", "0\n0 ", ("train_000.txt, line 1", "0 numbers")),
        ("yolo", "data.yaml", "images/val", "images/nowhere", ("data.yaml: val is", "there are no images")),
        ("yolo", "data.yaml", "names:", "names: [a\n", ("data.yaml, line", "not valid YAML")),
        ("yolo", "data.yaml", "names:", "names: 5 #", ("data.yaml",)),
        ("csv", "boxes.csv", ",zebra,", ",zebra,x", ("boxes.csv, line 2", "the box is 'x")),
        ("csv", "boxes.csv", ",zebra,", ",,", ("boxes.csv, line 2", "without a class")),
        ("csv", "boxes.csv", ",zebra,", ",zebra,nan#", ("boxes.csv, line 2",)),
        ("csv", "boxes.csv", "filename", "what", ("which column holds the image", "what")),
    ],
)
def test_a_mistake_is_named_with_file_and_place(
    form: str, file: str, old: str, new: str, words: tuple[str, ...], tmp_path: Path
) -> None:
    root = write(tmp_path / "x", random_set(2), form)
    text = (root / file).read_text()
    assert old in text
    (root / file).write_text(text.replace(old, new, 1))
    with pytest.raises(DataError) as raised:
        open_data(root, READ)
    assert all(word in raised.value.message for word in words) and raised.value.fix


def test_a_class_number_without_a_name_is_an_error(tmp_path: Path) -> None:
    root = write(tmp_path / "x", random_set(2), "yolo")
    label = root / "labels/train/train_000.txt"
    label.write_text(label.read_text().replace("0 ", "3 ", 1))
    errors = [problem for problem in open_data(root, READ).problems if problem.severity == "error"]
    assert len(errors) == 1 and "train_000.txt, line 1: class 3" in errors[0].message
    assert "0 to 2" in errors[0].message


def test_a_list_of_images_without_annotations_is_refused(tmp_path: Path) -> None:
    root = write(tmp_path / "x", random_set(2), "voc")
    (root / "ImageSets" / "Main").mkdir(parents=True)
    (root / "ImageSets" / "Main" / "train.txt").write_text("train_000\ngone\n")
    with pytest.raises(DataError, match="'gone', which has no XML file") as raised:
        open_data(root, READ)
    assert "train.txt" in raised.value.message


def test_a_renamed_image_is_found_by_the_name_of_its_xml_and_said(tmp_path: Path) -> None:
    root = write(tmp_path / "x", random_set(2), "voc")
    xml = root / "train/train_000.xml"
    xml.write_text(xml.read_text().replace("train_000.png", "IMG_1234.png"))
    data = open_data(root, READ)
    assert data.splits["train"].names[0] == "train/train_000.png"
    assert any("another image name inside" in line and "IMG_1234.png" in line for line in data.readings)


@pytest.mark.parametrize("form", ["coco", "yolo"])
def test_broken_images_are_left_out_and_listed_unless_all_are(form: str, tmp_path: Path) -> None:
    root = write(tmp_path / "x", random_set(2), form)
    images = sorted(root.rglob("*.png"))
    images[0].write_bytes(b"no image")
    data = open_data(root, READ)
    assert len(data.splits["train"]) == 5
    assert any(
        "1 image of train cannot be read" in p.message and images[0].name in p.message for p in data.problems
    )
    for image in images:
        image.write_bytes(b"no image")
    with pytest.raises(DataError, match="cannot be read"):
        open_data(root, READ)
