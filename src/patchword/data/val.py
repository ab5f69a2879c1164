"""A separate path as the evaluation split of a data set."""

import os
from collections.abc import Collection
from dataclasses import replace

from patchword.data.align import align_targets
from patchword.data.dataset import Dataset, Split
from patchword.errors import DataError, plural


def refuse_same_place(path: str, val: str) -> None:
    """Raises: DataError if both paths name the same data."""
    try:
        same = path == val or os.path.samefile(path, val)
    except (OSError, ValueError):
        same = False
    if same:
        raise DataError(
            f"--val {val} is DATA itself, so no image would be left to evaluate on",
            "give other images, or remove --val to hold out a fifth of DATA",
        )


def with_val(data: Dataset, val: Dataset, *, ignore_unknown: bool = False) -> Dataset:
    """The training images of `data` with the images of `val` as the split "val"; classes are matched by name.

    Of a `val` with its own splits, the one that `evaluate` would score is used. A test split of `data` stays.
    Raises: DataError if `data` has a val split, or `val` has classes or numbers that `data` has not.
    """
    if "val" in data.splits:
        raise DataError(
            f"{data.path} has its own val split ({plural(len(data.splits['val']), 'image')}), and --val {val.path} "
            "is another",
            "remove --val, or give only the training images as DATA",
        )
    splits = {"train" if name == "all" else name: split for name, split in data.splits.items()}
    if "train" not in splits:
        raise DataError(f"{data.path} has no training images", "give the training images as DATA")
    chosen = val.evaluation
    used = align_targets(
        replace(val, splits={"val": chosen}),
        data.outputs,
        data.task_kind,
        ignore_unknown=ignore_unknown,
        to=data.path,
    )
    splits["train"] = replace(splits["train"], name="train")
    others = [name for split in splits.values() for name in split.names]
    splits["val"] = replace(_named_apart(used.splits["val"], set(others)), name="val")
    readings = [*data.readings, _reading(val, chosen)]
    if "test" in splits:
        readings.append(
            f"the test split of {data.path} ({plural(len(splits['test']), 'image')}) is not used: epochs are compared "
            "on val"
        )
    skipped = {reason: n + data.passed_by.get(reason, 0) for reason, n in val.passed_by.items()}
    return replace(
        data,
        splits=splits,
        readings=(*readings, *(f"val: {reading}" for reading in val.readings)),
        problems=(*data.problems, *used.problems),
        passed_by={**data.passed_by, **skipped},
        split_seed=None,
    )


def _reading(val: Dataset, chosen: Split) -> str:
    rest = [name for name in val.splits if name != chosen.name]
    what = f"val is {val.path}"
    if not rest:
        return f"{what} ({plural(len(chosen), 'image')})"
    return f"{what}, its split {chosen.name} ({plural(len(chosen), 'image')}); {' and '.join(rest)} of it not used"


def _named_apart(split: Split, taken: Collection[str]) -> Split:
    """The split with names below val/, as if its images lay in DATA, so that each image of the run has its own name."""
    names = tuple(f"val/{name}" for name in split.names)
    while not set(names).isdisjoint(taken):
        names = tuple(f"val/{name}" for name in names)
    return replace(split, names=names)
