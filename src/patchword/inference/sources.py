"""Expand files, folders, data sets, patterns and lists to images, each with its name or an error."""

import codecs
import glob
import io
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import NoReturn

from patchword.data.dataset import Dataset, Split
from patchword.data.loader import Named, from_split
from patchword.data.open import open_data
from patchword.data.path_list import listed_paths
from patchword.data.request import OpenRequest
from patchword.data.sources.table import TABLE_SUFFIXES
from patchword.data.splits import file_list_sha256
from patchword.data.unlabelled import Unlabelled, is_data_set, read_data_set, read_folder
from patchword.errors import DataError, ImageError, SettingsError, near_text
from patchword.weights.card import Provenance

STDIN = "-"


@dataclass(frozen=True, kw_only=True)
class Given:
    """The given sources, in order. Iterate it for images: paths, or `Named` ones.

    parts: a path, the images of a folder or data set, or a named item that raises why it is unreadable.
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
    """How to read the sources. split: of a data set; None for all its images. opening: for tables, zips and splits.

    split_seed: hold out images as `train` does with this seed; None to find the split of the model's training
    again. origin: the model's provenance, for that.
    """

    split: str | None = None
    split_seed: int | None = None
    opening: OpenRequest = field(default_factory=OpenRequest)
    origin: Provenance | None = None


def reading_of(
    split: str | None,
    split_seed: int | None,
    image_column: str | None,
    label_column: str | None,
    split_column: str | None,
    class_level: int | None,
    max_pixels: int,
) -> Reading:
    """The parameters of `Model.predict` and `embed` as one value. Raises: SettingsError for a wrong number."""
    opening = OpenRequest(
        image_column=image_column,
        label_column=label_column,
        split_column=split_column,
        class_level=class_level,
        max_pixels=max_pixels,
    )
    return Reading(split=split, split_seed=split_seed, opening=opening)


def expand(given: Iterable[str | os.PathLike[str]], reading: Reading | None = None) -> Given:
    """Expand files, folders, data sets, lists and patterns to images.

    A source that does not exist, is unreadable or holds no image becomes one item that raises the reason, so
    that the others are still processed.
    Raises: DataError if all sources fail (naming the nearest file), or if - is given together with others;
        SettingsError.
    """
    names = tuple(os.fspath(name) for name in given)
    if STDIN in names:
        raise DataError(
            "- means standard input and cannot be combined with other sources",
            f"give - alone, or write ./{STDIN} for a file of that name",
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
    _check_used((name,), reading)
    _check_reach(name)
    many = os.path.isdir(name) or is_data_set(name) or listed_paths(name) or not name
    pattern = not os.path.lexists(name) and glob.has_magic(name)
    if many or pattern or reading.split is not None:
        return expand([name], reading)
    return None


def _check_used(names: tuple[str, ...], reading: Reading) -> None:
    """Raises: SettingsError for an option that would have no effect."""
    opening, by_split = reading.opening, reading.split is not None
    tables = by_split or any(PurePosixPath(name).suffix.lower() in TABLE_SUFFIXES for name in names)
    if opening.image_column is not None and not tables:
        raise SettingsError(
            f"image column {opening.image_column!r} only applies to a table, and none is given",
            "remove the option, or give a table",
        )
    for what, value in (
        ("label column", opening.label_column),
        ("split column", opening.split_column),
        ("class level", opening.class_level),
        ("split seed", reading.split_seed),
    ):
        if value is not None and not by_split:
            raise SettingsError(
                f"{what} {value!r} only applies together with a split",
                "remove the option, or specify a split",
            )


def without_unused(names: Sequence[str], reading: Reading) -> Reading:
    """The reading without the columns that no source would use, as they name those of another table."""
    tables = any(PurePosixPath(name).suffix.lower() in TABLE_SUFFIXES for name in names)
    if reading.split is not None:
        return reading
    image_column = reading.opening.image_column if tables else None
    return replace(reading, opening=replace(reading.opening, image_column=image_column, label_column=None))


def open_as_trained(
    origin: Provenance, data: str | Path, request: OpenRequest, split_seed: int | None = None
) -> Dataset:
    """Open a data set for evaluating, or predicting a split of it, with a model of this origin.

    If the data has no split of its own and the model was trained on it, the images held out then are selected
    again. Any other data becomes one split "all". split_seed: hold out images as training with this seed does.
    Raises: DataError; SettingsError if the data has its own split, which a seed does not change.
    """
    if split_seed is not None:
        dataset = open_data(data, replace(request, split=True, split_seed=split_seed))
        if dataset.split_seed is None:
            raise SettingsError(
                f"{dataset.path} has its own split ({', '.join(dataset.splits)}), so --split-seed {split_seed} "
                "has no effect",
                "remove --split-seed",
            )
        return dataset
    if not origin.data_hash:
        return open_data(data, replace(request, split=False))
    seed = origin.facts.get("split_seed", 0)
    dataset = open_data(data, replace(request, split=True, split_seed=seed if isinstance(seed, int) else 0))
    if dataset.split_seed is not None and file_list_sha256(dataset) != origin.data_hash:
        dataset = open_data(data, replace(request, split=False))
    return dataset


def choose_split(dataset: Dataset, name: str | None) -> Split:
    """Return the split of that name: "all" for all images, None for the one used for scoring.

    Raises: DataError listing all splits.
    """
    if name is None:
        return dataset.evaluation
    if name in dataset.splits:
        return dataset.splits[name]
    if name == "all":
        return dataset.everything
    if name in ("train", "val") and set(dataset.splits) == {"all"}:
        raise DataError(
            f"{dataset.path} has no split {name!r}: it is not split, and this model was not trained on it",
            "remove --split, or pass --split-seed 0 to hold out the images that `patchword train` would",
        )
    names = dict.fromkeys((*dataset.splits, "all"))
    raise DataError(
        f"{dataset.path} has no split {name!r}{near_text(name, names)}",
        f"use one of: {', '.join(names)}",
    )


class _Collected:
    """Collects what the sources contain, and the errors of those that failed."""

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
        """Return all sources. Raises: DataError if every one of them failed."""
        if self.errors and self.failed == len(self.parts):
            raise self.errors[0]
        return Given(parts=tuple(self.parts), notes=tuple(self.notes))

    def _add(self, name: str) -> None:
        if not name:
            raise DataError("a path is empty", "give the path of an image, a folder or a data set")
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
        elif paths := listed_paths(name):
            self.parts += paths
        elif os.path.lexists(name):
            self.parts.append(name)
        else:
            raise DataError(f"{name}: no such file{_near(Path(name))}", "give a file or folder that exists")

    def _add_split(self, name: str, split: str) -> None:
        origin = self.reading.origin or Provenance()
        dataset = open_as_trained(origin, name, self.reading.opening, self.reading.split_seed)
        chosen = choose_split(dataset, split)
        # Images without a split or class are reported, and the others are processed.
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
            what = "this folder" if os.path.isdir(name) else "this file"
            raise DataError(
                f"{name}: no images in {what}{f' ({skipped})' if skipped else ''}",
                "give a folder that contains images, or image files",
            )

    def _add_pattern(self, pattern: str) -> None:
        """Add all matches, each image once: `a/**` matches a folder and also the files in it."""
        matches = sorted(glob.glob(pattern, recursive=True))
        files = [m for m in matches if not os.path.isdir(m)]
        if not matches:
            raise DataError(
                f"{pattern}: no file matches this pattern", "check the pattern, or list the files"
            )
        for match in files if "**" in pattern else matches:
            self.add(match)
        if "**" in pattern and not files:
            raise DataError(
                f"{pattern}: no file matches this pattern", "check the pattern, or list the files"
            )

    def _add_failure(self, name: str, error: DataError) -> None:
        self.failed += 1
        self.errors.append(error)

        def fail() -> NoReturn:
            raise error

        self.parts.append(Named(name=name or '""', source=fail))


def _check_reach(name: str) -> None:
    """Raises: DataError if a folder on the path may not be entered, so that its existence is unknown."""
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
        "give a folder, a .zip or a table, or remove the split",
    )


def _near(path: Path) -> str:
    try:
        return near_text(path.name, [entry.name for entry in os.scandir(path.parent)])
    except OSError:
        return ""


def from_stream(reader: io.BufferedReader) -> bytes | Iterator[str]:
    """Read standard input: the bytes of one image, or paths, one per line (or separated by zero bytes).

    Paths are yielded as they arrive, so that another program can still be producing them.
    Raises: DataError if it is empty.
    """
    head = reader.peek(512)[:512]
    if not head:
        raise DataError(
            "standard input (-) is empty", "pipe an image into it, or the paths of images, one per line"
        )
    if _is_image(head) or not _are_paths(head):
        return reader.read()
    return _paths(reader, b"\0" if b"\0" in head else b"\n")


def _is_image(head: bytes) -> bool:
    from patchword.images.sniff import sniff

    try:
        sniff(head, max(len(head), 1), STDIN)
    except ImageError:
        return False
    return bool(head)


def _are_paths(head: bytes) -> bool:
    """Whether this may be the start of a list of paths, rather than a page, drawing or binary file."""
    control = {byte for byte in head if byte < 32} - set(b"\0\t\r\n")
    return not control and not head.lstrip().startswith((b"<", b"%PDF", b"%!PS", b"version https://git-lfs"))


def _paths(reader: io.BufferedReader, end: bytes) -> Iterator[str]:
    rest = b""
    if reader.peek(3)[:3] == codecs.BOM_UTF8:  # written by some editors on Windows
        reader.read(3)
    while piece := reader.read1(1 << 16):
        *lines, rest = (rest + piece).split(end)
        yield from (os.fsdecode(line.rstrip(b"\r")) for line in lines if line.strip())
    if rest.strip():
        yield os.fsdecode(rest.rstrip(b"\r"))
