"""The file of each annotated image, whatever part of its path the annotations give."""

from collections import defaultdict
from collections.abc import Sequence
from posixpath import basename, splitext

from patchword.data.boxes.annotations import WrittenImage
from patchword.data.boxes.files import Files, beside
from patchword.data.sources.split_names import splits_among
from patchword.errors import DataError
from patchword.images.suffixes import SUFFIXES


class Locator:
    """Finds images by path, and else by the longest end of the path that only one file has."""

    def __init__(self, files: Files) -> None:
        self._files = files
        self._there = frozenset(files.images())
        self._by_name: dict[str, list[str]] = defaultdict(list)
        for image in files.images():
            name = basename(image).lower()
            self._by_name[name].append(image)
            self._by_name[splitext(name)[0]].append(image)

    def find(self, image: WrittenImage, split: str) -> str | None:
        """The path below the root, or None. Raises: DataError if several files are as likely."""
        if image.is_path:
            return image.name if image.name in self._there else None
        for name in (beside(image.folder, image.name), image.name):
            if name in self._there:
                return name
        name = basename(image.name).lower()
        found = self._by_name.get(name, [])
        if not found and splitext(name)[1] not in SUFFIXES:
            found = self._by_name.get(splitext(name)[0], [])
        return self._best(found, image, split)

    def _best(self, found: Sequence[str], image: WrittenImage, split: str) -> str | None:
        if len(found) < 2:
            return found[0] if found else None
        parts = image.name.lower().split("/")
        best: list[str] = []
        most = (-1, False)
        for path in found:
            theirs = path.lower().split("/")
            equal = 0
            for one, other in zip(reversed(parts), reversed(theirs), strict=False):
                if one != other:
                    break
                equal += 1
            rank = (equal, split in splits_among(theirs[:-1]).values())
            if rank > most:
                best, most = [path], rank
            elif rank == most:
                best.append(path)
        if len(best) > 1:
            raise DataError(
                f"{image.where}: {image.name!r} may be {best[0]} or {best[1]} in {self._files.path}",
                "give the path below the data instead of the name, or keep one of them",
            )
        return best[0]
