"""What each row of a table labels its image with: one class, several classes, or numbers."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from patchword.data.dataset import Problem
from patchword.data.request import OpenRequest
from patchword.data.sources.split_names import in_order
from patchword.data.sources.table_columns import Choice, Columns
from patchword.data.sources.table_labels import label_texts, several_labels
from patchword.data.sources.table_sets import (
    Sets,
    from_columns,
    from_lists,
    from_separator,
    guessed_separator,
    written_lists,
)
from patchword.data.targets import Labels, MultiLabels, Numbers, Targets, TaskKind
from patchword.errors import DataError, plural

_YES_NO = ("true", "false", "yes", "no")


@dataclass(frozen=True, kw_only=True)
class RowTargets:
    """The target of each row; None if a row has none, in any of the forms.

    kind: of the targets. sets: the classes of each row, exactly one if the kind is "single". numbers: one for each
    of `columns`. listed: the classes in the table's own order, if it lists them.
    """

    kind: TaskKind
    sets: Sequence[tuple[str, ...] | None] = ()
    numbers: Sequence[tuple[float, ...] | None] = ()
    columns: tuple[str, ...] = ()
    listed: tuple[str, ...] | None = None
    readings: tuple[str, ...] = ()
    problems: tuple[Problem, ...] = ()

    def has(self, row: int) -> bool:
        return (self.numbers if self.kind == "number" else self.sets)[row] is not None

    def texts(self) -> list[str | None]:
        """The target of each row for people, to compare rows."""
        rows: Sequence[tuple[Any, ...] | None] = self.numbers if self.kind == "number" else self.sets
        return [
            None
            if row is None
            else " + ".join(f"{v:g}" if isinstance(v, float) else v for v in row) or "no class"
            for row in rows
        ]

    def classes(self, training: Sequence[int]) -> tuple[str, ...]:
        """The classes of the training rows, or the table's own list; none for numbers."""
        if self.kind == "number":
            return ()
        return self.listed or tuple(in_order(name for i in training for name in self.sets[i] or ()))

    def unknown(self, row: int, index: Mapping[str, int]) -> list[str]:
        """The classes of a row that are not in `index`."""
        return [] if self.kind == "number" else [name for name in self.sets[row] or () if name not in index]

    def make(self, rows: Sequence[int], index: Mapping[str, int]) -> Targets:
        if self.kind == "number":
            values = [self.numbers[i] for i in rows]
            return Numbers(np.array(values, np.float32).reshape(len(rows), len(self.columns)), self.columns)
        if self.kind == "single":
            return Labels(np.array([index[(self.sets[i] or ("",))[0]] for i in rows], dtype=np.int64))
        found = np.zeros((len(rows), len(index)), bool)
        for place, row in enumerate(rows):
            found[place, [index[name] for name in self.sets[row] or ()]] = True
        return MultiLabels(found)


def row_targets(path: str, columns: Columns, choice: Choice, request: OpenRequest) -> RowTargets:
    """Read the label columns. A kind that was not asked for is stated in `readings`.

    Raises: DataError naming the row and the value of a cell that cannot be read.
    """
    for name in choice.labels:
        if name in columns.pictures:
            raise DataError(f"{path}: column {name} holds images", "pass the column of the labels")
    if request.target_column is not None:
        return _numbers(path, columns, choice.labels)
    if len(choice.labels) > 1:
        if request.label_separator is not None:
            raise DataError(
                f"{path}: --label-separator applies to one label column, and {len(choice.labels)} are given",
                "remove --label-separator, or give one column of classes",
            )
        return _several(from_columns(path, columns, choice.labels))
    column = choice.labels[0]
    values = columns.values[column]
    class_names = columns.class_names.get(column)
    if any(isinstance(value, list | tuple) for value in values):
        if request.label_separator is not None:
            raise DataError(
                f"{path}: column {column} holds lists, not text with a separator",
                "remove --label-separator",
            )
        return _several(from_lists(path, column, values, class_names))
    texts = label_texts(path, values, class_names)
    separator = request.label_separator
    if separator is not None:
        return _several(from_separator(path, column, values, separator))
    if (
        class_names is None
        and any(texts)
        and (lists := written_lists(texts)) is not None
        and not any(text.lstrip("-").isdigit() for text in texts if text)
    ):
        return _several(from_lists(path, column, lists, None))
    if class_names is None and (guess := guessed_separator(texts)) is not None:
        return _several(from_separator(path, column, values, guess, guessed=True))
    problems = several_labels(path, column, texts) if class_names is None else []
    return RowTargets(
        kind="single",
        sets=[None if text is None else (text,) for text in texts],
        listed=None if class_names is None else tuple(class_names),
        problems=tuple(problems),
    )


def _several(sets: Sets) -> RowTargets:
    return RowTargets(
        kind="multi",
        sets=sets.rows,
        listed=sets.listed,
        readings=(sets.reading,),
        problems=tuple(sets.problems),
    )


def _numbers(path: str, columns: Columns, names: tuple[str, ...]) -> RowTargets:
    """Rows with an empty or NaN cell have no target. Raises: DataError for text and infinity."""
    read = [
        [_number(path, name, row, value) for row, value in enumerate(columns.values[name], 1)]
        for name in names
    ]
    rows = [
        None if any(value is None for value in row) else tuple(value for value in row if value is not None)
        for row in zip(*read, strict=True)
    ]
    problems = []
    for name, values in zip(names, read, strict=True):
        missing = [row for row, value in enumerate(values, 1) if value is None]
        if missing and len(missing) < len(values):
            problems.append(
                Problem(
                    severity="warning",
                    message=f"{path}: column {name} has no number in {plural(len(missing), 'row')}, the first is row "
                    f"{missing[0]}; {'it is' if len(missing) == 1 else 'they are'} skipped",
                    fix="complete or remove these rows",
                )
            )
    return RowTargets(
        kind="number",
        numbers=rows,
        columns=names,
        readings=(f"numbers to predict: {', '.join(names)}",),
        problems=tuple(problems),
    )


def _number(path: str, column: str, row: int, value: Any) -> float | None:
    if value is None or value != value or (isinstance(value, str) and value.strip().lower() in ("", "nan")):
        return None
    try:
        if isinstance(value, bool) or str(value).strip().lower() in _YES_NO:
            raise ValueError
        number = float(value)
    except (TypeError, ValueError):
        raise DataError(
            f"{path}, row {row}: column {column} has {value!r}, which is not a number", _number_fix(value)
        ) from None
    if math.isinf(number) or abs(number) > np.finfo(np.float32).max:
        raise DataError(
            f"{path}, row {row}: column {column} has {value!r}, which is not a finite number",
            "correct or remove this row",
        )
    return number


def _number_fix(value: Any) -> str:
    """A decimal comma is the most common reason."""
    text = str(value).strip().replace(",", ".")
    try:
        float(text)
    except ValueError:
        return "correct the cell, leave it empty, or pass classes with --label-column"
    return f"write {text}"
