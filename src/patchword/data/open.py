"""Open DATA, as given by the user, as a `Dataset`."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from patchword.data.boxes.read import is_box_file, is_labelled_by_boxes, read_boxes
from patchword.data.dataset import Dataset
from patchword.data.folds import fold_of
from patchword.data.missing import not_there
from patchword.data.request import NotApplicable, OpenRequest, refuse_box_options
from patchword.data.sources import SOURCES, DataSource, table, zipped
from patchword.data.val import refuse_same_place, with_val
from patchword.data.without_labels import open_without_labels
from patchword.errors import DataError
from patchword.images.suffixes import SUFFIXES


def open_data(path: str | Path, request: OpenRequest | None = None) -> Dataset:
    """List the images of `path`: `digits`, a folder or .zip of class folders, or a table.

    With `request.val`, the images of that path are the split "val"; with `request.folds`, a fold is.
    Raises: DataError, with similar paths if it does not exist, or with the supported kinds if
    no source recognises it.
    """
    request = request or OpenRequest()
    if request.without_labels:
        return _limited(open_without_labels(str(path), request), request.max_pixels)
    if request.folds is not None:
        return fold_of(_read(path, replace(request, split=False)), request)
    if request.val is None:
        return _read(path, request)
    refuse_same_place(str(path), request.val)
    data, val = _read_both(str(path), request.val, replace(request, split=False))
    return with_val(data, val, ignore_unknown=request.ignore_unknown_classes)


def _read_both(path: str, val: str, request: OpenRequest) -> tuple[Dataset, Dataset]:
    """Options that apply to one kind of data apply to those of the two that are of this kind. Raises: DataError."""
    found: list[Dataset] = []
    refused: list[NotApplicable] = []
    for one in (path, val):
        try:
            found.append(_read(one, request))
        except NotApplicable as error:
            refused.append(error)
            if len(refused) > 1:
                raise refused[0] from error
            unset: dict[str, Any] = dict.fromkeys(error.fields)
            found.append(_read(one, replace(request, **unset)))
    return found[0], found[1]


def _read(path: str | Path, request: OpenRequest) -> Dataset:
    """Raises: as `open_data`."""
    text = str(path)
    if not text:
        raise DataError("the path of the data is empty", "give `digits`, a folder, a .zip or a table")
    if re.match(r"[a-z][a-z0-9+.-]+://", text):
        raise DataError(f"{text} is a URL, but data must be on disk", "download it and give its path")
    if request.labels is not None and not Path(text).is_dir() and (Path(text).exists() or text == "digits"):
        raise DataError(
            f"--labels labels the images of a folder, and {text} is not one",
            "give the folder of the images, or remove --labels",
        )
    if request.boxes and (bool(request.patterns) or request.box_format is not None or is_box_file(text)):
        return _with_boxes(text, request)
    for source in SOURCES:
        if source.recognises(text):
            return _limited(_read_source(source, text, request), request.max_pixels)
    if not Path(text).exists():
        raise not_there(text, ["digits"])
    raise _unknown(text)


def _read_source(source: DataSource, path: str, request: OpenRequest) -> Dataset:
    """Class folders come first: what has these may have boxes too, and `--annotations` reads them.

    Raises: DataError of the boxes, if there are any, else of the source.
    """
    if request.boxes and path != "digits":
        if is_labelled_by_boxes(path):
            return _with_boxes(path, request)
        try:
            return source.read(path, request)
        except DataError:
            found = None if source is table else read_boxes(path, request)
            if found is None:
                raise
            return found
    return source.read(path, request)


def _with_boxes(path: str, request: OpenRequest) -> Dataset:
    """Raises: DataError if there are no boxes."""
    if not Path(path).exists() and path != "digits":
        raise not_there(path, ["digits"])
    readable = Path(path).is_dir() or zipped.recognises(path) or is_box_file(path)
    found = read_boxes(path, request) if readable else None
    if found is None:
        refuse_box_options(request, f"{path} has no boxes")
        raise _unknown(path)
    return _limited(found, request.max_pixels)


def _unknown(path: str) -> DataError:
    """Explain why a single file is not a data set, by its name."""
    suffix = Path(path).suffix.lower()
    if suffix in (".tar", ".gz", ".tgz", ".bz2", ".xz", ".zst", ".7z", ".rar"):
        return DataError(f"{path} is an unsupported archive", "unpack it and give the folder")
    if suffix in SUFFIXES:
        return DataError(
            f"{path} is one image, not a data set",
            "give the folder that holds the class folders, or classify single images with `patchword predict`",
        )
    if suffix in (".xlsx", ".xls", ".ods", ".numbers", ".txt", ".dat"):
        return DataError(f"{path} is not a supported table format", "save it as CSV")
    if suffix == ".json":
        return DataError(
            f"{path} is JSON, which is not supported as data",
            "give a .jsonl table with one object per line, or a folder of class folders",
        )
    known = "; ".join(source.DESCRIPTION for source in SOURCES)
    return DataError(f"{path} is not a data set in a supported format", f"give one of: {known}")


def _limited(dataset: Dataset, max_pixels: int) -> Dataset:
    splits = {name: replace(split, max_pixels=max_pixels) for name, split in dataset.splits.items()}
    return replace(dataset, splits=splits)
