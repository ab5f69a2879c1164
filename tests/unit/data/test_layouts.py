"""Folders and zips as data sets really lie on disks: read at the right level, or refused with what was seen."""

import io
import zipfile
from pathlib import Path

import pytest

from patchword.data.dataset import Dataset
from patchword.data.open import open_data
from patchword.data.request import OpenRequest
from patchword.errors import DataError
from support.scans import scans_of


@pytest.fixture(scope="module")
def jpeg() -> bytes:
    stream = io.BytesIO()
    scans_of(3, 1)[0].save(stream, "JPEG")
    return stream.getvalue()


def _place(top: Path, files: dict[str, int | bytes | str], jpeg: bytes) -> Path:
    """folder → how many images; path with an ending → its content."""
    for name, content in files.items():
        place = top / name
        if isinstance(content, int):
            place.mkdir(parents=True, exist_ok=True)
            for i in range(content):
                (place / f"{i:03}.jpg").write_bytes(jpeg)
        else:
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(content.encode() if isinstance(content, str) else content)
    return top


def _zipped(top: Path) -> Path:
    """Folders too, so that empty ones are there."""
    with zipfile.ZipFile(top.with_suffix(".zip"), "w") as archive:
        for file in sorted(top.rglob("*")):
            archive.write(file, file.relative_to(top))
    return top.with_suffix(".zip")


def _counts(data: Dataset) -> dict[str, dict[str, int]]:
    return {
        name: dict(zip(data.classes, split.counts(len(data.classes)), strict=True))
        for name, split in data.splits.items()
    }


def _open(path: Path, level: int | None = None) -> Dataset:
    return open_data(path, OpenRequest(split=False, class_level=level))


CATS = {"cat": 4, "dog": 3}
TWO = {"train": {"cat": 4, "dog": 3}, "test": {"cat": 2, "dog": 1}}
VAL = {"train": {"cat": 4, "dog": 3}, "val": {"cat": 2, "dog": 1}}


def _split(train: str, other: str) -> dict[str, int | bytes | str]:
    return {f"{train}/cat": 4, f"{train}/dog": 3, f"{other}/cat": 2, f"{other}/dog": 1}


READ: dict[str, tuple[dict[str, int | bytes | str], dict[str, dict[str, int]]]] = {
    # Split folders inside split folders.
    "cat-and-dog": (_split("training_set/training_set", "test_set/test_set"), TWO),
    "intel": (_split("seg_train/seg_train", "seg_test/seg_test") | {"seg_pred/seg_pred": 5}, TWO),
    "thrice": (_split("train/train/train", "valid/valid"), VAL),
    "wrapped at any depth": (_split("a/b/c/train", "a/b/c/val"), VAL),
    "wrapped in each split": (_split("train/images", "val/images"), VAL),
    # Names of splits.
    "words": (_split("imgs_train", "imgs_val"), VAL),
    "years": (_split("train2017", "val2017"), VAL),
    "glued": (_split("TrainSet", "ValidSet"), VAL),
    "of a project": (_split("flowers-train", "flowers-dev"), VAL),
    "test1": (_split("train", "test1"), TWO),
    "an exact name beside a likely one": (_split("train", "val") | {"train_masks": 7}, VAL),
    "splits below the classes": (
        {"cat/train": 4, "dog/train": 3, "cat/test": 2, "dog/test": 1},
        TWO,
    ),
    "splits and a folder below the classes": (
        {"cat/train/images": 4, "dog/train/images": 3, "cat/test/images": 2, "dog/test/images": 1},
        TWO,
    ),
    "trainval": (_split("trainval", "test"), TWO),
    # Folders without labels.
    "kaggle's test": (_split("train", "validation") | {"test": 6}, VAL),
    "kaggle's test, no val": ({"train/cat": 4, "train/dog": 3, "test": 6}, {"all": CATS}),
    "keras's test": ({"train/cat": 4, "train/dog": 3, "test/test": 6}, {"all": CATS}),
    "unknown": ({"train/cat": 4, "train/dog": 3, "test/unknown": 6}, {"all": CATS}),
    "tiny-imagenet's val": (
        {"train/cat/images": 4, "train/dog/images": 3, "val/images": 2, "test/images": 2},
        {"all": CATS},
    ),
    "two unlabelled": (_split("train", "val") | {"test1": 6, "test2": 6}, VAL),
    "a picture beside the splits": (_split("train", "val") | {"banner.png": b"\x89PNG"}, VAL),
    # Folders of images beside folders without any.
    "food-101": (
        {"food/images/cat": 4, "food/images/dog": 3, "food/meta/classes.txt": "cat\ndog\n"},
        {"all": CATS},
    ),
    "stanford dogs": (
        {"Images/cat": 4, "Images/dog": 3, "Annotation/cat/000": "<annotation>", "lists/a.mat": b"\0"},
        {"all": CATS},
    ),
    # Classes that are called as a split.
    "valid and invalid": ({"valid": 4, "invalid": 3}, {"all": {"valid": 4, "invalid": 3}}),
    "dev and prod": ({"dev": 4, "prod": 3}, {"all": {"dev": 4, "prod": 3}}),
    "dev, test and prod": ({"dev": 4, "test": 2, "prod": 3}, {"all": {"dev": 4, "test": 2, "prod": 3}}),
    "bus and train": ({"bus": 4, "train": 3}, {"all": {"bus": 4, "train": 3}}),
    "bus, train and tram": ({"bus": 4, "train": 3, "tram": 1}, {"all": {"bus": 4, "train": 3, "tram": 1}}),
    "test and control": ({"test": 4, "control": 3}, {"all": {"test": 4, "control": 3}}),
    "a class of stations": (
        {"train_station": 4, "bus_station": 3},
        {"all": {"train_station": 4, "bus_station": 3}},
    ),
    "classes with numbers": ({"class1": 4, "class2": 3}, {"all": {"class1": 4, "class2": 3}}),
    # Folders below the class folders.
    "people": ({"cat/ann": 2, "cat/bob": 2, "dog/cleo": 3}, {"all": CATS}),
    "one folder in each class": ({"cat/images": 4, "dog/images": 3}, {"all": CATS}),
    "images and folders in each class": (
        {"cat": 2, "cat/a": 1, "cat/b": 1, "dog": 1, "dog/a": 1, "dog/b": 1},
        {"all": CATS},
    ),
    # What systems leave.
    "synology": (
        {"cat": 4, "dog": 3, "@eaDir/cat": 1, "cat/@eaDir/000.jpg": 1, "dog/@eaDir/000.jpg": 1},
        {"all": CATS},
    ),
    "qnap": ({"cat": 4, "dog": 3, "cat/.@__thumb": 4, "dog/@__thumb": 3, "@Recycle": 2}, {"all": CATS}),
    "macOS": (
        {"cat": 4, "dog": 3, "__MACOSX/cat": 4, "cat/._000.jpg": b"\0\5\x16\7", ".DS_Store": b"\0"},
        {"all": CATS},
    ),
    "windows": (
        {"cat": 4, "dog": 3, "cat/Thumbs.db": b"\xd0", "desktop.ini": "", "$RECYCLE.BIN/x": 2},
        {"all": CATS},
    ),
    "bins": ({"cat": 4, "dog": 3, "#recycle/cat": 2, "lost+found": 1, ".Trash-1000": 3}, {"all": CATS}),
    "notebooks": (
        {"cat": 4, "dog": 3, ".ipynb_checkpoints": 2, "cat/.ipynb_checkpoints": 2, ".git": 1},
        {"all": CATS},
    ),
}


@pytest.mark.parametrize("name", READ)
def test_the_classes_and_splits_are_those_of_the_people_who_made_them(
    name: str, tmp_path: Path, jpeg: bytes
) -> None:
    files, expected = READ[name]
    top = _place(tmp_path / "data", files, jpeg)
    for path in (top, _zipped(top)):
        data = _open(path)
        assert _counts(data) == {split: dict(sorted(counts.items())) for split, counts in expected.items()}
        assert not [p for p in data.problems if p.severity == "error"]


CSV = "image,label\n" + "".join(f"{i:03},{'ab'[i % 2]}\n" for i in range(8))
YOLO = {f"labels/train/{i:03}.txt": "0 0.5 0.5 0.2 0.25\n1 0.1 0.1 0.2 0.25\n" for i in range(4)}
VOC = {f"Annotations/{i:03}.xml": "<annotation><object/></annotation>" for i in range(4)}
COCO = '{"info": {}, "images": [], "annotations": [{"bbox": [1, 2, 3, 4]}]}'
REFUSED: dict[str, tuple[dict[str, int | bytes | str], tuple[str, ...], tuple[str, ...]]] = {
    # Containers of classes.
    "plant village": (
        {f"{c}/{k}": 3 for c in ("color", "grayscale") for k in ("healthy", "rust", "scab")},
        ("color, grayscale", "healthy, rust, scab"),
        ("/color", "--class-level 2", "--class-level 1"),
    ),
    "sizes": ({f"{c}/{k}": 3 for c in ("64", "128") for k in "ab"}, ("64, 128", "recur"), ("/64",)),
    "sizes of splits": (
        {f"{c}/{s}/{k}": 3 for c in ("64", "128") for s in ("train", "test") for k in "ab"},
        ("64, 128", "test, train"),
        ("/64",),
    ),
    "office-31": (
        {f"{c}/images/{k}": 2 for c in ("amazon", "dslr") for k in ("bike", "mug")},
        ("amazon, dslr", "bike, mug"),
        ("--class-level 3",),
    ),
    "folds": ({f"fold{i}/{k}": 2 for i in range(1, 6) for k in "ab"}, ("fold1, fold2",), ("/fold1",)),
    "one class less": (
        {"x/a": 3, "x/b": 3, "x/c": 3, "y/a": 3, "y/b": 3},
        ("x, y", "recur"),
        ("/x",),
    ),
    "containers in a split": (
        {f"{s}/{c}/{k}": 3 for s in ("train", "val") for c in ("color", "grey") for k in "ab"},
        ("/train: color, grey",),
        ("/train/color",),
    ),
    "misspelt splits": (
        _split("trian", "vall"),
        ("trian, vall look like splits", "cat, dog"),
        ("rename trian to train and vall to val", "--class-level 1"),
    ),
    "a misspelt train": (_split("trian", "val"), ("val split", "trian"), ("rename trian to train",)),
    "a class called as a split": (
        _split("train", "bus"),
        ("train split", "bus next to it"),
        ("rename bus to val",),
    ),
    "parts and a table": (
        {"ham_part_1": 4, "ham_part_2": 4, "meta.csv": CSV},
        ("ham_part_1, ham_part_2 look like parts", "meta.csv"),
        ("/meta.csv", "--class-level 1"),
    ),
    "parts alone": ({"images_001": 4, "images_002": 4}, ("parts of one data set",), ("--class-level 1",)),
    "pictures and masks": (
        {"images": 4, "masks": 4},
        ("images, masks look like kinds of files",),
        ("--class-level 1",),
    ),
    "a split that nobody calls so": (
        _split("train", "holdout"),
        ("train split", "holdout next to it"),
        ("rename holdout to val",),
    ),
    "two splits of one name": (
        _split("val", "validation") | {"train/cat": 1, "train/dog": 1},
        ("val and validation both look like the val split",),
        ("move one",),
    ),
    # No class folders.
    "kaggle": (
        {"train": 6, "test": 2, "labels.csv": CSV, "sample_submission.csv": "image,label\n000,0\n001,0\n"},
        ("/train holds 6 images directly", "labels.csv may hold their labels"),
        ("/labels.csv",),
    ),
    "right paths": (
        {"images": 8, "labels.csv": CSV.replace("\n0", "\nimages/0").replace(",a", ".jpg,a")},
        ("/images holds 8 images directly", "labels.csv"),
        ("/labels.csv",),
    ),
    "one folder of any name": (
        {"photos of birds": 8, "birds.csv": CSV},
        ("birds.csv may hold their labels",),
        ("/birds.csv",),
    ),
    "a train without classes": ({"train": 5}, ("/train holds 5 images directly",), ("/train/CLASS/000.jpg",)),
    "val alone has classes": (
        {"train": 5, "val/cat": 2, "val/dog": 2},
        ("/train holds 5 images directly",),
        ("/train/CLASS",),
    ),
    "train and unlabelled": ({"train": 5, "unlabeled": 9}, ("/train holds 5 images",), ("CLASS",)),
    "cyclegan": ({"trainA": 5, "trainB": 4, "testA": 2, "testB": 2}, ("/trainA holds 5 images",), ("CLASS",)),
    "yolo": ({"images/train": 4, "images/val": 1, **YOLO}, ("detection", "YOLO", "labels/train/000.txt"), ()),
    "roboflow": (
        {"train/images": 4, "valid/images": 1, **{f"train/{k}": v for k, v in YOLO.items()}},
        ("detection", "YOLO"),
        (),
    ),
    "voc": ({"JPEGImages": 4, **VOC}, ("detection", "VOC", "Annotations/000.xml"), ()),
    "voc with masks": ({"JPEGImages": 4, "SegmentationClass": 4, **VOC}, ("detection", "VOC"), ()),
    "coco": (
        {"train2017": 4, "val2017": 2, "annotations/instances.json": COCO},
        ("detection", "COCO", "annotations/instances.json"),
        (),
    ),
    # No images.
    "dicom": (
        {f"{c}/{i}.dcm": b"\0" * 128 + b"DICM" for c in "ab" for i in range(5)},
        ("holds no images", "10 .dcm files (DICOM)"),
        ("PNG",),
    ),
    "raw": (
        {"a/1.nef": b"MM\0*", "b/2.CR2": b"II*\0"},
        ("1 .nef file (camera raw)", "1 .cr2 file"),
        ("JPEG",),
    ),
    "archives": (
        {"train.zip": b"PK\3\4", "test.zip": b"PK\3\4"},
        ("2 archives, e.g. test.zip",),
        ("unpack",),
    ),
    "one archive": ({"all.tar.gz": b"\x1f\x8b"}, ("1 archive, e.g. all.tar.gz",), ("unpack all.tar.gz",)),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_can_be_read_in_two_ways_is_refused_with_what_was_seen(
    name: str, tmp_path: Path, jpeg: bytes
) -> None:
    files, seen, fixes = REFUSED[name]
    top = _place(tmp_path / "data", files, jpeg)
    for path in (top, _zipped(top)):
        with pytest.raises(DataError) as raised:
            _open(path)
        for word in seen:
            assert word in raised.value.message
        for word in fixes:
            assert word in raised.value.fix
        assert str(path) in raised.value.message
