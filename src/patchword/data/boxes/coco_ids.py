"""The ids that COCO results need: of images by their file names, of classes by their names."""

import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from patchword.data.box_targets import Id
from patchword.errors import DataError, near_text

_FIX = "give the COCO file of these images, with lists of images and categories"


class ImageIds:
    """The id of each image.

    annotations: a COCO file that lists the images; without it, the number that a file name consists of
    (000000000139.jpg is 139), else the name itself.
    Raises: DataError if the file is not COCO JSON, or two of its images have the same name.
    """

    def __init__(self, annotations: str | Path | None = None) -> None:
        self.path = None if annotations is None else str(annotations)
        self.categories: list[dict[str, Any]] = []
        self._whole: dict[str, Id] = {}
        self._last: dict[str, list[Id]] = defaultdict(list)
        self._seen: dict[Id, str] = {}
        if self.path is not None:
            self._read(self.path)

    def _read(self, path: str) -> None:
        content = _content(path)
        self.categories = [c for c in content.get("categories") or [] if isinstance(c, dict) and "id" in c]
        for image in content["images"]:
            if (
                not isinstance(image, dict)
                or "id" not in image
                or not isinstance(image.get("file_name"), str)
            ):
                raise DataError(f"{path}: an image without an id or a file_name: {image!r:.80}", _FIX)
            name = image["file_name"].replace("\\", "/")
            if self._whole.setdefault(name, image["id"]) != image["id"]:
                raise DataError(f"{path}: two images are called {name!r}", "list each image once")
            self._last[PurePosixPath(name).name].append(image["id"])

    def of(self, name: str) -> Id | None:
        """None if the annotations list no such image, or several that may be meant.

        Raises: DataError if another image already has this id.
        """
        found = self._of(name)
        if found is not None and self._seen.setdefault(found, name) != name:
            raise DataError(
                f"{self._seen[found]} and {name} have the same image id {found!r}",
                "give --annotations with a COCO file that lists both"
                if self.path is None
                else "predict each image once",
            )
        return found

    def _of(self, name: str) -> Id | None:
        parts = PurePosixPath(name.replace("\\", "/")).parts
        if self.path is None:
            stem = PurePosixPath(name).stem
            return int(stem) if stem.isascii() and stem.isdecimal() else name
        for first in range(len(parts)):
            if (found := self._whole.get("/".join(parts[first:]))) is not None:
                return found
        same = self._last.get(parts[-1] if parts else "", [])
        return same[0] if len(same) == 1 else None

    @property
    def used(self) -> tuple[Id, ...]:
        """Those that were asked for so far."""
        return tuple(self._seen)

    def refuse_unknown(self, names: Iterable[str]) -> None:
        """Check names before anything is predicted. Raises: DataError if two have one id, or none is in the annotations."""
        names = list(names)
        found = [self.of(name) for name in names]
        if names and all(one is None for one in found):
            raise DataError(
                f"{self.path} lists none of the images, such as {names[0]}"
                f"{near_text(PurePosixPath(names[0]).name, self._last)}",
                "give the annotations of these images",
            )


def class_ids(
    names: Sequence[str], ids: Sequence[int], categories: Sequence[dict[str, Any]]
) -> list[Id | None]:
    """The category id of each class of a detector in the data of `categories`; without those, its own.

    Classes are matched by name, those without a name by their id; None for a class that the data do not have.
    names: "" for a class without one.
    """
    if not categories:
        return list(ids)
    by_name = {category.get("name"): category["id"] for category in categories}
    there = {category["id"] for category in categories}
    return [
        by_name.get(name) if name else (one if one in there else None)
        for name, one in zip(names, ids, strict=True)
    ]


def _content(path: str) -> dict[str, Any]:
    try:
        content = json.loads(Path(path).read_bytes().decode("utf-8-sig"))
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})", _FIX) from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not valid JSON", _FIX) from error
    if not isinstance(content, dict) or not isinstance(content.get("images"), list):
        raise DataError(f"{path}: not a COCO file, because it has no list of images", _FIX)
    return content
