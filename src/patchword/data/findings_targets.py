"""Findings about images that have several classes each, or numbers."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from patchword.data.dataset import Dataset, Problem, Split
from patchword.data.findings import listed, look_alikes, unscored_classes
from patchword.data.targets import MultiLabels, Numbers
from patchword.errors import plural

FEW = 10
# A value further from the median than this many times the spread of the middle half is rather in another unit.
FAR = 50.0
BINS = 20
_BLOCKS = " ▁▂▃▄▅▆▇█"


def target_problems(dataset: Dataset) -> list[Problem]:
    """Classes or columns that cannot be learned or scored; nothing for images of one class each."""
    training = dataset.splits.get("train") or dataset.splits.get("all")
    if training is None:
        return []
    if isinstance(training.targets, MultiLabels):
        return [
            *_class_problems(dataset, training),
            *unscored_classes(dataset),
            *look_alikes(dataset.classes),
        ]
    if isinstance(training.targets, Numbers):
        return _number_problems(dataset, training, training.targets)
    return []


def _class_problems(dataset: Dataset, training: Split) -> list[Problem]:
    if not dataset.classes:
        return [
            Problem(
                severity="error",
                message=f"{dataset.path}: no training image has a class",
                fix="check the label column",
            )
        ]
    counts, total = training.counts(len(dataset.classes)), len(training)
    never = [name for name, n in zip(dataset.classes, counts, strict=True) if n == 0]
    always = [name for name, n in zip(dataset.classes, counts, strict=True) if n == total and total > 1]
    few = [(n, name) for name, n in zip(dataset.classes, counts, strict=True) if 0 < n < FEW]
    problems = []
    if never:
        one = "class" if len(never) == 1 else "classes"
        # Columns were asked for; a list of names in the metadata of a table may be longer than what is used.
        asked = dataset.columns is not None and dataset.columns.label == ", ".join(dataset.classes)
        problems.append(
            Problem(
                severity="error" if asked else "warning",
                message=f"{dataset.path}: no training image has the {one} {listed(never)}",
                fix=f"add images that have {'it' if len(never) == 1 else 'them'}"
                + (", or leave the column out of --label-column" if asked else ""),
            )
        )
    if always:
        one = "class" if len(always) == 1 else "classes"
        message = (
            f"{dataset.path}: every training image has the {one} {listed(always)}, so no score can be trusted"
        )
        problems.append(
            Problem(severity="warning", message=message, fix="add images without, or leave it out")
        )
    if few:
        n, name = min(few)
        message = (
            f"{plural(len(few), 'class', 'classes')} with fewer than {FEW} positive training images, the smallest is "
            f"{name!r} with {n}"
        )
        problems.append(Problem(severity="warning", message=message, fix="add more images"))
    return problems


def _number_problems(dataset: Dataset, training: Split, targets: Numbers) -> list[Problem]:
    problems = []
    for name, values in zip(targets.names, targets.values.T.astype(np.float64), strict=True):
        if len(values) > 1 and values.min() == values.max():
            message = (
                f"{dataset.path}: column {name} has the same number in every training row ({values[0]:g})"
            )
            fix = "pass a column whose numbers differ with --target-column"
            problems.append(Problem(severity="error", message=message, fix=fix))
            continue
        low, middle, high = np.percentile(values, (25, 50, 75))
        far = np.abs(values - middle) > FAR * max(high - low, 1e-12)
        # With most rows equal, the middle half says nothing about units.
        if far.any() and high > low:
            worst = int(np.abs(values - middle).argmax())
            message = (
                f"{dataset.path}: column {name} has {plural(int(far.sum()), 'number')} far from all others, e.g. "
                f"{values[worst]:g} for {training.names[worst]}, where half of the rows lie between {low:g} and {high:g}"
            )
            fix = "check for another unit or a code such as 9999 for a missing number"
            problems.append(Problem(severity="warning", message=message, fix=fix))
    if len(training) < FEW:
        message = (
            f"{dataset.path} has only {plural(len(training), 'training image')} ({FEW} or more recommended)"
        )
        problems.append(Problem(severity="warning", message=message, fix="add more images"))
    return problems


def target_facts(dataset: Dataset) -> dict[str, Any]:
    """What the targets are, for data.json: nothing for images of one class each.

    Of numbers, mean and std are those of the training rows, with which training normalises them.
    """
    training = dataset.splits.get("train") or dataset.splits.get("all")
    if training is None or not len(training):
        return {}
    if isinstance(training.targets, MultiLabels):
        return {"task": "multi", "labels_per_image": _per_image(training.targets.values)}
    if isinstance(training.targets, Numbers):
        return {"task": "number", "numbers": {n: number_facts(v) for n, v in _columns(training.targets)}}
    return {}


def _columns(targets: Numbers) -> list[tuple[str, NDArray[np.float64]]]:
    return list(zip(targets.names, targets.values.T.astype(np.float64), strict=True))


def _per_image(values: NDArray[np.bool_]) -> dict[str, float]:
    per = values.sum(axis=1)
    return {
        "mean": round(float(per.mean()), 4),
        "min": int(per.min()),
        "max": int(per.max()),
        "without": int((per == 0).sum()),
    }


def number_facts(values: NDArray[np.float64]) -> dict[str, float]:
    """values [N]."""
    return {
        "mean": float(values.mean()),
        "std": float(values.std()),
        "min": float(values.min()),
        "median": float(np.median(values)),
        "max": float(values.max()),
    }


def histogram_line(values: NDArray[np.float64]) -> str:
    """values [N] as a line of blocks, from the smallest to the largest value."""
    counts = np.histogram(values, bins=BINS)[0]
    height = np.ceil(counts / max(counts.max(), 1) * (len(_BLOCKS) - 1)).astype(int)
    return "".join(_BLOCKS[h] for h in height)


def target_lines(dataset: Dataset) -> list[str]:
    """Lines of `patchword check` about the training targets, in the units of the table."""
    training = dataset.splits.get("train") or dataset.splits.get("all")
    if training is None or not len(training):
        return []
    targets = training.targets
    if isinstance(targets, MultiLabels):
        per = _per_image(targets.values)
        lines = [
            f"classes per training image: {per['min']:g} to {per['max']:g}, mean {per['mean']:.2f}, "
            f"none in {per['without']:g}"
        ]
        return [*lines, *_together(targets.values, dataset.classes)]
    if isinstance(targets, Numbers):
        lines = []
        for name, values in _columns(targets):
            f = number_facts(values)
            lines.append(
                f"{name}: min {f['min']:g}, median {f['median']:g}, max {f['max']:g}, mean {f['mean']:.4g}, "
                f"std {f['std']:.4g} (training images)"
            )
            lines.append(f"{name}: {f['min']:g} |{histogram_line(values)}| {f['max']:g}")
        return lines
    return []


def _together(values: NDArray[np.bool_], classes: tuple[str, ...]) -> list[str]:
    """The pair of classes that occurs together most often."""
    if len(classes) < 2:
        return []
    counts = values.T.astype(np.float32) @ values.astype(np.float32)
    pairs = np.triu(counts, 1)
    i, j = np.unravel_index(int(pairs.argmax()), pairs.shape)
    both = int(pairs[i, j])
    if not both:
        return ["no two classes occur together in a training image: one class per image would do"]
    return [
        f"most often together: {classes[i]!r} and {classes[j]!r} in {plural(both, 'training image')} "
        f"(of {int(counts[i, i])} and {int(counts[j, j])})"
    ]
