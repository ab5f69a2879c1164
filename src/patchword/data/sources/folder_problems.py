"""Problems of class folders: errors if there are none, and findings about existing ones."""

from pathlib import PurePosixPath

from patchword.data.dataset import Problem
from patchword.data.sources.layout import Found, Members
from patchword.data.sources.listing import Folder, Tree
from patchword.data.sources.neighbours import archives, refuse_detection
from patchword.data.sources.skipped import skipped_in
from patchword.data.sources.split_names import is_generic, misspelt_split
from patchword.errors import DataError, plural, suggestion


def refuse_without_classes(found: Found, tree: Tree, path: str, table: str | None, level: int | None) -> None:
    """table: one that lists the images, if there is one. Raises: DataError if no image is in a class folder."""
    filled = [c for members in found.members.values() for c, files in members.items() if files]
    if filled and not (
        len(set(filled)) == 1 and (table is not None or is_generic(filled[0])) and level is None
    ):
        return
    if not tree.root.num_images:
        raise _no_images(tree, path)
    refuse_detection(tree, path)
    flat = _flat_folder(found, tree)
    here = f"{path}/{flat.path}" if flat.path else path
    message = f"{here} holds {plural(len(flat.images), 'image')} directly instead of class folders"
    if table is not None:
        raise DataError(f"{message}; {table} may hold their labels", f"give {path}/{table}")
    if level is not None and level > 1:
        raise DataError(f"{message}: no image is {level} folders deep", "pass a smaller --class-level")
    example = PurePosixPath(flat.images[0]).name
    raise DataError(message, f"make a folder for each class, e.g. {here}/CLASS/{example}")


def _flat_folder(found: Found, tree: Tree) -> Folder:
    """Among the folders for training images, the one with most images directly in it."""
    candidates = found.flat or [place for place in found.places.values() if place.num_images] or [tree.root]
    below = [folder for place in candidates[:1] for folder in place.walk()]
    return max(below, key=lambda folder: (len(folder.images), folder is candidates[0]))


def _no_images(tree: Tree, path: str) -> DataError:
    packed = archives(tree.root)
    if packed:
        return DataError(
            f"{path} holds no images, only {plural(len(packed), 'archive')}, e.g. {packed[0]}",
            "unpack them and give the folder"
            if len(packed) > 1
            else f"unpack {packed[0]} and give the folder",
        )
    tables = [
        file
        for folder in tree.root.walk()
        for file in folder.others
        if file.lower().endswith((".csv", ".tsv", ".jsonl", ".ndjson", ".parquet"))
    ]
    skipped = skipped_in(tree.root, tree.head)
    other = ", ".join(s.counted for s in skipped[:8]) + (
        f"{', ' if skipped else ''}{plural(tree.hidden, 'hidden file')}" if tree.hidden else ""
    )
    meant = next((s.fix for s in skipped if s.what), "give a folder of class folders with images in them")
    return DataError(
        f"{path} holds no images" + (f" ({other})" if other else ""),
        f"give the table itself, e.g. {path}/{tables[0]}" if tables else meant,
    )


def class_problems(found: Found, tree: Tree, path: str, kind: str, ignore_unknown: bool) -> list[Problem]:
    """Loose images, folders left out, empty classes, and classes that only val or test has."""
    problems = []
    if found.loose:
        message = (
            f"{path} has {plural(len(found.loose), 'image')} outside any class folder, e.g. {found.loose[0]}"
        )
        fix = f"move {'it' if len(found.loose) == 1 else 'each'} into the folder of its class, or remove {'it' if len(found.loose) == 1 else 'them'}"
        problems.append(Problem(severity="error", message=message, fix=fix))
    problems += _left_out(found, path, kind)
    for split, members in found.members.items():
        for name in sorted(c for c, files in members.items() if not files):
            problems.append(_empty(found, tree, path, split, name))
    for split in ("val", "test"):
        problems += _unknown(found.training, found.members.get(split), path, split, ignore_unknown)
    return problems


def _left_out(found: Found, path: str, kind: str) -> list[Problem]:
    problems = []
    for folder, count in sorted(found.unlabelled.items()):
        where = f"{folder}/ has" if folder else "next to the split folders there are"
        message = f"{path}: {where} {plural(count, 'image')} without class folders, skipped as unlabelled"
        them = "it" if count == 1 else "them"
        fix = f"classify {them} with `patchword predict RUN {path}/{folder}`" if kind == "folder" else ""
        problems.append(Problem(severity="note", message=message, fix=fix))
    for folder, count in sorted(found.beside.items()):
        meant = misspelt_split(PurePosixPath(folder).name)
        near = f" (near: {meant!r})" if meant else ""
        message = f"{path}: {folder} is not a split{near}; its {plural(count, 'image')} {'is' if count == 1 else 'are'} skipped"
        fix = "rename it to val or test to evaluate on it, or move it elsewhere"
        problems.append(Problem(severity="warning", message=message, fix=fix))
    return problems


def _empty(found: Found, tree: Tree, path: str, split: str, name: str) -> Problem:
    """A class folder without images: nothing in it, or nothing that is read."""
    place = found.places[split].folders.get(name)
    skipped = skipped_in(place, tree.head) if place is not None else []
    is_training = found.members[split] is found.training
    where = "" if split == "all" else f" in {split}"
    if skipped:
        held = ", ".join(s.counted for s in skipped[:4])
        message = f"{path}: the class folder {name!r}{where} holds no images, only {held}"
        fix = next((s.fix for s in skipped if s.what), "add images to it, or remove the folder")
    else:
        message = f"{path}: the class folder {name!r}{where} is empty"
        fix = "add images to it, or remove the folder"
    return Problem(severity="warning" if is_training else "note", message=message, fix=fix)


def _unknown(
    training: Members, other: Members | None, path: str, split: str, ignore_unknown: bool
) -> list[Problem]:
    known = {c for c, files in training.items() if files}
    there = {c for c, files in (other or {}).items() if files}
    unknown, absent = sorted(there - known), sorted(known - there)
    if other is None or not known or not unknown:
        return []
    count = sum(len(other[c]) for c in unknown)
    lines = [f"{name!r}{suggestion(name, absent) or suggestion(name, known)}" for name in unknown[:12]]
    more = f" and {len(unknown) - 12} more" if len(unknown) > 12 else ""
    has = "the class" if len(unknown) == 1 else "the classes"
    return [
        Problem(
            severity="note" if ignore_unknown else "error",
            message=f"{path}: {split} has {has} {', '.join(lines)}{more}, but train does not",
            fix=f"rename {'it' if len(unknown) == 1 else 'them'}, or pass --ignore-unknown-classes to skip "
            f"{'that image' if count == 1 else f'those {count} images'}",
        )
    ]
