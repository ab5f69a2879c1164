"""K folds: each image is held out once, and keeps its fold when others are added."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from patchword.data.contents import equal_files
from patchword.data.dataset import Dataset, Split
from patchword.data.request import OpenRequest
from patchword.data.sources.class_folders import below_root
from patchword.data.splits import joined, place_of
from patchword.errors import DataError, SettingsError, plural


def folds(dataset: Dataset, k: int, seed: int = 0) -> list[Dataset]:
    """K data sets with the splits "train" and "val": each image of `dataset` is in the "val" of exactly one.

    All splits of `dataset` are pooled. See `fold_numbers` for which image is in which fold.
    Raises: SettingsError if k is below 2; DataError if there is one class, or a class has fewer than k images.
    """
    pool = dataset.everything
    numbers = fold_numbers(pool, dataset.classes, k, seed, path=dataset.path)
    return [_held_out(dataset, pool, numbers, fold, k, seed) for fold in range(k)]


def fold_of(dataset: Dataset, request: OpenRequest) -> Dataset:
    """The fold that the request asks for."""
    assert request.folds is not None
    return folds(dataset, request.folds, request.split_seed)[request.fold - 1]


def _held_out(
    dataset: Dataset, pool: Split, numbers: NDArray[np.int64], fold: int, k: int, seed: int
) -> Dataset:
    splits = {
        "train": pool.subset(np.flatnonzero(numbers != fold), "train"),
        "val": pool.subset(np.flatnonzero(numbers == fold), "val"),
    }
    readings = dataset.readings
    if len(dataset.splits) > 1:
        own = ", ".join(f"{name} {len(split)}" for name, split in dataset.splits.items())
        readings = (*readings, f"the splits of {dataset.path} are pooled for {k} folds ({own} images)")
    return replace(dataset, splits=splits, readings=readings, split_seed=seed)


def fold_numbers(
    pool: Split, classes: Sequence[str], k: int, seed: int = 0, *, path: str = "the data"
) -> NDArray[np.int64]:
    """[N]: the fold of each image, from 0. `place_of` its name (or of its group's) decides it.

    Images with equal content or of one group are in one fold. Numbered files of a class spread evenly (see `place_of`).
    Each class has an image in every fold: where chance leaves a fold without, the image with the highest place of
    the class's largest fold moves there. So an image keeps its fold when others are added, but for these and new copies.
    Raises: as `folds`.
    """
    if k < 2:
        raise SettingsError(f"--folds is {k}", "give a whole number from 2, such as 5")
    groups = [""] * len(pool) if pool.groups is None else list(pool.groups)
    units = joined(equal_files(pool), [group or None for group in groups])
    _refuse_small_classes(pool, units, classes, k, path)
    places = np.zeros(int(units.max()) + 1)
    labels = pool.labels.tolist()
    for unit, name, group, label in zip(units.tolist(), pool.names, groups, labels, strict=True):
        key = group or below_root(name, classes[label])
        places[unit] = max(places[unit], place_of(key, seed))
    numbers = np.minimum((places * k).astype(np.int64), k - 1)
    _fill_empty(numbers, places, np.unique(np.stack([units, pool.labels]), axis=1), k)
    found: NDArray[np.int64] = numbers[units]
    return found


def _refuse_small_classes(
    pool: Split, units: NDArray[np.int64], classes: Sequence[str], k: int, path: str
) -> None:
    """Raises: DataError if there is one class, or a class has fewer units than folds."""
    there = np.unique(pool.labels)
    if len(there) < 2:
        only = classes[int(there[0])] if len(there) else ""
        raise DataError(f"{path} has only one class ({only!r})", "add at least one more class")
    sizes = [len(np.unique(units[pool.labels == label])) for label in there]
    least = int(np.argmin(sizes))
    if sizes[least] >= k:
        return
    name, count = classes[int(there[least])], sizes[least]
    if pool.groups is not None:
        has = f"{plural(count, 'group')} of images"
    else:
        copies = " (copies counted once)" if count < int((pool.labels == there[least]).sum()) else ""
        has = f"{plural(count, 'image')}{copies}"
    raise DataError(
        f"{path}: --folds {k} is more than class {name!r} has, which has {has}",
        (f"use --folds {count}, or " if count > 1 else "") + "add images to this class, or remove it",
    )


def _fill_empty(
    numbers: NDArray[np.int64], places: NDArray[np.float64], pairs: NDArray[np.int64], k: int
) -> None:
    """Move units in place so that each class is in every fold, as far as units of several classes allow it.

    numbers, places [U]: of each unit. pairs [2, P]: unit and class of each pair that occurs.
    """
    classes_of: dict[int, list[int]] = {}
    units_of: dict[int, list[int]] = {}
    for unit, label in pairs.T.tolist():
        classes_of.setdefault(unit, []).append(label)
        units_of.setdefault(label, []).append(unit)
    counts = np.zeros((max(units_of) + 1, k), np.int64)
    for label, units in units_of.items():
        counts[label] = np.bincount(numbers[units], minlength=k)

    def won(unit: int, fold: int) -> int:
        """Empty folds of a class that the move fills, less those that it leaves."""
        own = classes_of[unit]
        return int((counts[own, fold] == 0).sum()) - int((counts[own, numbers[unit]] == 1).sum())

    for label in sorted(units_of, key=lambda label: len(units_of[label])):
        for fold in np.flatnonzero(counts[label] == 0).tolist():
            givers = [unit for unit in units_of[label] if counts[label, numbers[unit]] > 1]
            best = max(
                givers, key=lambda u: (won(u, fold), counts[label, numbers[u]], places[u]), default=None
            )
            if best is None or won(best, fold) < 1:
                continue
            own = classes_of[best]
            counts[own, numbers[best]] -= 1
            counts[own, fold] += 1
            numbers[best] = fold
