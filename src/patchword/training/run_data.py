"""The images of a run: which were read, which changed since it began, which may be scored."""

from collections.abc import Callable, Mapping
from typing import Any

from patchword.data.contents import seen_in
from patchword.data.dataset import Dataset, Split
from patchword.data.stamps import Stamps, describe_changes
from patchword.errors import DataError, UserError, plural
from patchword.training import runfolder
from patchword.training.runfolder import RunFolder


def unreadable_by_name(facts: Mapping[str, Any], split: Split) -> list[tuple[str, str]]:
    """The images of the split that the check could not read, with the reason."""
    names = set(split.names)
    listed = [(str(entry["name"]), str(entry["reason"])) for entry in facts.get("skipped", [])]
    return [(name, reason) for name, reason in listed if name in names]


def unreadable_places(facts: Mapping[str, Any], split: Split, folder: RunFolder) -> list[int]:
    """The places of the training images that the check could not read."""
    listed, place = unreadable_by_name(facts, split), {name: i for i, name in enumerate(split.names)}
    for name, reason in listed:
        folder.log(f"skipped {name}: {reason}")
    return [place[name] for name, _ in listed if name in place]


def refuse_changed_files(stamps: Stamps, dataset: Dataset, folder: RunFolder) -> None:
    """Compare with the files that the run began with. Raises: UserError with the names of those that changed."""
    path = folder.path / runfolder.STAMPS
    if not path.exists():
        return
    before = Stamps.from_bytes(path.read_bytes(), str(path))
    changed = stamps.changed(before, dataset.training)
    if changed:
        raise UserError(
            f"{plural(len(changed), 'training image')} in {dataset.path} {'has' if len(changed) == 1 else 'have'} different "
            f"content than when {folder.path} was started: {describe_changes(changed)}",
            "restore the data, or start a new run",
        )
    stamps.adopt(before)


def unseen(dataset: Dataset, trained: frozenset[bytes], warn: Callable[[str], None]) -> Split:
    """The evaluation images that the weights were not trained on, in this run or before.

    Raises: DataError if there are none.
    """
    split = dataset.evaluation
    seen = set(seen_in(split, trained))
    if not seen:
        return split
    if len(seen) == len(split):
        raise DataError(
            f"all {len(split)} images of {split.name} are also training images of this run, its initial weights or its teacher, "
            "so none is left to evaluate on",
            f"add images to {split.name} that the model was not trained on"
            + (", or remove --split-seed" if dataset.split_seed else ""),
        )
    verb = "is" if len(seen) == 1 else "are"
    warn(
        f"{len(seen)} of the {len(split)} images of {split.name} {verb} also used for training, in this run, its "
        f"initial weights or its teacher (such as {split.names[min(seen)]}), and {verb} not scored"
    )
    return split.subset([i for i in range(len(split)) if i not in seen])
