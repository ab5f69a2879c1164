"""The true classes, several for each image, or numbers of images that were listed elsewhere, from a table; as truth.py."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from patchword.data.request import OpenRequest
from patchword.data.sources import table
from patchword.data.sources.table_columns import Columns, choose_columns
from patchword.data.sources.table_labels import contradicting_rows
from patchword.data.sources.table_targets import RowTargets, row_targets
from patchword.data.targets import MultiLabels, Numbers, TaskKind
from patchword.data.truth import Truth, image_names
from patchword.errors import DataError


@dataclass(frozen=True, kw_only=True)
class TargetTruth:
    """truth: its labels are numbers of rows of the table, as text. targets: of the rows."""

    truth: Truth
    targets: RowTargets

    def unknown(self, label: str, outputs: Sequence[str]) -> list[str]:
        """The classes of a row that are not among `outputs`."""
        return self.targets.unknown(int(label), {name: i for i, name in enumerate(outputs)})

    def values(
        self, labels: Sequence[str], outputs: Sequence[str]
    ) -> NDArray[np.bool_] | NDArray[np.float32]:
        """The targets of some rows [N, outputs], in the order of `outputs`. A class that no row has is absent."""
        made = self.targets.make(
            [int(label) for label in labels], {name: i for i, name in enumerate(outputs)}
        )
        if isinstance(made, Numbers):
            return made.values[:, [made.names.index(name) for name in outputs]]
        assert isinstance(made, MultiLabels)
        return made.values


def read_target_truth(
    path: str | Path, request: OpenRequest, kind: TaskKind, outputs: Sequence[str]
) -> TargetTruth:
    """Read a table of image names, and of several classes for each ("multi") or of numbers ("number").

    request: its columns. If it names none, columns with the names of `outputs`, those of the model, are taken.
    Raises: DataError if it is not such a table, its columns are unknown, or an image has two rows that differ.
    """
    text = str(path)
    columns = table.read_columns(text)
    request = _with_own_columns(request, columns, kind, outputs)
    choice = choose_columns(text, columns, request)
    targets = row_targets(text, columns, choice, request)
    if targets.kind != kind:
        wanted = "numbers" if kind == "number" else "several classes for each image"
        raise DataError(
            f"{text}: column {choice.taken.label} has no {wanted}, which the model predicts",
            f"pass --target-column {','.join(outputs)}"
            if kind == "number"
            else "pass --label-separator, or a column of 0 and 1 for each class with --label-column",
        )
    if kind == "number" and set(targets.columns) != set(outputs):
        raise DataError(
            f"{text}: the numbers are {', '.join(targets.columns)}, but the model predicts {', '.join(outputs)}",
            "name the columns as the model does",
        )
    names = image_names(text, columns, choice.taken.image)
    labels = [str(row) if targets.has(row) else None for row in range(columns.num_rows)]
    for problem in contradicting_rows(text, names, targets.texts(), kind):
        raise DataError(problem.message, problem.fix)
    rows: dict[str, str | None] = {}
    for name, label in zip(names, labels, strict=True):
        if name:
            rows[name] = label or rows.get(name)
    if not any(rows.values()):
        raise DataError(
            f"{text}: no row has both an image and a label",
            f"check the columns {choice.taken.image} and {choice.taken.label}",
        )
    truth = Truth(path=text, column=choice.taken.image, names=tuple(rows), labels=tuple(rows.values()))
    return TargetTruth(truth=truth, targets=targets)


def _with_own_columns(
    request: OpenRequest, columns: Columns, kind: TaskKind, outputs: Sequence[str]
) -> OpenRequest:
    """The request with the model's own names as columns, if it names none and the table has them all."""
    asked = (request.label_column, request.label_separator, request.target_column)
    if any(value is not None for value in asked) or not set(outputs) <= set(columns.names):
        return request
    named = ",".join(outputs)
    return replace(request, target_column=named) if kind == "number" else replace(request, label_column=named)
