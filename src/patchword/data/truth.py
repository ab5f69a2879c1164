"""The true labels of images that were listed elsewhere: a table of names and labels, matched to images by name.

The images of the table need not exist where its paths say: only their names are compared.
"""

import os
import posixpath
import unicodedata
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from patchword.data.request import OpenRequest
from patchword.data.sources import table
from patchword.data.sources.table_columns import Columns, choose_columns
from patchword.data.sources.table_labels import contradicting_rows, label_texts, several_labels
from patchword.data.sources.table_paths import is_image_name
from patchword.errors import DataError, plural

_LISTED = 3
# How well a row's name fits an image's, from best to worst.
_SAME, _END, _FILE_NAME = range(3)


@dataclass(frozen=True, kw_only=True)
class Truth:
    """The rows of a table of labels, one for each image in it. labels: None in a row without one."""

    path: str
    column: str
    names: tuple[str, ...]
    labels: tuple[str | None, ...]


@dataclass(frozen=True, kw_only=True)
class Matched:
    """The label of each image, and what could not be matched.

    labels [images]: None for an image without a label. no_row: images that no row names. no_label: images
    whose row has no label. no_image: rows that name none of the images. ambiguous: rows that may name
    several images, or that name one together with another row.
    """

    labels: tuple[str | None, ...]
    no_row: tuple[str, ...]
    no_label: tuple[str, ...]
    no_image: tuple[str, ...]
    ambiguous: tuple[str, ...]

    def notes(self, path: str) -> list[str]:
        """One line for each kind of image or row that is not scored, with its number and the first few. path: the table."""
        several = "several images, or one image together with another row"
        return [
            f"{counted} {what}: {listed(names)}"
            for counted, what, names in (
                (plural(len(self.no_row), "image"), f"without a row in {path}", self.no_row),
                (plural(len(self.no_label), "image"), f"without a label in {path}", self.no_label),
                (plural(len(self.no_image), "row"), f"of {path} without an image", self.no_image),
                (plural(len(self.ambiguous), "row"), f"of {path} may name {several}", self.ambiguous),
            )
            if names
        ]


def listed(names: Sequence[str]) -> str:
    """ "a, b, c and 7 more"."""
    more = f" and {len(names) - _LISTED:,} more" if len(names) > _LISTED else ""
    return ", ".join(names[:_LISTED]) + more


def read_truth(path: str | Path, request: OpenRequest | None = None) -> Truth:
    """Read a CSV, TSV, JSON lines or Parquet table of image names and labels.

    request: its columns. Raises: DataError if it is not such a table, its columns are unknown, or an image has
    several labels.
    """
    request = request or OpenRequest()
    text = str(path)
    columns = table.read_columns(text)
    choice = choose_columns(text, columns, request)
    if len(choice.labels) > 1:
        raise DataError(
            f"{text}: {len(choice.labels)} label columns are given, and predictions are scored against one",
            "pass the column of the class with --label-column",
        )
    taken = choice.taken
    names = image_names(text, columns, taken.image)
    class_names = columns.class_names.get(taken.label)
    labels = label_texts(text, columns.values[taken.label], class_names)
    if class_names is None:
        several_labels(text, taken.label, labels)
    for problem in contradicting_rows(text, names, labels):
        raise DataError(problem.message, problem.fix)
    rows: dict[str, str | None] = {}
    for name, label in zip(names, labels, strict=True):
        if name:
            rows[name] = label or rows.get(name)
    if not any(rows.values()):
        raise DataError(
            f"{text}: no row has both an image and a label",
            f"check the columns {taken.image} and {taken.label}",
        )
    return Truth(path=text, column=taken.image, names=tuple(rows), labels=tuple(rows.values()))


def image_names(path: str, columns: Columns, column: str) -> list[str | None]:
    """The name of the image in each row. Raises: DataError if the column holds something else."""
    if column not in columns.values:
        holds = "image bytes" if column in columns.pictures else "lists or records"
        raise DataError(
            f"{path}: the column {column} holds {holds}, not the names of images",
            "pass a column of file names with --image-column, or score the table itself with `patchword evaluate`",
        )
    return [_name(value) for value in columns.values[column]]


def match(truth: Truth, images: Sequence[str]) -> Matched:
    """Find the row of each image: by path, else by file name.

    A row names an image if its path is the same, from here or from the table's folder, or if one path is the end
    of the other. Only if no row does, the file name alone counts. A row that fits several images, or
    shares its image with another row, is not used.
    Raises: DataError if no row names an image.
    """
    depth = max((name.count("/") + name.count("\\") + 1 for name in truth.names), default=1)
    names = _Names(images, str(Path(truth.path).parent), depth)
    claims: dict[int, list[tuple[int, int]]] = defaultdict(list)
    ambiguous: list[int] = []
    lost: list[int] = []
    for row, name in enumerate(truth.names):
        fit, found = names.find(name)
        if len(found) == 1:
            claims[found[0]].append((fit, row))
        else:
            (ambiguous if found else lost).append(row)
    if any(fit != _FILE_NAME for claim in claims.values() for fit, _ in claim):
        # Where some images are at their path, a file of the same name elsewhere is another image.
        lost += [row for claim in claims.values() for fit, row in claim if fit == _FILE_NAME]
        claims = {i: [c for c in claim if c[0] != _FILE_NAME] for i, claim in claims.items()}
    row_of: dict[int, int] = {}
    for image, claim in claims.items():
        best = [row for fit, row in claim if fit == min(claim)[0]]
        if len(best) == 1:
            row_of[image] = best[0]
        ambiguous += [row for _, row in claim if row_of.get(image) != row]
    if not row_of:
        raise _none(truth, images, len(ambiguous))
    labels = [truth.labels[row_of[i]] if i in row_of else None for i in range(len(images))]
    return Matched(
        labels=tuple(labels),
        no_row=tuple(name for i, name in enumerate(images) if i not in row_of),
        no_label=tuple(name for i, name in enumerate(images) if i in row_of and not labels[i]),
        no_image=tuple(truth.names[row] for row in sorted(lost)),
        ambiguous=tuple(truth.names[row] for row in sorted(ambiguous)),
    )


def _name(value: object) -> str | None:
    return None if value is None or value != value else str(value).strip() or None


def _none(truth: Truth, images: Sequence[str], ambiguous: int) -> DataError:
    several = f" ({ambiguous} of them may name several)" if ambiguous else ""
    return DataError(
        f"{truth.path}: none of its {plural(len(truth.names), 'row')} names one of the {plural(len(images), 'image')}{several}: "
        f"column {truth.column} holds {listed(truth.names)}; the images are {listed(images)}",
        "write the images' paths or unique file names into the column, or pass another column with --image-column",
    )


class _Names:
    """The images' names, found by path or by file name. depth: of the longest path that is looked for."""

    def __init__(self, images: Sequence[str], folder: str, depth: int) -> None:
        here = _plain(os.getcwd())
        self.folder, self.depth = _joined(here, _plain(folder)), depth
        paths = [_plain(image) for image in images]
        self.parts = [_parts(path) for path in paths]
        self.same: dict[str, list[int]] = defaultdict(list)
        for index, path in enumerate(paths):
            for spelling in {path, _joined(here, path)}:
                self.same[spelling].append(index)
        self._ends: dict[bool, dict[str, list[int]]] = {}

    def find(self, name: str) -> tuple[int, list[int]]:
        """How a row's name fits, and the images that it fits so."""
        path = _plain(name)
        for spelling in (_joined(self.folder, path), path):
            if found := self.same.get(spelling):
                return _SAME, found
        parts = _parts(path)
        ends = self._by_end(stems=bool(parts) and not is_image_name(parts[-1]))
        for first in range(len(parts)):
            if found := ends.get("/".join(parts[first:])):
                # Complete if nothing is left of the row's path, or of the image's.
                complete = first == 0 or len(self.parts[found[0]]) == len(parts) - first
                return _END if complete else _FILE_NAME, found
        return _FILE_NAME, []

    def _by_end(self, *, stems: bool) -> dict[str, list[int]]:
        """The images by each end of their paths: "c.jpg", "b/c.jpg", …; stems: without the extension."""
        if stems not in self._ends:
            ends: dict[str, list[int]] = defaultdict(list)
            for index, parts in enumerate(self.parts):
                end = ""
                for part in reversed(parts[-self.depth :]):
                    end = f"{part}/{end}" if end else (posixpath.splitext(part)[0] if stems else part)
                    ends[end].append(index)
            self._ends[stems] = ends
        return self._ends[stems]


def _plain(path: str) -> str:
    slashed = unicodedata.normalize("NFC", path.strip()).replace("\\", "/")
    return posixpath.normpath(slashed) if slashed else slashed


def _joined(folder: str, path: str) -> str:
    return path if path.startswith("/") else posixpath.normpath(f"{folder}/{path}")


def _parts(path: str) -> tuple[str, ...]:
    return tuple(part for part in path.split("/") if part not in ("", ".", ".."))
