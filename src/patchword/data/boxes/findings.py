"""What the data check finds in boxes: classes, sizes, and boxes that are likely mistakes.

Shapes: M boxes of a split, n boxes of an image.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from patchword.data.box_targets import Boxes
from patchword.data.boxes.overlap import pairs_above
from patchword.data.dataset import Dataset, Problem, Split
from patchword.data.findings import listed, look_alikes
from patchword.errors import plural

FEW = 10
IMBALANCE = 100.0
# The sides of COCO's small, medium and large objects, in pixels: Lin et al. 2014, section 5.1 of the detection task.
SMALL, LARGE = 32.0, 96.0
# Two boxes of one class that overlap so much are mostly one object; two classes at one place are mostly a slip.
SAME_OBJECT, SAME_PLACE = 0.8, 0.9
_TINY = 2.0
_USUAL_SHARE, _USUAL_IMAGES = 0.95, 30
_FAR_FROM_CLASS = 6.0
_LISTED = 20


def box_problems(dataset: Dataset) -> list[Problem]:
    """Problems of the whole data set, most important first; those of single boxes name their images."""
    training = dataset.splits.get("train") or dataset.splits.get("all")
    if training is None:
        return []
    return [
        *_class_problems(dataset, training),
        *look_alikes(dataset.classes),
        *_overlaps(dataset),
        *_tiny(dataset),
        *_whole_images(dataset),
        *_missing_usual(dataset),
        *_unusual_sizes(dataset),
    ]


def boxes_of(split: Split) -> Boxes:
    """Raises: TypeError for a split without boxes."""
    if not isinstance(split.targets, Boxes):
        raise TypeError(f"the split {split.name} has no boxes")
    return split.targets


def _class_problems(dataset: Dataset, training: Split) -> list[Problem]:
    problems: list[Problem] = []
    counts = boxes_of(training).box_counts(len(dataset.classes))
    if not sum(counts):
        message = f"{dataset.path}: 0 boxes in the {plural(len(training), 'training image')}"
        return [Problem(severity="error", message=message, fix="annotate objects in training images")]
    never = [name for name, count in zip(dataset.classes, counts, strict=True) if count == 0]
    if never:
        what = "class has" if len(never) == 1 else "classes have"
        message = f"{len(never)} {what} no training box: {listed(never)}"
        problems.append(Problem(severity="warning", message=message, fix="add boxes, or remove the class"))
    few = sorted(
        (count, name) for name, count in zip(dataset.classes, counts, strict=True) if 0 < count < FEW
    )
    if few:
        shown = ", ".join(f"{name!r} {count}" for count, name in few[:_LISTED]) + (
            " …" if len(few) > _LISTED else ""
        )
        what = "class has" if len(few) == 1 else "classes have"
        message = f"{len(few)} {what} fewer than {FEW} training boxes: {shown}"
        problems.append(
            Problem(severity="warning", message=message, fix="add boxes, or remove the class if it is a slip")
        )
    for name in ("val", "test"):
        if name in dataset.splits and dataset.splits[name] is not training:
            problems += _unscored(dataset, name, counts)
    most, least = max(counts), min(count for count in counts if count)
    if most > IMBALANCE * least and least >= FEW:
        big, small = dataset.classes[counts.index(most)], dataset.classes[counts.index(least)]
        message = f"imbalance: {big!r} has {most / least:.0f} times as many boxes as {small!r}"
        problems.append(Problem(severity="note", message=message, fix="look at the score of each class"))
    return problems


def _unscored(dataset: Dataset, name: str, counts: Sequence[int]) -> list[Problem]:
    there = boxes_of(dataset.splits[name]).box_counts(len(dataset.classes))
    unscored = [c for c, n, m in zip(dataset.classes, counts, there, strict=True) if n and not m]
    problems = []
    if not sum(there):
        message = f"0 boxes in the {plural(len(dataset.splits[name]), 'image')} of {name}"
        return [Problem(severity="error", message=message, fix=f"annotate objects in {name}, or remove it")]
    if unscored:
        what = "class has" if len(unscored) == 1 else "classes have"
        message = f"{len(unscored)} {what} no box in {name}, so no score: {listed(unscored)}"
        problems.append(Problem(severity="note", message=message, fix=f"add boxes to {name}"))
    return problems


def _places(dataset: Dataset, found: Sequence[tuple[str, int, str]]) -> str:
    """ "train/a.jpg: text; val/b.jpg: text"."""
    shown = [f"{dataset.splits[split].names[i]}{text and ' ' + text}" for split, i, text in found[:_LISTED]]
    return "; ".join(shown) + (" …" if len(found) > _LISTED else "")


def _at(corners: NDArray[np.float64]) -> str:
    """A box in a message: its corners in whole pixels."""
    return f"({', '.join(f'{value:.0f}' for value in corners)})"


def _overlaps(dataset: Dataset) -> list[Problem]:
    """Objects that are likely boxed twice: with one class or with two."""
    twice: list[tuple[str, int, str]] = []
    two_classes: list[tuple[str, int, str]] = []
    for name, split in dataset.splits.items():
        boxes = boxes_of(split)
        for index in range(len(split)):
            one = boxes.image(index)
            for i, j, overlap in pairs_above(one.corners, SAME_OBJECT):
                if one.crowd[i] or one.crowd[j]:
                    continue
                a, b = (dataset.classes[one.labels[k]] for k in (i, j))
                if a == b:
                    twice.append((name, index, f"{a} {_at(one.corners[j])} IoU {overlap:.2f}"))
                elif overlap >= SAME_PLACE:
                    two_classes.append((name, index, f"{a} and {b} {_at(one.corners[j])}"))
    problems = []
    if twice:
        are = (
            "pair of boxes of one class overlaps"
            if len(twice) == 1
            else "pairs of boxes of one class overlap"
        )
        message = (
            f"{len(twice)} {are} so much that an object is probably boxed twice: {_places(dataset, twice)}"
        )
        problems.append(Problem(severity="warning", message=message, fix="keep one box of each object"))
    if two_classes:
        are = "place has" if len(two_classes) == 1 else "places have"
        message = f"{len(two_classes)} {are} boxes of two classes: {_places(dataset, two_classes)}"
        problems.append(Problem(severity="warning", message=message, fix="keep the right one"))
    return problems


def _tiny(dataset: Dataset) -> list[Problem]:
    found, total = [], 0
    for name, split in dataset.splits.items():
        boxes = boxes_of(split)
        sides = (boxes.corners[:, 2:] - boxes.corners[:, :2]).min(axis=1, initial=np.inf)
        owners = boxes.owners()
        total += len(owners)
        found += [(name, int(owners[row]), _at(boxes.corners[row])) for row in np.flatnonzero(sides < _TINY)]
    if not found:
        return []
    have = "box is" if len(found) == 1 else "boxes are"
    message = f"{len(found)} {have} narrower than {_TINY:g} pixels: {_places(dataset, found)}"
    severity = "warning" if len(found) > 0.05 * total else "note"
    fix = "check that these are objects, and that the numbers are in the unit of the format"
    return [Problem(severity=severity, message=message, fix=fix)]  # type: ignore[arg-type]


def _whole_images(dataset: Dataset) -> list[Problem]:
    """Boxes around complete images say nothing about places."""
    whole = total = 0
    for split in dataset.splits.values():
        boxes = boxes_of(split)
        owners = boxes.owners()
        spans = (boxes.corners[:, 2:] - boxes.corners[:, :2]).prod(axis=1)
        whole += int((spans >= 0.98 * boxes.sizes[owners].prod(axis=1)).sum()) if len(owners) else 0
        total += len(owners)
    if whole < 0.5 * total or not whole:
        return []
    message = f"{whole} of {plural(total, 'box', 'boxes')} cover their complete image"
    return [Problem(severity="warning", message=message, fix="for one class per image, give class folders")]


def _missing_usual(dataset: Dataset) -> list[Problem]:
    """Images without a class that nearly every other image has: it may have been left unannotated."""
    present = {name: boxes_of(split).present(len(dataset.classes)) for name, split in dataset.splits.items()}
    every = np.concatenate(list(present.values()))
    some = every.any(axis=1)
    problems = []
    for label, name in enumerate(dataset.classes):
        share = every[some, label].mean() if some.sum() >= _USUAL_IMAGES else 0.0
        if not _USUAL_SHARE <= share < 1.0:
            continue
        found = [
            (split, int(i), "")
            for split, rows in present.items()
            for i in np.flatnonzero(rows.any(axis=1) & ~rows[:, label])
        ]
        are = "image is" if len(found) == 1 else "images are"
        message = f"{len(found)} {are} without {name!r}, which {100 * share:.1f} % of the images have: {_places(dataset, found)}"
        fix = "look whether its objects are there and have no box"
        problems.append(Problem(severity="note", message=message, fix=fix))
    return problems


def _unusual_sizes(dataset: Dataset) -> list[Problem]:
    """Boxes whose size is far from all of their class and usual for another: often a wrong class."""
    sides = {n: np.log(np.sqrt(_spans(boxes_of(s)).prod(axis=1))) for n, s in dataset.splits.items()}
    labels = {name: boxes_of(split).labels for name, split in dataset.splits.items()}
    every, of = np.concatenate(list(sides.values())), np.concatenate(list(labels.values()))
    middle = np.full(len(dataset.classes), np.nan)
    spread = np.full(len(dataset.classes), np.nan)
    for label in range(len(dataset.classes)):
        values = every[of == label]
        if len(values) >= _USUAL_IMAGES:
            middle[label] = np.median(values)
            # 1.4826 times the median deviation is the deviation of a normal distribution; 5 % is the care of annotators.
            spread[label] = max(1.4826 * np.median(np.abs(values - middle[label])), 0.05)
    found = []
    for name, split in dataset.splits.items():
        own = np.abs(sides[name] - middle[labels[name]]) / spread[labels[name]]
        boxes = boxes_of(split)
        owners = boxes.owners()
        # The visible part of an object at the edge may have any size up to the usual; a group has no usual size.
        cut = _at_edge(boxes) & (sides[name] < middle[labels[name]])
        for row in np.flatnonzero((own > _FAR_FROM_CLASS) & ~cut & ~boxes.crowd):
            others = np.nan_to_num(np.abs(sides[name][row] - middle) / spread, nan=np.inf)
            if others.min() >= 2.0:
                continue
            likely = dataset.classes[int(others.argmin())]
            text = f"{dataset.classes[labels[name][row]]} {_at(boxes.corners[row])}, the size of {likely}"
            found.append((name, int(owners[row]), text))
    if not found:
        return []
    have = "box has" if len(found) == 1 else "boxes have"
    message = f"{len(found)} {have} a size far from all others of the class: {_places(dataset, found)}"
    return [Problem(severity="note", message=message, fix="check their classes")]


def _at_edge(boxes: Boxes) -> NDArray[np.bool_]:
    """[M]: whether a box ends within two pixels of an edge of its image."""
    ends = boxes.sizes[boxes.owners()][:, ::-1]
    low, high = boxes.corners[:, :2] < 2, boxes.corners[:, 2:] > ends - 2
    return np.asarray((low | high).any(axis=1), np.bool_)


def _spans(boxes: Boxes) -> NDArray[np.float64]:
    """[M, 2]: width and height."""
    return boxes.corners[:, 2:] - boxes.corners[:, :2]


def box_facts(dataset: Dataset) -> dict[str, Any]:
    """For data.json and --json: boxes of each split and class, images without boxes, groups, and object sizes in pixels."""
    splits = {}
    for name, split in dataset.splits.items():
        boxes = boxes_of(split)
        per = boxes.per_image()
        sides = np.sqrt(_spans(boxes).prod(axis=1))
        splits[name] = {
            "boxes": len(boxes.labels),
            "boxes_per_class": boxes.box_counts(len(dataset.classes)),
            "class_ids": list(boxes.class_ids),
            "without_boxes": int((per == 0).sum()),
            "groups": int(boxes.crowd.sum()),
            "difficult": int(boxes.difficult.sum()),
            "per_image": {"median": float(np.median(per)), "max": int(per.max(initial=0))}
            if len(per)
            else {},
            "sizes": {
                "small": int((sides < SMALL).sum()),
                "medium": int(((sides >= SMALL) & (sides < LARGE)).sum()),
                "large": int((sides >= LARGE).sum()),
                **(
                    {"min": float(sides.min()), "median": float(np.median(sides)), "max": float(sides.max())}
                    if len(sides)
                    else {}
                ),
            },
        }
    return {"task": "boxes", "boxes": splits}


def box_lines(dataset: Dataset) -> list[str]:
    """Lines of `patchword check`, over all splits."""
    parts = [boxes_of(split) for split in dataset.splits.values()]
    per = np.concatenate([part.per_image() for part in parts])
    sides = np.concatenate([np.sqrt(_spans(part).prod(axis=1)) for part in parts])
    groups = sum(int(part.crowd.sum()) for part in parts)
    difficult = sum(int(part.difficult.sum()) for part in parts)
    without = int((per == 0).sum())
    lines = [
        f"boxes per image: median {np.median(per):g}, most {per.max():g}; "
        f"{plural(without, 'image')} without boxes (kept as images without objects)"
        if without
        else f"boxes per image: median {np.median(per):g}, most {per.max():g}"
    ]
    if groups:
        lines.append(
            f"{plural(groups, 'box', 'boxes')} around a group of objects (crowd): neither object nor background"
        )
    if difficult:
        lines.append(f"{plural(difficult, 'box', 'boxes')} marked difficult: learned, but ignored in scores")
    if len(sides):
        small, large = (sides < SMALL).mean(), (sides >= LARGE).mean()
        lines.append(
            f"object sizes: {sides.min():.0f} .. {sides.max():.0f}, median {np.median(sides):.0f} pixels (square root of "
            f"the area); small (below {SMALL:g}) {100 * small:.0f} %, medium {100 * (1 - small - large):.0f} %, "
            f"large (from {LARGE:g}) {100 * large:.0f} %"
        )
    return lines
