"""Any images as a data set without labels, for training that needs none.

Folders need no class folders. Where the data have splits of their own, only the training images are trained on.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from patchword.data.dataset import Dataset, Split
from patchword.data.missing import not_there
from patchword.data.path_list import listed_paths
from patchword.data.request import OpenRequest
from patchword.data.sources import SOURCES, DataSource
from patchword.data.sources.split_names import splits_among
from patchword.data.splits import held_out
from patchword.data.targets import Nothing
from patchword.data.unlabelled import Unlabelled, is_data_set, paths_as_split, read_data_set, read_folder
from patchword.errors import DataError, ImageError, SettingsError, plural

# Images held out to watch the loss. They teach nothing, so they are few.
HELD_OUT, MOST_HELD_OUT = 0.05, 1000
# Options about labels, which have no effect here.
_LABELS = {
    "label_column": "--label-column",
    "label_separator": "--label-separator",
    "target_column": "--target-column",
    "labels": "--labels",
    "class_level": "--class-level",
    "val": "--val",
    "folds": "--folds",
}


def open_without_labels(path: str, request: OpenRequest) -> Dataset:
    """List the images of a folder, zip, table or text file of paths, or `digits`, without their labels, as the splits "train" and "val".

    Of data without splits, one image in twenty is held out (at most 1,000), by name: adding images moves none.
    Raises: DataError if there are none, or the path does not exist; SettingsError for options about labels.
    """
    given = [flag for field, flag in _LABELS.items() if getattr(request, field) not in (None, "", False)]
    if given:
        raise SettingsError(
            f"{', '.join(given)} {'has' if len(given) == 1 else 'have'} no effect: labels are not read",
            f"remove {', '.join(given)}",
        )
    found, kind = _listed(path, request)
    if (own := _own_splits(path, request)) is not None:
        return own
    if not len(found.split):
        beside = f" ({found.skipped_text()})" if found.skipped else ""
        raise DataError(f"{path} has no images{beside}", "give a folder, zip or table of images")
    split = _relative(found.split, path)
    passed_by = {f"not an image ({ending})": count for ending, count in found.skipped.items()}
    passed_by |= {f"unreadable folder {name}": 1 for name, _ in found.unreadable}
    dataset = Dataset(path=path, kind=kind, classes=(), splits={"all": split}, passed_by=passed_by)
    by_name = _splits_of(split.names)
    if "train" in set(by_name):
        return _with_splits(dataset, split, by_name)
    return _held_out(dataset, split, request.split_seed)


def _listed(path: str, request: OpenRequest) -> tuple[Unlabelled, str]:
    if os.path.isdir(path):
        return read_folder(path), "folder"
    if is_data_set(path):
        source = next(s for s in SOURCES if s.recognises(path))
        return read_data_set(path, request), _kind(source)
    if paths := listed_paths(path):
        return paths_as_split(paths), "list"
    if not Path(path).exists():
        raise not_there(path, ["digits"])
    raise DataError(
        f"{path} is not a folder, zip, table or list of images",
        "give a folder, a .zip, a .csv, .jsonl or .parquet table, or a .txt file of paths",
    )


def _kind(source: DataSource) -> str:
    return {"zipped": "zip"}.get(name := str(getattr(source, "__name__", "")).rpartition(".")[2], name)


def _own_splits(path: str, request: OpenRequest) -> Dataset | None:
    """The splits that a table or built-in data state themselves, without their labels."""
    if os.path.isdir(path):
        return None
    source = next((s for s in SOURCES if s.recognises(path)), None)
    if source is None or _kind(source) not in ("table", "digits"):
        return None
    try:
        labelled = source.read(path, replace(request, without_labels=False))
    except (DataError, ImageError):
        if request.split_column is not None:
            raise
        return None
    if _kind(source) == "table" and (labelled.columns is None or labelled.columns.split is None):
        return None
    splits = {name: _bare(split) for name, split in labelled.splits.items()}
    reading = "its own splits; only the training images are trained on"
    return replace(labelled, classes=(), splits=splits, readings=(reading,), problems=())


def _bare(split: Split) -> Split:
    return replace(split, targets=Nothing(len(split)))


def _relative(split: Split, path: str) -> Split:
    top = os.path.join(str(Path(path)), "")
    names = tuple(name.removeprefix(top) for name in split.names)
    return replace(_bare(split), names=names)


def _splits_of(names: Sequence[str]) -> list[str]:
    """The split that the path of each image states, "" for none: by its first folder that is not common to all."""
    parts = [name.split("/")[:-1] for name in names]
    depth = 0
    while all(len(p) > depth and p[depth] == parts[0][depth] for p in parts):
        depth += 1
    firsts = [p[depth] if len(p) > depth else "" for p in parts]
    known: Mapping[str, str] = splits_among(sorted(set(firsts) - {""}))
    return [known.get(first, "") for first in firsts]


def _with_splits(dataset: Dataset, split: Split, by_name: Sequence[str]) -> Dataset:
    there = np.array(by_name)
    training = (there == "train") | (there == "")
    evaluation = "val" if (there == "val").any() else "test" if (there == "test").any() else ""
    readings = [f"{plural(int(training.sum()), 'image')} of its training split, by the names of its folders"]
    if (beside := int((there == "").sum())) and beside < training.sum():
        readings.append(f"{plural(beside, 'image')} in no split are trained on too")
    if unused := int((~training & (there != evaluation)).sum()):
        readings.append(f"{plural(unused, 'image')} of test are not used")
    dataset = replace(dataset, readings=tuple(readings))
    if not evaluation:
        return _held_out(dataset, split.subset(np.flatnonzero(training)), 0)
    splits = {
        "train": split.subset(np.flatnonzero(training), "train"),
        evaluation: split.subset(np.flatnonzero(there == evaluation), evaluation),
    }
    return replace(dataset, splits=splits)


def _held_out(dataset: Dataset, split: Split, seed: int) -> Dataset:
    share = min(HELD_OUT, MOST_HELD_OUT / len(split))
    mask: NDArray[np.bool_] = held_out(split.targets, split.names, seed, share=share)
    splits = {
        "train": split.subset(np.flatnonzero(~mask), "train"),
        "val": split.subset(np.flatnonzero(mask), "val"),
    }
    return replace(dataset, splits=splits, split_seed=seed)
