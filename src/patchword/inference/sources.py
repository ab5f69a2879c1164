"""From what was typed (files, folders, patterns, a list on standard input) to pictures."""

import glob
import io
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from patchword.errors import DataError, ImageError, near_text
from patchword.images.suffixes import SUFFIXES

STDIN = "-"


def pictures_in(folder: Path) -> list[Path]:
    """Every picture below the folder, by its ending, in the order of their names; hidden ones left out.

    Raises: DataError where there is none.
    """
    found: list[Path] = []
    for place, folders, files in os.walk(folder):
        folders[:] = sorted(f for f in folders if not f.startswith("."))
        pictures = (f for f in files if not f.startswith(".") and Path(f).suffix.lower() in SUFFIXES)
        found += [Path(place) / name for name in sorted(pictures)]
    if not found:
        raise DataError(
            f"{folder}: no images in this folder", "name a folder with images, or the files themselves"
        )
    return found


def expand(given: Iterable[str]) -> list[str]:
    """Files, folders and patterns as a list of files.

    A file that is not there stays in the list, for a row of its own that says so, unless none
    of them is there: then nothing was meant as typed.
    Raises: DataError naming the nearest file, a pattern that fits nothing, or - among others.
    """
    given = tuple(given)
    if STDIN in given:
        raise DataError(
            "- is standard input, and stands alone", f"give it by itself; a file of that name is ./{STDIN}"
        )
    found: list[str] = []
    missing: list[str] = []
    for name in given:
        path = Path(name)
        if path.is_dir():
            found += map(str, pictures_in(path))
        elif not path.exists() and glob.has_magic(name):
            matches = sorted(m for m in glob.glob(name, recursive=True) if not Path(m).is_dir())
            if not matches:
                raise DataError(f"{name}: no file fits this pattern", "look at the folder, or name the files")
            found += matches
        else:
            found.append(name)
            missing += [] if path.exists() else [name]
    if missing and len(missing) == len(found):
        raise DataError(
            f"{missing[0]}: no such file{_near(Path(missing[0]))}", "give a file or folder that exists"
        )
    return found


def _near(path: Path) -> str:
    try:
        return near_text(path.name, [entry.name for entry in os.scandir(path.parent)])
    except OSError:
        return ""


def from_stream(reader: io.BufferedReader) -> bytes | Iterator[str]:
    """What standard input holds: the bytes of one image, or paths, one a line (or between zeros).

    Paths are read as they come, so that another program may still be finding them.
    Raises: DataError where there is nothing on it.
    """
    head = reader.peek(512)[:512]
    if not head:
        raise DataError(
            "standard input (-) is empty", "put an image on it, or the paths of images, one a line"
        )
    if _is_picture(head) or not _are_paths(head):
        return reader.read()
    return _paths(reader, b"\0" if b"\0" in head else b"\n")


def _is_picture(head: bytes) -> bool:
    from patchword.images.sniff import sniff

    try:
        sniff(head, max(len(head), 1), STDIN)
    except ImageError:
        return False
    return bool(head)


def _are_paths(head: bytes) -> bool:
    """Whether a list of names may begin so: no page, drawing or binary file, whose pieces would each be a missing file."""
    control = {byte for byte in head if byte < 32} - set(b"\0\t\r\n")
    return not control and not head.lstrip().startswith((b"<", b"%PDF", b"%!PS", b"version https://git-lfs"))


def _paths(reader: io.BufferedReader, end: bytes) -> Iterator[str]:
    rest = b""
    while piece := reader.read1(1 << 16):
        *lines, rest = (rest + piece).split(end)
        yield from (os.fsdecode(line.rstrip(b"\r")) for line in lines if line.strip())
    if rest.strip():
        yield os.fsdecode(rest.rstrip(b"\r"))
