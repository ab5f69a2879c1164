"""Check a data set before training: its contents and its problems."""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from patchword.data.boxes.findings import box_facts, box_problems
from patchword.data.dataset import Dataset, Problem, Split
from patchword.data.findings import (
    ImageFacts,
    duplicates,
    groups_across,
    look_alikes,
    many_paged,
    plain_images,
    unscored_classes,
)
from patchword.data.findings_targets import target_facts, target_problems
from patchword.data.look import Look, sampled
from patchword.data.pool import in_order
from patchword.data.splits import file_list_sha256
from patchword.data.stamps import Stamps
from patchword.data.store import Store
from patchword.errors import plural
from patchword.images.preprocess import ValueRange

# With more images than this, only a sample is checked, unless all are asked for.
MAX_IMAGES = 50_000
# Before training, a sample of SAMPLE images stands for more than this; training checks the others when it reads them.
MAX_BEFORE_TRAINING, SAMPLE = 20_000, 2_000
IMBALANCE = 10.0
FEW_PER_CLASS = 10
LISTED = 5
# If a deep image uses at most this share of its range, its values probably have fewer bits than the file.
_SMALL_PART = 0.25
Progress = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True)
class CheckReport:
    """The result of `check_data`. sizes: (h, w) at least, median, most. looked_at: images decoded.

    stamps: of the files of each split, with the hashes of those that were read. looks: facts about each image, if thumbnails
    were asked for.
    """

    dataset: Dataset
    problems: tuple[Problem, ...]
    looked_at: int
    images: int
    skipped: tuple[tuple[str, str], ...]
    sizes: dict[str, list[int]]
    modes: dict[str, int]
    channel_mean: list[float]
    channel_std: list[float]
    stamps: Mapping[str, Stamps] = field(default_factory=dict)
    looks: tuple[ImageFacts, ...] = ()

    @property
    def fatal(self) -> tuple[Problem, ...]:
        """Problems that make training meaningless."""
        return tuple(p for p in self.problems if p.severity == "error")

    def __repr__(self) -> str:
        found = Counter(problem.severity for problem in self.problems)
        problems = ", ".join(plural(found[s], s) for s in ("error", "warning", "note") if found[s])
        data = self.dataset
        return (
            f"CheckReport({data.path!r}: {plural(self.images, 'image')}, "
            f"{plural(len(data.classes), 'class', 'classes')}; {problems or 'no problems'})"
        )

    def to_dict(self) -> dict[str, Any]:
        """As written to data.json."""
        dataset = self.dataset
        return {
            "path": dataset.path,
            "kind": dataset.kind,
            "readings": list(dataset.readings),
            "classes": list(dataset.classes),
            "splits": {
                name: {"images": len(split), "per_class": split.counts(len(dataset.classes))}
                | self._unreadable(split)
                for name, split in dataset.splits.items()
            },
            **(box_facts(dataset) if dataset.task_kind == "boxes" else target_facts(dataset)),
            **({} if dataset.columns is None else {"columns": asdict(dataset.columns)}),
            "split_seed": dataset.split_seed,
            # By name, so that anybody can see which images were held out here.
            "held_out": [] if dataset.split_seed is None else list(dataset.evaluation.names),
            "file_list_sha256": file_list_sha256(dataset),
            "images": self.images,
            "looked_at": self.looked_at,
            "skipped": [{"name": name, "reason": reason} for name, reason in self.skipped],
            "passed_by": dict(dataset.passed_by),
            "channel_mean": self.channel_mean,
            "channel_std": self.channel_std,
            "sizes": self.sizes,
            "modes": self.modes,
            "problems": [{"severity": p.severity, "message": p.message, "fix": p.fix} for p in self.problems],
        }

    def _unreadable(self, split: Split) -> dict[str, list[int]]:
        """Number of unreadable images of this split per class."""
        names = {name for name, _ in self.skipped}
        lost = split.subset([i for i, name in enumerate(split.names) if name in names])
        return {"unreadable": lost.counts(len(self.dataset.classes))} if len(lost) else {}


def check_data(
    dataset: Dataset,
    *,
    channels: int | None = None,
    value_range: ValueRange | None = None,
    workers: int = 2,
    progress: Progress | None = None,
    every: bool = False,
    before_training: bool = False,
    store: Store | None = None,
    thumbs: bool = False,
) -> CheckReport:
    """Decode every image (a sample beyond 50,000) and report contents and problems.

    channels, value_range: as the model will read them; None is 3, or 1 if the data are grey by nature, and the
    range of the files' type. every: no sample. before_training: a sample of 2,000 beyond 20,000 images.
    thumbs: also keep what near duplicates are found by (`data.near`).
    store: of one of the splits. It keeps the images that are decoded here, so that training need not decode them again.
    """
    most, count = (MAX_BEFORE_TRAINING, SAMPLE) if before_training else (MAX_IMAGES, MAX_IMAGES)
    places = sampled(dataset, None if every else most, count)
    known = {
        name: store.stamps if store is not None and store.split is split else Stamps.of(split)
        for name, split in dataset.splits.items()
    }
    look_at = Look(channels or natural_channels(dataset), value_range, known, store, thumbs)

    looks = []
    for look in in_order(look_at, places, workers, 64):
        looks.append(look)
        if progress:
            progress(len(looks), len(places))
    total = sum(len(split) for split in dataset.splits.values())
    good = [look for look in looks if not look.reason]
    skipped = [(dataset.splits[x.split].names[x.index], x.reason) for x in looks if x.reason]
    # Only training images count: evaluation images must not shape the model's input.
    mean, std = _statistics([look for look in good if look.split in ("train", "all")] or good)
    problems = [*dataset.problems, *_count_problems(dataset), *_look_problems(dataset, looks, skipped)]
    if value_range is None:
        problems += _unused_range(good)
    problems += _sample_note(len(places), total, before_training)
    order = {"error": 0, "warning": 1, "note": 2}
    return CheckReport(
        dataset=dataset,
        problems=tuple(sorted(problems, key=lambda p: order[p.severity])),
        looked_at=len(places),
        images=total,
        skipped=tuple(skipped),
        sizes=_sizes(good),
        modes=dict(Counter(look.mode for look in good).most_common()),
        channel_mean=mean,
        channel_std=std,
        stamps=known,
        looks=tuple(looks) if thumbs else (),
    )


def _sample_note(checked: int, total: int, before_training: bool) -> list[Problem]:
    if checked == total:
        return []
    message = f"only {checked} of {total} images were checked (a random sample)"
    if before_training:
        return [Problem(severity="note", message=f"{message}; training checks the others when it reads them")]
    return [Problem(severity="note", message=message, fix="pass --all to check every image")]


def natural_channels(dataset: Dataset) -> int:
    """1 for the built-in scans, which are grey by nature; 3 for files, as models read them."""
    return 1 if dataset.kind == "digits" else 3


def _statistics(looks: list[ImageFacts]) -> tuple[list[float], list[float]]:
    """Mean and deviation of values 0..1 over the images, each image counting alike."""
    if not looks:
        return [], []
    shares = np.mean([look.sums / max(look.pixels, 1) for look in looks], axis=0)
    mean = shares[0]
    std = np.sqrt(np.maximum(shares[1] - mean**2, 0))
    return [round(float(m), 4) for m in mean], [round(float(s), 4) for s in std]


def _unused_range(looks: list[ImageFacts]) -> list[Problem]:
    """A warning where 16-bit images use a small part of their range, as 12-bit values in a 16-bit file do."""
    deepest = max((look.deepest for look in looks if look.deepest is not None), default=1.0)
    if deepest == 0 or deepest > _SMALL_PART:
        return []
    value = round(deepest * 65535)
    top = 2 ** max(value.bit_length(), 1) - 1
    message = (
        f"the highest value of the images deeper than 8 bits is {deepest:.4f} of their range ({value} of 65535), "
        "so they look almost black to the model"
    )
    fix = f"if {top} is white, pass --value-range 0,{top}"
    return [Problem(severity="warning", message=message, fix=fix)]


def _sizes(looks: list[ImageFacts]) -> dict[str, list[int]]:
    if not looks:
        return {}
    sizes = np.array([look.size for look in looks])
    return {
        "min": sizes.min(0).tolist(),
        "median": np.median(sizes, axis=0).astype(int).tolist(),
        "max": sizes.max(0).tolist(),
    }


def _count_problems(dataset: Dataset) -> list[Problem]:
    """Too few classes or images, and classes of very different size."""
    training = dataset.splits.get("train") or dataset.splits.get("all")
    if training is None:
        return [
            Problem(
                severity="error", message=f"{dataset.path} has no training images", fix="add a train/ folder"
            )
        ]
    total = sum(len(split) for split in dataset.splits.values())
    if total == 1:
        fix = "give several images" + (
            "" if dataset.task_kind in ("none", "boxes") else " of at least two classes"
        )
        return [_fatal(f"{dataset.path} has one image", fix)]
    if dataset.task_kind == "boxes":
        return [*_unevaluated(dataset), *box_problems(dataset)]
    if dataset.task_kind != "single":
        return [*_unevaluated(dataset), *target_problems(dataset)]
    counts = np.array(training.counts(len(dataset.classes)))
    if (counts > 0).sum() < 2 <= counts.sum() or len(dataset.classes) < 2:
        only = dataset.classes[int(counts.argmax())] if dataset.classes else ""
        return [
            _fatal(
                f"{dataset.path} has only one class ({only!r})",
                "add at least one more class",
            )
        ]
    if dataset.columns is not None and len(dataset.classes) > 2 and counts.max() == 1:
        column = dataset.columns.label
        message = (
            f"{dataset.path}: each of the {len(dataset.classes)} labels in column {column} is in only one "
        )
        fix = "pass the column of the class with --label-column"
        return [
            _fatal(
                f"{message}training row, e.g. {dataset.classes[0]!r}: this is a number or an ID, not a class",
                fix,
            )
        ]
    problems = _unevaluated(dataset)
    largest, smallest = int(counts.argmax()), int(counts.argmin())
    if counts[smallest] < FEW_PER_CLASS:
        name = dataset.classes[smallest]
        has = plural(counts[smallest], "training image")
        message = f"class {name!r} has only {has} (10 or more recommended)"
        problems.append(Problem(severity="warning", message=message, fix="add more images"))
    if counts[smallest] and counts[largest] > IMBALANCE * counts[smallest]:
        ratio = counts[largest] / counts[smallest]
        message = (
            f"imbalance: {dataset.classes[largest]!r} has {ratio:.0f} times as many images as "
            f"{dataset.classes[smallest]!r}; top-1 accuracy hides the small classes, so check the recall per class"
        )
        fix = "add images to the small classes, or train with --balance loss"
        problems.append(Problem(severity="warning", message=message, fix=fix))
    return [*problems, *unscored_classes(dataset), *groups_across(dataset), *look_alikes(dataset.classes)]


def _unevaluated(dataset: Dataset) -> list[Problem]:
    if any(len(dataset.splits.get(name, ())) for name in ("val", "test", "all")):
        return []
    others = ", ".join(name for name in dataset.splits if name not in ("train", "val", "test"))
    message = f"{dataset.path} has no images to evaluate on" + (f", only {others}" if others else "")
    fix = (
        "rename that split to val"
        if others
        else "add images to val, or remove it to hold out a fifth of train"
    )
    return [_fatal(message, fix)]


def _fatal(message: str, fix: str) -> Problem:
    return Problem(severity="error", message=message, fix=fix)


def _look_problems(
    dataset: Dataset, looks: list[ImageFacts], skipped: list[tuple[str, str]]
) -> list[Problem]:
    problems = []
    problems += _unreadable_parts(dataset, looks)
    if skipped:
        shown = "; ".join(f"{name}: {reason}" for name, reason in skipped[:LISTED])
        more = f"; and {len(skipped) - LISTED} more" if len(skipped) > LISTED else ""
        message = f"{len(skipped)} of {plural(len(looks), 'image')} cannot be read: {shown}{more}"
        fix = "fix or remove them; training skips them"
        problems.append(Problem(severity="warning", message=message, fix=fix))
    good = [look for look in looks if not look.reason]
    return [
        *problems,
        *plain_images(dataset, good),
        *many_paged(dataset, good),
        *duplicates(dataset, good),
    ]


def _unreadable_parts(dataset: Dataset, looks: list[ImageFacts]) -> list[Problem]:
    """Find splits and training classes without a single readable image."""
    problems = []
    all_of, bad_of = (
        Counter(look.split for look in looks),
        Counter(look.split for look in looks if look.reason),
    )
    for name, count in all_of.items():
        if bad_of[name] == count:
            needed = name in ("train", dataset.evaluation.name)
            first = next(look for look in looks if look.split == name)
            why = f"{dataset.splits[name].names[first.index]}: {first.reason}"
            message = (
                f"none of the {plural(count, 'image')} in {name} can be read; the first: {why}"
                if count > 1
                else f"the only image in {name} cannot be read: {why}"
            )
            problems.append(
                Problem(
                    severity="error" if needed else "warning",
                    message=message,
                    fix=first.fix or "fix or remove the images",
                )
            )
    if dataset.task_kind != "single":
        return problems
    training = [look for look in looks if look.split in ("train", "all")]
    labels = dataset.splits[training[0].split].labels if training else np.zeros(0, np.int64)
    # All images of the class, of which a sample may be a part.
    whole = np.bincount(labels, minlength=len(dataset.classes))
    bad = Counter(int(labels[look.index]) for look in training if look.reason)
    for label, count in sorted(bad.items()):
        if count == whole[label] and len(bad) < len(training):
            message = (
                f"none of the {plural(count, 'training image')} of class {dataset.classes[label]!r} can be read"
                if count > 1
                else f"the only training image of class {dataset.classes[label]!r} cannot be read"
            )
            problems.append(Problem(severity="warning", message=message, fix="fix them, or remove the class"))
    return problems
