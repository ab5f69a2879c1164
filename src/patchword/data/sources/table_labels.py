"""The labels of a table as class names, and the signs that a cell holds several."""

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from patchword.data.dataset import Problem
from patchword.data.targets import TaskKind
from patchword.errors import DataError, plural

# Separators between two labels in one cell. A blank, "-" or "_" is also part of many names.
_SEPARATORS = (",", ";", "|", "/", "+", "&", " and ", "\n")
_WEAK_SEPARATORS = (" ", "_", "-")
_LIST = re.compile(r"""\[.*\]|\{.*\}|\(\s*['"].*\)""", re.DOTALL)
# If more than this share of the images has several rows with different labels, the table has several labels per image.
_MANY = 0.1


def label_texts(path: str, values: Sequence[Any], class_names: Sequence[str] | None) -> list[str | None]:
    """Each label as a class name; None if there is none. -1 is how Hugging Face says unlabelled, NaN pandas.

    Raises: DataError for lists.
    """
    lists = [(row, value) for row, value in enumerate(values, 1) if isinstance(value, list | tuple | dict)]
    if lists:
        row, value = lists[0]
        raise DataError(
            f"{path}: {plural(len(lists), 'label')} of {len(values)} {'holds' if len(lists) == 1 else 'hold'} a list instead of one class: row {row} "
            f"has {value!r}",
            "give each image one class",
        )
    return [_label_text(value, class_names) for value in values]


def _label_text(value: Any, class_names: Sequence[str] | None) -> str | None:
    if value is None or value == "" or value != value or (class_names is not None and value == -1):
        return None
    if class_names is not None and isinstance(value, int) and 0 <= value < len(class_names):
        return class_names[value]
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value).strip() or None


@dataclass(frozen=True)
class _Several:
    """parts: what a label is made of. rows: how many have such a label."""

    label: str
    parts: tuple[str, ...]
    rows: int


def several_labels(path: str, column: str, texts: Sequence[str | None]) -> list[Problem]:
    """Warn if labels may hold several names.

    The evidence is that the parts of a label are labels of other rows: "cat,dog" where there are "cat" and "dog".
    Names such as "black bear" or "bear, black" have no such parts. With a blank, two such labels are wanted
    before the table is refused, since "tiger", "cat" and "tiger cat" may be three animals.
    Raises: DataError if it is beyond doubt.
    """
    rows_of = Counter(text for text in texts if text)
    lists = [text for text in rows_of if _LIST.fullmatch(text)]
    if lists:
        count = sum(rows_of[text] for text in lists)
        raise _refusal(path, column, count, len(texts), lists[0], "is written as a list")
    doubts: list[Problem] = []
    for separator in (*_SEPARATORS, *_WEAK_SEPARATORS):
        compounds = _compounds(rows_of, separator)
        if not compounds:
            continue
        first = max(compounds, key=lambda compound: compound.rows)
        count = sum(compound.rows for compound in compounds)
        if separator in _SEPARATORS or len(compounds) > 1:
            made = f"consists of {' and '.join(map(repr, first.parts))}, which are labels of other rows"
            raise _refusal(path, column, count, len(texts), first.label, made)
        doubts.append(_doubt(path, column, first.label, count, f"consists of the labels {_joined(first)}"))
    return doubts or _combinations(path, column, rows_of)


def _refusal(path: str, column: str, count: int, rows: int, example: str, why: str) -> DataError:
    return DataError(
        f"{path}: {plural(count, 'label')} of {rows} in column {column} {'holds' if count == 1 else 'hold'} several names: {example!r} {why}, but "
        "patchword needs one class per image",
        "give each image one class, or pass --label-separator if images have several",
    )


def _doubt(path: str, column: str, example: str, count: int, why: str) -> Problem:
    message = f"{path}: in column {column}, {example!r} ({plural(count, 'row')}) {why}"
    return Problem(
        severity="warning",
        message=f"{message}; it is treated as a separate class",
        fix="if such cells hold several classes, pass --label-separator",
    )


def _joined(compound: _Several) -> str:
    return " and ".join(map(repr, compound.parts))


def _compounds(rows_of: Counter[str], separator: str) -> list[_Several]:
    """The labels all of whose parts are labels themselves."""
    found = []
    for label, rows in rows_of.items():
        parts = _parts(label, separator)
        if len(parts) > 1 and all(part in rows_of for part in parts):
            found.append(_Several(label, parts, rows))
    return found


def _parts(label: str, separator: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(part.strip() for part in label.split(separator) if part.strip()))


def _combinations(path: str, column: str, rows_of: Counter[str]) -> list[Problem]:
    """Warn if labels look like combinations of a few words that never occur alone.

    Most of the labels then are another one and one word more, there are fewer words than labels, and words change
    their place, which the parts of a name don't.
    """
    for separator in (",", ";", "|", " "):
        parts = {label: _parts(label, separator) for label in rows_of}
        sets = {frozenset(p) for p in parts.values()}
        places = defaultdict(set)
        for label_parts in parts.values():
            for place, part in enumerate(label_parts):
                places[part].add(place)
        longer = [label for label, p in parts.items() if len(p) > 1]
        grown = [b for b in longer if any(frozenset(parts[b]) - {part} in sets for part in parts[b])]
        moving = sum(len(seen) > 1 for seen in places.values())
        if len(longer) > 3 and 2 * len(grown) >= len(longer) and len(places) < len(rows_of) and moving > 1:
            example = max(grown, key=lambda label: len(parts[label]))
            count = sum(rows_of[label] for label in longer)
            why = f"looks like several labels: {len(rows_of)} different cells use only {len(places)} words"
            return [_doubt(path, column, example, count, why)]
    return []


def contradicting_rows(
    path: str, names: Sequence[str | None], texts: Sequence[str | None], kind: TaskKind = "single"
) -> list[Problem]:
    """Warn if an image is in several rows with different labels. Raises: DataError if many do."""
    labels_of: dict[str, dict[str, None]] = defaultdict(dict)
    for name, text in zip(names, texts, strict=True):
        if name and text:
            labels_of[name][text] = None
    twice = [name for name, labels in labels_of.items() if len(labels) > 1]
    if not twice:
        return []
    fix = (
        "keep one row per image"
        if kind == "number"
        else "keep one row per image; for several classes, write them into one cell as 'a;b'"
    )
    stand = "1 image is" if len(twice) == 1 else f"{len(twice)} images are"
    example = f"{twice[0]} ({', '.join(labels_of[twice[0]])})"
    message = f"{path}: {stand} in several rows with different labels, e.g. {example}"
    if len(twice) > _MANY * len(labels_of):
        needs = "one class per image" if kind == "single" else "one row per image"
        raise DataError(f"{message}, but patchword needs {needs}", fix)
    return [Problem(severity="warning", message=message, fix=fix)]
