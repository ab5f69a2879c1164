"""Data sets: classes, splits of named images, and what was skipped.

Only the sources (`sources/`), which create a `Dataset`, know whether images come from a folder,
a zip, a table or a package. An image is read only when it is needed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from patchword.data.box_targets import Boxes
from patchword.data.targets import ImageTargets, Labels, Numbers, Targets, TaskKind, joined
from patchword.errors import DataError
from patchword.images.decode import Source
from patchword.images.limits import MAX_PIXELS

Severity = Literal["error", "warning", "note"]


class Reader(Protocol):
    """Return the image at a row as something that `images.decode` accepts; thread-safe."""

    def __call__(self, row: int) -> Source: ...


@dataclass(frozen=True, kw_only=True)
class Problem:
    """Something a user should know about the data. "error": training would be meaningless."""

    severity: Severity
    message: str
    fix: str = ""


@dataclass(frozen=True, kw_only=True)
class TakenColumns:
    """The columns of a table that are used, and the `others`."""

    image: str
    label: str
    split: str | None = None
    others: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        also = f" (also: {', '.join(self.others)})" if self.others else ""
        split = f", split from `{self.split}`" if self.split else ""
        return f"image from `{self.image}`, label from `{self.label}`{split}{also}"


@dataclass(frozen=True, kw_only=True)
class Split:
    """Some images of a data set, in a fixed order.

    names: a readable, unique name for each image. targets: what each is labelled with. rows [N]: where the reader finds
    each image. max_pixels: larger images are refused when read. groups: of a table's group column, "" for images in no
    group.
    """

    name: str
    names: tuple[str, ...]
    targets: Targets
    reader: Reader
    rows: NDArray[np.int64]
    max_pixels: int = MAX_PIXELS
    groups: tuple[str, ...] | None = None

    def __len__(self) -> int:
        return len(self.names)

    @property
    def labels(self) -> NDArray[np.int64]:
        """[N] int64: index into the data set's classes. Raises: DataError if images do not have one class each."""
        if not isinstance(self.targets, Labels):
            raise one_class_only(f"the split {self.name}", self.targets.kind)
        return self.targets.values

    @property
    def image_targets(self) -> ImageTargets:
        """The targets of data without boxes. Raises: DataError for boxes."""
        if isinstance(self.targets, Boxes):
            raise one_class_only(f"the split {self.name}", self.targets.kind)
        return self.targets

    def source(self, index: int) -> Source:
        """The image at `index`, for `images.decode`: a path, bytes or an array."""
        return self.reader(int(self.rows[index]))

    def subset(self, indices: Sequence[int] | NDArray[np.int64], name: str | None = None) -> "Split":
        chosen = np.asarray(indices, dtype=np.int64)
        return replace(
            self,
            name=name or self.name,
            names=tuple(self.names[i] for i in chosen),
            targets=self.targets.subset(chosen),
            rows=self.rows[chosen],
            groups=None if self.groups is None else tuple(self.groups[i] for i in chosen),
        )

    def counts(self, num_classes: int) -> list[int]:
        """Images of each class; an image of several counts for each."""
        return self.targets.counts(num_classes)


def one_class_only(what: str, kind: TaskKind) -> DataError:
    """The error of a function that works only with one class for each image."""
    if kind == "boxes":
        return DataError(
            f"{what} has boxes around objects, not one class for each image",
            "give data with one class for each image, or check the boxes with `patchword check`",
        )
    have = {"multi": "several classes for an image", "none": "no labels"}.get(
        kind, "numbers instead of classes"
    )
    return DataError(
        f"{what} has {have}, which only check, train, evaluate (without --probe) and predict support",
        "give data with one class for each image",
    )


@dataclass(frozen=True)
class _Joined:
    """Reads the images of several splits, one split after the other."""

    splits: tuple[Split, ...]

    def __call__(self, row: int) -> Source:
        split, index = self._place(row)
        return split.source(index)

    def stamp(self, row: int) -> tuple[int, int] | None:
        """As `stamps.Stamped`: size and time of the file, if its own reader knows them."""
        split, index = self._place(row)
        known = getattr(split.reader, "stamp", None)
        return None if known is None else known(int(split.rows[index]))

    def _place(self, row: int) -> tuple[Split, int]:
        for split in self.splits:
            if row < len(split):
                return split, row
            row -= len(split)
        raise IndexError(row)


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """Classes in their order and the splits, "train" and "val" or "test", or "all" alone.

    passed_by: skipped files, counted by reason. readings: decisions about folders or columns that
    a user might not expect, one line each. problems: what was found while listing; `check_data` adds what
    only decoding shows.
    classes: none if images are labelled with numbers. columns: of a table. split_seed: of a split made here (`splits.py`), None when the data came split.
    """

    path: str
    kind: str
    classes: tuple[str, ...]
    splits: Mapping[str, Split]
    passed_by: Mapping[str, int] = field(default_factory=dict)
    readings: tuple[str, ...] = ()
    problems: tuple[Problem, ...] = ()
    split_seed: int | None = None
    columns: TakenColumns | None = None

    @property
    def task_kind(self) -> TaskKind:
        """What images are labelled with: "single" (one class), "multi" (any number of classes), "number" or "boxes"."""
        return next(iter(self.splits.values())).targets.kind if self.splits else "single"

    @property
    def outputs(self) -> tuple[str, ...]:
        """What a model of these data gives: the classes, or the names of the numbers."""
        targets = next(iter(self.splits.values())).targets if self.splits else None
        return targets.names if isinstance(targets, Numbers) else self.classes

    @property
    def training(self) -> Split:
        """Raises: DataError if there is nothing to train on."""
        if "train" not in self.splits:
            raise DataError(f"{self.path} has no training images", "add a train/ folder")
        return self.splits["train"]

    @property
    def evaluation(self) -> Split:
        """The split to evaluate on: val, else test, else all images."""
        for name in ("val", "test", "all"):
            if name in self.splits:
                return self.splits[name]
        raise DataError(
            f"{self.path} has no images to evaluate on (splits: {', '.join(self.splits)})",
            "add a val/ folder next to train/",
        )

    @property
    def everything(self) -> Split:
        """The images of all splits, as the split "all"."""
        if set(self.splits) == {"all"}:
            return self.splits["all"]
        splits = tuple(self.splits.values())
        return Split(
            name="all",
            names=tuple(name for split in splits for name in split.names),
            targets=joined([split.targets for split in splits]),
            reader=_Joined(splits),
            rows=np.arange(sum(map(len, splits)), dtype=np.int64),
            max_pixels=splits[0].max_pixels,
            groups=tuple(group for split in splits for group in split.groups or ("",) * len(split))
            if any(split.groups is not None for split in splits)
            else None,
        )

    def with_problems(self, problems: Sequence[Problem]) -> "Dataset":
        return replace(self, problems=(*self.problems, *problems))
