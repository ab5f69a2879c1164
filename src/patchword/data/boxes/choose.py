"""The annotations of a data set: which format, which files, and what else is there."""

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from patchword.data.boxes import coco, table, voc, yolo, yolo_sets
from patchword.data.boxes.annotations import Annotations
from patchword.data.boxes.files import Files, files_above, files_of, start_of, stem
from patchword.data.boxes.sets import (
    by_family,
    coco_files,
    in_split_order,
    refuse_unknown_patterns,
    split_and_family,
    split_by_split,
    voc_files,
    voc_splits,
    wanted,
)
from patchword.data.request import NotApplicable, OpenRequest
from patchword.data.sources.table_columns import Columns
from patchword.data.sources.table_text import parse_text
from patchword.errors import plural

TABLE_OF_BOXES = "table of boxes"
TABLES = (".csv", ".tsv", ".jsonl", ".ndjson")


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """kind: the format. readings: which files are read and which are not. unlisted: counts by reason."""

    kind: str
    splits: list[Annotations]
    readings: tuple[str, ...]
    passed_by: dict[str, int]


def choose(files: Files, request: OpenRequest) -> Chosen | None:
    """The first format with annotations: COCO, VOC, YOLO, tables. None if there are none.

    Raises: DataError for annotations that cannot be read, or if it is not clear which are meant.
    """
    patterns = request.patterns
    for kind, there, read in (("COCO JSON", coco_files, _coco), ("Pascal VOC", voc_files, _voc)):
        names = wanted(there(files), patterns)
        if names:
            refuse_unknown_patterns(files, patterns, kind, names)
            chosen = read(files, names, patterns)
            return replace(chosen, readings=(*chosen.readings, *_others(files, kind, patterns)))
    yolo_set = yolo_sets.find(files, patterns)
    if yolo_set is not None:
        refuse_unknown_patterns(files, patterns, "YOLO", files.ending(".txt", ".yaml", ".yml"))
        splits = yolo.parse(files, yolo_set.members, yolo_set.names, poses=yolo_set.poses)
        nameless = "" if yolo_set.names is not None else "; no file names the classes, so their numbers do"
        reading = f"boxes from YOLO label files, images from {yolo_set.source}{nameless}"
        return Chosen(kind="YOLO", splits=splits, readings=(reading,), passed_by={})
    tables = wanted(box_tables(files), patterns)
    refuse_unknown_patterns(files, patterns, TABLE_OF_BOXES if tables else "", tables)
    return _tables(files, tables, request) if tables else None


def _members(files: Files, names: Sequence[str], patterns: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """Split → file, and the files that are not read. Files of several patterns belong together, whatever their names."""
    return (split_by_split(names), []) if len(patterns) > 1 else by_family(names, files)


def _coco(files: Files, names: Sequence[str], patterns: Sequence[str]) -> Chosen:
    members, rest = _members(files, names, patterns)
    splits = [coco.parse(files, members[split], split) for split in in_split_order(members)]
    readings = [f"boxes from COCO JSON: {', '.join(members[split] for split in in_split_order(members))}"]
    if rest:
        shown = ", ".join(rest[:5]) + (" …" if len(rest) > 5 else "")
        readings.append(f"other JSON files with annotations are not read: {shown}; choose with --annotations")
    return Chosen(kind="COCO JSON", splits=splits, readings=tuple(readings), passed_by={})


def _voc(files: Files, names: Sequence[str], patterns: Sequence[str]) -> Chosen:
    members, in_none = voc_splits(files, names)
    splits = voc.parse(files, {split: members[split] for split in in_split_order(members)})
    count = sum(len(xmls) for xmls in members.values())
    return Chosen(
        kind="Pascal VOC",
        splits=splits,
        readings=(f"boxes from {plural(count, 'Pascal VOC file')}",),
        passed_by={"XML files in no split": in_none} if in_none else {},
    )


def _tables(files: Files, names: Sequence[str], request: OpenRequest) -> Chosen:
    members, rest = _members(files, names, request.patterns)
    splits = [
        part
        for split in in_split_order(members)
        for part in table.parse(
            columns_of(files, members[split]),
            members[split],
            files.shown(members[split]),
            split,
            image_column=request.image_column,
            label_column=request.label_column,
            split_column=request.split_column,
        )
    ]
    readings = [f"other tables with boxes are not read: {', '.join(rest[:5])}"] if rest else []
    return Chosen(kind=TABLE_OF_BOXES, splits=splits, readings=tuple(readings), passed_by={})


def _others(files: Files, kind: str, patterns: Sequence[str]) -> list[str]:
    """Annotations in other formats, which are not read."""
    found: list[tuple[str, Sequence[str]]] = (
        [] if kind == "Pascal VOC" else [("Pascal VOC", voc_files(files))]
    )
    labels = [name for name in files.ending(".txt") if "labels" in name.split("/")[:-1]]
    found += [("YOLO", labels), ("table", box_tables(files))]
    there = [f"{name} ({plural(len(names), 'file')}, e.g. {names[0]})" for name, names in found if names]
    if not there or patterns:
        return []
    return [f"annotations in other formats are not read: {', '.join(there)}; choose with --annotations"]


def box_tables(files: Files) -> list[str]:
    return [name for name in files.ending(*TABLES) if has_box_columns(name, start_of(files, name))]


def has_box_columns(name: str, start: str) -> bool:
    """Whether the first line of a table names the columns of a box."""
    first = next(iter(start.splitlines()), "")
    if name.lower().endswith((".jsonl", ".ndjson")):
        try:
            row = json.loads(first)
        except ValueError:
            return False
        names = (
            [key for key, value in row.items() if not isinstance(value, list | dict)]
            if isinstance(row, dict)
            else []
        )
    else:
        names = [cell.strip().strip('"') for cell in re.split(r"[,;\t]", first)]
    return table.has_boxes(Columns(names=names, num_rows=0, values={name: [] for name in names}))


def columns_of(files: Files, name: str) -> Columns:
    return parse_text(files.shown(name), files.read(name), frozenset(files.names).__contains__)


def choose_file(path: str, request: OpenRequest) -> tuple[Files, Chosen]:
    """The annotations of one JSON file or table, with the images next to it or in the folder above.

    Raises: as `choose`.
    """
    if request.patterns:
        raise NotApplicable(
            f"{path} is a file of annotations, so --annotations chooses nothing",
            "remove it, or give the folder that holds all files",
            ("annotations",),
        )
    place = Path(path)
    files = _beside(place)
    name = place.name if files.path == str(place.parent) else f"{place.resolve().parent.name}/{place.name}"
    if place.suffix.lower() == ".json":
        chosen = Chosen(kind="COCO JSON", splits=[coco.parse(files, name, "all")], readings=(), passed_by={})
    else:
        chosen = _tables(files, [name], request)
        if {part.split for part in chosen.splits} <= {split_and_family(name)[0]}:
            # One file is the whole of what was given, whatever split its name says.
            chosen = replace(chosen, splits=[replace(part, split="all") for part in chosen.splits])
    return files, chosen


def _beside(place: Path) -> Files:
    """The folder of the file; or, if none of the first images is in it, what lies next to that folder and has one."""
    near = files_of(str(place.parent))
    first = _first_images(near, place.name)
    stems = {stem(image) for image in near.images()}
    if not first or any(stem(one) in stems for one in first):
        return near
    found = files_above(place, first)
    return near if found is None else found


def _first_images(files: Files, name: str) -> list[str]:
    start = start_of(files, name)
    found = re.findall(r'"file_name"\s*:\s*"([^"]+)"', start)[:20]
    if found:
        return [one.replace("\\", "/") for one in found]
    cells: Callable[[str], list[str]] = lambda line: re.split(r'[,;\t"]+', line)  # noqa: E731
    return [
        cell.strip().replace("\\", "/")
        for line in start.splitlines()[1:20]
        for cell in cells(line)
        if cell.strip()
    ]
