"""The group column of a table: images of one patient, scene or video, which are held out together."""

from collections.abc import Sequence

from patchword.data.dataset import Problem
from patchword.data.sources.table_columns import Columns
from patchword.errors import DataError, near_text, plural


def group_texts(path: str, columns: Columns, asked: str | None) -> tuple[str, ...] | None:
    """The group of each row, "" if it has none; None if no column is asked for.

    Raises: DataError if the column does not exist, or holds lists or images.
    """
    if asked is None:
        return None
    if asked not in columns.names:
        raise DataError(
            f"{path} has no column {asked!r}{near_text(asked, columns.names)}",
            f"use one of its columns: {', '.join(columns.names)}",
        )
    if asked not in columns.values:
        raise DataError(
            f"{path}: column {asked} holds lists or images, not one group per row",
            "pass a column with one value per row with --group-column",
        )
    values = columns.values[asked]
    return tuple("" if value is None or value != value else str(value).strip() for value in values)


def without_group(path: str, column: str | None, groups: Sequence[str] | None) -> list[Problem]:
    """A warning about rows that have no group, which are each held out on their own."""
    missing = sum(not group for group in groups or ())
    if not missing:
        return []
    message = (
        f"{path} has {plural(missing, 'row')} without a value in column {column}: each is a group of its own"
    )
    return [Problem(severity="warning", message=message, fix="complete these rows")]
