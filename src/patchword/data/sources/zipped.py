"""A .zip of class folders, read in place: nothing is unpacked onto the disk."""

import threading
import zipfile
import zlib
from collections.abc import Hashable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from patchword.data.dataset import Dataset
from patchword.data.request import OpenRequest
from patchword.data.sources import table
from patchword.data.sources.class_folders import dataset_of
from patchword.data.sources.listing import Listing
from patchword.data.stamps import Stamp
from patchword.errors import DataError, ImageError

DESCRIPTION = "a .zip of class folders"
# An image of 100 million pixels in 3 × 16 bits; a member that unpacks to more is not a photograph.
LARGEST_MEMBER_BYTES = 600_000_000

# Files that are zips inside and hold no images of their own.
ZIPS_OF_PROGRAMS = (".xlsx", ".ods", ".numbers", ".docx", ".npz", ".pt", ".pth", ".keras")


class ZipReader:
    """Members of a zip. Each thread has its own handle, since a ZipFile's is not for two."""

    sign_is_sure = True

    def __init__(self, path: str, members: Sequence[str]) -> None:
        self.path, self.members = path, tuple(members)
        self._handles = threading.local()

    def __reduce__(self) -> tuple[type, tuple[str, tuple[str, ...]]]:
        return type(self), (self.path, self.members)

    def __call__(self, row: int) -> bytes:
        return read_member(self._archive(), self.path, self.members[row])

    def sign(self, row: int) -> Hashable:
        """Size and checksum, which the zip lists."""
        try:
            info = self._archive().getinfo(self.members[row])
        except KeyError:
            return ("row", row)
        return info.file_size, info.CRC

    def stamp(self, row: int) -> Stamp | None:
        """Size and checksum, which do not change when the zip is copied."""
        try:
            info = self._archive().getinfo(self.members[row])
        except KeyError:
            return None
        return info.file_size, info.CRC

    def _archive(self) -> zipfile.ZipFile:
        archive: zipfile.ZipFile | None = getattr(self._handles, "archive", None)
        if archive is None:
            archive = self._handles.archive = open_zip(self.path)
        return archive


def read_member(archive: zipfile.ZipFile, path: str, member: str) -> bytes:
    """Raises: ImageError for a member that is not there, damaged, encrypted, or far too large."""
    with _member_errors(path, member):
        size = archive.getinfo(member).file_size
        if size > LARGEST_MEMBER_BYTES:
            raise ImageError(
                f"{member}: unpacks to {size / 1e6:.0f} MB, over the limit of {LARGEST_MEMBER_BYTES / 1e6:.0f} MB",
                "unpack the zip and check that file",
            )
        return archive.read(member)


def read_head(archive: zipfile.ZipFile, path: str, member: str, size: int) -> bytes:
    """The first bytes of a member. Raises: ImageError, as `read_member`."""
    with _member_errors(path, member), archive.open(member) as opened:
        return opened.read(size)


@contextmanager
def _member_errors(path: str, member: str) -> Iterator[None]:
    try:
        yield
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError) as error:
        raise ImageError(f"{member}: damaged in {path} ({error})", "create the zip again") from error
    except KeyError as error:
        raise ImageError(f"{member}: no such file in {path}", "add the file, or remove its row") from error
    except RuntimeError as error:  # how zipfile says that a member is encrypted
        raise ImageError(f"{member}: {error}", "create the zip again without a password") from error


def open_zip(path: str) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except PermissionError as error:
        raise DataError(f"{path}: no permission to read it", "change its permissions") from error
    except (zipfile.BadZipFile, OSError) as error:
        raise DataError(f"{path} {_instead_of_a_zip(path)}", "create or download it again") from error


def _instead_of_a_zip(path: str) -> str:
    """What a file is that zipfile refuses: a web page or a part of a zip, as a broken download leaves."""
    try:
        with open(path, "rb") as file:
            start = file.read(512)
    except OSError as error:
        return f"cannot be read ({error.strerror or error})"
    if not start:
        return "is empty"
    if start.startswith(b"PK"):
        return "is a damaged or incomplete zip"
    text = start.lstrip().lower()
    return "is an HTML page, not a zip" if text.startswith((b"<!doctype", b"<html")) else "is not a zip"


def recognises(path: str) -> bool:
    suffix = Path(path).suffix.lower()
    return Path(path).is_file() and (
        suffix == ".zip" or (suffix not in ZIPS_OF_PROGRAMS and _begins_as_zip(path))
    )


def _begins_as_zip(path: str) -> bool:
    try:
        with open(path, "rb") as file:
            return file.read(4) in (b"PK\x03\x04", b"PK\x05\x06")
    except OSError:
        return False


def list_members(path: str) -> dict[str, str]:
    """Tidy name → name in the zip, for every file in it."""
    with open_zip(path) as archive:
        return {_tidy(info.filename): info.filename for info in archive.infolist() if not info.is_dir()}


def read(path: str, request: OpenRequest) -> Dataset:
    entries: dict[str, str] = {}

    def make_reader(files: Sequence[str]) -> ZipReader:
        return ZipReader(path, [entries.get(file, file) for file in files])

    with open_zip(path) as archive:

        def head(file: str, size: int) -> bytes:
            return read_head(archive, path, entries[file], size)

        # The same name twice means that the last one counts, as for every zip program.
        entries |= {_tidy(info.filename): info.filename for info in archive.infolist()}
        listing = Listing(
            files=[e for e in entries if not e.endswith("/")],
            folders=sorted(_folders(entries)),
            head=head,
        )
        labels = table.labels_among(listing.files)
        if labels is not None:
            content = read_member(archive, path, entries[labels])
            return table.read_in_zip(path, labels, content, listing.files, make_reader, request)
        return dataset_of(path, "zip", listing, make_reader, request)


def _tidy(name: str) -> str:
    """An entry's path with "/" between its parts: some zips of Windows have "\\", some begin with "./"."""
    parts = name if "/" in name else name.replace("\\", "/")
    return parts.removeprefix("./")


def _folders(entries: Iterable[str]) -> set[str]:
    """Folders of all entries; a zip need not list them."""
    found = set()
    for entry in entries:
        parts = entry.rstrip("/").split("/")
        last = len(parts) if entry.endswith("/") else len(parts) - 1
        found |= {"/".join(parts[:i]) for i in range(1, last + 1)}
    return found
