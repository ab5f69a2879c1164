"""Written boxes of one split as targets: in the upright image, inside it, with their class as an index."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from patchword.data.box_targets import Boxes, Id
from patchword.data.boxes.annotations import Annotations
from patchword.data.boxes.clean import Faults, clean
from patchword.data.boxes.forms import corners, form_called, refuse_other_form
from patchword.data.boxes.frames import Decided, upright
from patchword.data.boxes.headers import Header, sizes_of
from patchword.data.dataset import Problem
from patchword.data.request import OpenRequest
from patchword.errors import DataError, plural

_LISTED = 3


@dataclass(frozen=True, kw_only=True)
class Built:
    """names [N]: the files. problems: of this split."""

    names: list[str]
    boxes: Boxes
    problems: list[Problem]


def build_split(
    part: Annotations,
    names: Sequence[str],
    found: Sequence[Header],
    decided: Decided,
    classes: Sequence[str],
    faults: Faults,
    request: OpenRequest,
) -> Built:
    """found, names [N]: of the images. Raises: DataError for a number that is none, and for another convention."""
    numbers, image = part.boxes.array(), np.array(part.boxes.images, dtype=np.int64)
    _refuse_non_finite(part, numbers)
    sizes, problems = sizes_of(found), list[Problem]()
    readable = sizes.min(axis=1, initial=1 << 40) > 0
    fitting = readable & np.array([frame != "other" for frame in decided.frames], dtype=np.bool_)
    problems += _unusable(part, names, found, readable, fitting)
    index = {name: i for i, name in enumerate(classes)}
    known = np.array([part.names[key] in index for key in part.boxes.classes], dtype=np.bool_)
    rows = np.flatnonzero(fitting[image] & known) if len(image) else np.zeros(0, np.int64)
    image, numbers = image[rows], numbers[rows]
    annotated = [entry.size for entry in part.images]
    drawn = _drawn_sizes(annotated, found, decided)[image].astype(np.float64)
    form = part.form
    if request.box_format is not None:
        form = form_called(request.box_format)
    else:
        refuse_other_form(numbers, form, drawn, part.source)
    placed = upright(corners(numbers, form, drawn), image, found, decided, annotated)
    labels = np.array([index[part.names[part.boxes.classes[row]]] for row in rows], dtype=np.int64)
    crowd, difficult = (
        np.array([flags[row] for row in rows], dtype=np.bool_)
        for flags in (part.boxes.crowd, part.boxes.difficult)
    )
    places = [
        f"{names[i]} {part.boxes.places[row]}" for i, row in zip(image.tolist(), rows.tolist(), strict=True)
    ]
    inside, kept = clean(placed, labels, crowd, image, sizes[image], places, faults)
    spans = inside[:, 2:] - inside[:, :2]
    areas = np.array([part.boxes.areas[row] for row in rows], dtype=np.float64)
    resized = (sizes[image].prod(axis=1) / np.maximum(drawn.prod(axis=1), 1)) if len(image) else areas
    areas = np.where(np.isfinite(areas), areas * resized, spans.prod(axis=1))
    # Images of another shape than annotated are errors; without their boxes they would pass for images without objects.
    order = np.argsort(image, kind="stable")
    whole = Boxes(
        starts=np.concatenate([[0], np.cumsum(np.bincount(image, minlength=len(names)))]).astype(np.int64),
        corners=inside[order],
        labels=labels[order],
        crowd=crowd[order],
        difficult=difficult[order],
        areas=areas[order],
        ids=_ids(part, rows[order]),
        sizes=sizes,
        image_ids=tuple(i + 1 if entry.id is None else entry.id for i, entry in enumerate(part.images)),
        class_ids=_class_ids(part, classes),
    )
    usable = np.flatnonzero(fitting)
    return Built(
        names=[names[i] for i in usable.tolist()],
        boxes=whole.where(kept[order]).subset(usable),
        problems=problems,
    )


def _refuse_non_finite(part: Annotations, numbers: NDArray[np.float64]) -> None:
    wrong = np.flatnonzero(~np.isfinite(numbers).all(axis=1))
    if len(wrong):
        row = int(wrong[0])
        image = part.images[part.boxes.images[row]]
        shown = ", ".join(f"{value:g}" for value in numbers[row])
        more = f" ({plural(len(wrong), 'such box', 'such boxes')})" if len(wrong) > 1 else ""
        raise DataError(
            f"{image.where}, {part.boxes.places[row]}: the box is [{shown}]{more}", "correct or remove it"
        )


def _unusable(
    part: Annotations,
    names: Sequence[str],
    found: Sequence[Header],
    readable: NDArray[np.bool_],
    fitting: NDArray[np.bool_],
) -> list[Problem]:
    problems = []
    broken = np.flatnonzero(~readable).tolist()
    if broken:
        shown = "; ".join(f"{names[i]}: {found[i].reason}" for i in broken[:_LISTED])
        message = f"{part.source}: {plural(len(broken), 'image')} of {part.split} cannot be read: {shown}"
        problems.append(
            Problem(severity="warning", message=message, fix="fix or remove them; they are left out")
        )
    other = np.flatnonzero(readable & ~fitting).tolist()
    if other:
        i = other[0]
        (h, w), (height, width) = part.images[i].size or (0, 0), found[i].size
        message = (
            f"{part.source}: {plural(len(other), 'image')} of {part.split} with another shape than annotated, e.g. "
            f"{names[i]}: {width}x{height} pixels, annotated as {w}x{h}"
        )
        problems.append(
            Problem(
                severity="error",
                message=message,
                fix="give the images that were annotated, or correct the sizes",
            )
        )
    return problems


def _drawn_sizes(
    annotated: Sequence[tuple[int, int] | None], found: Sequence[Header], decided: Decided
) -> NDArray[np.int64]:
    """[N, 2]: (h, w) of the picture that the boxes were drawn on."""
    sizes = [
        size or (header.stored if decided.is_stored(i) else header.size)
        for i, (size, header) in enumerate(zip(annotated, found, strict=True))
    ]
    return np.array(sizes, dtype=np.int64).reshape(-1, 2)


def _ids(part: Annotations, rows: NDArray[np.int64]) -> tuple[Id, ...]:
    """The file's ids of some boxes, counted from 1 where there are none."""
    found = [part.boxes.ids[row] for row in rows.tolist()]
    return tuple(i if one is None else one for i, one in enumerate(found, 1))


def _class_ids(part: Annotations, classes: Sequence[str]) -> tuple[Id, ...]:
    """The file's id of each class. A class that this file has not gets one that is free."""
    if not part.has_ids:
        return tuple(range(1, len(classes) + 1))
    by_name = {name: key for key, name in part.names.items()}
    free = max((key for key in part.names if isinstance(key, int)), default=0) + 1
    found: list[Id] = []
    for name in classes:
        if name not in by_name:
            by_name[name], free = free, free + 1
        found.append(by_name[name])
    return tuple(found)
