"""What the images of a split are labelled with: one class each, several classes, numbers, or boxes.

Shapes: N images, C classes, T numbers. Boxes have a file of their own (`box_targets.py`).
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from patchword.data.box_targets import Boxes, Rows, joined_boxes

TaskKind = Literal["single", "multi", "number", "boxes", "none"]


@dataclass(frozen=True)
class Labels:
    """values [N] int64: the class of each image, as an index into the data set's classes."""

    values: NDArray[np.int64]
    kind: TaskKind = "single"

    def counts(self, num_classes: int) -> list[int]:
        """Images of each class."""
        return [int(count) for count in np.bincount(self.values, minlength=num_classes)]

    def subset(self, indices: Rows) -> "Labels":
        return Labels(self.values[np.asarray(indices, np.int64)])

    def rows(self, indices: Rows) -> NDArray[np.int64]:
        """[B] int64."""
        return self.values[np.asarray(indices, np.int64)]

    def key(self, index: int) -> Hashable:
        """Equal for images with the same class."""
        return int(self.values[index])

    def text(self, index: int, names: Sequence[str]) -> str:
        return names[int(self.values[index])]

    def strata(self) -> list[NDArray[np.int64]]:
        """The images of each class, of which both sides of a split need some."""
        return [np.flatnonzero(self.values == label) for label in np.unique(self.values)]


@dataclass(frozen=True)
class MultiLabels:
    """values [N, C] bool: whether each image has each class. A row without a True has none of the classes."""

    values: NDArray[np.bool_]
    kind: TaskKind = "multi"

    def counts(self, num_classes: int) -> list[int]:
        """Images that have each class (positives)."""
        return [int(count) for count in self.values.sum(axis=0)]

    def subset(self, indices: Rows) -> "MultiLabels":
        return MultiLabels(self.values[np.asarray(indices, np.int64)])

    def rows(self, indices: Rows) -> NDArray[np.bool_]:
        """[B, C] bool."""
        return self.values[np.asarray(indices, np.int64)]

    def key(self, index: int) -> Hashable:
        """Equal for images with the same classes."""
        return bytes(self.values[index].tobytes())

    def text(self, index: int, names: Sequence[str]) -> str:
        return "\x1f".join(names[i] for i in np.flatnonzero(self.values[index]).tolist())

    def strata(self) -> list[NDArray[np.int64]]:
        """The images with each class, and those with none: both sides of a split need some of each."""
        found = [np.flatnonzero(column) for column in self.values.T]
        return [rows for rows in (*found, np.flatnonzero(~self.values.any(axis=1))) if len(rows)]


@dataclass(frozen=True)
class Numbers:
    """values [N, T] float32, in the units of the table. names: of the T columns."""

    values: NDArray[np.float32]
    names: tuple[str, ...]
    kind: TaskKind = "number"

    def counts(self, num_classes: int) -> list[int]:
        """No image belongs to a class."""
        return [0] * num_classes

    def subset(self, indices: Rows) -> "Numbers":
        return Numbers(self.values[np.asarray(indices, np.int64)], self.names)

    def rows(self, indices: Rows) -> NDArray[np.float32]:
        """[B, T] float32."""
        return self.values[np.asarray(indices, np.int64)]

    def key(self, index: int) -> Hashable:
        """Equal for images with the same numbers."""
        return bytes(self.values[index].tobytes())

    def text(self, index: int, names: Sequence[str]) -> str:
        return "\x1f".join(repr(float(value)) for value in self.values[index])

    def strata(self) -> list[NDArray[np.int64]]:
        """All images: numbers have no classes."""
        return [np.arange(len(self.values))] if len(self.values) else []


@dataclass(frozen=True)
class Nothing:
    """No labels. size: N."""

    size: int
    kind: TaskKind = "none"

    @property
    def values(self) -> NDArray[np.int64]:
        return np.zeros(self.size, np.int64)

    def counts(self, num_classes: int) -> list[int]:
        return [0] * num_classes

    def subset(self, indices: Rows) -> "Nothing":
        return Nothing(len(indices))

    def rows(self, indices: Rows) -> NDArray[np.int64]:
        """[B] int64, zeros."""
        return np.zeros(len(indices), np.int64)

    def key(self, index: int) -> Hashable:
        return 0

    def text(self, index: int, names: Sequence[str]) -> str:
        return ""

    def strata(self) -> list[NDArray[np.int64]]:
        """All images."""
        return [np.arange(self.size)] if self.size else []


# Targets with one row of values for each image.
ImageTargets = Labels | MultiLabels | Numbers | Nothing
Targets = ImageTargets | Boxes


def joined(parts: Sequence[Targets]) -> Targets:
    """The targets of several splits of one data set, one after the other."""
    first = parts[0]
    boxes = [part for part in parts if isinstance(part, Boxes)]
    if boxes:
        return joined_boxes(boxes)
    others = [part for part in parts if not isinstance(part, Boxes)]
    if isinstance(first, Nothing):
        return Nothing(sum(len(part.values) for part in others))
    values = np.concatenate([part.values for part in others])
    if isinstance(first, Numbers):
        return Numbers(values, first.names)
    return MultiLabels(values) if isinstance(first, MultiLabels) else Labels(values)
