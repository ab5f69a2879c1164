"""Build a `Dataset` from class folders, at any depth."""

from collections.abc import Callable, Sequence

import numpy as np

from patchword.data.dataset import Dataset, Problem, Reader, Split
from patchword.data.request import OpenRequest, refuse_table_options
from patchword.data.sources.folder_problems import class_problems, refuse_without_classes
from patchword.data.sources.layout import Found, arrange
from patchword.data.sources.listing import Listing, Tree, tree_of
from patchword.data.sources.neighbours import labelling_table
from patchword.data.sources.skipped import skipped_in, skipped_problems
from patchword.data.sources.split_names import in_order
from patchword.data.sources.wrong_level import refuse_containers
from patchword.data.splits import split_in_two
from patchword.data.targets import Labels

MakeReader = Callable[[Sequence[str]], Reader]


def dataset_of(
    path: str, kind: str, listing: Listing, make_reader: MakeReader, request: OpenRequest
) -> Dataset:
    """`make_reader` gives a reader for a list of the listing's files.

    Raises: DataError if no image is in a class folder, or the folders are ambiguous.
    """
    refuse_table_options(request, f"{path} is a {kind} of class folders")
    path = path.rstrip("/") or path
    tree = tree_of(listing)
    table = labelling_table(tree)
    found = arrange(tree.root, path, request.class_level)
    refuse_without_classes(found, tree, path, table, request.class_level)
    if request.class_level is None:
        for place in {place.path: place for place in found.places.values()}.values():
            refuse_containers(place, tree, path, table)
    classes = in_order(name for name, files in found.training.items() if files)
    if not classes:  # train/ exists but is empty, val/ is not
        classes = in_order(c for members in found.members.values() for c, files in members.items() if files)
    splits = {
        name: _split(name, members, classes, make_reader)
        for name, members in found.members.items()
        if members
    }
    seed = None
    if set(splits) == {"all"} and request.split:
        whole, seed = splits["all"], request.split_seed
        keys = [
            below_root(file, classes[label]) for file, label in zip(whole.names, whole.labels, strict=True)
        ]
        splits = split_in_two(whole, seed, keys)
    problems = class_problems(found, tree, path, kind, request.ignore_unknown_classes)
    problems += skipped_problems(tree, path)
    if table is not None:
        message = f"{path}: {table} lists these images but is not used"
        problems.append(Problem(severity="note", message=message, fix=f"give {path}/{table} to use it"))
    return Dataset(
        path=path,
        kind=kind,
        classes=classes,
        splits=splits,
        passed_by=_passed_by(found, tree),
        readings=tuple(found.readings),
        problems=tuple(problems),
        split_seed=seed,
    )


def _passed_by(found: Found, tree: Tree) -> dict[str, int]:
    counts = {skipped.text: len(skipped.files) for skipped in skipped_in(tree.root, tree.head)}
    counts["hidden"] = tree.hidden
    counts["images in no split"] = sum(found.beside.values())
    counts["images without a class"] = sum(found.unlabelled.values())
    return {reason: count for reason, count in counts.items() if count}


def below_root(file: str, class_name: str) -> str:
    """The path from the class folder on: the part above it changes when data are moved, wrapped or zipped."""
    at = f"/{file}".find(f"/{class_name}/")
    return file if at < 0 else file[at:]


def _split(
    name: str, members: dict[str, list[str]], classes: tuple[str, ...], make_reader: MakeReader
) -> Split:
    """Images of classes without training images are skipped; `class_problems` reports them."""
    index = {c: i for i, c in enumerate(classes)}
    files = [(f, index[c]) for c in classes for f in members.get(c, [])]
    return Split(
        name=name,
        names=tuple(f for f, _ in files),
        targets=Labels(np.array([label for _, label in files], dtype=np.int64)),
        reader=make_reader([f for f, _ in files]),
        rows=np.arange(len(files), dtype=np.int64),
    )
