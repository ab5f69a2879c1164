"""Boxes as their files have them, before anything is decided about them."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from patchword.data.box_targets import Id
from patchword.data.boxes.forms import Form
from patchword.images.geometry import Size

# Pixels; sides from here on are no sides.
LONGEST = 1_000_000


@dataclass(frozen=True, kw_only=True)
class WrittenImage:
    """name: as the annotations call it. folder: below the root, where the name starts. where: the file that annotates it.

    size: (h, w) as annotated, if it is. is_path: the name is a path of the listing itself.
    """

    name: str
    folder: str
    where: str
    id: Id | None = None
    size: Size | None = None
    is_path: bool = False


def size_of(height: object, width: object) -> Size | None:
    """(h, w) of sides as a file has them; None for those that are none, as some tools write 0."""
    sides = []
    for side in (height, width):
        try:
            value = float(side)  # type: ignore[arg-type]
        except (TypeError, ValueError, OverflowError):
            return None
        if not 1 <= value < LONGEST:
            return None
        sides.append(round(value))
    return sides[0], sides[1]


@dataclass(kw_only=True)
class WrittenBoxes:
    """Columns of M boxes. images: index of the image. places: how a message names each, such as "annotation 17"."""

    images: list[int] = field(default_factory=list)
    numbers: list[tuple[float, float, float, float]] = field(default_factory=list)
    classes: list[Id] = field(default_factory=list)
    crowd: list[bool] = field(default_factory=list)
    difficult: list[bool] = field(default_factory=list)
    areas: list[float] = field(default_factory=list)
    ids: list[Id | None] = field(default_factory=list)
    places: list[str] = field(default_factory=list)

    def add(
        self,
        image: int,
        numbers: tuple[float, float, float, float],
        label: Id,
        place: str,
        *,
        crowd: bool = False,
        difficult: bool = False,
        area: float = float("nan"),
        id: Id | None = None,
    ) -> None:
        self.images.append(image)
        self.numbers.append(numbers)
        self.classes.append(label)
        self.crowd.append(crowd)
        self.difficult.append(difficult)
        self.areas.append(area)
        self.ids.append(id)
        self.places.append(place)

    def array(self) -> NDArray[np.float64]:
        """[M, 4]."""
        return np.array(self.numbers, dtype=np.float64).reshape(-1, 4)


@dataclass(frozen=True, kw_only=True)
class Annotations:
    """One split. source: its file, for messages. names: of the classes, by what the boxes call them.

    has_ids: whether the keys of `names` are ids that the user knows. missing: annotations that name no image of the
    file, which makes the data unusable.
    """

    split: str
    source: str
    images: list[WrittenImage]
    boxes: WrittenBoxes
    form: Form
    names: Mapping[Id, str]
    has_ids: bool
    readings: tuple[str, ...] = ()
    passed_by: Mapping[str, int] = field(default_factory=dict)
    errors: tuple[tuple[str, str], ...] = ()
