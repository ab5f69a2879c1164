"""A table of images and labels: CSV, TSV, JSON lines or Parquet.

Each row is a path (relative to the table) or the bytes of an image, as Hugging Face writes
them ({"bytes", "path"}), and a class by name or number; optionally the split.
"""

import os
import posixpath
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

import numpy as np

from patchword.data.dataset import Dataset, Problem, Reader, Split
from patchword.data.missing import not_there
from patchword.data.request import OpenRequest, refuse_folder_options
from patchword.data.sources.parquet import read_parquet
from patchword.data.sources.split_names import split_order
from patchword.data.sources.table_columns import Columns, choose_columns, image_column
from patchword.data.sources.table_groups import group_texts, without_group
from patchword.data.sources.table_labels import contradicting_rows
from patchword.data.sources.table_paths import ImageRoot, files_below, key_of, locate
from patchword.data.sources.table_targets import RowTargets, row_targets
from patchword.data.sources.table_text import parse_text
from patchword.data.splits import split_in_two
from patchword.data.stamps import Stamp, file_stamp
from patchword.errors import DataError, plural, suggestion
from patchword.images.suffixes import SUFFIXES

DESCRIPTION = "a .csv, .tsv, .jsonl or .parquet table of image and label"
TABLE_SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet")


def recognises(path: str) -> bool:
    return Path(path).is_file() and path.lower().endswith(TABLE_SUFFIXES)


def labels_among(files: Sequence[str]) -> str | None:
    """The one CSV or JSON lines file next to images without class folders, if there is one."""
    # Text instead of paths: there may be 100,000 files.
    visible = [f for f in files if not f.rpartition("/")[2].startswith(".") and not f.startswith("__MACOSX")]
    tables = [f for f in visible if f.lower().endswith(TABLE_SUFFIXES[:-1])]
    if len(tables) != 1:
        return None
    folder = str(PurePosixPath(tables[0]).parent)
    images = [f for f in visible if PurePosixPath(f).suffix.lower() in SUFFIXES]
    flat = [f for f in images if str(PurePosixPath(f).parent) == folder]
    return tables[0] if images and len(flat) == len(images) else None


@dataclass(frozen=True)
class Origin:
    """Where a table's images are. folder: where its paths begin; make_reader: of the files, for its rows."""

    path: str
    kind: str
    folder: str
    place: ImageRoot
    make_reader: Callable[[Sequence[str]], Reader]


def read(path: str, request: OpenRequest) -> Dataset:
    """Raises: DataError if the table cannot be read or used."""
    refuse_folder_options(request, f"{path} is a table")
    origin = _origin(path)
    return _dataset(origin, _columns(path, origin), request)


def _content(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except PermissionError as error:
        raise DataError(f"{path}: no permission to read it", "change its permissions") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror or error})", "copy it again") from error


def read_for_folder(folder: str, path: str, request: OpenRequest) -> Dataset:
    """The images of a folder with the labels of a table, which names them by relative path or unique file name."""
    refuse_folder_options(request, f"{folder} is labelled by {path}")
    if not recognises(path):
        if not Path(path).exists():
            raise DataError(not_there(path).message, f"give {DESCRIPTION} as --labels")
        raise DataError(f"--labels {path} is not a table", f"give {DESCRIPTION}")
    origin = replace(_origin(path, folder), path=path)
    columns = _columns(path, origin)
    dataset = _dataset(origin, columns, request)
    named = {key_of(name, folder) for split in dataset.splits.values() for name in split.names}
    images = [file for file in files_below(folder) if Path(file).suffix.lower() in SUFFIXES]
    rest = [file for file in images if posixpath.normpath(file) not in named]
    problems = []
    if rest:
        message = f"{path} has no usable row for {len(rest)} of {plural(len(images), 'image')} in {folder}, e.g. {rest[0]}"
        problems.append(
            Problem(severity="warning", message=f"{message}; they are not used", fix="add rows for them")
        )
    return replace(dataset, path=folder, kind="folder with table").with_problems(problems)


def _origin(path: str, folder: str | None = None) -> Origin:
    folder = str(Path(path).parent) if folder is None else folder

    def is_there(file: str) -> bool:
        return os.path.isfile(os.path.join(folder, file))

    place = ImageRoot(
        "the table's folder" if folder == "." else folder, is_there, lambda: files_below(folder)
    )
    return Origin(path, "table", folder, place, lambda files: PathReader(folder, tuple(files)))


def _columns(path: str, origin: Origin) -> Columns:
    if path.lower().endswith(".parquet"):
        return read_parquet(path)
    return parse_text(path, _content(path), origin.place.is_there)


def read_columns(path: str) -> Columns:
    """The columns of a table, whether or not its images exist. Raises: DataError if it is not a table."""
    if not recognises(path):
        if not Path(path).exists():
            raise DataError(not_there(path).message, f"give {DESCRIPTION}")
        raise DataError(f"{path} is not a table", f"give {DESCRIPTION}")
    return _columns(path, _origin(path))


def read_images(path: str, request: OpenRequest) -> tuple[Sequence[str | None], Reader]:
    """What each row calls its image (None if it has none), and a reader of them; no label is needed."""
    origin = _origin(path)
    columns = _columns(path, origin)
    column = image_column(path, columns, request.image_column)
    rows, _ = _images(origin, columns, column, columns.num_rows)
    return rows.names, rows.reader


def read_in_zip(
    path: str,
    table: str,
    content: bytes,
    files: Sequence[str],
    reader: Callable[[Sequence[str]], Reader],
    request: OpenRequest,
) -> Dataset:
    """Read a table in a zip, next to its images."""
    refuse_folder_options(request, f"{path} is labelled by {table}")
    folder = PurePosixPath(table).parent
    top = "" if str(folder) == "." else f"{folder}/"
    there = set(files)

    def is_there(file: str) -> bool:
        return str(folder / file) in there

    def below() -> list[str]:
        return [file[len(top) :] for file in files if file.startswith(top)]

    def make_reader(names: Sequence[str]) -> Reader:
        return reader([str(folder / name) for name in names])

    columns = parse_text(f"{path}/{table}", content, is_there)
    place = ImageRoot(f"{path}/{folder}" if top else path, is_there, below)
    return _dataset(Origin(path, "zip", top, place, make_reader), columns, request)


@dataclass(frozen=True)
class PathReader:
    """Paths relative to the table's folder (absolute ones stay)."""

    folder: str
    files: tuple[str, ...]
    sign_is_sure = False

    def __call__(self, row: int) -> str:
        return os.path.join(self.folder, self.files[row])

    def sign(self, row: int) -> Hashable:
        """The file's size: files of different sizes are not equal."""
        try:
            return os.stat(self(row)).st_size
        except (OSError, ValueError):
            return ("row", row)

    def stamp(self, row: int) -> Stamp | None:
        return file_stamp(self(row))


@dataclass(frozen=True)
class _Images:
    """The image of each row. keys: see `split_in_two`; None if images have no names."""

    names: Sequence[str | None]
    keys: Sequence[str] | None
    reader: Reader


@dataclass(frozen=True)
class _Rows:
    """The image and the target of each row."""

    names: Sequence[str | None]
    targets: RowTargets
    keys: Sequence[str] | None
    reader: Reader
    groups: Sequence[str] | None = None

    def split(self, name: str, members: Sequence[int], index: dict[str, int]) -> Split:
        return Split(
            name=name,
            names=tuple(str(self.names[i]) for i in members),
            targets=self.targets.make(members, index),
            reader=self.reader,
            rows=np.array(members, dtype=np.int64),
            groups=None if self.groups is None else tuple(self.groups[i] for i in members),
        )


def _dataset(origin: Origin, columns: Columns, request: OpenRequest) -> Dataset:
    path = origin.path
    choice = choose_columns(path, columns, request)
    taken = choice.taken
    targets = row_targets(path, columns, choice, request)
    images, found = _images(origin, columns, taken.image, columns.num_rows)
    groups = group_texts(path, columns, request.group_column)
    rows = _Rows(images.names, targets, images.keys, images.reader, groups)
    problems = [
        *choice.problems,
        *found,
        *targets.problems,
        *without_group(path, request.group_column, groups),
    ]
    if rows.keys is not None:
        texts = [t if n else None for t, n in zip(targets.texts(), rows.names, strict=True)]
        problems += contradicting_rows(path, rows.keys, texts, targets.kind)
    good = [i for i in range(columns.num_rows) if targets.has(i) and rows.names[i]]
    if not good:
        raise DataError(
            f"{path}: no row has both an image and a label",
            f"check the columns {taken.image} and {taken.label}",
        )
    if len(good) < columns.num_rows:
        lacking = plural(columns.num_rows - len(good), "row")
        message = f"{path} has {lacking} without a label or an image"
        problems.append(Problem(severity="warning", message=message, fix="complete or remove these rows"))
    members, unsplit = _by_split(path, good, choice.splits, taken.split)
    training = members.get("train") or members.get("all") or good
    classes = targets.classes(training)
    splits, unknown = _splits(path, rows, members, classes, request)
    seed = None
    if set(splits) == {"all"} and request.split:
        seed = request.split_seed
        keys = None if rows.keys is None else [rows.keys[i] for i in splits["all"].rows]
        splits = split_in_two(splits["all"], seed, keys)
    return Dataset(
        path=path,
        kind=origin.kind,
        classes=classes,
        splits=splits,
        readings=targets.readings,
        problems=(*problems, *unsplit, *unknown, Problem(severity="note", message=taken.text)),
        split_seed=seed,
        columns=taken,
    )


def _images(origin: Origin, columns: Columns, column: str, num_rows: int) -> tuple[_Images, list[Problem]]:
    """The images of the rows, and what was noted while finding them."""
    if column in columns.pictures:
        # Names for people: row numbers, since the bytes need not carry a path.
        names = [f"row {row}" for row in range(num_rows)]
        return _Images(names, None, columns.pictures[column]), []
    if column not in columns.values:
        raise DataError(
            f"{origin.path}: the column {column} holds lists or records, not paths or image bytes",
            "pass a column of paths or image bytes with --image-column",
        )
    cells = [
        None if value is None or value != value or value == "" else str(value)
        for value in columns.values[column]
    ]
    located = locate(origin.path, column, cells, origin.place)
    files = [file or "" for file in located.files]
    keys = [key_of(file, origin.folder) for file in files]
    return _Images(located.files, keys, origin.make_reader(files)), located.problems


def _by_split(
    path: str, good: Sequence[int], splits: Sequence[str] | None, column: str | None
) -> tuple[dict[str, list[int]], list[Problem]]:
    """Split → rows; one "all" where the table has no split."""
    if splits is None:
        return {"all": list(good)}, []
    names = sorted({splits[i] for i in good} - {""}, key=split_order)
    members = {name: [i for i in good if splits[i] == name] for name in names}
    without = sum(not splits[i] for i in good)
    if not without:
        return members, []
    message = f"{path} has {plural(without, 'row')} without a split in column {column}, skipped"
    fix = "write train, val or test into these rows"
    return members, [Problem(severity="warning", message=message, fix=fix)]


def _splits(
    path: str,
    rows: _Rows,
    members: dict[str, list[int]],
    classes: tuple[str, ...],
    request: OpenRequest,
) -> tuple[dict[str, Split], list[Problem]]:
    """The splits without images of classes that training has not, and a problem for those."""
    index = {name: i for i, name in enumerate(classes)}
    own_list = rows.targets.listed is not None
    known_to = f"its own list of {len(classes)} class names does" if own_list else "train does"
    splits, problems = {}, []
    for name, all_rows in members.items():
        foreign = {i: names for i in all_rows if (names := rows.targets.unknown(i, index))}
        known = [i for i in all_rows if i not in foreign]
        unknown = sorted({name for names in foreign.values() for name in names})
        if unknown:
            listed = ", ".join(f"{u!r}{suggestion(u, classes)}" for u in unknown[:8])
            left_out = plural(len(all_rows) - len(known), "image")
            has = "the class" if len(unknown) == 1 else "the classes"
            problems.append(
                Problem(
                    severity="note" if request.ignore_unknown_classes else "error",
                    message=f"{path}: {name} has {has} {listed}, but {known_to} not",
                    fix=f"rename {'it' if len(unknown) == 1 else 'them'}, or pass --ignore-unknown-classes to skip "
                    f"{left_out}",
                )
            )
        splits[name] = rows.split(name, known, index)
    return splits, problems
