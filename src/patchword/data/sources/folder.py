"""A folder of class folders, or of images next to one table that labels them."""

import os
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path

from patchword.data.dataset import Dataset
from patchword.data.request import OpenRequest
from patchword.data.sources import table
from patchword.data.sources.class_folders import dataset_of
from patchword.data.sources.listing import Listing
from patchword.data.stamps import Stamp, file_stamp
from patchword.errors import DataError

DESCRIPTION = "a folder of class folders, with train/ and val/ or to be split"


@dataclass(frozen=True)
class FileReader:
    """Paths below a folder."""

    root: str
    files: tuple[str, ...]
    sign_is_sure = False

    def __call__(self, row: int) -> str:
        return os.path.join(self.root, self.files[row])

    def sign(self, row: int) -> Hashable:
        """The file's size: files of different sizes are not equal."""
        try:
            return os.stat(self(row)).st_size
        except (OSError, ValueError):
            return ("row", row)

    def stamp(self, row: int) -> Stamp | None:
        return file_stamp(self(row))


def recognises(path: str) -> bool:
    return Path(path).is_dir()


def read(path: str, request: OpenRequest) -> Dataset:
    if request.labels is not None:
        return table.read_for_folder(path, request.labels, request)
    listing = list_folder(path)
    labels = table.labels_among(listing.files)
    if labels is not None:
        return table.read(os.path.join(path, labels), request)

    def make_reader(files: Sequence[str]) -> FileReader:
        return FileReader(path, tuple(files))

    return dataset_of(path, "folder", listing, make_reader, request)


def list_folder(root: str, unreadable: list[OSError] | None = None) -> Listing:
    """All files and folders below `root`, links to folders followed, each real folder once.

    unreadable: takes the error of each folder that cannot be read.
    Raises: DataError for such a folder where no `unreadable` is given.
    """
    files: list[str] = []
    folders: list[str] = []
    seen: set[tuple[int, int]] = set()

    def refuse(error: OSError) -> None:
        raise DataError(f"{error.filename}: {error.strerror}", "change its permissions") from error

    for here, below, names in os.walk(
        root, followlinks=True, onerror=refuse if unreadable is None else unreadable.append
    ):
        status = os.stat(here)
        if (status.st_dev, status.st_ino) in seen:
            below.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        below.sort()
        inside = os.path.relpath(here, root).replace(os.sep, "/")
        prefix = "" if inside == "." else f"{inside}/"
        folders.extend(prefix + name for name in below)
        files.extend(prefix + name for name in sorted(names))

    def head(file: str, size: int) -> bytes:
        place = os.path.join(root, file)
        if not os.path.isfile(place):  # opening a FIFO would block forever
            return b""
        with open(place, "rb") as opened:
            return opened.read(size)

    return Listing(files=files, folders=folders, head=head)
