"""From class folders, wherever they lie, to a `Dataset`."""

from collections.abc import Callable, Sequence

import numpy as np

from patchword.data.dataset import Dataset, Problem, Reader, Split
from patchword.data.request import OpenRequest
from patchword.data.sources.layout import (
    Found,
    Listing,
    arrange,
    class_problems,
    in_order,
    refuse_without_classes,
)
from patchword.data.sources.table import TABLE_SUFFIXES
from patchword.data.splits import split_in_two

MakeReader = Callable[[Sequence[str]], Reader]


def dataset_of(
    path: str, kind: str, listing: Listing, make_reader: MakeReader, request: OpenRequest
) -> Dataset:
    """`make_reader` gives a reader for a list of the listing's files.

    Raises: DataError where no image lies in a class folder.
    """
    found = arrange(listing)
    tables = [f for f in listing.files if f.lower().endswith(TABLE_SUFFIXES)] if kind == "folder" else []
    refuse_without_classes(found, path, tables)
    training = found.members.get("train") or found.members.get("all") or {}
    classes = in_order(name for name, files in training.items() if files)
    if not classes:  # train/ is there and empty, val/ is not
        classes = in_order(c for members in found.members.values() for c, files in members.items() if files)
    splits = {
        name: _split(name, members, classes, make_reader)
        for name, members in found.members.items()
        if members
    }
    seed = None
    if set(splits) == {"all"} and request.split:
        whole, seed = splits["all"], request.split_seed
        keys = [
            below_root(file, classes[label]) for file, label in zip(whole.names, whole.labels, strict=True)
        ]
        splits = split_in_two(whole, seed, keys)
    return Dataset(
        path=path,
        kind=kind,
        classes=classes,
        splits=splits,
        passed_by=dict(found.passed_by),
        problems=tuple(_problems(found, path, request)),
        split_seed=seed,
    )


def below_root(file: str, class_name: str) -> str:
    """The path from the class folder on: what stands above it changes when data are moved, wrapped or zipped."""
    at = f"/{file}".find(f"/{class_name}/")
    return file if at < 0 else file[at:]


def _problems(found: Found, path: str, request: OpenRequest) -> list[Problem]:
    return class_problems(found, path, request.ignore_unknown_classes)


def _split(
    name: str, members: dict[str, list[str]], classes: tuple[str, ...], make_reader: MakeReader
) -> Split:
    """Images of classes that training has not are left out; `class_problems` says so."""
    index = {c: i for i, c in enumerate(classes)}
    files = [(f, index[c]) for c in classes for f in members.get(c, [])]
    return Split(
        name=name,
        names=tuple(f for f, _ in files),
        labels=np.array([label for _, label in files], dtype=np.int64),
        reader=make_reader([f for f, _ in files]),
        rows=np.arange(len(files), dtype=np.int64),
    )
