"""Class folders, seen as a list of paths: the same rules for a folder and for a zip.

train/CLASS/…/image     val/ or test/ beside it        (also training, valid, validation, …)
CLASS/…/image           no split: one is made
ANYTHING/train/…        one wrapping folder is looked through
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from patchword.data.dataset import Problem
from patchword.errors import DataError, counted, is_near, near_text
from patchword.images.suffixes import SUFFIXES

SPLITS = {
    "train": ("train", "training", "trn"),
    "val": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing", "tst"),
}
_SPLIT_OF = {spelling: name for name, spellings in SPLITS.items() for spelling in spellings}


def split_order(name: str) -> tuple[int, str]:
    """train, val, test, then all else by name."""
    return (list(SPLITS).index(name) if name in SPLITS else len(SPLITS), name)


@dataclass(frozen=True, kw_only=True)
class Listing:
    """files: paths below the root, with "/". folders: likewise; needed to see empty ones."""

    files: Sequence[str]
    folders: Sequence[str]


@dataclass(kw_only=True)
class Found:
    """members: split → class → files. loose: images outside any class folder.

    beside: images in folders that are no split, beside one that is.
    """

    members: dict[str, dict[str, list[str]]] = field(default_factory=dict)
    loose: list[str] = field(default_factory=list)
    passed_by: Counter[str] = field(default_factory=Counter)
    beside: Counter[str] = field(default_factory=Counter)


def arrange(listing: Listing) -> Found:
    """Sort the files into splits and classes. Split "all" when there are no split folders."""
    found = Found()
    images = [file for file in listing.files if _is_image(file, found.passed_by)]
    top = _wrapping_folder(images, listing.folders)
    splits = _split_folders(images, listing.folders, top)
    for name, folder in splits.items():
        found.members[name] = {
            c: [] for c in _subfolders([f for f in listing.folders if _visible(f)], folder)
        }
    for file in images:
        split, below = _split_of(file, splits)
        if split is None:
            found.passed_by["in no split folder"] += 1
            found.beside[file[len(top) :].split("/")[0]] += 1
        elif len(below) == 1:
            found.loose.append(file)
        else:
            found.members[split].setdefault(below[0], []).append(file)
    for classes in found.members.values():
        for files in classes.values():
            files.sort()
    return found


def in_order(names: Iterable[str]) -> tuple[str, ...]:
    """Class names in their order: by number when all are numbers, else by name."""
    unique = set(names)
    if all(re.fullmatch(r"[0-9]+", name) for name in unique):
        return tuple(sorted(unique, key=lambda name: (int(name), name)))
    return tuple(sorted(unique))


def class_problems(found: Found, path: str, ignore_unknown: bool) -> list[Problem]:
    """Loose images, empty classes, and classes that the two splits do not share."""
    problems = []
    if found.loose:
        problems.append(
            Problem(
                severity="error",
                message=f"{path} has {counted(len(found.loose), 'image')} outside any class folder, as {found.loose[0]}",
                fix="move each into the folder of its class, or remove them",
            )
        )
    for folder, count in sorted(found.beside.items()):
        near = near_text(folder, [s for spellings in SPLITS.values() for s in spellings])
        problems.append(
            Problem(
                severity="warning",
                message=f"{path}: {folder} is no split{near}, its images ({count}) are left out",
                fix="call it val or test if it is to score, or move it elsewhere",
            )
        )
    training = found.members.get("train", found.members.get("all", {}))
    for split, classes in found.members.items():
        for name in sorted(c for c, files in classes.items() if not files):
            problems.append(
                Problem(
                    severity="warning" if classes is training else "note",
                    message=f"{path}: the class folder {name!r} in {split} is empty",
                    fix="put its images there, or remove the folder",
                )
            )
    for split in ("val", "test"):
        problems.extend(_differences(training, found.members.get(split), path, split, ignore_unknown))
    return problems


def _differences(
    training: dict[str, list[str]],
    other: dict[str, list[str]] | None,
    path: str,
    split: str,
    ignore_unknown: bool,
) -> list[Problem]:
    known = {c for c, files in training.items() if files}
    there = {c for c, files in (other or {}).items() if files}
    if other is None or not known:
        return []
    problems = []
    unknown, absent = sorted(there - known), sorted(known - there)
    if unknown:
        count = sum(len(other[c]) for c in unknown)
        problems.append(
            Problem(
                severity="note" if ignore_unknown else "error",
                message=_table(path, split, unknown, absent, known),
                fix="rename them, or pass --ignore-unknown-classes to leave "
                f"{'that image' if count == 1 else f'those {count} images'} out",
            )
        )
    if absent:
        listed = ", ".join(repr(c) for c in absent[:8]) + (" …" if len(absent) > 8 else "")
        problems.append(
            Problem(
                severity="warning",
                message=f"{path}: {split} has no image of {listed}, so {'it' if len(absent) == 1 else 'they'} "
                "cannot be scored",
                fix=f"add images of the class to {split}",
            )
        )
    return problems


def _table(path: str, split: str, unknown: list[str], absent: list[str], known: set[str]) -> str:
    """Which classes differ, each with the one that was probably meant."""
    lines = [f"{name!r}{is_near(name, absent) or is_near(name, known)}" for name in unknown[:12]]
    more = f" and {len(unknown) - 12} more" if len(unknown) > 12 else ""
    has = "the class" if len(unknown) == 1 else "the classes"
    return f"{path}: {split} has {has} {', '.join(lines)}{more}, train does not"


def refuse_without_classes(found: Found, path: str, tables: Sequence[str] = ()) -> None:
    """Raises: DataError where no image lies in a class folder. tables: what may have been meant instead."""
    if any(files for classes in found.members.values() for files in classes.values()):
        return
    if found.loose:
        where = str(PurePosixPath(found.loose[0]).parent)
        place = path if where == "." else f"{path}/{where}"
        raise DataError(
            f"{place} holds {counted(len(found.loose), 'image')} directly, where class folders should be",
            f"make a folder for each class, as {place}/CLASS/{PurePosixPath(found.loose[0]).name}",
        )
    other = ", ".join(f"{count} {reason}" for reason, count in found.passed_by.items())
    raise DataError(
        f"{path} holds no images" + (f" ({other})" if other else ""),
        f"give a table itself, as {path}/{tables[0]}"
        if tables
        else "give a folder of class folders with images in them",
    )


def _is_image(file: str, passed_by: Counter[str]) -> bool:
    name = PurePosixPath(file).name
    if not _visible(file) or name.lower() in ("thumbs.db", "desktop.ini"):
        passed_by["hidden files"] += 1
        return False
    if PurePosixPath(name).suffix.lower() not in SUFFIXES:
        passed_by["files of other kinds"] += 1
        return False
    return True


def _visible(path: str) -> bool:
    return not any(part.startswith(".") or part == "__MACOSX" for part in path.split("/"))


def _wrapping_folder(images: Sequence[str], folders: Sequence[str]) -> str:
    """The folder, "" or ending in "/", that holds everything: the way down to the first choice."""
    top = ""
    while True:
        heads = {file[len(top) :].split("/")[0] for file in images if file.startswith(top)}
        heads |= set(_subfolders([f for f in folders if _visible(f)], top))
        if len(heads) != 1:
            return top
        below = f"{top}{heads.pop()}/"
        holds_images = any(f.startswith(below) and "/" not in f[len(below) :] for f in images)
        is_split = below.rstrip("/").rpartition("/")[2].lower() in _SPLIT_OF
        if holds_images or is_split or not any(f.startswith(below) for f in images):
            return top
        top = below


def _split_folders(images: Sequence[str], folders: Sequence[str], top: str) -> dict[str, str]:
    """Split name → its folder; one split "all" when none is called so, or only one of them is there."""
    below = sorted(set(_subfolders(folders, top)) | {f[len(top) :].split("/")[0] for f in images})
    direct = {
        f[len(top) :].split("/")[0] for f in images if f.startswith(top) and f[len(top) :].count("/") == 1
    }
    others = {folder for folder in direct if folder.lower() not in _SPLIT_OF}
    split_of = {folder: _SPLIT_OF.get(folder.lower()) for folder in below}
    if len(others) > 1:  # car/, plane/ and train/ hold images alike: a train is a class here
        split_of = {folder: split for folder, split in split_of.items() if folder not in direct}
    if not any(split_of.values()) and not direct:  # training_set/ and test_set/
        by_word = {folder: _split_by_word(folder) for folder in below}
        if len(below) > 1 and None not in by_word.values():
            split_of = by_word
    named: dict[str, str] = {}
    for folder, split in split_of.items():
        if split is None:
            continue
        if split in named:
            raise DataError(
                f"both {named[split].rstrip('/')} and {top}{folder} look like the {split} split",
                "remove one of them",
            )
        named[split] = f"{top}{folder}/"
    if "train" in named and len(named) > 1:
        return {name: named[name] for name in sorted(named, key=split_order)}
    if len(named) == 1:
        return {"all": next(iter(named.values()))}
    return {"all": top} if "train" not in named and not named else named


def _split_by_word(folder: str) -> str | None:
    """The split that a word of the name says, as in `seg_train` and `test-set`; None where none or several do."""
    said = {_SPLIT_OF[word] for word in re.split(r"[^a-z]+", folder.lower()) if word in _SPLIT_OF}
    return said.pop() if len(said) == 1 else None


def _split_of(file: str, splits: dict[str, str]) -> tuple[str | None, list[str]]:
    for name, folder in splits.items():
        if file.startswith(folder):
            return name, file[len(folder) :].split("/")
    return None, []


def _subfolders(folders: Sequence[str], top: str) -> list[str]:
    inside = (
        f.rstrip("/")[len(top) :] for f in folders if f.startswith(top) and len(f.rstrip("/")) > len(top)
    )
    return sorted({folder.split("/")[0] for folder in inside})
