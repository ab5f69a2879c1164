"""Folders as the usual tools export them: each gives the same boxes, from its folder and from its zip."""

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from patchword.data.box_targets import Boxes
from patchword.data.open import open_data
from patchword.data.request import OpenRequest
from support.box_sets import CLASSES, Picture, coco_of, random_set, save, write, zipped

IDS = {name: i + 1 for i, name in enumerate(CLASSES)}
SPLITS = random_set(20)
Pictures = list[Picture]


def _images(folder: Path, pictures: Pictures) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for picture in pictures:
        save(folder / f"{picture.name}.png", picture.size)


def _yolo_lines(picture: Picture) -> str:
    w, h = picture.size
    return "\n".join(
        f"{CLASSES.index(name)} {(x + r) / 2 / w!r} {(y + b) / 2 / h!r} {(r - x) / w!r} {(b - y) / h!r}"
        for name, x, y, r, b in picture.boxes
    )


def _roboflow_coco(root: Path) -> None:
    for split, folder in (("train", "train"), ("val", "valid")):
        _images(root / folder, SPLITS[split])
        content = coco_of(SPLITS[split], IDS)
        # Roboflow adds a category for the set itself, with id 0 and sometimes the name of a class.
        content["categories"].insert(0, {"id": 0, "name": "ant", "supercategory": "none"})
        (root / folder / "_annotations.coco.json").write_text(json.dumps(content))


def _roboflow_yolo(root: Path) -> None:
    for split, folder in (("train", "train"), ("val", "valid")):
        _images(root / folder / "images", SPLITS[split])
        (root / folder / "labels").mkdir()
        for picture in SPLITS[split]:
            (root / folder / "labels" / f"{picture.name}.txt").write_text(_yolo_lines(picture))
    (root / "data.yaml").write_text(
        f"train: ../train/images\nval: ../valid/images\ntest: ../test/images\nnc: 3\nnames: {list(CLASSES)}\n"
    )


def _another_machine(root: Path) -> None:
    write(root, SPLITS, "yolo")
    text = (root / "data.yaml").read_text().replace("path: .", "path: /home/someone/insects")
    (root / "data.yaml").write_text(text)


def _without_yaml(root: Path) -> None:
    write(root, SPLITS, "yolo")
    (root / "data.yaml").unlink()
    (root / "classes.txt").write_text("\n".join(CLASSES))


def _lists(root: Path) -> None:
    _images(root / "photos", [*SPLITS["train"], *SPLITS["val"]])
    (root / "yolo" / "labels").mkdir(parents=True)
    for split in ("train", "val"):
        for picture in SPLITS[split]:
            (root / "yolo" / "labels" / f"{picture.name}.txt").write_text(_yolo_lines(picture))
        names = "\n".join(f"../photos/{picture.name}.png" for picture in SPLITS[split])
        (root / "yolo" / f"{split}.txt").write_text(names)
    (root / "yolo" / "data.yaml").write_text(
        f"train: train.txt\nval: val.txt\nnames: {json.dumps(dict(enumerate(CLASSES)))}"
    )


def _coco_2017(root: Path) -> None:
    write(root, SPLITS, "coco")
    for split in ("train", "val"):
        (root / split).rename(root / f"{split}2017")
        place = root / "annotations" / f"instances_{split}.json"
        content = json.loads(place.read_text())
        place.rename(root / "annotations" / f"instances_{split}2017.json")
        content["annotations"] = [{"id": 1, "image_id": 1000, "caption": "a bee"}]
        (root / "annotations" / f"captions_{split}2017.json").write_text(json.dumps(content))


def _voc_2012(root: Path) -> None:
    write(root, SPLITS, "voc")
    top = root / "VOCdevkit" / "VOC2012"
    (top / "ImageSets" / "Main").mkdir(parents=True)
    for folder in ("JPEGImages", "Annotations"):
        (top / folder).mkdir()
    for split in ("train", "val"):
        for file in (root / split).iterdir():
            file.rename(top / ("Annotations" if file.suffix == ".xml" else "JPEGImages") / file.name)
        (root / split).rmdir()
        names = [picture.name for picture in SPLITS[split]]
        (top / "ImageSets" / "Main" / f"{split}.txt").write_text("\n".join(names))
        (top / "ImageSets" / "Main" / f"bee_{split}.txt").write_text(
            "\n".join(f"{name} -1" for name in names)
        )
    (top / "ImageSets" / "Main" / "trainval.txt").write_text("")


def _tensorflow_tables(root: Path) -> None:
    for split, folder in (("train", "train"), ("val", "valid")):
        _images(root / folder, SPLITS[split])
        with open(root / folder / "_annotations.csv", "w", newline="") as file:
            table = csv.writer(file)
            table.writerow(["filename", "width", "height", "class", "xmin", "ymin", "xmax", "ymax"])
            for picture in SPLITS[split]:
                for name, *corners in picture.boxes or [("", "", "", "", "")]:
                    table.writerow([f"{picture.name}.png", *picture.size, name, *corners])


def _open_images(root: Path) -> None:
    """Shares of the sides, names without an ending, a column for groups."""
    for split in ("train", "val"):
        _images(root / "images" / split, SPLITS[split])
        with open(root / f"{split}.csv", "w", newline="") as file:
            table = csv.writer(file)
            table.writerow(["ImageID", "LabelName", "XMin", "XMax", "YMin", "YMax", "IsGroupOf"])
            for picture in SPLITS[split]:
                w, h = picture.size
                for name, x, y, r, b in picture.boxes:
                    table.writerow([picture.name, name, x / w, r / w, y / h, b / h, 0])
                if not picture.boxes:
                    table.writerow([picture.name, "", "", "", "", "", ""])


LAYOUTS: dict[str, Callable[[Path], None]] = {
    "roboflow coco": _roboflow_coco,
    "roboflow yolo": _roboflow_yolo,
    "yolo of another machine": _another_machine,
    "yolo without a data.yaml": _without_yaml,
    "yolo with lists": _lists,
    "coco 2017": _coco_2017,
    "voc 2012": _voc_2012,
    "tensorflow tables": _tensorflow_tables,
    "open images": _open_images,
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_the_usual_exports_are_read_as_they_are(name: str, tmp_path: Path) -> None:
    root = tmp_path / "data"
    root.mkdir()
    LAYOUTS[name](root)
    for path in (root, zipped(root)):
        data = open_data(path, OpenRequest(boxes=True))
        assert data.classes == ("ant", "bee", "zebra") and set(data.splits) == {"train", "val"}
        assert not [problem for problem in data.problems if problem.severity == "error"]
        for split, pictures in SPLITS.items():
            targets = data.splits[split].targets
            assert isinstance(targets, Boxes)
            expected = [box[1:] for picture in pictures for box in picture.boxes]
            np.testing.assert_allclose(targets.corners, expected, atol=1e-9)
            assert [data.classes[i] for i in targets.labels] == [b[0] for p in pictures for b in p.boxes]
            assert len(targets) == len(pictures)


def test_class_folders_with_stray_annotations_stay_class_folders(tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        _images(tmp_path / name, SPLITS["train"])
    (tmp_path / "annotations.json").write_text(json.dumps(coco_of(SPLITS["train"], IDS)))
    assert open_data(tmp_path, OpenRequest(boxes=True)).task_kind == "single"


def test_annotations_next_to_or_beside_their_images(tmp_path: Path) -> None:
    root = write(tmp_path / "c", SPLITS, "coco")
    above = open_data(root / "annotations" / "instances_val.json", OpenRequest(boxes=True, split=False))
    shutil.copy(root / "annotations" / "instances_val.json", root / "val" / "boxes.json")
    same = open_data(root / "val" / "boxes.json", OpenRequest(boxes=True, split=False))
    assert len(above.splits["all"]) == len(same.splits["all"]) == 3
    assert above.splits["all"].targets.key(0) == same.splits["all"].targets.key(0)
