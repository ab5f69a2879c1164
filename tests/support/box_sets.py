"""Small data sets with boxes, written as COCO JSON, Pascal VOC, YOLO or a table."""

import csv
import json
import shutil
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

Box = tuple[str, float, float, float, float]
FORMATS = ("coco", "voc", "yolo", "csv")
CLASSES = ("zebra", "ant", "bee")


@dataclass
class Picture:
    """size: (w, h). boxes: class, left, top, right, bottom in pixels."""

    name: str
    size: tuple[int, int]
    boxes: list[Box] = field(default_factory=list)


Splits = Mapping[str, Sequence[Picture]]


def random_set(seed: int, train: int = 6, val: int = 3) -> dict[str, list[Picture]]:
    """Every class in train and val, and an image without boxes in each."""
    rng = np.random.default_rng(seed)
    splits: dict[str, list[Picture]] = {}
    for split, count in (("train", train), ("val", val)):
        splits[split] = []
        for i in range(count):
            w, h = (int(v) for v in rng.integers(40, 90, 2))
            picture = Picture(f"{split}_{i:03d}", (w, h))
            for k in range(0 if i == 1 else int(rng.integers(3, 6))):
                x, y = rng.integers(0, w - 8), rng.integers(0, h - 8)
                right, bottom = rng.integers(x + 4, w + 1), rng.integers(y + 4, h + 1)
                picture.boxes.append((CLASSES[k % 3], float(x), float(y), float(right), float(bottom)))
            splits[split].append(picture)
    return splits


def write(root: Path, splits: Splits, form: str, *, ids: Mapping[str, int] | None = None) -> Path:
    """Write images and annotations; ids: of the classes in COCO. Returns the root."""
    for split, pictures in splits.items():
        for picture in pictures:
            place = root / ("images" if form == "yolo" else "") / split / f"{picture.name}.png"
            place.parent.mkdir(parents=True, exist_ok=True)
            save(place, picture.size)
    {"coco": write_coco, "voc": _write_voc, "yolo": _write_yolo, "csv": _write_csv}[form](
        root, splits, *([ids] if form == "coco" else [])
    )
    return root


def save(place: Path, size: tuple[int, int], orientation: int = 1) -> None:
    """Pixels that differ between files. orientation: in EXIF."""
    rng = np.random.default_rng(zlib.crc32(place.name.encode()))
    image = Image.fromarray(rng.integers(0, 255, (size[1], size[0], 3), dtype=np.uint8))
    exif = Image.Exif()
    if orientation != 1:
        exif[0x0112] = orientation
    image.save(place, exif=exif.tobytes())


def zipped(root: Path) -> Path:
    return Path(shutil.make_archive(str(root), "zip", root))


def coco_of(pictures: Sequence[Picture], ids: Mapping[str, int], first: int = 0) -> dict[str, Any]:
    """COCO content; annotation ids count from `first`, image ids are sparse and unsorted."""
    images, annotations = [], []
    for i, picture in enumerate(pictures):
        image_id = 1000 - 7 * i
        w, h = picture.size
        images.append({"id": image_id, "file_name": f"{picture.name}.png", "width": w, "height": h})
        for name, x, y, right, bottom in picture.boxes:
            annotations.append(
                {
                    "id": first + len(annotations),
                    "image_id": image_id,
                    "category_id": ids[name],
                    "bbox": [x, y, right - x, bottom - y],
                    "area": (right - x) * (bottom - y),
                    "iscrowd": 0,
                }
            )
    return {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": one, "name": name} for name, one in ids.items()],
    }


def write_coco(root: Path, splits: Splits, ids: Mapping[str, int] | None = None) -> None:
    ids = ids or {name: i + 1 for i, name in enumerate(CLASSES)}
    (root / "annotations").mkdir(parents=True, exist_ok=True)
    for split, pictures in splits.items():
        place = root / "annotations" / f"instances_{split}.json"
        place.write_text(json.dumps(coco_of(pictures, ids)))


def _write_voc(root: Path, splits: Splits) -> None:
    for split, pictures in splits.items():
        for picture in pictures:
            w, h = picture.size
            objects = "".join(
                f"<object><name>{name}</name><bndbox><xmin>{x}</xmin><ymin>{y}</ymin><xmax>{right}</xmax>"
                f"<ymax>{bottom}</ymax></bndbox></object>"
                for name, x, y, right, bottom in picture.boxes
            )
            (root / split / f"{picture.name}.xml").write_text(
                f"<annotation><filename>{picture.name}.png</filename><size><width>{w}</width><height>{h}</height>"
                f"</size>{objects}</annotation>"
            )


def _write_yolo(root: Path, splits: Splits) -> None:
    for split, pictures in splits.items():
        place = root / "labels" / split
        place.mkdir(parents=True)
        for picture in pictures:
            w, h = picture.size
            lines = [
                f"{CLASSES.index(name)} {(x + right) / 2 / w!r} {(y + bottom) / 2 / h!r} {(right - x) / w!r} "
                f"{(bottom - y) / h!r}"
                for name, x, y, right, bottom in picture.boxes
            ]
            if lines:
                (place / f"{picture.name}.txt").write_text("\n".join(lines))
    names = "\n".join(f"  {i}: {name}" for i, name in enumerate(CLASSES))
    paths = "\n".join(f"{split}: images/{split}" for split in splits)
    (root / "data.yaml").write_text(f"path: .\n{paths}\nnames:\n{names}\n")


def _write_csv(root: Path, splits: Splits) -> None:
    with open(root / "boxes.csv", "w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["filename", "split", "class", "xmin", "ymin", "xmax", "ymax"])
        for split, pictures in splits.items():
            for picture in pictures:
                for name, *corners in picture.boxes or [("", "", "", "", "")]:
                    table.writerow([f"{split}/{picture.name}.png", split, name, *corners])
