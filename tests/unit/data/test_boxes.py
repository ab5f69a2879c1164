"""Boxes: the same set in four formats gives the same targets, and every fault is handled, counted and named."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from patchword.data.box_targets import Boxes, joined_boxes
from patchword.data.boxes.coco_write import ImagePredictions, annotations_of, predictions_of, write_json
from patchword.data.boxes.findings import box_facts, box_lines
from patchword.data.boxes.headers import Header
from patchword.data.dataset import Dataset
from patchword.data.open import open_data
from patchword.data.request import OpenRequest
from patchword.errors import DataError, SettingsError
from patchword.images.decode import decode
from patchword.metrics.detection import detections, evaluate, truths
from support.box_sets import CLASSES, FORMATS, Picture, coco_of, random_set, save, write, write_coco, zipped

READ = OpenRequest(boxes=True)
IDS = {name: i + 1 for i, name in enumerate(CLASSES)}


def _boxes(data: Dataset, split: str) -> Boxes:
    targets = data.splits[split].targets
    assert isinstance(targets, Boxes)
    return targets


def _open(path: Path, **options: Any) -> Dataset:
    return open_data(path, OpenRequest(boxes=True, **options))


def _coco(place: Path, content: dict[str, Any]) -> Path:
    """content next to its images."""
    place.mkdir(parents=True, exist_ok=True)
    for image in content["images"]:
        if not (place / image["file_name"]).exists():
            save(place / image["file_name"], (image["width"], image["height"]))
    (place / "boxes.json").write_text(json.dumps(content))
    return place / "boxes.json"


def _one(numbers: list[float], size: tuple[int, int] = (100, 80), **more: Any) -> dict[str, Any]:
    """COCO with two images, the first with one box of these numbers and a good one."""
    content = coco_of(
        [Picture("a", size, [("ant", 10, 10, 30, 40)]), Picture("b", size, [("bee", 5, 5, 50, 60)])], IDS
    )
    content["annotations"].append({"id": 77, "image_id": 1000, "category_id": 2, "bbox": numbers, **more})
    return content


def _said(data: Dataset, *words: str) -> bool:
    lines = [*data.readings, *(problem.message for problem in data.problems), *data.passed_by]
    return any(all(word in line for word in words) for line in lines)


@pytest.mark.parametrize("seed", [0, 1])
def test_four_formats_give_the_same_targets(seed: int, tmp_path: Path) -> None:
    splits = random_set(seed)
    found = {form: write(tmp_path / form, splits, form) for form in FORMATS}
    for split in ("train", "val"):
        # Annotated order within an image, images by name.
        expected = np.array([box[1:] for p in splits[split] for box in p.boxes])
        for path in [*found.values(), *(zipped(path) for path in found.values() if split == "val")]:
            data = _open(path)
            boxes = _boxes(data, split)
            assert data.classes == ("ant", "bee", "zebra")
            np.testing.assert_allclose(boxes.corners, expected, atol=1e-9)
            names = [data.classes[label] for label in boxes.labels]
            assert names == [box[0] for p in splits[split] for box in p.boxes]
            assert boxes.per_image().tolist() == [len(p.boxes) for p in splits[split]]
            assert boxes.sizes.tolist() == [[p.size[1], p.size[0]] for p in splits[split]]
            assert [name.split("/")[-1] for name in data.splits[split].names] == [
                f"{p.name}.png" for p in splits[split]
            ]
            assert boxes.per_image()[1] == 0
            assert not data.problems


@pytest.mark.parametrize("ids", [(1, 2, 3), (0, 1, 2), (2905442, 7, 90)])
def test_class_ids_change_no_label_and_travel_along(ids: tuple[int, ...], tmp_path: Path) -> None:
    by_name = dict(zip(CLASSES, ids, strict=True))
    data = _open(write(tmp_path / "x", random_set(3), "coco", ids=by_name))
    assert data.classes == ("ant", "bee", "zebra")
    boxes = _boxes(data, "train")
    assert boxes.class_ids == tuple(by_name[name] for name in data.classes)
    assert 0 in boxes.ids and set(boxes.image_ids) == {1000 - 7 * i for i in range(6)}
    part = boxes.subset([4, 0])
    assert part.image_ids == (972, 1000) and part.class_ids == boxes.class_ids
    np.testing.assert_array_equal(part.image(0).corners, boxes.image(4).corners)
    assert part.image(1).ids == boxes.image(0).ids
    assert joined_boxes([part, part]).per_image().tolist() == [*part.per_image(), *part.per_image()]


@given(numbers=st.lists(st.floats(-200, 300, allow_nan=False), min_size=4, max_size=4))
@settings(max_examples=30)
def test_every_kept_box_lies_inside_its_image(numbers: list[float]) -> None:
    from patchword.data.boxes.clean import Faults, clean

    faults = Faults()
    one = np.array([numbers])
    kind = np.zeros(1, np.int64)
    inside, kept = clean(one, kind, kind.astype(bool), kind, np.array([[80, 100]]), ["box"], faults)
    if kept[0]:
        assert (inside[0] >= 0).all() and (inside[0] <= [100, 80, 100, 80]).all()
        assert (inside[0, 2:] > inside[0, :2]).all()
    else:
        assert sum(map(len, faults.found.values())) == 1


@pytest.mark.parametrize(
    ("box", "words", "kept"),
    [
        ([20, 20, 0, 0], ("no area", "annotation 77"), 2),
        ([120, 20, 10, 10], ("outside", "annotation 77"), 2),
        ([10, 10, 20, 30], ("repeats another", "annotation 77"), 2),
        ([90, 20, 20, 10], ("over the edge", "annotation 77"), 3),
        ([60, 20, -10, 10], ("swapped", "annotation 77"), 3),
    ],
)
def test_boxes_that_are_none_are_left_out_and_named(
    box: list[float], words: tuple[str, ...], kept: int, tmp_path: Path
) -> None:
    data = _open(_coco(tmp_path, _one(box)), split=False)
    assert _said(data, *words)
    boxes = _boxes(data, "all")
    assert len(boxes.labels) == kept
    assert (boxes.corners <= 100).all() and (boxes.corners >= 0).all()


def test_crowds_and_areas_of_masks_are_kept(tmp_path: Path) -> None:
    boxes = _boxes(_open(_coco(tmp_path, _one([20, 20, 10, 10], iscrowd=1, area=33.5)), split=False), "all")
    assert boxes.crowd.tolist() == [False, True, False]
    assert boxes.areas[1] == 33.5 and boxes.areas[0] == 600


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("frame", ["displayed", "stored"])
def test_boxes_follow_the_picture_in_all_eight_orientations(
    orientation: int, frame: str, tmp_path: Path
) -> None:
    # A white object on black, drawn in the stored pixels.
    from PIL import Image

    stored = np.zeros((40, 60, 3), np.uint8)
    stored[5:12, 20:50] = 255
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(stored).save(tmp_path / "a.png", exif=exif.tobytes())
    upright = decode(tmp_path / "a.png")
    rows, columns = np.nonzero(upright[..., 0])
    true = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    drawn = true if frame == "displayed" else [20, 5, 50, 12]
    height, width = upright.shape[:2] if frame == "displayed" else (40, 60)
    content = {
        "images": [{"id": 1, "file_name": "a.png", "width": width, "height": height}],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 1, "bbox": [int(drawn[0]), int(drawn[1]), int(drawn[2] - drawn[0]), int(drawn[3] - drawn[1])]}
        ],
        "categories": [{"id": 1, "name": "thing"}],
    }  # fmt: skip
    # A second image says which frame was annotated, for those whose size does not change.
    side = Header((60, 40), 6)
    save(tmp_path / "b.png", side.stored[::-1], orientation=6)
    size = side.size if frame == "displayed" else side.stored
    content["images"].append({"id": 2, "file_name": "b.png", "width": size[1], "height": size[0]})
    (tmp_path / "a.json").write_text(json.dumps(content))
    data = _open(tmp_path / "a.json", split=False)
    assert _boxes(data, "all").image(0).corners.tolist() == [true]
    assert _said(data, "EXIF orientation", frame)


def test_boxes_of_resized_images_are_scaled_and_other_shapes_refused(tmp_path: Path) -> None:
    content = _one([20, 20, 10, 10])
    _coco(tmp_path, content)
    save(tmp_path / "a.png", (50, 40))
    assert _boxes(_open(tmp_path / "boxes.json", split=False), "all").corners[0].tolist() == [5, 5, 15, 20]
    save(tmp_path / "a.png", (90, 40))
    data = _open(tmp_path / "boxes.json", split=False)
    assert _said(data, "another shape", "a.png", "90x40", "100x80")
    assert [p.severity for p in data.problems] == ["error"]


def _many(order: str, relative: bool = False, twice: bool = False) -> dict[str, Any]:
    """The random set with all boxes written in another form than COCO's."""
    content = coco_of(random_set(5)["train"], IDS)
    sizes = {image["id"]: (image["width"], image["height"]) for image in content["images"]}
    for annotation in content["annotations"]:
        x, y, w, h = annotation["bbox"]
        box = {"xywh": [x, y, w, h], "xyxy": [x, y, x + w, y + h], "cxcywh": [x + w / 2, y + h / 2, w, h]}[
            order
        ]
        scale = np.array([*sizes[annotation["image_id"]]] * 2) ** (relative + twice)
        annotation["bbox"] = (np.array(box) / scale).tolist()
    return content


@pytest.mark.parametrize(("order", "relative"), [("xyxy", False), ("xywh", True)])
def test_another_convention_is_refused_with_the_option_that_reads_it(
    order: str, relative: bool, tmp_path: Path
) -> None:
    path = _coco(tmp_path, _many(order, relative))
    name = order + ("-relative" if relative else "")
    with pytest.raises(DataError, match=r"boxes\.json") as raised:
        _open(path)
    assert f"--box-format {name}" in raised.value.fix
    right = _boxes(_open(_coco(tmp_path / "right", _many("xywh")), split=False), "all")
    found = _boxes(_open(path, split=False, box_format=name), "all")
    np.testing.assert_allclose(found.corners, right.corners, atol=1e-9)
    with pytest.raises(SettingsError, match="--box-format"):
        _open(path, box_format="wh")


def test_yolo_in_pixels_or_divided_twice_is_refused(tmp_path: Path) -> None:
    root = write(tmp_path / "y", random_set(6), "yolo")
    for scale, word in ((64.0, "--box-format cxcywh"), (1 / 90.0, "divided once")):
        for label in root.glob("labels/*/*.txt"):
            lines = [line.split() for line in label.read_text().splitlines()]
            label.write_text(
                "\n".join(f"{c} {' '.join(repr(float(v) * scale) for v in rest)}" for c, *rest in lines)
            )
        with pytest.raises(DataError) as raised:
            _open(root)
        assert word in raised.value.fix
        for label in root.glob("labels/*/*.txt"):
            lines = [line.split() for line in label.read_text().splitlines()]
            label.write_text(
                "\n".join(f"{c} {' '.join(repr(float(v) / scale) for v in rest)}" for c, *rest in lines)
            )


def test_yolo_polygons_become_boxes_and_names_may_lie_in_a_file(tmp_path: Path) -> None:
    root = write(tmp_path / "y", random_set(7), "yolo")
    label = root / "labels/train/train_000.txt"
    label.write_text("0 0.1 0.2 0.5 0.2 0.5 0.6 0.3 0.7")
    data = _open(root)
    width, height = random_set(7)["train"][0].size
    expected = [0.1 * width, 0.2 * height, 0.5 * width, 0.7 * height]
    np.testing.assert_allclose(_boxes(data, "train").image(0).corners, [expected])
    assert _said(data, "1 polygon") and _said(data, "1 image without a label file")
    (root / "data.yaml").unlink()
    assert set(_open(root).classes) == {"0", "1", "2"}
    (root / "classes.txt").write_text("\n".join(CLASSES))
    assert set(_open(root).classes) == set(CLASSES)


def test_held_out_images_have_every_class_and_augmented_copies_stay_together(tmp_path: Path) -> None:
    content = coco_of(random_set(8, train=30)["train"], IDS)
    for i, image in enumerate(content["images"]):
        image["file_name"] = f"scene{i // 3}_jpg.rf.{i:032x}.png"
    data = _open(_coco(tmp_path, content))
    assert set(data.splits) == {"train", "val"} and data.split_seed == 0
    assert min(data.splits["val"].counts(3)) > 0
    scenes = [{name.split(".rf")[0] for name in split.names} for split in data.splits.values()]
    assert scenes[0].isdisjoint(scenes[1])


def test_several_sets_are_chosen_by_pattern_or_refused(tmp_path: Path) -> None:
    root = write(tmp_path / "c", random_set(9), "coco")
    for split in ("train", "val"):
        place = root / "annotations" / f"instances_{split}.json"
        (root / "annotations" / f"few10_{split}.json").write_text(place.read_text())
    data = _open(root)
    assert _said(data, "not read", "few10_train.json")
    assert _said(
        _open(root, annotations="annotations/few10_*"), "boxes from COCO JSON: annotations/few10_train.json"
    )
    with pytest.raises(DataError, match="no annotations called"):
        _open(root, annotations="annotations/few_*")
    for split in ("train", "val"):
        (root / "annotations" / f"instances_{split}.json").rename(root / "annotations" / f"all_{split}.json")
    with pytest.raises(DataError, match="several sets") as raised:
        _open(root)
    assert "--annotations" in raised.value.fix


def test_a_file_for_each_split_is_named_by_a_pattern_of_its_own(tmp_path: Path) -> None:
    root = write(tmp_path / "c", random_set(9), "coco")
    whole = _open(root)
    places = "annotations/people_train.json", "annotations/checked_val.json"
    for place, split in zip(places, ("train", "val"), strict=True):
        (root / "annotations" / f"instances_{split}.json").rename(root / place)
        shutil.copy(root / place, root / "annotations" / f"captions_{split}.json")
    data = _open(root, annotations=places)
    assert data.readings[0] == f"boxes from COCO JSON: {', '.join(places)}"
    for name, split in whole.splits.items():
        assert split.names == data.splits[name].names
        assert all(split.targets.key(i) == data.splits[name].targets.key(i) for i in range(len(split)))
    (root / "annotations" / "more.json").write_text((root / places[0]).read_text())
    shutil.copytree(write(tmp_path / "y", random_set(9), "yolo") / "labels", root / "labels")
    for second, said in (
        ("annotations/people_tra*", "are both for the split train"),
        ("annotations/more.json", "has no split in its name"),
        ("annotations/people_dev.json", "no annotations called 'annotations/people_dev.json'"),
        ("labels", "names no COCO JSON"),
    ):
        first = "annotations/captions_train.json" if "tra" in second else places[0]
        with pytest.raises(DataError) as raised:
            _open(root, annotations=(first, second))
        assert said in raised.value.message and raised.value.fix, second
    with pytest.raises(DataError, match="--annotations chooses nothing"):
        _open(root / places[0], annotations="people*")


def test_difficult_boxes_are_the_same_in_every_format_and_stay_in_training(tmp_path: Path) -> None:
    """VOC's flag, a column of a table, and keys of converted COCO files."""
    splits = random_set(6)
    roots = {form: write(tmp_path / form, splits, form) for form in ("coco", "voc", "csv")}
    for split in splits:
        place = roots["coco"] / "annotations" / f"instances_{split}.json"
        content = json.loads(place.read_text())
        for one in content["annotations"]:
            one["ignore"] = int(one["category_id"] == 2)
        place.write_text(json.dumps(content))
    for xml in roots["voc"].rglob("*.xml"):
        hard = f"<name>{CLASSES[1]}</name><difficult>1</difficult>"
        xml.write_text(xml.read_text().replace(f"<name>{CLASSES[1]}</name>", hard))
    table = roots["csv"] / "boxes.csv"
    lines = table.read_text().splitlines()
    rows = [f"{line},{int(line.split(',')[2] == CLASSES[1])}" for line in lines[1:]]
    table.write_text("\n".join([f"{lines[0]},difficult", *rows]))
    for form, root in roots.items():
        data = _open(root)
        for split in data.splits.values():
            assert isinstance(split.targets, Boxes)
            hard = split.targets.labels == data.classes.index(CLASSES[1])
            assert hard.any() and (split.targets.difficult == hard).all(), form
            one = split.targets.image(int(split.targets.owners()[hard][0]))
            assert (one.unscored == one.difficult).all() and one.difficult.any()
            written = annotations_of(split, data.classes)["annotations"]
            assert sum(entry.get("ignore", 0) for entry in written) == hard.sum()
        facts = box_facts(data)["boxes"]
        count = sum(facts[split]["difficult"] for split in data.splits)
        assert f"{count} boxes marked difficult: learned, but ignored in scores" in box_lines(data)


def _change(content: dict[str, Any], what: str) -> dict[str, Any] | list[Any]:
    """One fault of a file."""
    if what == "predictions":
        return [{"image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4], "score": 0.5}]
    if what == "no categories key":
        del content["annotations"]
    elif what == "orphan":
        content["annotations"][0]["image_id"] = 4711
    elif what == "category":
        content["annotations"][0]["category_id"] = 4711
    elif what == "nan":
        content["annotations"][0]["bbox"][2] = float("nan")
    elif what == "three numbers":
        content["annotations"][0]["bbox"].pop()
    elif what == "no images":
        content["images"], content["annotations"] = [], []
    elif what == "no boxes":
        content["annotations"] = []
    elif what == "same name":
        content["categories"][0]["name"] = content["categories"][1]["name"]
    return content


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("predictions", ("not COCO annotations", "predictions")),
        ("no categories key", ("no list 'annotations'",)),
        ("orphan", ("image 4711", "annotation 0")),
        ("category", ("category 4711", "annotation 0")),
        ("nan", ("annotation 0", "nan")),
        ("three numbers", ("annotation 0", "bbox")),
        ("no images", ("0 images",)),
        ("no boxes", ("without a single box",)),
        ("same name", ("both called",)),
    ],
)
def test_unusable_files_are_refused_with_file_and_place(
    what: str, words: tuple[str, ...], tmp_path: Path
) -> None:
    path = _coco(tmp_path, coco_of(random_set(10)["train"], IDS))
    path.write_text(json.dumps(_change(json.loads(path.read_text()), what)))
    try:
        problems = [(p.message, p.fix) for p in _open(path).problems if p.severity == "error"]
    except DataError as error:
        problems = [(error.message, error.fix)]
    assert len(problems) == 1
    message, fix = problems[0]
    assert all(word in message for word in words) and "boxes.json" in message and fix


def test_missing_images_and_classes_that_train_lacks_are_errors(tmp_path: Path) -> None:
    splits = random_set(11)
    root = write(tmp_path / "c", splits, "coco")
    (root / "train" / "train_002.png").unlink()
    assert [p.severity for p in _open(root).problems] == ["error"]
    assert _said(_open(root), "1 of 6 images is not in", "train_002.png", "instances_train.json")
    save(root / "train" / "train_002.png", splits["train"][2].size)
    splits["val"][0].boxes.append(("wasp", 1, 1, 20, 20))
    write_coco(root, {"val": splits["val"]}, IDS | {"wasp": 9})
    assert _said(_open(root), "instances_val.json", "val has a class that train lacks: 'wasp'")
    data = _open(root, ignore_unknown_classes=True)
    assert "wasp" not in data.classes and data.passed_by["boxes of classes that train lacks"] == 1
    assert not data.problems


def test_images_are_matched_by_the_end_of_their_path(tmp_path: Path) -> None:
    splits = random_set(12)
    root = write(tmp_path / "c", splits, "coco")
    place = root / "annotations" / "instances_val.json"
    content = json.loads(place.read_text())
    for image in content["images"]:
        image["file_name"] = f"C:\\data\\val\\{image['file_name']}"
    place.write_text(json.dumps(content))
    # The same name in another split is another image.
    save(root / "train" / "val_000.png", (50, 50))
    data = _open(root)
    assert data.splits["val"].names[0] == "val/val_000.png"
    assert data.passed_by == {"images without annotations": 1}
    (root / "more").mkdir()
    content["images"][0]["file_name"] = "x.png"
    place.write_text(json.dumps(content))
    for folder in ("more", "train"):
        save(root / folder / "x.png", splits["val"][0].size)
    with pytest.raises(DataError, match=r"may be more/x\.png or train/x\.png"):
        _open(root)


def test_val_from_another_path_is_matched_by_name(tmp_path: Path) -> None:
    splits = random_set(13)
    train = _coco(tmp_path / "t", coco_of(splits["train"], IDS))
    other = {"bee": 5, "zebra": 4, "ant": 9}
    val = _coco(tmp_path / "v", coco_of(splits["val"], other))
    data = _open(train, val=str(val))
    boxes = _boxes(data, "val")
    assert boxes.class_ids == (9, 5, 4)
    assert [data.classes[label] for label in boxes.labels] == [b[0] for p in splits["val"] for b in p.boxes]


def test_without_boxes_asked_for_detection_data_are_refused_as_before(tmp_path: Path) -> None:
    root = write(tmp_path / "c", random_set(14), "coco")
    with pytest.raises(DataError, match="detection data set"):
        open_data(root)


@pytest.mark.parametrize("form", FORMATS)
def test_what_is_written_as_coco_reads_back_as_the_same_targets(form: str, tmp_path: Path) -> None:
    data = _open(write(tmp_path / "x", random_set(15), form))
    for name, split in data.splits.items():
        place = tmp_path / "x" / f"written_{name}.json"
        with open(place, "w") as file:
            write_json(annotations_of(split, data.classes), file)
        whole = _open(place, split=False)
        boxes, before = _boxes(whole, "all"), _boxes(data, name)
        np.testing.assert_allclose(boxes.corners, before.corners, atol=1e-9)
        assert boxes.image_ids == before.image_ids and boxes.class_ids == before.class_ids
        assert boxes.labels.tolist() == before.labels.tolist() and whole.classes == data.classes
        assert min(boxes.ids) == 1 and len(set(boxes.ids)) == len(boxes.ids)


def test_predictions_carry_the_ids_of_the_file(tmp_path: Path) -> None:
    by_name = {"zebra": 90, "ant": 0, "bee": 7}
    boxes = _boxes(_open(write(tmp_path / "x", random_set(16), "coco", ids=by_name)), "val")
    found = [
        ImagePredictions(corners=one.corners, labels=one.labels, scores=np.linspace(1, 0, len(one)))
        for one in boxes.rows(range(len(boxes)))
    ]
    rows = predictions_of(found, boxes.image_ids, boxes.class_ids)
    truth = json.loads((tmp_path / "x/annotations/instances_val.json").read_text())["annotations"]
    keys = ("image_id", "category_id", "bbox")
    assert sorted(str([row[key] for key in keys]) for row in rows) == sorted(
        str([t[key] for key in keys]) for t in truth
    )
    # Nothing is dropped for its score.
    assert min(row["score"] for row in rows) == 0.0


def test_ground_truth_fed_back_scores_exactly_one(tmp_path: Path) -> None:
    data = _open(write(tmp_path / "x", random_set(17), "coco"))
    boxes = _boxes(data, "train")
    true = truths(boxes.corners, boxes.labels, boxes.owners(), areas=boxes.areas, crowd=boxes.crowd)
    found = detections(boxes.corners, boxes.labels, np.ones(len(boxes.labels)), boxes.owners())
    assert evaluate(true, found, images=len(boxes), names=data.classes).ap == 1.0
