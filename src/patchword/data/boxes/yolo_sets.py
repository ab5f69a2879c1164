"""The images, label files and class names of a YOLO data set, by its data.yaml or by its folders."""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from posixpath import basename, normpath
from typing import Any

import yaml

from patchword.data.boxes.annotations import WrittenImage
from patchword.data.boxes.files import Files, beside, folder_of, start_of, stem
from patchword.data.boxes.locate import Locator
from patchword.data.boxes.sets import split_and_family, wanted, without_ending
from patchword.data.boxes.yolo import is_label
from patchword.errors import DataError

_NAMES = ("classes.txt", "obj.names", "_darknet.labels", "labels.txt")
_SAMPLE = 20
Pairs = dict[str, list[tuple[str, str | None]]]


@dataclass(frozen=True, kw_only=True)
class YoloSet:
    """members: (image, label file) of each split. names: of the classes; None if no file has them. poses: as in `yolo.parse`."""

    members: Pairs
    names: Mapping[int, str] | None
    poses: bool
    source: str


def find(files: Files, patterns: Sequence[str]) -> YoloSet | None:
    """None if there are no YOLO labels. Raises: DataError for a data.yaml whose images are not there."""
    stems = {stem(image) for image in files.images()}
    labels = [name for name in wanted(files.ending(".txt"), patterns) if stem(name) in stems]
    if not any(is_label(start_of(files, name)) for name in _sample(labels)):
        return None
    config, content = _config(files, patterns)
    match = _Labels(labels)
    if content is None:
        images: dict[str, list[str]] = defaultdict(list)
        for image in files.images():
            images[split_and_family(f"{folder_of(image)}/x")[0]].append(image)
        names = _names_file(files)
    else:
        images = _listed(files, config, content)
        names = _names(content.get("names"), files.shown(config))
    members = {split: [(image, match.of(image, split)) for image in found] for split, found in images.items()}
    return YoloSet(
        members=members,
        names=names,
        poses=bool(content and "kpt_shape" in content),
        source=config or "the folders",
    )


def _sample(names: Sequence[str]) -> Sequence[str]:
    """Some from everywhere: many of the first images may have no objects."""
    step = max(1, len(names) // _SAMPLE)
    return names[::step]


def _config(files: Files, patterns: Sequence[str]) -> tuple[str, dict[str, Any] | None]:
    found: list[tuple[str, dict[str, Any]]] = []
    for name in wanted(files.ending(".yaml", ".yml"), patterns):
        try:
            content = yaml.safe_load(files.read(name).decode("utf-8-sig", "replace"))
        except yaml.YAMLError as error:
            line = getattr(getattr(error, "problem_mark", None), "line", 0) + 1
            raise DataError(f"{files.shown(name)}, line {line}: not valid YAML", "correct it") from error
        if isinstance(content, dict) and "names" in content:
            found.append((name, content))
    best = [item for item in found if basename(item[0]) in ("data.yaml", "data.yml", "dataset.yaml")] or found
    if len(best) > 1:
        raise DataError(
            f"{files.path} has several data files, e.g. {best[0][0]} and {best[1][0]}",
            "choose the folder of one with --annotations, or remove the others",
        )
    return best[0] if best else ("", None)


def _names(value: Any, shown: str) -> dict[int, str]:
    if isinstance(value, list):
        return {i: str(name) for i, name in enumerate(value)}
    try:
        return {int(key): str(name) for key, name in value.items()}
    except (AttributeError, ValueError, TypeError):
        raise DataError(f"{shown}: names is {str(value)[:60]!r}", "give a list of class names") from None


def _names_file(files: Files) -> dict[int, str] | None:
    for name in sorted(files.names, key=lambda name: (name.count("/"), name)):
        if basename(name) in _NAMES or name.endswith(".names"):
            lines = files.read(name).decode("utf-8-sig", "replace").splitlines()
            return {i: line.strip() for i, line in enumerate(lines) if line.strip()}
    return None


def _listed(files: Files, config: str, content: dict[str, Any]) -> dict[str, list[str]]:
    """The images of each split of a data.yaml."""
    found: dict[str, list[str]] = {}
    there, locator = frozenset(files.images()), Locator(files)
    for split in ("train", "val", "test"):
        entries = content.get(split) or (content.get("valid") if split == "val" else None)
        if not entries:
            continue
        images: list[str] = []
        for entry in entries if isinstance(entries, list) else [entries]:
            images += _entry(files, config, str(content.get("path") or ""), str(entry), split, there, locator)
        if not images and split != "test":  # often named and not delivered
            raise DataError(
                f"{files.shown(config)}: {split} is {str(entries)!r}, where there are no images",
                "correct the path, relative to this file",
            )
        if images:
            found[split] = list(dict.fromkeys(images))
    if not found:
        raise DataError(
            f"{files.shown(config)} names no images", "add train: and val: with the folders of their images"
        )
    return found


def _entry(
    files: Files, config: str, path: str, entry: str, split: str, there: frozenset[str], locator: Locator
) -> list[str]:
    """The images of a folder, or of a list of images. Where the path is that of another machine, its end counts."""
    for place in _places(folder_of(config), path, entry):
        if place in files.names and place.endswith(".txt"):
            return _list(files, place, split, there, locator)
        below = [image for image in files.images() if image.startswith(f"{place}/") or place in ("", ".")]
        if below:
            return below
    return []


def _places(folder: str, path: str, entry: str) -> list[str]:
    entry, path = entry.replace("\\", "/"), path.replace("\\", "/")
    bare = re.sub(r"^(\.{1,2}/)+", "", entry)
    tried = [beside(folder, f"{path}/{entry}"), beside(folder, entry), beside(folder, bare)]
    parts = normpath(f"{path}/{entry}").strip("/").split("/")
    tried += [beside(folder, "/".join(parts[i:])) for i in range(1, len(parts))]
    return [place for place in dict.fromkeys(tried) if place]


def _list(files: Files, name: str, split: str, there: frozenset[str], locator: Locator) -> list[str]:
    images: list[str] = []
    for number, line in enumerate(files.read(name).decode("utf-8-sig", "replace").splitlines(), 1):
        written = line.strip().replace("\\", "/")
        if not written:
            continue
        image = WrittenImage(
            name=written, folder=folder_of(name), where=f"{files.shown(name)}, line {number}"
        )
        found = locator.find(image, split)
        if found is None:
            raise DataError(
                f"{image.where}: no image {written!r} in {files.path}", "add it, or remove the line"
            )
        images.append(found)
    return images


class _Labels:
    """The label file of an image: next to it, in labels/ where the image is in images/, or the only one of its name."""

    def __init__(self, labels: Sequence[str]) -> None:
        self._there = frozenset(labels)
        self._by_stem: dict[str, list[str]] = defaultdict(list)
        for label in labels:
            self._by_stem[stem(label)].append(label)

    def of(self, image: str, split: str) -> str | None:
        parts = without_ending(image).split("/")
        places = [i for i, part in enumerate(parts[:-1]) if part == "images"]
        for i in reversed(places):
            swapped = "/".join([*parts[:i], "labels", *parts[i + 1 :]]) + ".txt"
            if swapped in self._there:
                return swapped
        if f"{without_ending(image)}.txt" in self._there:
            return f"{without_ending(image)}.txt"
        found = self._by_stem.get(parts[-1], [])
        same = [label for label in found if split_and_family(f"{folder_of(label)}/x")[0] == split]
        if len(found) == 1 and not places:
            return found[0]
        return same[0] if len(same) == 1 else None
