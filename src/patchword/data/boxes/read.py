"""Data with boxes as a `Dataset`, whatever the format."""

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from patchword.data.boxes.annotations import Annotations, WrittenImage
from patchword.data.boxes.build import Built, build_split
from patchword.data.boxes.choose import TABLE_OF_BOXES, TABLES, Chosen, choose, choose_file, has_box_columns
from patchword.data.boxes.clean import Faults
from patchword.data.boxes.files import Files, files_of, start_of
from patchword.data.boxes.frames import decide, readings
from patchword.data.boxes.headers import headers
from patchword.data.boxes.locate import Locator
from patchword.data.dataset import Dataset, Problem, Split
from patchword.data.request import (
    OpenRequest,
    refuse_class_options,
    refuse_folder_options,
    refuse_table_options,
)
from patchword.data.sources import zipped
from patchword.data.sources.split_names import in_order
from patchword.data.sources.table import labels_among
from patchword.data.splits import split_in_two
from patchword.errors import DataError, plural

_LISTED = 3
Found = list[tuple[Annotations, list[str]]]


def is_box_file(path: str) -> bool:
    """Whether a file is a JSON file or a table with the columns of boxes, so that nothing but boxes can be meant."""
    place = Path(path)
    if not place.is_file():
        return False
    if place.suffix.lower() == ".json":
        return True
    if place.suffix.lower() not in TABLES:
        return False
    with place.open("rb") as file:
        return has_box_columns(path, file.read(1 << 16).decode("utf-8-sig", "replace"))


def is_labelled_by_boxes(path: str) -> bool:
    """Whether a folder or zip of images has one table, which holds boxes: its columns may be read as classes too."""
    if Path(path).suffix.lower() in TABLES or not (Path(path).is_dir() or zipped.recognises(path)):
        return False
    files = files_of(path)
    name = labels_among(files.names)
    return name is not None and has_box_columns(name, start_of(files, name))


def read_boxes(path: str, request: OpenRequest) -> Dataset | None:
    """A folder, a zip, a JSON file or a table; None if nothing annotates boxes.

    Raises: DataError for annotations that cannot be read or that are written in another convention.
    """
    if is_box_file(path):
        files, chosen = choose_file(path, request)
        kind = chosen.kind
    else:
        files = files_of(path)
        found = choose(files, request)
        if found is None:
            return None
        chosen, kind = found, f"{found.kind}, {files.kind}"
    refuse_folder_options(request, f"{path} has boxes")
    if not kind.startswith(TABLE_OF_BOXES):
        refuse_table_options(request, f"{path} has boxes as {kind}")
    refuse_class_options(request, f"{path} has boxes")
    return _dataset(path, kind, files, chosen, request)


def _dataset(path: str, kind: str, files: Files, chosen: Chosen, request: OpenRequest) -> Dataset:
    problems: list[Problem] = []
    located = _locate(files, chosen.splits, problems)
    if not any(names for _, names in located):
        raise _no_images(path, chosen, problems)
    found = [headers(files.make_reader(names), names) for _, names in located]
    classes, passed = _classes(chosen.splits, request, problems)
    if not any(part.boxes.numbers for part, _ in located):
        raise DataError(
            f"{path}: {plural(len(chosen.splits), 'split')} without a single box", "annotate some objects"
        )
    flat = [header for part in found for header in part]
    annotated = [image.size for part, _ in located for image in part.images]
    decided = decide(annotated, flat)
    faults, splits, at = Faults(), dict[str, Split](), 0
    passed_by = dict(chosen.passed_by) | passed
    for (part, names), heads in zip(located, found, strict=True):
        frames = replace(decided, frames=decided.frames[at : at + len(names)])
        at += len(names)
        built = build_split(part, names, heads, frames, classes, faults, request)
        problems += built.problems
        splits[part.split] = _split(part.split, built, files)
    for reason, count in faults.dropped().items():
        passed_by[reason] = count
    unused = len(files.images()) - len({name for _, names in located for name in names})
    if unused:
        passed_by["images without annotations"] = unused
    splits = {name: split for name, split in splits.items() if len(split)}
    if not splits:
        raise DataError(problems[-1].message, problems[-1].fix)
    splits, seed = _held_out(splits, request)
    return Dataset(
        path=path,
        kind=kind,
        classes=classes,
        splits=splits,
        passed_by=passed_by,
        readings=(
            *chosen.readings,
            *(line for part in chosen.splits for line in part.readings),
            *readings(flat, decided),
        ),
        problems=(*problems, *faults.problems()),
        split_seed=seed,
    )


def _no_images(path: str, chosen: Chosen, problems: Sequence[Problem]) -> DataError:
    if problems:
        return DataError(problems[0].message, problems[0].fix)
    return DataError(f"{path}: {chosen.kind} with 0 images", "give annotations that list images")


def _locate(files: Files, parts: Sequence[Annotations], problems: list[Problem]) -> Found:
    """Each split with its images that are there, and their files."""
    locator, located = Locator(files), Found()
    for part in parts:
        places = [locator.find(image, part.split) for image in part.images]
        missing = [image for image, place in zip(part.images, places, strict=True) if place is None]
        problems += [Problem(severity="error", message=message, fix=fix) for message, fix in part.errors]
        if missing:
            problems.append(_missing(part, missing, files))
        seen: dict[str, WrittenImage] = {}
        for image, place in zip(part.images, places, strict=True):
            if place is not None and place in seen:
                raise DataError(
                    f"{image.where}: {seen[place].name!r} and {image.name!r} are the same image {place}",
                    "list each image once",
                )
            if place is not None:
                seen[place] = image
        located.append(_kept(part, places))
    return located


def _missing(part: Annotations, missing: Sequence[WrittenImage], files: Files) -> Problem:
    names = ", ".join(image.name for image in missing[:_LISTED]) + (" …" if len(missing) > _LISTED else "")
    count = f"{len(missing)} of {plural(len(part.images), 'image')}"
    are = "is" if len(missing) == 1 else "are"
    return Problem(
        severity="error",
        message=f"{part.source}: {count} {are} not in {files.path}: {names}",
        fix="add the images, or remove them from the annotations",
    )


def _kept(part: Annotations, places: Sequence[str | None]) -> tuple[Annotations, list[str]]:
    """The split without the images that are not there, ordered by name, so that every format gives one order."""
    order = sorted((i for i, place in enumerate(places) if place is not None), key=lambda i: str(places[i]))
    index = {old: new for new, old in enumerate(order)}
    boxes = part.boxes
    rows = [row for row, image in enumerate(boxes.images) if image in index]
    kept = type(boxes)(
        images=[index[boxes.images[row]] for row in rows],
        numbers=[boxes.numbers[row] for row in rows],
        classes=[boxes.classes[row] for row in rows],
        crowd=[boxes.crowd[row] for row in rows],
        difficult=[boxes.difficult[row] for row in rows],
        areas=[boxes.areas[row] for row in rows],
        ids=[boxes.ids[row] for row in rows],
        places=[boxes.places[row] for row in rows],
    )
    return replace(part, images=[part.images[i] for i in order], boxes=kept), [str(places[i]) for i in order]


def _classes(
    parts: Sequence[Annotations], request: OpenRequest, problems: list[Problem]
) -> tuple[tuple[str, ...], dict[str, int]]:
    """The names of all classes in their order, by name, so that ids and formats do not change it.

    A class of another split that training does not list is an error, or its boxes are left out on request.
    """
    training = next((part for part in parts if part.split in ("train", "all")), None)
    known = set(training.names.values()) if training is not None else set()
    passed: dict[str, int] = {}
    for part in parts:
        if training is None or part is training:
            known |= set(part.names.values())
            continue
        used = [part.names[key] for key in part.boxes.classes]
        unknown = sorted({name for name in used if name not in known})
        if unknown and request.ignore_unknown_classes:
            passed["boxes of classes that train lacks"] = sum(name in unknown for name in used)
        elif unknown:
            shown = ", ".join(map(repr, unknown[:8])) + (" …" if len(unknown) > 8 else "")
            what = "a class" if len(unknown) == 1 else f"{len(unknown)} classes"
            problems.append(
                Problem(
                    severity="error",
                    message=f"{part.source}: {part.split} has {what} that train lacks: {shown}",
                    fix="correct the names, or leave these boxes out with --ignore-unknown-classes",
                )
            )
            known |= set(unknown)
        _compare_ids(training, part, problems)
    return in_order(known), passed


def _compare_ids(training: Annotations, part: Annotations, problems: list[Problem]) -> None:
    """Classes are matched by name. An id that stands for another name in the other file may be a slip."""
    if not (training.has_ids and part.has_ids):
        return
    for key, name in part.names.items():
        other = training.names.get(key)
        if other is not None and other != name:
            message = f"{part.source}: class id {key} is {name!r}, but {other!r} in {training.source}"
            problems.append(
                Problem(
                    severity="warning", message=message, fix="nothing, if the names are right: they count"
                )
            )
            return


def _split(name: str, built: Built, files: Files) -> Split:
    return Split(
        name=name,
        names=tuple(built.names),
        targets=built.boxes,
        reader=files.make_reader(built.names),
        rows=np.arange(len(built.names), dtype=np.int64),
    )


def _held_out(splits: dict[str, Split], request: OpenRequest) -> tuple[dict[str, Split], int | None]:
    """Hold out validation images where there is nothing to evaluate on."""
    if set(splits) == {"train"}:
        splits = {"all": replace(splits["train"], name="all")}
    if set(splits) != {"all"} or not request.split:
        return splits, None
    # Roboflow's augmented copies of an image differ in what follows ".rf."; they stay on one side.
    keys = [re.sub(r"\.rf\.[0-9A-Za-z]+", "", name) for name in splits["all"].names]
    copies = len(set(keys)) < len(keys)
    whole = replace(splits["all"], groups=tuple(keys)) if copies else splits["all"]
    halves = split_in_two(whole, request.split_seed, keys)
    return {name: replace(half, groups=None) for name, half in halves.items()}, request.split_seed
