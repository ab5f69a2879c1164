"""A table of images and labels: CSV, TSV, JSON lines or Parquet.

Each row is a path (relative to the table) or the bytes of an image, as Hugging Face writes
them ({"bytes", "path"}), and a class by name or number; optionally the split.
"""

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from patchword.data.dataset import Dataset, Problem, Reader, Split
from patchword.data.request import OpenRequest, refuse_folder_options
from patchword.data.sources.parquet import read_parquet
from patchword.data.sources.split_names import SPLITS, in_order, split_order
from patchword.data.splits import split_in_two
from patchword.errors import DataError, counted, is_near, near_text
from patchword.images.suffixes import SUFFIXES

DESCRIPTION = "a .csv, .tsv, .jsonl or .parquet table of image and label"
TABLE_SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet")
IMAGE_COLUMNS = (
    "image",
    "path",
    "file",
    "file_name",
    "filename",
    "filepath",
    "file_path",
    "image_path",
    "img",
    "id",
)
LABEL_COLUMNS = (
    "label",
    "class",
    "class_name",
    "category",
    "target",
    "species",
    "name",
    "fine_label",
    "labels",
    "y",
)
SPLIT_COLUMNS = ("split", "subset", "set", "fold_name")


@dataclass(frozen=True, kw_only=True)
class Columns:
    """A table as columns. images: one reference a row; bytes are read by `reader`.

    class_names: by column, for labels that are numbers, as Hugging Face's metadata give them.
    """

    names: Sequence[str]
    values: dict[str, Sequence[Any]]
    class_names: Mapping[str, Sequence[str]] = field(default_factory=dict)
    reader: Reader | None = None


def recognises(path: str) -> bool:
    return Path(path).is_file() and path.lower().endswith(TABLE_SUFFIXES)


def labels_among(files: Sequence[str]) -> str | None:
    """The one CSV or JSON lines file that stands beside images with no class folders, if there is one."""
    visible = [f for f in files if not PurePosixPath(f).name.startswith(".") and not f.startswith("__MACOSX")]
    tables = [f for f in visible if f.lower().endswith(TABLE_SUFFIXES[:-1])]
    if len(tables) != 1:
        return None
    folder = str(PurePosixPath(tables[0]).parent)
    images = [f for f in visible if PurePosixPath(f).suffix.lower() in SUFFIXES]
    flat = [f for f in images if str(PurePosixPath(f).parent) == folder]
    return tables[0] if images and len(flat) == len(images) else None


def read(path: str, request: OpenRequest) -> Dataset:
    refuse_folder_options(request, f"{path} is a table")
    columns, folder = _columns(path, request), Path(path).parent

    def make_reader(files: Sequence[str]) -> Reader:
        return PathReader(str(folder), tuple(files))

    return _dataset(path, "table", columns, make_reader, lambda file: (folder / file).is_file(), request)


def read_images(path: str, request: OpenRequest) -> tuple[list[str | None], Reader]:
    """What each row calls its image (None where it has none), and a reader of them; no label is needed."""
    columns = _columns(path, request)
    image = _column(path, columns, request.image_column, IMAGE_COLUMNS, "image", "--image-column")
    references = [None if v in (None, "") else str(v) for v in columns.values[image]]
    reader = columns.reader or PathReader(str(Path(path).parent), tuple(r or "" for r in references))
    return references, reader


def _columns(path: str, request: OpenRequest) -> Columns:
    if path.lower().endswith(".parquet"):
        parquet = read_parquet(
            path, IMAGE_COLUMNS if request.image_column is None else (request.image_column,)
        )
        return Columns(
            names=parquet.names, values=parquet.values, class_names=parquet.class_names, reader=parquet.reader
        )
    return _parse(path, Path(path).read_bytes())


def read_in_zip(
    path: str,
    table: str,
    content: bytes,
    files: Sequence[str],
    reader: Callable[[Sequence[str]], Reader],
    request: OpenRequest,
) -> Dataset:
    """A table that lies in a zip beside its images."""
    refuse_folder_options(request, f"{path} is labelled by {table}")
    folder = PurePosixPath(table).parent
    there = set(files)

    def inside(file: str) -> str:
        return str(folder / file)

    def make_reader(names: Sequence[str]) -> Reader:
        return reader([inside(name) for name in names])

    columns = _parse(f"{path}/{table}", content)
    return _dataset(path, "zip", columns, make_reader, lambda file: inside(file) in there, request)


@dataclass(frozen=True)
class PathReader:
    """Paths relative to the table's folder (absolute ones stay)."""

    folder: str
    files: tuple[str, ...]

    def __call__(self, row: int) -> str:
        return str(Path(self.folder) / self.files[row])


def _parse(name: str, content: bytes) -> Columns:
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{name} is no UTF-8 text ({error})", "save the table as UTF-8") from error
    if name.lower().endswith((".jsonl", ".ndjson")):
        return _parse_json_lines(name, text)
    delimiter = "\t" if name.lower().endswith(".tsv") else _delimiter(text)
    reader = csv.reader(io.StringIO(text, newline=None), delimiter=delimiter)
    try:
        rows = [row for row in reader if row]
    except csv.Error as error:
        raise DataError(
            f"{name}, line {reader.line_num}: {error}", "look for a quote that is not closed"
        ) from error
    if len(rows) < 2:
        raise DataError(
            f"{name} has {counted(len(rows), 'line')}, no image", "give a header line and a line an image"
        )
    header = [column.strip() for column in rows[0]]
    twice = next((column for column in header if header.count(column) > 1), None)
    if twice is not None:
        raise DataError(f"{name} has two columns {twice!r}", "give each a name of its own")
    ragged = next((i for i, row in enumerate(rows[1:], 2) if len(row) != len(header)), None)
    if ragged is not None:
        raise DataError(
            f"{name}, line {ragged}: {len(rows[ragged - 1])} values, the header has {len(header)}",
            "mend that line",
        )
    return Columns(names=header, values={c: [row[i] for row in rows[1:]] for i, c in enumerate(header)})


def _delimiter(text: str) -> str:
    header = text.partition("\n")[0]
    return max(",;\t|", key=header.count)


def _parse_json_lines(name: str, text: str) -> Columns:
    rows = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise DataError(f"{name}, line {number} is no JSON ({error})", "mend that line") from error
        if not isinstance(row, dict):
            raise DataError(f"{name}, line {number} is no JSON object", 'write {"image": …, "label": …}')
        rows.append(row)
    names = list(dict.fromkeys(key for row in rows for key in row))
    if not rows:
        raise DataError(f"{name} has no rows", "give a JSON object a line")
    return Columns(names=names, values={c: [row.get(c) for row in rows] for c in names})


def _dataset(
    path: str,
    kind: str,
    columns: Columns,
    make_reader: Callable[[Sequence[str]], Reader],
    is_there: Callable[[str], bool],
    request: OpenRequest,
) -> Dataset:
    image = _column(path, columns, request.image_column, IMAGE_COLUMNS, "image", "--image-column")
    label = _column(path, columns, request.label_column, LABEL_COLUMNS, "label", "--label-column")
    split = next((c for c in columns.names if c.lower() in SPLIT_COLUMNS), None)
    class_names = columns.class_names.get(label)
    texts = _label_texts(path, columns.values[label], class_names)
    references = [None if v in (None, "") else str(v) for v in columns.values[image]]
    reader = columns.reader or make_reader([r or "" for r in references])
    good = [i for i, text in enumerate(texts) if text and references[i]]
    if not good:
        raise DataError(f"{path}: no row has both an image and a label", f"look at {image} and {label}")
    # A file that is not there is an image that cannot be read, one of M; where none is, the column is wrong.
    if columns.reader is None and not any(is_there(str(references[i])) for i in good):
        raise DataError(
            f"{path}: not one image of the column {image} is there, the first is {references[good[0]]}",
            "write paths as they are seen from the table's folder",
        )
    splits_of = ["all" if split is None else _split_name(columns.values[split][i]) for i in range(len(texts))]
    rows = {
        name: [i for i in good if splits_of[i] == name]
        for name in sorted({splits_of[i] for i in good}, key=split_order)
    }
    problems = []
    if set(rows) != {"all"} and ("train" not in rows or len(rows) == 1):
        there = ", ".join(map(repr, list(rows)[:5]))
        message = f"{path}: the column {split} holds {there} and is not used: it says not what to train on and what to score"
        problems.append(Problem(severity="warning", message=message, fix="write train and val into it"))
        rows = {"all": good}
    training = rows.get("train") or rows["all"]
    classes = tuple(class_names or in_order(str(texts[i]) for i in training))
    known_to = f"its own list of {len(class_names)} class names does" if class_names else "train does"
    if len(good) < len(texts):
        rows_have = f"{counted(len(texts) - len(good), 'row')} without a label or an image"
        message = f"{path} has {rows_have}"
        problems.append(Problem(severity="warning", message=message, fix="complete or remove those rows"))
    found = _finish(path, kind, request, texts, references, reader, rows, classes, known_to)
    return found.with_problems(problems)


def _finish(
    path: str,
    kind: str,
    request: OpenRequest,
    texts: Sequence[str | None],
    references: Sequence[str | None],
    reader: Reader,
    rows: dict[str, list[int]],
    classes: tuple[str, ...],
    known_to: str,
) -> Dataset:
    index = {name: i for i, name in enumerate(classes)}
    splits, problems = {}, []
    for name, members in rows.items():
        known = [i for i in members if texts[i] in index]
        unknown = sorted({str(texts[i]) for i in members} - set(index))
        if unknown:
            listed = ", ".join(f"{u!r}{is_near(u, classes)}" for u in unknown[:8])
            left_out = counted(len(members) - len(known), "image")
            problems.append(
                Problem(
                    severity="note" if request.ignore_unknown_classes else "error",
                    message=f"{path}: {name} has the {'class' if len(unknown) == 1 else 'classes'} {listed}, {known_to} not",
                    fix=f"rename {'it' if len(unknown) == 1 else 'them'}, or pass --ignore-unknown-classes to leave "
                    f"{left_out} out",
                )
            )
        splits[name] = Split(
            name=name,
            names=tuple(str(references[i]) for i in known),
            labels=np.array([index[str(texts[i])] for i in known], dtype=np.int64),
            reader=reader,
            rows=np.array(known, dtype=np.int64),
        )
    seed = None
    if set(splits) == {"all"} and request.split:
        splits, seed = split_in_two(splits["all"], request.seed), request.seed
    return Dataset(
        path=path, kind=kind, classes=classes, splits=splits, problems=tuple(problems), split_seed=seed
    )


def _column(
    path: str, columns: Columns, asked: str | None, usual: Sequence[str], what: str, option: str
) -> str:
    if asked is not None:
        if asked in columns.names:
            return asked
        near = near_text(asked, columns.names)
        raise DataError(f"{path} has no column {asked!r}{near}", f"its columns: {', '.join(columns.names)}")
    by_lower = {c.lower(): c for c in reversed(columns.names)}
    for name in usual:
        if name in by_lower:
            return by_lower[name]
    raise DataError(
        f"{path}: which column holds the {what}? It has {', '.join(columns.names)}", f"name it with {option}"
    )


def _label_texts(path: str, values: Sequence[Any], class_names: Sequence[str] | None) -> list[str | None]:
    """Each label as a class name; None where there is none. -1 is how Hugging Face says unlabelled, NaN pandas.

    Raises: DataError for a label that holds several.
    """
    texts: list[str | None] = []
    for row, value in enumerate(values, 1):
        if isinstance(value, list | dict):
            raise DataError(
                f"{path}, row {row}: the label is {value!r}, not one class", "give each image one class"
            )
        if value is None or value == "" or value != value or (class_names is not None and value == -1):
            texts.append(None)
        elif class_names is not None and isinstance(value, int) and 0 <= value < len(class_names):
            texts.append(class_names[value])
        else:
            texts.append(
                str(int(value)) if isinstance(value, float) and value.is_integer() else str(value).strip()
            )
    return texts


def _split_name(value: Any) -> str:
    text = str(value).strip().lower()
    return next((name for name, spellings in SPLITS.items() if text in spellings), text or "all")
