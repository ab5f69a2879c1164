"""Findings about all images of a data set together, and about its class names."""

import unicodedata
from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from patchword.data.dataset import Dataset, Problem
from patchword.errors import plural

# A finding about this share of the images is a warning, about fewer a note.
LARGE_SHARE = 0.05
LISTED = 8
_ENCODING = "how their characters are encoded"
_OVERLOOKED: dict[str, Callable[[str], str]] = {
    _ENCODING: lambda name: unicodedata.normalize("NFKC", name),
    "letter case": str.casefold,
    "spaces": lambda name: "".join(name.split()),
    "hyphens or underscores": lambda name: name.translate({ord("-"): None, ord("_"): None}),
}


@dataclass(frozen=True, kw_only=True)
class ImageFacts:
    """Facts about one decoded image. sums: of pixel values 0..1 and their squares, by channel.

    plain: whether it is one colour. paged: whether its file has more pages or frames than the one that is read.
    deepest: the highest value of an image deeper than 8 bits. thumb: [48, 48] for near duplicates, if asked for.
    """

    split: str
    index: int
    size: tuple[int, int] = (0, 0)
    mode: str = ""
    pixels_hash: bytes = b""
    pixels: int = 0
    deepest: float | None = None
    sums: NDArray[np.float64] = field(default_factory=lambda: np.zeros((2, 1)))
    plain: bool = False
    paged: bool = False
    reason: str = ""
    fix: str = ""
    thumb: NDArray[np.uint8] | None = None


def listed(names: Sequence[str]) -> str:
    """ "'a', 'b'", cut short."""
    return ", ".join(repr(name) for name in names[:LISTED]) + (" …" if len(names) > LISTED else "")


def look_alikes(classes: Sequence[str]) -> list[Problem]:
    """Report classes whose names look the same, with their difference."""
    groups: dict[str, list[str]] = defaultdict(list)
    for name in classes:
        groups[_without(name)].append(name)
    problems = []
    for names in groups.values():
        for i, other in enumerate(names[1:], 1):
            how, one = min(((_differences(one, other), one) for one in names[:i]), key=lambda x: len(x[0]))
            show = ascii if _ENCODING in how else repr
            message = f"the classes {show(one)} and {show(other)} differ only in {' and '.join(how)}"
            problems.append(
                Problem(severity="warning", message=message, fix="if they are the same class, use one name")
            )
    return problems


def _without(name: str, kept: str = "") -> str:
    """The name without every difference that is easily overlooked, except the one to keep."""
    for what, strip in _OVERLOOKED.items():
        name = name if what == kept else strip(name)
    return name


def _differences(one: str, other: str) -> list[str]:
    """List how two names differ that are equal without easily overlooked differences."""
    return [what for what in _OVERLOOKED if _without(one, what) != _without(other, what)]


def unscored_classes(dataset: Dataset) -> list[Problem]:
    """Report classes that have training images but none in an evaluation split."""
    training = dataset.splits.get("train")
    if training is None:
        return []
    trained = training.counts(len(dataset.classes))
    problems = []
    for name, split in dataset.splits.items():
        counts = split.counts(len(dataset.classes))
        missing = [c for c, t, n in zip(dataset.classes, trained, counts, strict=True) if t and not n]
        if not missing or not len(split) or split is training:
            continue
        one = len(missing) == 1
        message = (
            f"{name} has no images of {listed(missing)}, so {'this class' if one else 'these classes'} cannot be evaluated: "
            f"the score covers {len(dataset.classes) - len(missing)} of {len(dataset.classes)} classes"
        )
        if dataset.split_seed is None:
            fix = f"add images of {'the class' if one else 'these classes'} to {name}"
        else:
            fix = f"add images of {'the class' if one else 'these classes'}, so that some can be held out"
        problems.append(Problem(severity="warning", message=message, fix=fix))
    return problems


def groups_across(dataset: Dataset) -> list[Problem]:
    """Report groups with images in several splits, such as a patient in train and val."""
    splits: dict[str, set[str]] = defaultdict(set)
    for name, split in dataset.splits.items():
        for group in filter(None, split.groups or ()):
            splits[group].add(name)
    across = [group for group, names in splits.items() if len(names) > 1]
    if not across:
        return []
    have = "group has" if len(across) == 1 else "groups have"
    message = f"{len(across)} {have} images in several splits ({listed(across)}): the score will be too high"
    return [Problem(severity="warning", message=message, fix="keep the images of each group in one split")]


def plain_images(dataset: Dataset, looks: Sequence[ImageFacts]) -> list[Problem]:
    """Report images of a single colour, e.g. white drawings on a transparent background."""
    plain = [look for look in looks if look.plain]
    if not plain:
        return []
    everything = len(plain) == len(looks)
    first = _name(dataset, plain[0])
    white = all(look.mode in ("RGBA", "LA", "PA", "P") and _mean(look) > 0.99 for look in plain)
    why = " (white drawings on a transparent background?)" if white else ""
    share = (
        f"all {plural(len(looks), 'image')}"
        if everything
        else f"{len(plain)} of {plural(len(looks), 'image')}"
    )
    message = f"{share} {'is' if len(looks) == 1 else 'are'} a single plain colour{why}, e.g. {first}"
    fix = "flatten them onto a background of another colour" if white else "open some of them and check"
    same = everything and len({look.pixels_hash for look in looks}) == 1
    severity = (
        "error"
        if same and len(looks) > 1
        else "warning"
        if len(plain) >= LARGE_SHARE * len(looks)
        else "note"
    )
    return [Problem(severity=severity, message=message, fix=fix)]  # type: ignore[arg-type]


def many_paged(dataset: Dataset, looks: Sequence[ImageFacts]) -> list[Problem]:
    """Files of several pages or frames, of which one is read."""
    paged = [look for look in looks if look.paged]
    if not paged:
        return []
    have = "file has" if len(paged) == 1 else "files have"
    message = f"{len(paged)} {have} more than one page or frame, e.g. {_name(dataset, paged[0])}; only the first is used"
    fix = "save the pages you need as separate files"
    return [Problem(severity="warning" if 2 * len(paged) > len(looks) else "note", message=message, fix=fix)]


def duplicates(dataset: Dataset, looks: Sequence[ImageFacts]) -> list[Problem]:
    """Report identical images: across splits, in two classes, and within a split. Each image counts."""
    groups: dict[bytes, list[ImageFacts]] = defaultdict(list)
    for look in looks:
        groups[look.pixels_hash].append(look)
    across, labels, within = [], [], 0
    for group in groups.values():
        if len(group) < 2:
            continue
        if len({x.split for x in group}) > 1:
            across.append(group)
        if len({_target(dataset, x) for x in group}) > 1:
            labels.append(group)
        within += len(group) - len({x.split for x in group})
    problems = []
    if across:
        first = across[0][0]
        pair = [first, next(x for x in across[0] if x.split != first.split)]
        message = (
            f"{sum(map(len, across))} images have a copy in another split, {_pair(dataset, pair)}: "
            "the score will be too high"
        )
        fix = "remove them from train/" if dataset.split_seed is None else "remove the copies"
        problems.append(Problem(severity="warning", message=message, fix=fix))
    if labels:
        group = labels[0]
        target = _target(dataset, group[0])
        other = next(x for x in group if _target(dataset, x) != target)
        single = dataset.task_kind == "single"
        where, fix = (
            ("in another class", "keep each in one class")
            if single
            else ("with other labels", "label copies alike")
        )
        message = f"{sum(map(len, labels))} images have a copy {where}, {_pair(dataset, [group[0], other])}"
        problems.append(Problem(severity="warning", message=message, fix=fix))
    if within:
        repeats = "image is a duplicate" if within == 1 else "images are duplicates"
        problems.append(Problem(severity="note", message=f"{within} {repeats} of another in the same split"))
    return problems


def _pair(dataset: Dataset, looks: Sequence[ImageFacts]) -> str:
    return "e.g. " + " = ".join(_name(dataset, look) for look in looks)


def _name(dataset: Dataset, look: ImageFacts) -> str:
    return dataset.splits[look.split].names[look.index]


def _target(dataset: Dataset, look: ImageFacts) -> Hashable:
    return dataset.splits[look.split].targets.key(look.index)


def _mean(look: ImageFacts) -> float:
    return float(look.sums[0].mean() / max(look.pixels, 1))
