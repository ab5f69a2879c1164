"""A table of the score of each class, for `evaluate` and `predict --against`."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from patchword.cli.console import line, percent

if TYPE_CHECKING:
    from rich.console import Console

    from patchword.metrics import ClassScore


def print_classes(
    console: "Console", names: Sequence[str], scores: "Sequence[ClassScore]", confusion: list[list[int]]
) -> None:
    """Print a row for each class that has images or was predicted. confusion: rows are true classes."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    table.add_column("class")
    for title in ("images", "precision", "recall", "F1", "confused with"):
        table.add_column(title, justify="left" if title == "confused with" else "right")
    for index, (name, c) in enumerate(zip(names, scores, strict=True)):
        if not c.images and c.precision is None:
            continue
        shares = ("–" if x is None else percent(x) for x in (c.precision, c.recall, c.f1))
        table.add_row(
            line(name), str(c.images), *shares, line(_confused_with(confusion[index], index, names))
        )
    console.print(table)


def _confused_with(row: list[int], index: int, names: Sequence[str]) -> str:
    """The class that this one is most often confused with, and how often."""
    others = [(count, -j) for j, count in enumerate(row) if j != index and count]
    if not others:
        return ""
    count, j = max(others)
    return f"{names[-j]} {count}×"
