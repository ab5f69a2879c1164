"""The files of a folder or a zip, read by name."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from posixpath import basename, dirname, normpath, splitext

from patchword.data.dataset import Reader
from patchword.data.sources import folder, zipped
from patchword.data.sources.listing import Head
from patchword.errors import DataError, ImageError
from patchword.images.suffixes import SUFFIXES, is_hidden

# Folders that are looked into for an image.
_MOST = 200


@dataclass(frozen=True, kw_only=True)
class Files:
    """names: paths below the root, with "/", without hidden files. read: the content of one. Raises: DataError.

    head: its first bytes.
    """

    path: str
    kind: str
    names: Sequence[str]
    read: Callable[[str], bytes]
    head: Head
    make_reader: Callable[[Sequence[str]], Reader]
    _by_ending: dict[str, list[str]] = field(default_factory=dict)

    def ending(self, *suffixes: str) -> list[str]:
        """Files with one of the endings, in the order of their paths."""
        if not self._by_ending:
            for name in sorted(self.names):
                self._by_ending.setdefault(splitext(name)[1].lower(), []).append(name)
        return sorted(name for suffix in suffixes for name in self._by_ending.get(suffix, ()))

    def images(self) -> list[str]:
        return self.ending(*SUFFIXES)

    def shown(self, name: str) -> str:
        """The file as a user may find it."""
        return f"{self.path}/{name}" if name else self.path


def start_of(files: Files, name: str) -> str:
    """The first characters of a text file; "" if it cannot be read."""
    try:
        return files.head(name, 1 << 16).decode("utf-8-sig", "replace")
    except (OSError, ImageError):
        return ""


def _visible(names: Sequence[str]) -> list[str]:
    return [name for name in names if not any(is_hidden(part) for part in name.split("/"))]


def files_of(path: str) -> Files:
    """Raises: DataError if a folder or zip cannot be listed."""
    return _folder(path) if Path(path).is_dir() else _zip(path)


def files_above(file: Path, images: Sequence[str]) -> Files | None:
    """The folder above that of `file`: of its folders, only those that have one of the images, directly or one level below.

    So that annotations/ next to images/ are read together, and a whole home folder is not listed.
    """
    above = file.resolve().parent.parent
    with_images = [
        place.name
        for place in _folders_in(above)
        if any(
            (at / basename(image)).exists() or (above / image).exists()
            for at in (place, *_folders_in(place))
            for image in images
        )
    ]
    if not with_images:
        return None
    whole = _folder(os.path.normpath(file.parent / ".."), only=(*with_images, file.resolve().parent.name))
    return whole if any(whole.images()) else None


def _folders_in(place: Path) -> list[Path]:
    """Up to 200; none of a folder that cannot be read."""
    try:
        return [one for one in sorted(place.iterdir()) if one.is_dir() and not is_hidden(one.name)][:_MOST]
    except OSError:
        return []


def _folder(path: str, only: Sequence[str] | None = None) -> Files:
    """only: the folders in it that are listed; all by default."""

    def read(name: str) -> bytes:
        try:
            return Path(path, name).read_bytes()
        except OSError as error:
            raise DataError(
                f"{os.path.join(path, name)} cannot be read ({error.strerror or error})",
                "check its permissions",
            ) from error

    def make_reader(files: Sequence[str]) -> Reader:
        return folder.FileReader(path, tuple(files))

    listings = [("", folder.list_folder(path))] if only is None else []
    for name in dict.fromkeys(only or ()):
        listings.append((f"{name}/", folder.list_folder(os.path.join(path, name))))
    names = _visible([prefix + file for prefix, listing in listings for file in listing.files])

    def head(name: str, size: int) -> bytes:
        place = os.path.join(path, name)
        if not os.path.isfile(place):  # opening a FIFO would block forever
            return b""
        with open(place, "rb") as file:
            return file.read(size)

    return Files(path=path, kind="folder", names=names, read=read, head=head, make_reader=make_reader)


def _zip(path: str) -> Files:
    members = zipped.list_members(path)

    # One handle for all: VOC and YOLO have a file for each image.
    reader = zipped.ZipReader(path, [])

    def read(name: str) -> bytes:
        reader.members = (members[name],)
        try:
            return reader(0)
        except ImageError as error:
            raise DataError(error.message, error.fix) from error

    def make_reader(files: Sequence[str]) -> Reader:
        return zipped.ZipReader(path, [members[file] for file in files])

    def head(name: str, size: int) -> bytes:
        with zipped.open_zip(path) as archive:
            return zipped.read_head(archive, path, members[name], size)

    return Files(
        path=path, kind="zip", names=_visible(list(members)), read=read, head=head, make_reader=make_reader
    )


def beside(folder_of: str, name: str) -> str:
    """The path below the root of `name`, as a file in `folder_of` calls it; "" if it leads out of the root."""
    joined = normpath(f"{folder_of}/{name}".lstrip("/") if not name.startswith("/") else name)
    return "" if joined.startswith("../") or joined == ".." else joined.removeprefix("./")


def stem(name: str) -> str:
    return splitext(basename(name))[0]


def folder_of(name: str) -> str:
    return dirname(name)
