"""A table with a row for each box as annotations: CSV, TSV or JSON lines."""

import math
import re
from collections.abc import Callable, Sequence
from typing import Any

from patchword.data.box_targets import Id
from patchword.data.boxes.annotations import Annotations, WrittenBoxes, WrittenImage, size_of
from patchword.data.boxes.files import folder_of
from patchword.data.boxes.forms import Form
from patchword.data.sources.table_columns import Columns, plain_name, split_word
from patchword.errors import DataError, near_text

# Usual names by what is left of them in small letters (`plain_name`). The first set that is complete is taken.
_NUMBERS: tuple[tuple[Form, tuple[str, str, str, str]], ...] = (
    (Form("xyxy"), ("xmin", "ymin", "xmax", "ymax")),
    (Form("xyxy"), ("x1", "y1", "x2", "y2")),
    (Form("xyxy"), ("x0", "y0", "x1", "y1")),
    (Form("xyxy"), ("left", "top", "right", "bottom")),
    (Form("xyxy"), ("xtopleft", "ytopleft", "xbottomright", "ybottomright")),
    (Form("xywh"), ("bboxx", "bboxy", "bboxwidth", "bboxheight")),
    (Form("xywh"), ("left", "top", "width", "height")),
    (Form("xywh"), ("x", "y", "w", "h")),
    (Form("xywh"), ("x", "y", "width", "height")),
    (Form("cxcywh"), ("cx", "cy", "w", "h")),
    (Form("cxcywh"), ("xcenter", "ycenter", "width", "height")),
)
_BOX = ("bbox", "box")
_IMAGES = (
    "image",
    "filename",
    "file",
    "imagepath",
    "path",
    "imageid",
    "img",
    "imagename",
    "filepath",
    "imagefile",
)
_LABELS = ("class", "label", "name", "labelname", "category", "classname", "species", "object")
_SPLITS = ("split", "subset", "set", "partition")
_CROWDS = ("iscrowd", "isgroupof", "crowd")
_DIFFICULT = ("difficult", "isdifficult", "ignore")
_SIZES = (("height", "width"), ("imageheight", "imagewidth"))


def has_boxes(columns: Columns) -> bool:
    """Whether a table has four columns of a box, or one of all four."""
    return _numbers(columns) is not None or bool(_named(columns, _BOX))


def parse(
    columns: Columns,
    name: str,
    source: str,
    split: str,
    *,
    image_column: str | None = None,
    label_column: str | None = None,
    split_column: str | None = None,
) -> list[Annotations]:
    """One split for each value of the split column; without one, `split` alone. Rows without numbers are images without boxes.

    Raises: DataError that names the file and the line.
    """
    image = _column(columns, image_column, _IMAGES, "image", "--image-column", source)
    label = _column(columns, label_column, _LABELS, "label", "--label-column", source)
    by = split_column or _named(columns, _SPLITS)
    if by is not None and by not in columns.values:
        raise DataError(
            f"{source} has no column {by!r}{near_text(by, columns.names)}", "correct --split-column"
        )
    form, numbers = _read_numbers(columns, source)
    values = [split] * columns.num_rows if by is None else [split_word(v) for v in columns.values[by]]
    rows: dict[str, list[int]] = {}
    for row, value in enumerate(values):
        rows.setdefault(value or "all", []).append(row)
    used = {image, label, by, *numbers}
    sizes = next(
        (
            (one, two)
            for h, w in _SIZES
            if (one := _named(columns, (h,))) and (two := _named(columns, (w,))) and not {one, two} & used
        ),
        None,
    )
    reading = f"{source}: image from `{image}`, class from `{label}`, boxes from `{'`, `'.join(numbers)}`: {form.text}"
    take = _Rows(columns, name, source, image, label, form, numbers, sizes)
    return [
        take.split(one, chosen, reading if i == 0 else "") for i, (one, chosen) in enumerate(rows.items())
    ]


class _Rows:
    def __init__(
        self,
        columns: Columns,
        name: str,
        source: str,
        image: str,
        label: str,
        form: Form,
        numbers: Sequence[str],
        sizes: tuple[str, str] | None,
    ) -> None:
        self.values, self.name, self.source = columns.values, name, source
        self.image, self.label, self.form, self.sizes = image, label, form, sizes
        self.crowd, self.difficult = _named(columns, _CROWDS), _named(columns, _DIFFICULT)
        self.box = _parser(columns, numbers, source)

    def split(self, split: str, rows: Sequence[int], reading: str) -> Annotations:
        index: dict[str, int] = {}
        images: list[WrittenImage] = []
        boxes, names = WrittenBoxes(), dict[Id, str]()
        for row in rows:
            written = str(self.values[self.image][row]).strip().replace("\\", "/")
            place = f"{self.source}, line {row + 2}"
            if not written:
                raise DataError(f"{place}: no image", f"fill the column {self.image!r}")
            if written not in index:
                index[written] = len(images)
                images.append(
                    WrittenImage(
                        name=written, folder=folder_of(self.name), where=self.source, size=self._size(row)
                    )
                )
            numbers = self.box(row)
            if numbers is None:
                continue
            label = str(self.values[self.label][row]).strip()
            if not label:
                raise DataError(f"{place}: a box without a class", f"fill the column {self.label!r}")
            names[label] = label
            crowd, difficult = self._flag(self.crowd, row), self._flag(self.difficult, row)
            boxes.add(index[written], numbers, label, f"line {row + 2}", crowd=crowd, difficult=difficult)
        return Annotations(
            split=split,
            source=self.source,
            images=images,
            boxes=boxes,
            form=self.form,
            names=names,
            has_ids=False,
            readings=(reading,) if reading else (),
        )

    def _flag(self, column: str | None, row: int) -> bool:
        return column is not None and str(self.values[column][row]).strip() in ("1", "1.0", "true", "True")

    def _size(self, row: int) -> tuple[int, int] | None:
        if self.sizes is None:
            return None
        height, width = (self.values[name][row] for name in self.sizes)
        return size_of(height, width)


def _named(columns: Columns, usual: Sequence[str]) -> str | None:
    by_plain = {plain_name(name): name for name in reversed(list(columns.values))}
    return next((by_plain[name] for name in usual if name in by_plain), None)


def _column(
    columns: Columns, asked: str | None, usual: Sequence[str], what: str, option: str, source: str
) -> str:
    if asked is not None:
        if asked not in columns.values:
            near = near_text(asked, columns.names)
            raise DataError(f"{source} has no column {asked!r}{near}", f"correct {option}")
        return asked
    found = _named(columns, usual)
    if found is None:
        have = ", ".join(columns.names[:12])
        raise DataError(
            f"{source}: which column holds the {what} (columns: {have})?", f"pass it with {option}"
        )
    return found


def _numbers(columns: Columns) -> tuple[Form, list[str]] | None:
    by_plain = {plain_name(name): name for name in columns.values}
    for form, usual in _NUMBERS:
        if all(name in by_plain for name in usual):
            return form, [by_plain[name] for name in usual]
    return None


def _read_numbers(columns: Columns, source: str) -> tuple[Form, list[str]]:
    """The columns of the numbers; whether these are shares shows in their values, as Open Images has them."""
    found = _numbers(columns)
    box = _named(columns, _BOX)
    if found is None:
        if box is None:
            have = ", ".join(map(repr, columns.names[:12]))
            raise DataError(
                f"{source} has no columns of boxes, but {have}", "name four columns xmin, ymin, xmax and ymax"
            )
        found = Form("xywh"), [box]
    form, names = found
    read = _parser(columns, names, source)
    largest = max(
        (max(map(abs, row)) for i in range(columns.num_rows) if (row := read(i)) is not None), default=2.0
    )
    return (Form(form.order, relative=True) if largest <= 1.0 + 1e-6 else form), names


def _parser(
    columns: Columns, names: Sequence[str], source: str
) -> Callable[[int], tuple[float, float, float, float] | None]:
    """From a row to its four numbers, None for a row without any."""

    def read(row: int) -> tuple[float, float, float, float] | None:
        cells = [columns.values[name][row] for name in names]
        if len(names) == 1:
            cells = _taken_apart(cells[0])
        texts = ["" if _is_empty(cell) else str(cell).strip() for cell in cells]
        if not any(texts):
            return None
        try:
            a, b, c, d = (float(text) for text in texts)
        except ValueError:
            shown = ", ".join(texts)[:60]
            raise DataError(
                f"{source}, line {row + 2}: the box is {shown!r}",
                "give four numbers, or none for an image without boxes",
            ) from None
        return a, b, c, d

    return read


def _is_empty(cell: Any) -> bool:
    return cell is None or (isinstance(cell, str) and not cell.strip())


def _taken_apart(cell: Any) -> list[Any]:
    if isinstance(cell, list | tuple):
        return list(cell)
    if _is_empty(cell) or (isinstance(cell, float) and math.isnan(cell)):
        return []
    return re.findall(r"[^\s,;\[\]()]+", str(cell))
