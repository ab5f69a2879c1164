"""YOLO text files, one for each image, as annotations.

Format: https://docs.ultralytics.com/datasets/detect/: a line is a class index from 0, then centre x, centre y, width
and height as shares of the image. An image without a file, or with an empty one, has no objects.
"""

from collections.abc import Mapping, Sequence

from patchword.data.box_targets import Id
from patchword.data.boxes.annotations import Annotations, WrittenBoxes, WrittenImage
from patchword.data.boxes.files import Files, folder_of
from patchword.data.boxes.forms import Form
from patchword.errors import DataError, plural

FORM = Form("cxcywh", relative=True)
Numbers = tuple[float, float, float, float]


def parse(
    files: Files,
    members: Mapping[str, Sequence[tuple[str, str | None]]],
    names: Mapping[int, str] | None,
    *,
    poses: bool = False,
) -> list[Annotations]:
    """members: (image, its label file) of each split. names: of the classes; None calls them by their index.

    poses: the numbers after the box are key points, not a polygon. Raises: DataError that names file and line.
    """
    return [_split(files, split, pairs, names, poses) for split, pairs in members.items()]


def _split(
    files: Files,
    split: str,
    pairs: Sequence[tuple[str, str | None]],
    given: Mapping[int, str] | None,
    poses: bool,
) -> Annotations:
    images: list[WrittenImage] = []
    boxes = WrittenBoxes()
    names: dict[Id, str] = {label: name for label, name in (given or {}).items()}
    polygons = extra = 0
    unnamed: dict[int, str] = {}
    for i, (image, file) in enumerate(pairs):
        shown = files.shown(file) if file is not None else "no label file"
        images.append(WrittenImage(name=image, folder="", where=shown, is_path=True))
        for number, line in enumerate(_lines(files, file), 1):
            values = line.split()
            if not values:
                continue
            place = f"line {number}"
            label, numbers = _parsed(values, f"{shown}, {place}")
            if len(numbers) > 5 and not poses:
                box, polygons = _around(numbers, f"{shown}, {place}"), polygons + 1
            else:
                extra += len(numbers) == 5
                box = (numbers[0], numbers[1], numbers[2], numbers[3])
            if given is None:
                names[label] = str(label)
            elif label not in given:
                unnamed.setdefault(label, f"{shown}, {place}")
                continue
            boxes.add(i, box, label, place)
    without = sum(file is None for _, file in pairs)
    readings = [
        (
            without,
            f"{split}: {plural(without, 'image')} without a label file, taken as images without objects",
        ),
        (polygons, f"{split}: {plural(polygons, 'polygon')}, read as the boxes around them"),
        (extra, f"{split}: a sixth number in {plural(extra, 'line')} (a confidence?) is not used"),
    ]
    errors = []
    if unnamed and given is not None:
        label, where = next(iter(unnamed.items()))
        errors.append(
            (
                f"{where}: class {label}, but the names go from {min(given)} to {max(given)}",
                "add its name, or correct it",
            )
        )
    return Annotations(
        split=split,
        source=files.shown(folder_of(next((file for _, file in pairs if file is not None), ""))),
        images=images,
        boxes=boxes,
        form=FORM,
        names=dict(sorted(names.items(), key=lambda item: int(item[0]))),
        has_ids=True,
        readings=tuple(text for count, text in readings if count),
        errors=tuple(errors),
    )


def _lines(files: Files, file: str | None) -> list[str]:
    if file is None:
        return []
    try:
        return files.read(file).decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise DataError(f"{files.shown(file)} is not text", "give a YOLO label file") from error


def _parsed(values: list[str], place: str) -> tuple[int, list[float]]:
    try:
        label, *numbers = (float(value) for value in values)
        if label != int(label) or label < 0:
            raise ValueError
    except (ValueError, OverflowError):
        raise DataError(
            f"{place}: {' '.join(values)[:60]!r} is not a class index and numbers", "give numbers only"
        ) from None
    if len(numbers) < 4:
        raise DataError(
            f"{place}: {plural(len(numbers), 'number')} after the class",
            "give centre x, centre y, width, height",
        )
    return int(label), numbers


def _around(points: list[float], place: str) -> Numbers:
    """The box around a polygon x1 y1 x2 y2 …"""
    if len(points) % 2:
        raise DataError(
            f"{place}: {len(points)} numbers after the class are neither a box nor a polygon",
            "export it again",
        )
    xs, ys = points[0::2], points[1::2]
    left, right, top, bottom = min(xs), max(xs), min(ys), max(ys)
    return (left + right) / 2, (top + bottom) / 2, right - left, bottom - top


def is_label(start: str) -> bool:
    """Whether the first line is a class and at least four numbers."""
    values = start.lstrip().splitlines()[0].split() if start.strip() else []
    try:
        return len(values) >= 5 and min(float(value) for value in values[:1]) >= 0
    except ValueError:
        return False
