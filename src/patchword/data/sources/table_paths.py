"""Map the paths in a table to existing files."""

import os
import posixpath
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from patchword.data.dataset import Problem
from patchword.errors import DataError, near_text, plural
from patchword.images.suffixes import SUFFIXES

# A table at the top of a disk must not cause a walk over the entire disk.
MAX_FILES = 300_000
_URL = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)
_DRIVE = re.compile(r"[A-Za-z]:[\\/]")


@dataclass(frozen=True)
class ImageRoot:
    """Where a table's paths begin. is_there: of a path seen from there. files: all below it, with "/" in them."""

    name: str
    is_there: Callable[[str], bool]
    files: Callable[[], Sequence[str]]


@dataclass(frozen=True)
class Located:
    """files: for each row the file that is meant, as written where none is there; None for an empty cell."""

    files: list[str | None]
    problems: list[Problem] = field(default_factory=list)


def is_image_name(text: str) -> bool:
    return PurePosixPath(text.replace("\\", "/")).suffix.lower() in SUFFIXES


def locate(path: str, column: str, cells: Sequence[str | None], place: ImageRoot) -> Located:
    """The files that the cells of the image column mean.

    A cell may differ from the file's path in blanks around it, backslashes, "./" and how é is written. A file that
    is not at its path is looked for below `place` by name: in sub-folders, without the folders of another
    machine, with the ending that the cell lacks. That is done only if no image is at its path, and a file is taken
    only if there is one of the name, and only for one cell.
    Raises: DataError for URLs, and where not one file is found.
    """
    given = [cell for cell in cells if cell]
    urls = [cell for cell in given if _URL.match(cell)]
    if urls:
        raise DataError(
            f"{path}: {plural(len(urls), 'cell')} of {len(given)} in column {column} {'is a URL' if len(urls) == 1 else 'are URLs'}, e.g. "
            f"{urls[0]}, but patchword does not download images",
            "download the images and write their paths into the table",
        )
    direct = {cell: _direct(cell, place) for cell in dict.fromkeys(given)}
    accented = [cell for cell, file in direct.items() if file is None and not cell.isascii()]
    if accented:
        by_composed = {_composed(file): file for file in place.files()}
        direct |= {cell: by_composed.get(_composed(_plain(cell))) for cell in accented}
    missing = [cell for cell, file in direct.items() if file is None]
    # Where some are at their path, the others are gone: a file of the same name elsewhere is another image.
    found = _searched(missing, place) if len(missing) == len(direct) else {}
    if missing and len(missing) == len(direct) and not found:
        raise _none_there(path, column, missing, place)
    files = {cell: direct[cell] or found.get(cell) or cell for cell in direct}
    problems = []
    if found:
        cell, file = next(iter(found.items()))
        are = "is" if len(found) == 1 else "are"
        message = (
            f"{path}: {len(found)} of {plural(len(direct), 'image')} {are} not at the path in column {column} "
            f"and {are} found by name below {place.name}, e.g. {cell!r} as {file}"
        )
        problems.append(Problem(severity="note", message=message))
    elif missing:
        problems += _other_case(path, missing, place)
    return Located([files[cell] if cell else None for cell in cells], problems)


def key_of(file: str, folder: str) -> str:
    """The file's path from the table's folder: the same for `./a.png`, `a.png` and the absolute path."""
    if os.path.isabs(file):
        try:
            file = os.path.relpath(os.path.realpath(file), os.path.realpath(folder)).replace(os.sep, "/")
        except ValueError:  # another drive
            return file
    return posixpath.normpath(file)


def _direct(cell: str, place: ImageRoot) -> str | None:
    """The cell, or the spelling of it that is there."""
    if place.is_there(cell):
        return cell
    plain = _plain(cell)
    forms = (cell.strip(), plain, *(unicodedata.normalize(f, plain) for f in ("NFC", "NFD")))
    return next((form for form in dict.fromkeys(forms) if form != cell and place.is_there(form)), None)


def _plain(cell: str) -> str:
    """Without blanks around it, with "/" between its parts, without "./"."""
    slashed = cell.strip().replace("\\", "/")
    return posixpath.normpath(slashed) if slashed else slashed


def _searched(missing: Iterable[str], place: ImageRoot) -> dict[str, str]:
    """Cell → the one file below `place` that can be meant, in no case the file of another cell."""
    by_name, by_stem = _by_name(place.files())
    found = {}
    for cell in missing:
        file = _by_end(cell, by_name, by_stem)
        if file is not None:
            found[cell] = file
    times = Counter(found.values())
    return {cell: file for cell, file in found.items() if times[file] == 1}


def _by_name(files: Iterable[str]) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    by_name, by_stem = defaultdict(list), defaultdict(list)
    for file in files:
        name = _composed(file.rpartition("/")[2])
        by_name[name].append(file)
        if is_image_name(name):
            by_stem[name.rpartition(".")[0]].append(file)
    return by_name, by_stem


def _composed(text: str) -> str:
    return unicodedata.normalize("NFC", text)


def _by_end(cell: str, by_name: dict[str, list[str]], by_stem: dict[str, list[str]]) -> str | None:
    """The file whose path ends as the cell does, by as many of the cell's parts as fit any file."""
    parts = [part for part in _composed(cell.strip()).replace("\\", "/").split("/") if part not in ("", ".")]
    if not parts:
        return None
    if is_image_name(parts[-1]):
        candidates = [(file, _composed(file)) for file in by_name.get(parts[-1], ())]
    else:
        stems = by_stem.get(parts[-1], ())
        candidates = [(file, _composed(file).rpartition(".")[0]) for file in stems]
    for first in range(len(parts)):
        end = "/" + "/".join(parts[first:])
        fitting = [file for file, seen in candidates if f"/{seen}".endswith(end)]
        if fitting:
            return fitting[0] if len(fitting) == 1 else None
    return None


def _other_case(path: str, missing: Sequence[str], place: ImageRoot) -> list[Problem]:
    """A warning for cells that differ from a file in the case of letters alone."""
    by_lower = {_composed(file).lower(): file for file in place.files()}
    slashed = {cell: _composed(_plain(cell)) for cell in missing}
    near = {cell: by_lower[text.lower()] for cell, text in slashed.items() if text.lower() in by_lower}
    if not near:
        return []
    cell, file = next(iter(near.items()))
    message = (
        f"{path}: {plural(len(near), 'path')} not found, {cell} for example; {file} exists and differs only in "
        "letter case"
    )
    return [
        Problem(severity="warning", message=message, fix="write the names exactly as the files have them")
    ]


def _none_there(path: str, column: str, missing: Sequence[str], place: ImageRoot) -> DataError:
    first = missing[0]
    message = f"{path}: none of the images in column {column} exists; the first is {first}"
    files = place.files()
    wanted = _composed(first.strip()).replace("\\", "/").rpartition("/")[2]
    same = [file for file in files if _composed(file.rpartition("/")[2]).lower() == wanted.lower()]
    stems = [
        file
        for file in files
        if _composed(file.rpartition("/")[2]).rpartition(".")[0].lower() == wanted.lower()
    ]
    if len(same) == 1:
        return DataError(
            f"{message}; {same[0]} exists and differs only in letter case",
            "write the names exactly as the files have them",
        )
    if len(same) > 1 or len(stems) > 1:
        several = same or stems
        return DataError(
            f"{message}; {len(several)} files have this name, e.g. {several[0]} and {several[1]}",
            f"make the paths relative to {place.name}",
        )
    if _DRIVE.match(first) or first.startswith("/"):
        return DataError(
            f"{message}, which may be a path from another machine", f"make the paths relative to {place.name}"
        )
    near = near_text(wanted, [file.rpartition("/")[2] for file in files[:10_000]])
    return DataError(f"{message}{near}", f"make the paths relative to {place.name}")


def files_below(folder: str) -> list[str]:
    """Paths of the files below a folder, with "/"; hidden ones left out, and what may not be read."""
    found: list[str] = []
    for here, below, names in os.walk(folder):
        below[:] = sorted(name for name in below if not name.startswith((".", "@", "__MACOSX")))
        inside = os.path.relpath(here, folder).replace(os.sep, "/")
        prefix = "" if inside == "." else f"{inside}/"
        found.extend(prefix + name for name in sorted(names) if not name.startswith("."))
        if len(found) > MAX_FILES:
            return []
    return found
