"""Several classes for each image: columns of 0 and 1, lists, or text with a separator."""

import ast
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from patchword.data.dataset import Problem
from patchword.data.sources.table_columns import Columns
from patchword.errors import DataError, plural

# Separators that are hardly ever part of a name, in the order in which they are guessed.
SEPARATORS = (";", "|", ",", "/", "&", "+", "\n")
# Fewer cells with several names are rather mistakes in a table of single labels.
EVIDENT = 0.1
_ONE, _ZERO = ("1", "1.0", "true"), ("0", "0.0", "false")


@dataclass(frozen=True, kw_only=True)
class Sets:
    """rows: the classes of each row, () if it has none of them, None if it is not labelled. reading: how they are written."""

    rows: list[tuple[str, ...] | None]
    reading: str
    listed: tuple[str, ...] | None = None
    problems: list[Problem] = field(default_factory=list)


def from_columns(path: str, columns: Columns, names: Sequence[str]) -> Sets:
    """One column of 0 and 1 for each class; a row whose cells are all empty is not labelled.

    Raises: DataError naming row and value for anything else.
    """
    rows: list[tuple[str, ...] | None] = []
    for number, cells in enumerate(zip(*(columns.values[name] for name in names), strict=True), 1):
        if all(_is_empty(cell) for cell in cells):
            rows.append(None)
            continue
        present = [_flag(path, name, number, cell) for name, cell in zip(names, cells, strict=True)]
        rows.append(tuple(name for name, there in zip(names, present, strict=True) if there))
    reading = f"several classes per image: {len(names)} columns of 0 and 1"
    return Sets(rows=rows, reading=reading, listed=tuple(names), problems=_unlabelled(path, rows))


def _is_empty(value: Any) -> bool:
    return value is None or value != value or (isinstance(value, str) and not value.strip())


def _flag(path: str, column: str, row: int, value: Any) -> bool:
    text = str(value).strip().lower()
    if text in _ONE or text in _ZERO:
        return text in _ONE
    holds = "is empty" if _is_empty(value) else f"has {value!r}"
    raise DataError(
        f"{path}, row {row}: column {column} {holds}, which is neither 0 nor 1",
        "write 0 or 1, or remove the row if its classes are unknown",
    )


def from_lists(path: str, column: str, values: Sequence[Any], class_names: Sequence[str] | None) -> Sets:
    """A list of classes in each cell, as in JSON lines and Parquet. Raises: DataError for a nested list."""
    rows: list[tuple[str, ...] | None] = []
    for number, value in enumerate(values, 1):
        if value is None or value != value:
            rows.append(None)
            continue
        members = list(value) if isinstance(value, list | tuple) else [value]
        wrong = next((m for m in members if isinstance(m, list | tuple | dict | float) or m is None), None)
        if wrong is not None or None in members:
            raise DataError(
                f"{path}, row {number}: column {column} has {value!r}, which is not a list of classes",
                "give a list of class names or numbers",
            )
        rows.append(_unique(_named(m, class_names) for m in members))
    reading = f"several classes per image: lists in column {column}"
    listed = None if class_names is None else tuple(class_names)
    return Sets(rows=rows, reading=reading, listed=listed, problems=_unlabelled(path, rows))


def _named(member: Any, class_names: Sequence[str] | None) -> str:
    if class_names is not None and isinstance(member, int) and 0 <= member < len(class_names):
        return class_names[member]
    return str(member).strip()


def _unique(names: Any) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for name in names if name))


def from_separator(
    path: str, column: str, values: Sequence[Any], separator: str, *, guessed: bool = False
) -> Sets:
    """Classes in one cell with `separator` between them. An empty cell is an image with none of the classes.

    Raises: DataError if no cell has the separator.
    """
    separator = {"\\t": "\t", "\\n": "\n"}.get(separator, separator)
    texts = ["" if _is_empty(value) else str(value) for value in values]
    with_it = sum(separator in text for text in texts)
    if not with_it:
        raise _no_separator(path, column, separator, texts)
    # A null of JSON or Parquet says that the label is not known.
    rows = [
        None if value is None else _unique(part.strip() for part in text.split(separator))
        for value, text in zip(values, texts, strict=True)
    ]
    reading = f"several classes per image: column {column}, separated by {separator!r}"
    if guessed:
        reading += f" in {with_it} of {plural(len(texts), 'row')} (guessed; --label-separator says otherwise)"
    return Sets(rows=rows, reading=reading, problems=_unlabelled(path, rows))


def _no_separator(path: str, column: str, separator: str, texts: Sequence[str]) -> DataError:
    found = max((*SEPARATORS, " "), key=lambda other: sum(other in text for text in texts))
    example = next((text for text in texts if found in text), None)
    if example is None:
        shown = next((text for text in texts if text), "")
        return DataError(
            f"{path}: no cell of column {column} contains {separator!r}, e.g. {shown!r}",
            "remove --label-separator, or pass the column of the classes with --label-column",
        )
    return DataError(
        f"{path}: no cell of column {column} contains {separator!r}, e.g. {example!r}",
        f"pass --label-separator {found!r}",
    )


def guessed_separator(texts: Sequence[str | None]) -> str | None:
    """The separator, if a tenth of the cells consist of several names that also occur alone, and nearly all parts do."""
    cells = Counter(text for text in texts if text)
    total = sum(cells.values())
    for separator in SEPARATORS:
        compound = {text: n for text, n in cells.items() if separator in text}
        if sum(compound.values()) < max(EVIDENT * total, 2):
            continue
        parts = {part.strip() for text in compound for part in text.split(separator) if part.strip()}
        alone = sum(part in cells for part in parts)
        complete = sum(
            all(part.strip() in cells for part in text.split(separator) if part.strip()) for text in compound
        )
        if len(parts) > 1 and alone >= 0.9 * len(parts) and 2 * complete >= len(compound):
            return separator
    return None


def written_lists(texts: Sequence[str | None]) -> list[list[str] | None] | None:
    """Cells such as "['cat', 'dog']" as lists; None if any cell is something else."""
    found: list[list[str] | None] = []
    for text in texts:
        if text is None:
            found.append(None)
            continue
        try:
            value = ast.literal_eval(text)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            return None
        if not isinstance(value, list | tuple | set) or not all(isinstance(v, str | int) for v in value):
            return None
        found.append([str(v) for v in value])
    return found


def _unlabelled(path: str, rows: Sequence[tuple[str, ...] | None]) -> list[Problem]:
    """Say how many images have none of the classes: an empty row may also be one that nobody labelled."""
    empty = [row for row, found in enumerate(rows, 1) if found == ()]
    if not empty:
        return []
    count = plural(len(empty), "row")
    return [
        Problem(
            severity="warning" if 2 * len(empty) > len(rows) else "note",
            message=f"{path}: {count} of {len(rows)} {'has' if len(empty) == 1 else 'have'} no class, the first is row "
            f"{empty[0]}; {'its image counts' if len(empty) == 1 else 'these images count'} as having none of the classes",
            fix="remove the rows if their classes are unknown",
        )
    ]
