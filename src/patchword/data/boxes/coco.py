"""COCO JSON as annotations. Format: https://cocodataset.org/#format-data, "Object Detection"."""

import json
import math
from collections import Counter
from typing import Any

from patchword.data.box_targets import Id
from patchword.data.boxes.annotations import Annotations, WrittenBoxes, WrittenImage, size_of
from patchword.data.boxes.files import Files, folder_of
from patchword.data.boxes.forms import Form
from patchword.errors import DataError, near_text, plural

FORM = Form("xywh")
_FIX = "give lists of images, annotations and categories, as COCO has them, or a .jsonl table for classes"
# Of converted data sets; COCO itself has neither, and its API overwrites `ignore` by `iscrowd`.
_DIFFICULT = ("difficult", "ignore")
_LISTED = 3


def parse(files: Files, name: str, split: str) -> Annotations:
    """Raises: DataError if the file is not COCO JSON."""
    source = files.shown(name)
    content = _content(files.read(name), source)
    images, index = _images(content["images"], source, name)
    names, merged = _classes(content, source)
    boxes, errors = WrittenBoxes(), _Errors(source)
    # Taken along: where a width or height is missing there is nothing to clip, so that annotations of no image count.
    for number, found in enumerate(content["annotations"]):
        _add(boxes, found, number, index, names, errors)
    ids = Counter(one for one in boxes.ids if one is not None)
    twice = [one for one, count in ids.items() if count > 1]
    readings = [] if not merged else [f"{source}: {merged}"]
    if twice:
        readings.append(
            f"{source}: {plural(len(twice), 'annotation id')} in use several times, e.g. {twice[0]!r}"
        )
    if "categories" not in content:
        readings.append(f"{source} has no categories, so classes are called by their ids")
    return Annotations(
        split=split,
        source=source,
        images=images,
        boxes=boxes,
        form=FORM,
        names=names,
        has_ids=True,
        readings=tuple(readings),
        errors=errors.found(),
    )


def _content(data: bytes, source: str) -> dict[str, Any]:
    try:
        content = json.loads(data.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise DataError(f"{source} is not UTF-8 text", "save it as UTF-8") from error
    except json.JSONDecodeError as error:
        raise DataError(
            f"{source}, line {error.lineno}: not valid JSON ({error.msg})", "export it again"
        ) from error
    except RecursionError as error:
        raise DataError(f"{source}: nested too deeply", _FIX) from error
    if isinstance(content, list):
        what = "a list" + (
            " of predictions"
            if content and isinstance(content[0], dict) and "score" in content[0]
            else f" of {plural(len(content), 'entry', 'entries')}"
        )
        raise DataError(f"{source} is not COCO annotations, but {what}", _FIX)
    if not isinstance(content, dict):
        raise DataError(f"{source} is not COCO annotations, but a {type(content).__name__}", _FIX)
    for key in ("images", "annotations"):
        if not isinstance(content.get(key), list):
            have = ", ".join(map(repr, list(content)[:8])) or "nothing"
            raise DataError(f"{source} is not COCO annotations: no list {key!r}, but {have}", _FIX)
        wrong = next((i for i, entry in enumerate(content[key]) if not isinstance(entry, dict)), None)
        if wrong is not None:
            raise DataError(f"{source}: {key}[{wrong}] is not an object", _FIX)
    return content


def _images(
    entries: list[dict[str, Any]], source: str, name: str
) -> tuple[list[WrittenImage], dict[Id, int]]:
    images: list[WrittenImage] = []
    index: dict[Id, int] = {}
    for i, entry in enumerate(entries):
        one, file = _id(entry.get("id")), entry.get("file_name")
        if one is None or not isinstance(file, str) or not file:
            raise DataError(f"{source}: images[{i}] has no id or no file_name", "add both")
        if one in index:
            raise DataError(f"{source}: two images have the id {one!r}", "give each image an id of its own")
        index[one] = i
        images.append(
            WrittenImage(
                name=file.replace("\\", "/"),
                folder=folder_of(name),
                where=source,
                id=one,
                size=size_of(entry.get("height"), entry.get("width")),
            )
        )
    return images, index


def _classes(content: dict[str, Any], source: str) -> tuple[dict[Id, str], str]:
    """Category id → name. Of several categories with one name, those without boxes are left out.

    Raises: DataError if two categories of one name have boxes.
    """
    entries = content.get("categories")
    if not isinstance(entries, list):
        there = {one for a in content["annotations"] if (one := _id(a.get("category_id"))) is not None}
        return {one: str(one) for one in sorted(there, key=lambda one: (isinstance(one, str), one))}, ""
    names: dict[Id, str] = {}
    for i, entry in enumerate(entries):
        one = _id(entry.get("id")) if isinstance(entry, dict) else None
        if one is None:
            raise DataError(f"{source}: categories[{i}] has no id", "give each category an id and a name")
        if one in names:
            raise DataError(f"{source}: two categories have the id {one!r}", "give each an id of its own")
        names[one] = str(entry.get("name", one))
    used = {_id(a.get("category_id")) for a in content["annotations"]}
    dropped = []
    for name, count in Counter(names.values()).items():
        if count == 1:
            continue
        ids = [one for one, called in names.items() if called == name]
        with_boxes = [one for one in ids if one in used] or ids[:1]
        if len(with_boxes) > 1:
            raise DataError(
                f"{source}: the categories {with_boxes[0]!r} and {with_boxes[1]!r} are both called {name!r}",
                "rename one of them, or use one id for both",
            )
        dropped += [one for one in ids if one not in with_boxes]
    for one in dropped:
        del names[one]
    text = (
        f"a second category of the same name without boxes is left out (id {', '.join(map(repr, dropped))})"
    )
    return names, text if dropped else ""


class _Errors:
    """Annotations that cannot be used at all, by kind."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.images: list[str] = []
        self.classes: list[str] = []
        self.known: list[str] = []

    def found(self) -> tuple[tuple[str, str], ...]:
        problems = []
        for what, entries, fix in (
            (
                "an image that is not in the list of images",
                self.images,
                "add the images, or remove these annotations",
            ),
            (
                "a category that is not in the list of categories",
                self.classes,
                "add the categories, or correct the ids",
            ),
        ):
            if entries:
                shown = "; ".join(entries[:_LISTED]) + (" …" if len(entries) > _LISTED else "")
                belong = "annotation belongs" if len(entries) == 1 else "annotations belong"
                near = near_text(entries[0].split(": ")[-1], self.known) if entries is self.classes else ""
                problems.append((f"{self.source}: {len(entries)} {belong} to {what}: {shown}{near}", fix))
        return tuple(problems)


def _add(
    boxes: WrittenBoxes,
    found: dict[str, Any],
    number: int,
    index: dict[Id, int],
    names: dict[Id, str],
    errors: _Errors,
) -> None:
    one, image, label = (_id(found.get(key)) for key in ("id", "image_id", "category_id"))
    place = f"annotations[{number}]" if one is None else f"annotation {one!r}"
    if image is None or image not in index:
        errors.images.append(f"{place}: image {found.get('image_id')!r}")
        return
    if label is None or label not in names:
        errors.classes.append(f"{place}: category {found.get('category_id')!r}")
        return
    area = found.get("area")
    boxes.add(
        index[image],
        _box(found, f"{errors.source}: {place}"),
        label,
        place,
        crowd=bool(found.get("iscrowd", 0)),
        difficult=any(bool(found.get(key, 0)) for key in _DIFFICULT),
        area=float(area) if isinstance(area, int | float) and math.isfinite(area) else math.nan,
        id=one,
    )


def _id(value: Any) -> Id | None:
    """A whole number, also where a program has made it a float, or a text."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if isinstance(value, int | str) and not isinstance(value, bool) else None


def _box(found: dict[str, Any], place: str) -> tuple[float, float, float, float]:
    """The bbox; without one, the box around the polygons. Raises: DataError."""
    box = found.get("bbox")
    if box is None and isinstance(found.get("segmentation"), list) and found["segmentation"]:
        parts = [part for part in found["segmentation"] if isinstance(part, list)]
        points = [value for part in parts for value in part if isinstance(value, int | float)]
        xs, ys = points[0::2], points[1::2]
        if xs and len(xs) == len(ys) and len(points) == sum(map(len, parts)):
            return float(min(xs)), float(min(ys)), float(max(xs) - min(xs)), float(max(ys) - min(ys))
    if isinstance(box, list | tuple) and len(box) == 4:
        try:
            a, b, c, d = (float(value) for value in box)
        except (TypeError, ValueError):
            pass
        else:
            return a, b, c, d
    raise DataError(f"{place}: bbox is {str(box)[:60]}", "give four numbers: left, top, width, height")
