"""The files of a folder or a zip as a tree, before anything is read into the names of its folders."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from posixpath import splitext

from patchword.images.suffixes import SUFFIXES, is_hidden

# `head(file, size)`: the first bytes of a file of a listing. Raises: OSError, ImageError.
Head = Callable[[str, int], bytes]


@dataclass(frozen=True, kw_only=True)
class Listing:
    """files: paths below the root, with "/". folders: likewise; needed to see empty ones."""

    files: Sequence[str]
    folders: Sequence[str]
    head: Head


@dataclass(kw_only=True)
class Folder:
    """path: below the root, "" for the root itself. images, others: the files directly in it, by their extensions.

    num_images: also those further below.
    """

    path: str = ""
    images: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)
    folders: dict[str, "Folder"] = field(default_factory=dict)
    num_images: int = 0

    @property
    def name(self) -> str:
        return self.path.rpartition("/")[2]

    @property
    def filled(self) -> list["Folder"]:
        """The folders directly in it that hold images, at any depth."""
        return [folder for folder in self.folders.values() if folder.num_images]

    @property
    def is_flat(self) -> bool:
        """Whether most of its images are directly in it."""
        return len(self.images) > 0.1 * self.num_images

    def walk(self) -> Iterator["Folder"]:
        yield self
        for folder in self.folders.values():
            yield from folder.walk()

    def all_images(self) -> list[str]:
        """In the order of their paths."""
        return sorted(file for folder in self.walk() for file in folder.images)


@dataclass(frozen=True, kw_only=True)
class Tree:
    """hidden: how many files were left by systems, and are in no folder of the tree."""

    root: Folder
    hidden: int
    head: Head


def tree_of(listing: Listing) -> Tree:
    """The visible files, sorted into folders."""
    places: dict[str, Folder | None] = {"": Folder()}
    for path in listing.folders:
        _folder_at(path.rstrip("/"), places)
    counts: Counter[str] = Counter()
    for file in listing.files:
        place, _, name = file.rpartition("/")
        folder = _folder_at(place, places)
        if folder is None or is_hidden(name):
            counts["hidden"] += 1
        elif splitext(name)[1].lower() in SUFFIXES:
            folder.images.append(file)
        else:
            folder.others.append(file)
    root = _folder_at("", places)
    assert root is not None
    _finish(root)
    return Tree(root=root, hidden=counts["hidden"], head=listing.head)


def _folder_at(path: str, places: dict[str, Folder | None]) -> Folder | None:
    """The folder at a path, made with all above it when it is first asked for; None for a hidden one."""
    if path in places:
        return places[path]
    above, _, name = path.rpartition("/")
    parent = _folder_at(above, places)
    places[path] = None if parent is None or is_hidden(name) else Folder(path=path)
    made = places[path]
    if parent is not None and made is not None:
        parent.folders[name] = made
    return made


def _finish(folder: Folder) -> None:
    folder.folders = dict(sorted(folder.folders.items()))
    folder.images.sort()
    for below in folder.folders.values():
        _finish(below)
    folder.num_images = len(folder.images) + sum(below.num_images for below in folder.folders.values())
