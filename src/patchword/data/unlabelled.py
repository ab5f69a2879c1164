"""All images of a data set, whatever its classes: the input of prediction and embedding if no split is given.

The listing and the readers are those of training, so an image has one name and one content everywhere.
"""

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

import numpy as np

from patchword.data.dataset import Reader, Split
from patchword.data.request import OpenRequest
from patchword.data.sources import digits, folder, table, zipped
from patchword.data.targets import Labels
from patchword.errors import DataError, ImageError, plural
from patchword.images.decode import Source
from patchword.images.suffixes import SUFFIXES, is_hidden

_ENDINGS_LISTED = 6


@dataclass(frozen=True, kw_only=True)
class Unlabelled:
    """split: the images, with labels that mean nothing. skipped: files that are not images, by extension.

    unreadable: folders that could not be listed, each with the reason.
    """

    split: Split
    skipped: Counter[str]
    unreadable: tuple[tuple[str, DataError], ...] = ()

    def skipped_text(self) -> str:
        """ "3 files that are not images (.pdf 2, .txt 1)", or nothing."""
        if not self.skipped:
            return ""
        endings = [f"{ending} {count}" for ending, count in self.skipped.most_common(_ENDINGS_LISTED)]
        more = ", …" if len(self.skipped) > _ENDINGS_LISTED else ""
        return f"{plural(sum(self.skipped.values()), 'file')} without an image file extension ({', '.join(endings)}{more})"


def is_data_set(path: str) -> bool:
    """Whether `path` names a zip, a table or a built-in data set rather than one image. Folders: see `read_folder`."""
    suffix = PurePosixPath(path).suffix.lower()
    # Files with other extensions are not opened: .npz and .docx are zips too, but not data sets.
    return (
        (suffix in (".zip", "") and zipped.recognises(path))
        or (suffix in table.TABLE_SUFFIXES and table.recognises(path))
        or (not os.path.lexists(path) and digits.recognises(path))
    )


def read_folder(path: str) -> Unlabelled:
    """The images below a folder, named by their paths. An unreadable folder below it hides no other."""
    errors: list[OSError] = []
    listing = folder.list_folder(path, errors)
    top = str(Path(path))
    kept, skipped = _images_among(listing.files)
    unreadable = tuple((str(error.filename), _unreadable(error)) for error in errors)
    return _named(
        [os.path.join(top, f) for f in kept], folder.FileReader(top, tuple(kept)), skipped, unreadable
    )


def paths_as_split(paths: Sequence[str]) -> Unlabelled:
    """The images at these paths, named by them."""
    return _named(paths, folder.FileReader("", tuple(paths)), Counter())


def read_data_set(path: str, request: OpenRequest) -> Unlabelled:
    """The images of a zip, of a table, or of a built-in data set; `is_data_set` says which paths those are.

    Raises: DataError if it cannot be read.
    """
    if PurePosixPath(path).suffix.lower() in table.TABLE_SUFFIXES:
        references, reader = table.read_images(path, request)
        names = [reference or f"row {row}" for row, reference in enumerate(references)]
        missing = frozenset(row for row, reference in enumerate(references) if not reference)
        found = _named(names, _Rows(reader, missing, path), Counter())
    elif zipped.recognises(path):
        members = zipped.list_members(path)
        kept, skipped = _images_among(list(members))
        found = _named(kept, zipped.ZipReader(path, [members[name] for name in kept]), skipped)
    else:
        everything = digits.read(path, request).everything
        found = Unlabelled(split=everything, skipped=Counter())
    return replace(found, split=replace(found.split, max_pixels=request.max_pixels))


@dataclass(frozen=True)
class _Rows:
    """A table's reader that raises an error for rows without an image."""

    reader: Reader
    missing: frozenset[int]
    path: str

    def __call__(self, row: int) -> Source:
        if row in self.missing:
            raise ImageError(f"row {row}: {self.path} has no image in this row", "complete or remove the row")
        return self.reader(row)


def _images_among(files: Sequence[str]) -> tuple[list[str], Counter[str]]:
    """The images by their extensions, and how many other files there are per extension; hidden ones are neither."""
    kept: list[str] = []
    skipped: Counter[str] = Counter()
    for file in files:
        if any(is_hidden(part) for part in file.split("/")):
            continue
        ending = PurePosixPath(file).suffix.lower()
        if ending in SUFFIXES:
            kept.append(file)
        else:
            skipped[ending or "no extension"] += 1
    return kept, skipped


def _named(
    names: Sequence[str],
    reader: Reader,
    skipped: Counter[str],
    unreadable: tuple[tuple[str, DataError], ...] = (),
) -> Unlabelled:
    nothing = np.full(len(names), -1, dtype=np.int64)
    rows = np.arange(len(names), dtype=np.int64)
    split = Split(name="all", names=tuple(names), targets=Labels(nothing), reader=reader, rows=rows)
    return Unlabelled(split=split, skipped=skipped, unreadable=unreadable)


def _unreadable(error: OSError) -> DataError:
    if isinstance(error, PermissionError):
        return DataError(f"{error.filename}: no permission to read this folder", "change its permissions")
    return DataError(f"{error.filename}: {error.strerror or error}", "check the folder")
