"""Folders that look like classes and are not: parts, versions and folds of one data set, images and their masks."""

from collections import Counter

from patchword.data.sources.listing import Folder, Tree
from patchword.data.sources.neighbours import refuse_detection
from patchword.data.sources.split_names import are_parts, in_order, is_generic, misspelt_split, splits_among
from patchword.errors import DataError

LEVEL = "--class-level"


def refuse_containers(place: Folder, tree: Tree, path: str, table: str | None) -> None:
    """place: where the class folders would be. table: one that lists the images.

    Raises: DataError if classifying by these folders would be meaningless.
    """
    if len(place.filled) < 2:
        return
    _refuse_the_same_below_each(place, path)
    names = [folder.name for folder in place.filled]
    listed = ", ".join(in_order(names)[:5]) + (" …" if len(names) > 5 else "")
    here = f"{path}/{place.path}" if place.path else path
    if are_parts(names):
        _refuse(f"{here}: {listed} look like parts of one data set, not classes", table, path)
    if all(is_generic(name) for name in names):
        refuse_detection(tree, path)
        _refuse(f"{here}: {listed} look like kinds of files, not classes", table, path)


def _refuse(message: str, table: str | None, path: str) -> None:
    if table is not None:
        raise DataError(
            f"{message}; {table} next to them lists the images",
            f"give {path}/{table}, or pass {LEVEL} 1 if these folders are the classes",
        )
    raise DataError(
        message, f"make a folder for each class, or pass {LEVEL} 1 if these folders are the classes"
    )


def _refuse_the_same_below_each(place: Folder, path: str) -> None:
    """color/healthy, color/rust next to grayscale/healthy, grayscale/rust; or trian/cat next to vall/cat."""
    deep = [folder for folder in place.filled if not folder.is_flat]
    if len(deep) < 2 or 2 * len(deep) < len(place.filled):
        return
    inside = {folder.name: _inside(folder) for folder in deep}
    below = {name: {f.name for f in folder.filled} for name, folder in inside.items()}
    times = Counter(name for names in below.values() for name in names)
    again = in_order(name for name in times if times[name] > 1)
    if len(again) < 2 or any(2 * len(names & set(again)) < len(names) for names in below.values()):
        return
    names = in_order(below)
    containers = ", ".join(names[:5]) + (" …" if len(names) > 5 else "")
    recurring = ", ".join(again[:5]) + (" …" if len(again) > 5 else "")
    here = f"{path}/{place.path}" if place.path else path
    meant = {name: misspelt_split(name) for name in names}
    if all(meant.values()):
        fix = f"rename {' and '.join(f'{name} to {split}' for name, split in meant.items())}"
    else:
        fix = f"give one of them, e.g. {here}/{names[0]}"
        levels = {folder.path.count("/") - deep[0].path.count("/") + 2 for folder in inside.values()}
        if len(levels) == 1 and not splits_among(again):
            fix += f", or pass {LEVEL} {levels.pop()} to join them"
    raise DataError(
        f"{here}: {containers} look like {'splits' if all(meant.values()) else 'versions of one data set'}, "
        f"not classes: the same folders recur in each ({recurring})",
        f"{fix}; pass {LEVEL} 1 if {containers} are the classes",
    )


def _inside(folder: Folder) -> Folder:
    """The folder, or the one in it that holds all the others: amazon/images/bike and webcam/images/bike recur too."""
    while not folder.images and len(folder.filled) == 1 and not folder.filled[0].is_flat:
        folder = folder.filled[0]
    return folder
