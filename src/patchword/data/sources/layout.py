"""Class folders as a tree, with the same rules for a folder and a zip.

train/CLASS/…/image     val/ or test/ next to it (also training_set, valid, seg_test, …)
CLASS/train/image       the splits below the classes
CLASS/…/image           no split: one is made

If all images of a folder are in one subfolder that is not a class, the subfolder is used: at the top and in each split.
Ambiguous layouts are refused, with the path or the option that resolves them.
"""

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field

from patchword.data.sources.listing import Folder
from patchword.data.sources.split_names import (
    is_generic,
    is_unlabelled,
    misspelt_split,
    split_called,
    split_order,
    splits_among,
)
from patchword.errors import DataError

Members = dict[str, list[str]]


@dataclass(kw_only=True)
class Found:
    """members: split → class → files, split "all" when there are no split folders. places: where each split's classes are.

    flat: folders of images where class folders should be. loose: images outside any class folder. unlabelled: folder →
    images without a class, next to a split with classes. beside: folder → images, of folders that are not splits.
    nested: images in folders below their class folder. unused: skipped folders without images.
    """

    members: dict[str, Members] = field(default_factory=dict)
    places: dict[str, Folder] = field(default_factory=dict)
    flat: list[Folder] = field(default_factory=list)
    loose: list[str] = field(default_factory=list)
    unlabelled: Counter[str] = field(default_factory=Counter)
    beside: Counter[str] = field(default_factory=Counter)
    nested: int = 0
    unused: list[str] = field(default_factory=list)
    readings: list[str] = field(default_factory=list)

    @property
    def training(self) -> Members:
        return self.members.get("train") or self.members.get("all") or {}


def arrange(root: Folder, path: str, level: int | None = None) -> Found:
    """Sort the images into splits and classes. level: how deep the class folders are, if the user sets it.

    Raises: DataError for folders that can be read as splits in two ways.
    """
    found = Found()
    top = _below_wrappers(root, found, stop_at_splits=True)
    if level is None and _has_splits_in_classes(top):
        _take_splits_in_classes(top, found)
        return found
    splits = _splits(top, path, found)
    known: Collection[str] = ()
    for split in sorted(splits, key=split_order):
        place = _below_wrappers(splits[split], found, keep=known)
        found.places[split] = place
        found.members[split] = {}
        _take_classes(place, level or 1, found.members[split], found)
        known = known or found.members[split]
    _report_places(found)
    return found


def _below_wrappers(
    folder: Folder, found: Found | None = None, keep: Collection[str] = (), stop_at_splits: bool = False
) -> Folder:
    """The folder itself, or the one below that holds all its images in folders. keep: names of folders to keep."""
    while not folder.images and len(folder.filled) == 1:
        (only,) = folder.filled
        if only.is_flat or only.name in keep or (stop_at_splits and splits_among([only.name])):
            break
        if found is not None:
            found.unused += [f.path for f in folder.folders.values() if f is not only]
        folder = only
    return folder


def has_classes(folder: Folder, known: Collection[str] = ()) -> bool:
    """Whether there are images in class folders below `folder`. known: names that are classes for certain.

    A single folder called images, unknown, test or like its parent is not a class.
    """
    place = _below_wrappers(folder, keep=known)
    if len(place.filled) != 1:
        return bool(place.filled)
    (only,) = place.filled
    if only.name in known:
        return True
    is_no_class = is_generic(only.name) or is_unlabelled(only.name) or bool(splits_among([only.name]))
    return not is_no_class and only.name != folder.name


def _splits(top: Folder, path: str, found: Found) -> dict[str, Folder]:
    """Split → its folder; "all" alone where nothing is split. Nothing at all where training images have no classes."""
    named = splits_among(top.folders)
    train = next((f for f in top.folders.values() if named.get(f.name) == "train" and has_classes(f)), None)
    known = _below_wrappers(train).folders if train is not None else ()
    labelled = [f for f in top.folders.values() if f.name in named and has_classes(f, known)]
    flat = [f for f in top.filled if f.name in named and f not in labelled]
    others = [f for f in top.filled if f.name not in named]
    if not labelled:
        return _without_labelled_splits(top, flat, others, named, found)
    if any(named[f.name] == "train" for f in flat):
        found.flat += [f for f in flat if named[f.name] == "train"]
        return {}
    splits: dict[str, Folder] = {}
    for folder in labelled:
        split = named[folder.name]
        if split in splits:
            raise DataError(
                f"{path}: {splits[split].path} and {folder.path} both look like the {split} split",
                f"give the folder of one data set, or move one of them out of {path}",
            )
        splits[split] = folder
    for folder in top.folders.values():  # report an empty split as a mistake instead of making a new split
        if folder.name in named and not folder.num_images:
            splits.setdefault(named[folder.name], folder)
    for folder in [*flat, *others]:
        if folder in flat or not has_classes(folder, known):
            found.unlabelled[folder.path] += folder.num_images
        else:
            found.beside[folder.path] += folder.num_images
    if top.images:
        found.unlabelled[top.path] += len(top.images)
    _refuse_a_class_called_as_a_split(splits, others, path)
    found.unused += [f.path for f in top.folders.values() if not f.num_images and f.name not in named]
    return splits if len(splits) > 1 else {"all": next(iter(splits.values()))}


def _without_labelled_splits(
    top: Folder, flat: list[Folder], others: list[Folder], named: dict[str, str], found: Found
) -> dict[str, Folder]:
    """Folders named like splits that hold images directly: bus/ and train/ are classes, train/ and test/ are not."""
    if not flat:
        return {"all": top}
    splits = {named[folder.name] for folder in flat}
    are_splits = not others or ("train" in splits and len(splits) > 1)
    if are_splits or any(is_generic(f.name) or is_unlabelled(f.name) for f in others):
        found.flat += sorted(flat, key=lambda folder: split_order(named[folder.name]))
        return {}
    names = " and ".join(folder.name for folder in flat)
    found.readings.append(
        f"{names} {'is a class' if len(flat) == 1 else 'are classes'}, not a split: "
        f"images are directly in it, as in {others[0].name}"
    )
    return {"all": top}


def _refuse_a_class_called_as_a_split(splits: dict[str, Folder], others: list[Folder], path: str) -> None:
    """train/2019 next to bus/2019: a split, a class, or a split whose partner is misspelt?"""
    if len(splits) > 1:
        return
    ((split, folder),) = splits.items()
    names = set(_below_wrappers(folder).folders)
    same = [f for f in others if names & set(_below_wrappers(f).folders)]
    if not same or (split == "train" and all(misspelt_split(f.name) for f in same)):
        return
    has = f"{path} has a folder {folder.name}, which looks like the {split} split"
    listed = ", ".join(f.name for f in same[:5])
    wanted = "train" if split != "train" else "val"
    raise DataError(
        f"{has}, but {listed} next to it {'holds' if len(same) == 1 else 'hold'} folders with the same names",
        f"rename {same[0].name} to {wanted} if it is a split, {folder.name} if it is a class, or give one of them, "
        f"e.g. {path}/{folder.path}",
    )


def _take_classes(place: Folder, level: int, members: Members, found: Found) -> None:
    """Each folder `level` folders below `place` is a class, with all that is in it."""
    found.loose += place.images
    for folder in place.folders.values():
        if level > 1:
            _take_classes(folder, level - 1, members, found)
        else:
            members.setdefault(folder.name, []).extend(folder.all_images())
            found.nested += folder.num_images - len(folder.images)


def _has_splits_in_classes(top: Folder) -> bool:
    """cat/train, cat/test, dog/train, dog/test, with images directly in each."""
    below = [folder.filled for folder in top.filled]
    splits = {split_called(f.name) for folders in below for f in folders}
    return (
        len(below) > 1
        and not any(folder.images for folder in top.filled)
        and not any(split_called(folder.name) for folder in top.filled)
        and None not in splits
        and "train" in splits
        and len(splits) > 1
        and not any(has_classes(f) for folders in below for f in folders)
    )


def _take_splits_in_classes(top: Folder, found: Found) -> None:
    found.loose += top.images
    for folder in top.folders.values():
        for below in folder.filled:
            split = split_called(below.name)
            assert split is not None
            members = found.members.setdefault(split, {})
            members.setdefault(folder.name, []).extend(below.all_images())
    found.members = {split: found.members[split] for split in sorted(found.members, key=split_order)}
    found.readings.append("the splits are the folders below each class, e.g. " + top.filled[0].filled[0].path)


def _report_places(found: Found) -> None:
    """Report what a user might not expect: splits and classes that are not at the top."""
    if any(place.path.lower() != ("" if split == "all" else split) for split, place in found.places.items()):
        where = ", ".join(
            f"{'class folders' if split == 'all' else split}: {place.path or '.'}"
            for split, place in found.places.items()
        )
        found.readings.insert(0, where)
    if found.unused:
        found.readings.append(f"not used (no images): {', '.join(found.unused[:8])}")
    if found.nested:
        found.readings.append(
            f"{found.nested} of the images are in folders below their class folder and belong to that class"
        )
