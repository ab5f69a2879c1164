"""Which files annotate which split, when a data set has several annotation files or formats."""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from posixpath import basename, splitext

from patchword.data.boxes.files import Files, start_of, stem
from patchword.data.boxes.voc import is_annotation
from patchword.data.sources.split_names import SPLITS, split_called, splits_among
from patchword.errors import DataError, did_you_mean, nearest

_COCO = re.compile(r'"(images|annotations|categories)"\s*:\s*\[')
_YEAR = re.compile(r"(19|20)\d\d$")
# The names that COCO, Roboflow and labelling tools give to the file of the boxes, among files of captions and the like.
_USUAL = (("instances",), ("annotations", "coco"), ("annotations",))
_SAMPLE = 20


def wanted(names: Sequence[str], patterns: Sequence[str]) -> list[str]:
    """The annotation files that one of the patterns names: a path, a folder, or with * and ?. All without patterns."""
    return [name for name in names if not patterns or any(_fits(name, pattern) for pattern in patterns)]


def _fits(name: str, pattern: str) -> bool:
    return name.startswith(pattern.rstrip("/") + "/") or fnmatchcase(name, pattern)


def refuse_unknown_patterns(files: Files, patterns: Sequence[str], kind: str, found: Sequence[str]) -> None:
    """kind: of the annotations that are read, "" for none. Raises: DataError if a pattern names none of them."""
    pattern = next((one for one in patterns if not any(_fits(name, one) for name in found)), None)
    if pattern is None:
        return
    if kind and any(_fits(name, pattern) for name in files.names):
        raise DataError(
            f"--annotations {pattern} names no {kind} in {files.path}, as the others do",
            "give annotations of one format",
        )
    there = files.ending(".json", ".xml", ".yaml", ".csv", ".tsv")
    near = nearest(pattern, [*there, *{basename(name) for name in there}])
    some = f"there are {', '.join(there[:5])}{' …' if len(there) > 5 else ''}" if there else "there are none"
    raise DataError(
        f"{files.path} has no annotations called {pattern!r}{did_you_mean(near)}",
        f"correct --annotations; {some}",
    )


def split_and_family(name: str) -> tuple[str, tuple[str, ...]]:
    """ "annotations/instances_val2017.json" is val of the family ("instances",); "all" if no part of the path names a split."""
    split, family = "", []
    for token in re.split(r"[^a-z0-9]+", stem(name).lower()):
        called = split_called(_YEAR.sub("", token))
        if called and not split:
            split = called
        elif token:
            family.append(token)
    if not split:
        folders = name.split("/")[:-1]
        split = next((found for part in reversed(folders) for found in splits_among([part]).values()), "all")
    return split, tuple(family)


def split_by_split(names: Sequence[str]) -> dict[str, str]:
    """Split → file, of files that the user named one by one. Raises: DataError if a split has two, or a file none."""
    members: dict[str, str] = {}
    for name in names:
        split, _ = split_and_family(name)
        if split in members:
            what = "have no split in their names" if split == "all" else f"are both for the split {split}"
            raise DataError(
                f"--annotations: {members[split]} and {name} {what}",
                "give one file for each split, with train, val or test in its name or folder",
            )
        members[split] = name
    if len(members) > 1 and "all" in members:
        raise DataError(
            f"--annotations: {members['all']} has no split in its name, and the others do",
            "put train, val or test into its name or the name of its folder",
        )
    return members


def by_family(names: Sequence[str], files: Files) -> tuple[dict[str, str], list[str]]:
    """Split → file, of the one set of files that belongs together; and the files that are not in it.

    Raises: DataError if more than one set may be meant.
    """
    families: dict[tuple[str, ...], dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for name in names:
        split, family = split_and_family(name)
        families[family][split].append(name)
    chosen: tuple[str, ...] | None = next((family for family in _USUAL if family in families), None)
    if chosen is None:
        most = max((len(members) for members in families.values()), default=0)
        likely = [family for family, members in families.items() if len(members) == most]
        chosen = likely[0] if len(likely) == 1 else None
    twice = next((found for found in families.get(chosen or (), {}).values() if len(found) > 1), None)
    if chosen is None or twice:
        pair = twice or [next(iter(members.values()))[0] for members in families.values()]
        raise DataError(
            f"{files.path} has several sets of annotations, e.g. {pair[0]} and {pair[1]}",
            f"choose with --annotations, e.g. --annotations {pair[0]!r}",
        )
    members = {split: found[0] for split, found in families[chosen].items()}
    if len(members) > 1 and "all" in members:
        # instances.json next to instances_train.json holds both.
        del members["all"]
    return members, [name for name in names if name not in members.values()]


def coco_files(files: Files) -> list[str]:
    return [
        name
        for name in files.ending(".json")
        if _COCO.search(start := start_of(files, name)) and '"shapes"' not in start
    ]


def voc_files(files: Files) -> list[str]:
    """All XML files, if one of the first is an annotation."""
    found = files.ending(".xml")
    return found if any(is_annotation(start_of(files, name)) for name in found[:_SAMPLE]) else []


def voc_splits(files: Files, xmls: Sequence[str]) -> tuple[dict[str, list[str]], int]:
    """The XML files of each split, by ImageSets/Main or by folder; and how many are in none.

    Raises: DataError if a list names an image without an XML file.
    """
    lists = {
        split: name
        for name in files.ending(".txt")
        if "/ImageSets/Main/" in f"/{name}"
        for split in ("train", "val", "test", "trainval")
        if basename(name) == f"{split}.txt"
    }
    if "train" in lists:
        lists.pop("trainval", None)
    if not lists:
        members: dict[str, list[str]] = defaultdict(list)
        for xml in xmls:
            members[split_and_family(f"{xml.rpartition('/')[0]}/x")[0]].append(xml)
        return dict(members), 0
    by_stem = {stem(xml): xml for xml in xmls}
    found: dict[str, list[str]] = {}
    for split, name in lists.items():
        stems = [
            line.split()[0]
            for line in files.read(name).decode("utf-8", "replace").splitlines()
            if line.strip()
        ]
        missing = [one for one in stems if one not in by_stem]
        if missing:
            raise DataError(
                f"{files.shown(name)} lists {missing[0]!r}, which has no XML file ({len(missing)} of {len(stems)})",
                "add the XML files, or remove these lines",
            )
        found["train" if split == "trainval" else split] = [by_stem[one] for one in dict.fromkeys(stems)]
    listed = {xml for members in found.values() for xml in members}
    return found, len(by_stem) - len(listed)


def in_split_order(members: Mapping[str, Sequence[str]]) -> list[str]:
    order = list(SPLITS)
    return sorted(members, key=lambda name: (order.index(name) if name in order else len(order), name))


def without_ending(name: str) -> str:
    return splitext(name)[0]
