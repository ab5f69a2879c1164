"""Data whose classes are matched to a model's by name."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from patchword.data.box_targets import Boxes
from patchword.data.dataset import Dataset, Problem, Split, one_class_only
from patchword.data.targets import Labels, MultiLabels, Numbers, Targets, TaskKind
from patchword.errors import DataError, plural, suggestion

LABELLED = {
    "single": "one class per image",
    "multi": "several classes per image",
    "number": "numbers",
    "boxes": "boxes around objects",
    "none": "no labels",
}


def align(
    dataset: Dataset, classes: tuple[str, ...], *, ignore_unknown: bool = False, to: str = "the model"
) -> Dataset:
    """The same images with labels that index `classes`, the class names of a model, or of what `to` names.

    Raises: DataError if images have several classes or numbers, or naming the classes that `classes` has not, each with the nearest it has;
    with ignore_unknown those images are left out and a note says how many.
    """
    if dataset.task_kind != "single":
        raise one_class_only(dataset.path, dataset.task_kind)
    index = {name: i for i, name in enumerate(classes)}
    used = sorted({dataset.classes[i] for split in dataset.splits.values() for i in np.unique(split.labels)})
    unknown = [name for name in used if name not in index]
    if unknown and (not ignore_unknown or len(unknown) == len(used)):
        raise unknown_classes(dataset.path, unknown, classes, all_of_them=len(unknown) == len(used), to=to)
    new_label = np.array([index.get(name, -1) for name in dataset.classes], dtype=np.int64)
    splits: dict[str, Split] = {}
    left_out = 0
    for name, split in dataset.splits.items():
        known = np.flatnonzero(new_label[split.labels] >= 0)
        left_out += len(split) - len(known)
        kept = split.subset(known)
        splits[name] = replace(kept, targets=Labels(new_label[kept.labels]))
    aligned = replace(dataset, classes=classes, splits=splits)
    if not left_out:
        return aligned
    return aligned.with_problems([_left_out(dataset.path, left_out, unknown, to)])


def align_targets(
    dataset: Dataset,
    outputs: tuple[str, ...],
    kind: TaskKind,
    *,
    ignore_unknown: bool = False,
    to: str = "the model",
) -> Dataset:
    """The same images with targets in the order of `outputs`, the classes or numbers of a model, or of what `to` names.

    A class of `outputs` that no image has is absent in all. Raises: DataError if the data are labelled otherwise, or naming
    the classes or numbers that `outputs` has not; with ignore_unknown images with such classes are left out and a note says how many.
    """
    if dataset.task_kind != kind:
        raise DataError(
            f"{dataset.path} has {LABELLED[dataset.task_kind]}, but {to} has {LABELLED[kind]}",
            "label the images of both in the same way",
        )
    if kind == "single":
        return align(dataset, outputs, ignore_unknown=ignore_unknown, to=to)
    if kind == "boxes":
        return _aligned_boxes(dataset, outputs, ignore_unknown=ignore_unknown, to=to)
    place = {name: i for i, name in enumerate(dataset.outputs)}
    unknown = [name for name in dataset.outputs if name not in outputs]
    if kind == "number":
        if set(place) != set(outputs):
            raise DataError(
                f"{dataset.path} has the numbers {', '.join(dataset.outputs)}, but {to} has {', '.join(outputs)}",
                f"pass --target-column {','.join(outputs)}",
            )
        return _with_targets(dataset, lambda split: _ordered(split, outputs, place))
    foreign = [place[name] for name in unknown]
    kept = {
        n: np.flatnonzero(~s.image_targets.values[:, foreign].any(axis=1)) for n, s in dataset.splits.items()
    }
    left_out = sum(len(split) - len(kept[name]) for name, split in dataset.splits.items())
    if left_out and (not ignore_unknown or not any(map(len, kept.values()))):
        raise unknown_classes(
            dataset.path, unknown, outputs, all_of_them=not any(map(len, kept.values())), to=to
        )
    dataset = replace(dataset, splits={n: s.subset(kept[n]) for n, s in dataset.splits.items()})
    aligned = _with_targets(dataset, lambda split: _by_class(split, outputs, place))
    aligned = replace(aligned, classes=outputs)
    return (
        aligned if not left_out else aligned.with_problems([_left_out(dataset.path, left_out, unknown, to)])
    )


def _with_targets(dataset: Dataset, targets: Callable[[Split], Targets]) -> Dataset:
    splits = {name: replace(split, targets=targets(split)) for name, split in dataset.splits.items()}
    return replace(dataset, splits=splits)


def _ordered(split: Split, outputs: tuple[str, ...], place: Mapping[str, int]) -> Numbers:
    return Numbers(split.image_targets.values[:, [place[n] for n in outputs]].astype(np.float32), outputs)


def _by_class(split: Split, outputs: tuple[str, ...], place: Mapping[str, int]) -> MultiLabels:
    # A class that no image has is not in the list of a table with a separator.
    absent, values = np.zeros(len(split), bool), split.image_targets.values
    columns = [values[:, place[n]].astype(bool) if n in place else absent for n in outputs]
    return MultiLabels(np.stack(columns, axis=1))


def _left_out(path: str, images: int, unknown: Sequence[str], to: str) -> Problem:
    names = ", ".join(map(repr, unknown[:8]))
    message = f"{path}: skipped {plural(images, 'image')} of classes unknown to {to} ({names})"
    return Problem(severity="note", message=message)


def _aligned_boxes(dataset: Dataset, classes: tuple[str, ...], *, ignore_unknown: bool, to: str) -> Dataset:
    """As `align`, for boxes: with ignore_unknown, the boxes of unknown classes are left out and their images stay."""
    index = {name: i for i, name in enumerate(classes)}
    new_label = np.array([index.get(one, -1) for one in dataset.classes], dtype=np.int64)
    used = sorted(
        {dataset.classes[i] for split in dataset.splits.values() for i in np.unique(_boxes(split).labels)}
    )
    unknown = [name for name in used if name not in index]
    if unknown and (not ignore_unknown or len(unknown) == len(used)):
        raise unknown_classes(dataset.path, unknown, classes, all_of_them=len(unknown) == len(used), to=to)
    splits, left_out = {}, 0
    for name, split in dataset.splits.items():
        boxes = _boxes(split)
        known = new_label[boxes.labels] >= 0
        left_out += int((~known).sum())
        splits[name] = replace(split, targets=boxes.where(known).relabelled(new_label, len(classes)))
    aligned = replace(dataset, classes=classes, splits=splits)
    if not left_out:
        return aligned
    names = ", ".join(map(repr, unknown[:8]))
    message = (
        f"{dataset.path}: skipped {plural(left_out, 'box', 'boxes')} of classes unknown to {to} ({names})"
    )
    return aligned.with_problems([Problem(severity="note", message=message)])


def _boxes(split: Split) -> Boxes:
    if not isinstance(split.targets, Boxes):
        raise one_class_only(f"the split {split.name}", split.targets.kind)
    return split.targets


def unknown_classes(
    path: str, unknown: Sequence[str], classes: Sequence[str], *, all_of_them: bool, to: str = "the model"
) -> DataError:
    """The error for data at `path` with classes that the model has not, each with the nearest it has."""
    lines = [f"{name!r}{suggestion(name, classes)}" for name in unknown[:12]]
    more = f" and {len(unknown) - 12} more" if len(unknown) > 12 else ""
    known = ", ".join(classes[:8]) + (" …" if len(classes) > 8 else "")
    return DataError(
        f"{path} has {plural(len(unknown), 'class', 'classes')} unknown to {to}: {', '.join(lines)}{more}",
        f"rename {'it' if len(unknown) == 1 else 'them'} to match the classes of {to} ({known})"
        + ("" if all_of_them else ", or pass --ignore-unknown-classes"),
    )
