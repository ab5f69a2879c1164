"""From what was named (files, folders, data sets, patterns, a list) to images, each with its name or a reason."""

import codecs
import glob
import io
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import NoReturn

from patchword.checkpoints.card import Provenance
from patchword.data.dataset import Dataset, Split
from patchword.data.loader import Named, from_split
from patchword.data.open import open_data
from patchword.data.request import OpenRequest
from patchword.data.sources.table import TABLE_SUFFIXES
from patchword.data.splits import file_list_sha256
from patchword.data.unlabelled import Unlabelled, is_data_set, read_data_set, read_folder
from patchword.errors import DataError, ImageError, SettingsError, near_text

STDIN = "-"
LIST_ENDINGS = (".txt", ".lst")
_LINES_TRIED = 100


@dataclass(frozen=True, kw_only=True)
class Given:
    """What was named, in order. Iterate it for images: paths, or `Named` ones.

    parts: a path, the images of a folder or data set, or what could not be read, under its name with the reason.
    notes: what was skipped.
    """

    parts: tuple[str | Split | Named, ...]
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return sum(len(part) if isinstance(part, Split) else 1 for part in self.parts)

    def __iter__(self) -> Iterator[str | Named]:
        for part in self.parts:
            if isinstance(part, Split):
                yield from from_split(part)
            else:
                yield part

    @property
    def longest_name(self) -> int:
        return max((len(item if isinstance(item, str) else item.name) for item in self), default=0)


@dataclass(frozen=True, kw_only=True)
class Reading:
    """How what is named is read. split: of a data set, None takes all its images. opening: of tables and zips.

    origin: of the model, so that a split made by training is found again.
    """

    split: str | None = None
    opening: OpenRequest = field(default_factory=OpenRequest)
    origin: Provenance | None = None


def expand(given: Iterable[str | os.PathLike[str]], reading: Reading | None = None) -> Given:
    """Files, folders, data sets, lists and patterns as images.

    What is not there, cannot be read or holds no image becomes one item with the reason, so that the others are
    answered, unless nothing else was named.
    Raises: DataError naming the nearest file, a pattern that fits nothing, or - among others; SettingsError.
    """
    names = tuple(os.fspath(name) for name in given)
    if STDIN in names:
        raise DataError(
            "- is standard input, and stands alone", f"give it by itself; a file of that name is ./{STDIN}"
        )
    reading = reading or Reading()
    _check_used(names, reading)
    collected = _Collected(reading)
    for name in names:
        collected.add(name)
    return collected.given()


def as_many(source: str | os.PathLike[str], reading: Reading) -> Given | None:
    """The images of a folder, data set, list or pattern; None for the path of one image."""
    name = os.fspath(source)
    _check_reach(name)
    many = os.path.isdir(name) or is_data_set(name) or _listed(name) or not name
    pattern = not os.path.lexists(name) and glob.has_magic(name)
    if many or pattern or reading.split is not None:
        return expand([name], reading)
    return None


def _check_used(names: tuple[str, ...], reading: Reading) -> None:
    """Raises: SettingsError for a column that nothing here would be read by."""
    opening, by_split = reading.opening, reading.split is not None
    tables = by_split or any(PurePosixPath(name).suffix.lower() in TABLE_SUFFIXES for name in names)
    if opening.image_column is not None and not tables:
        raise SettingsError(
            f"image column {opening.image_column!r}: no table is given", "leave it out, or give a table"
        )
    if opening.label_column is not None and not by_split:
        raise SettingsError(
            f"label column {opening.label_column!r}: labels are read only to find a split",
            "leave it out, or name a split",
        )


def open_as_trained(origin: Provenance, data: str | Path, request: OpenRequest) -> Dataset:
    """The data set as a model of this origin should be asked about it: evaluated, or predicted by split.

    If the data has no split of its own and the model was trained on it, the images held out then are found
    again; any other data is one split "all".
    """
    seed = origin.facts.get("split_seed", origin.seed)
    dataset = open_data(data, replace(request, split=True, seed=seed if isinstance(seed, int) else 0))
    if dataset.split_seed is not None and file_list_sha256(dataset) != origin.data_hash:
        dataset = open_data(data, replace(request, split=False))
    return dataset


def choose_split(dataset: Dataset, name: str | None) -> Split:
    """The split of that name; None takes the one that scores. Raises: DataError naming those there are."""
    if name is None:
        return dataset.evaluation
    if name not in dataset.splits:
        raise DataError(
            f"{dataset.path} has no split {name!r}{near_text(name, dataset.splits)}",
            f"use one of: {', '.join(dataset.splits)}",
        )
    return dataset.splits[name]


class _Collected:
    """What has been found so far, and what was wrong with the rest."""

    def __init__(self, reading: Reading) -> None:
        self.reading = reading
        self.parts: list[str | Split | Named] = []
        self.notes: list[str] = []
        self.errors: list[DataError] = []
        self.failed = 0

    def add(self, name: str) -> None:
        try:
            self._add(name)
        except DataError as error:
            self._add_failure(name, error)

    def given(self) -> Given:
        """Raises: DataError where every single thing that was named has failed."""
        if self.errors and self.failed == len(self.parts):
            raise self.errors[0]
        return Given(parts=tuple(self.parts), notes=tuple(self.notes))

    def _add(self, name: str) -> None:
        if not name:
            raise DataError("an empty path", "give the path of an image, a folder or a data set")
        _check_reach(name)
        if os.path.isdir(name) or is_data_set(name):
            if self.reading.split is not None:
                self._add_split(name, self.reading.split)
            elif os.path.isdir(name):
                self._add_images(name, read_folder(name))
            else:
                self._add_images(name, read_data_set(name, self.reading.opening))
        elif not os.path.lexists(name) and glob.has_magic(name):
            self._add_pattern(name)
        elif self.reading.split is not None:
            _refuse_split(name, self.reading.split)
        elif paths := _listed(name):
            self.parts += paths
        elif os.path.lexists(name):
            self.parts.append(name)
        else:
            raise DataError(f"{name}: no such file{_near(Path(name))}", "give a file or folder that exists")

    def _add_split(self, name: str, split: str) -> None:
        origin = self.reading.origin or Provenance()
        dataset = open_as_trained(origin, name, self.reading.opening)
        chosen = choose_split(dataset, split)
        # Images that belong to no split or class are not in any: the others are answered, and these are named.
        self.notes += [problem.message for problem in dataset.problems if problem.severity == "error"]
        if not len(chosen):
            raise DataError(f"{name}: the split {split} has no images", "choose another split")
        self.parts.append(chosen)

    def _add_images(self, name: str, found: Unlabelled) -> None:
        skipped = found.skipped_text()
        for folder, error in found.unreadable:
            self._add_failure(folder, error)
        if len(found.split):
            self.parts.append(found.split)
            self.notes += [f"{name}: skipped {skipped}"] if skipped else []
        elif not found.unreadable:
            what = "this folder" if os.path.isdir(name) else "it"
            raise DataError(
                f"{name}: no images in {what}{f' ({skipped})' if skipped else ''}",
                "name a folder with images, or the files themselves",
            )

    def _add_pattern(self, pattern: str) -> None:
        """Every file and folder that fits, each image once: `a/**` fits a folder and also what is in it."""
        matches = sorted(glob.glob(pattern, recursive=True))
        files = [m for m in matches if not os.path.isdir(m)]
        if not matches:
            raise DataError(f"{pattern}: no file fits this pattern", "look at the folder, or name the files")
        for match in files if "**" in pattern else matches:
            self.add(match)
        if "**" in pattern and not files:
            raise DataError(f"{pattern}: no file fits this pattern", "look at the folder, or name the files")

    def _add_failure(self, name: str, error: DataError) -> None:
        self.failed += 1
        self.errors.append(error)

        def fail() -> NoReturn:
            raise error

        self.parts.append(Named(name=name or '""', source=fail))


def _check_reach(name: str) -> None:
    """Raises: DataError for a path behind a folder that may not be entered: nobody can say whether it is there."""
    try:
        os.lstat(name)
    except PermissionError as error:
        raise DataError(
            f"{name}: no permission to read it", "change the permissions of its folder"
        ) from error
    except (OSError, ValueError):
        pass


def _refuse_split(name: str, split: str) -> NoReturn:
    raise DataError(
        f"{name}: not a data set, so it has no split {split!r}",
        "give a folder, a .zip or a table, or leave out the split",
    )


def _near(path: Path) -> str:
    try:
        return near_text(path.name, [entry.name for entry in os.scandir(path.parent)])
    except OSError:
        return ""


def _listed(name: str) -> list[str]:
    """The paths in a text file, one a line, seen from here or from the file's folder; none if it lists no file."""
    path = Path(name)
    if path.suffix.lower() not in LIST_ENDINGS or not path.is_file():
        return []
    try:
        lines = [os.fsdecode(line.strip(b"\r")) for line in path.read_bytes().split(b"\n") if line.strip()]
    except OSError:
        return []

    def place(line: str) -> str:
        beside = os.path.join(path.parent, line)
        return beside if not os.path.exists(line) and os.path.exists(beside) else line

    if not any(os.path.exists(place(line)) for line in lines[:_LINES_TRIED] if "\0" not in line):
        return []
    return [place(line) for line in lines]


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
    if reader.peek(3)[:3] == codecs.BOM_UTF8:  # some editors on Windows begin a file with it
        reader.read(3)
    while piece := reader.read1(1 << 16):
        *lines, rest = (rest + piece).split(end)
        yield from (os.fsdecode(line.rstrip(b"\r")) for line in lines if line.strip())
    if rest.strip():
        yield os.fsdecode(rest.rstrip(b"\r"))
