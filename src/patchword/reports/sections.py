"""Prepare the sections of the page from the files of a run.

Nothing is measured here. Shares are ratios of counts from the files, lists are sorted and shortened,
and every hint can be checked in the tables of the page.
"""

from pathlib import PurePath
from typing import Any

from markupsafe import Markup

from patchword import metrics
from patchword.reports.curves import best_epoch
from patchword.reports.run_files import RunFiles, Setting, printable

CHOSEN_LAST = ("", "default")
CHOSEN_FOR_ALL = (*CHOSEN_LAST, "recipe", "weights")
# The main settings, shown first whatever their source.
MAIN_SETTINGS = (
    "model.dim",
    "model.depth",
    "model.image.size",
    "model.patch.size",
    "model.positions.kind",
    "optim.method",
    "optim.lr",
    "optim.weight_decay",
    "schedule.epochs",
    "task.label_smoothing",
    "run.batch_size",
    "run.seed",
)
RARE_RATIO = 10


def data_path(run: RunFiles) -> str:
    return str(run.data.get("path") or (run.evaluation or {}).get("data") or "DATA")


def data_name(run: RunFiles) -> str:
    """The last part of the data's path, for headings."""
    return PurePath(data_path(run)).name or data_path(run)


def progress(run: RunFiles) -> dict[str, Any]:
    """Progress of the run: last epoch, number of epochs planned, best epoch on the validation split."""
    last = run.epochs[-1] if run.epochs else {}
    done, meant = last.get("epoch", 0), last.get("epochs")
    return {
        "done": done,
        "meant": meant,
        "complete": bool(meant) and done >= meant,
        "last": last,
        "best": best_epoch(run),
        "seconds": last.get("seconds"),
        "train_images": sum(_split_counts(run.data, "train")) or None,
        "begun_from": (run.data.get("begun_from") or {}).get("name"),
        "teacher": (run.data.get("teacher") or {}).get("name"),
    }


def with_ranks(evaluation: dict[str, Any]) -> dict[str, Any]:
    """Add the number of correct predictions, the majority baseline and the class coverage."""
    confusion = evaluation.get("confusion") or []
    right = sum(row[i] for i, row in enumerate(confusion))
    largest = max((c.get("images", 0) for c in evaluation.get("classes", [])), default=0)
    scored = evaluation.get("scored") or 0
    guess = largest / scored if scored else None
    weights = PurePath(evaluation.get("weights") or "last.safetensors").name
    classes = evaluation.get("classes") or []
    there = sum(bool(c.get("images")) for c in classes)
    over = "" if there == len(classes) else f"over {there} of {len(classes)} classes"
    return evaluation | {"right": right, "guess": guess, "weights": weights, "coverage": over}


def per_class(run: RunFiles, evaluation: dict[str, Any] | None) -> list[dict[str, Any]]:
    """One row per class, worst first: scores, training images, the class it is most often confused with."""
    if not evaluation:
        return []
    confusion = evaluation.get("confusion") or []
    trained = dict(zip(run.data.get("classes", []), _split_counts(run.data, "train"), strict=False))
    rows = []
    for index, entry in enumerate(evaluation.get("classes", [])):
        others = [(n, j) for j, n in enumerate(confusion[index]) if j != index and n] if confusion else []
        most, where = max(others, key=lambda o: (o[0], -o[1]), default=(0, -1))
        confused_with = evaluation["classes"][where]["name"] if most else ""
        rows.append(
            entry | {"trained": trained.get(entry["name"]), "confused_with": confused_with, "times": most}
        )
    # A class that was never predicted has no F1 and comes first; one without images comes last.
    return sorted(
        rows, key=lambda r: (_or(r.get("f1"), 0.0 if r.get("images") else 2.0), r.get("recall") or 0.0)
    )


def matrix(evaluation: dict[str, Any] | None, largest: int) -> list[dict[str, Any]]:
    """The confusion matrix as rows of cells (count, share of its row); empty if it is too large."""
    confusion = (evaluation or {}).get("confusion") or []
    if not confusion or len(confusion) > largest or evaluation is None:
        return []
    rows = []
    for entry, row in zip(evaluation["classes"], confusion, strict=True):
        total = sum(row)
        cells = [{"count": n, "share": n / total if total else 0.0} for n in row]
        rows.append({"name": entry["name"], "total": total, "cells": cells})
    return rows


def confused_pairs(evaluation: dict[str, Any] | None, most: int) -> list[dict[str, Any]]:
    """The pairs (true, predicted) that were confused most often, most frequent first."""
    if not evaluation:
        return []
    names = [c["name"] for c in evaluation.get("classes", [])]
    pairs = [
        {"true": names[i], "predicted": names[j], "count": n, "of": sum(row)}
        for i, row in enumerate(evaluation.get("confusion") or [])
        for j, n in enumerate(row)
        if i != j and n
    ]
    return sorted(pairs, key=lambda p: (-p["count"], -p["count"] / p["of"]))[:most]


def splits(data: dict[str, Any]) -> dict[str, Any]:
    """Image counts per class and split, and the largest count, which scales the bars."""
    names = list(data.get("splits") or {})
    columns = [_split_counts(data, name) for name in names]
    rows = [
        {"name": name, "counts": [c[i] if i < len(c) else None for c in columns]}
        for i, name in enumerate(data.get("classes") or [])
    ]
    largest = max((n for column in columns for n in column), default=0)
    return {"names": names, "rows": rows, "largest": largest}


def settings_tables(settings: tuple[Setting, ...]) -> dict[str, list[Setting]]:
    """Specified, measured and main settings first, then the rest by source."""
    first = [s for s in settings if s.path in MAIN_SETTINGS or s.source.split(" ")[0] not in CHOSEN_FOR_ALL]
    rest = [s for s in settings if s not in first]
    return {
        "first": first,
        "recipe": [s for s in rest if s.source not in CHOSEN_LAST],
        "defaults": [s for s in rest if s.source in CHOSEN_LAST],
    }


def provenance(run: RunFiles) -> list[tuple[str, str]]:
    """Origin of the weights, as recorded in their card and in data.json."""
    recorded = run.card.provenance if run.card else None
    found: list[tuple[str, object]] = [("SHA-256 of the file list", run.data.get("file_list_sha256"))]
    if recorded:
        found = [
            ("Created", recorded.created),
            ("patchword", recorded.patchword),
            ("Recipe", recorded.recipe),
            ("Seed", recorded.seed),
            ("Data", recorded.data),
            *found,
            ("Initialised from", recorded.source),
            ("SHA-256 of the initial weights", recorded.source_sha256),
            ("Licence of the weights", recorded.licence),
            *recorded.facts.items(),
        ]
    return [(name, printable(str(value))) for name, value in found if value not in ("", None)]


def hints(run: RunFiles, evaluation: dict[str, Any] | None) -> list[Markup]:
    """Findings that a reader should check first; may be empty."""
    found: list[Markup] = []
    found += _about_divergence(run)
    if evaluation:
        found += _about_majority(evaluation)
        found += _about_predictions(evaluation)
        found += _about_coverage(evaluation)
        found += _about_unreadable(evaluation)
    found += _about_training(run)
    found += _about_data(run)
    return found


def _about_divergence(run: RunFiles) -> list[Markup]:
    if run.broken is None:
        return []
    return [
        Markup("<strong>Training diverged</strong>: {}. To fix it, {}.").format(
            run.broken.get("summary", "a value was not finite"),
            run.broken.get("fix", "start again with a lower --lr"),
        )
    ]


def _about_majority(evaluation: dict[str, Any]) -> list[Markup]:
    """Report a score that does not beat always predicting the most frequent class."""
    classes = evaluation.get("classes") or []
    best = metrics.majority([c.get("images") or 0 for c in classes], [str(c.get("name")) for c in classes])
    top1, interval = evaluation.get("top1"), evaluation.get("top1_interval")
    if best is None or not isinstance(top1, int | float) or not interval:
        return []
    verdict = best.verdict(top1, interval[0])
    if not verdict:
        return []
    head, _, rest = verdict.partition(": ")
    return [Markup("<strong>The model is {}</strong>: {}.").format(head, rest)]


def _about_coverage(evaluation: dict[str, Any]) -> list[Markup]:
    """Report classes without scored images."""
    classes = evaluation.get("classes") or []
    lost = [str(c.get("name")) for c in classes if not c.get("images")]
    if not lost or len(lost) == len(classes):
        return []
    shown = Markup(", ").join(Markup("<bdi>{}</bdi>").format(name) for name in lost[:5])
    more = f" and {len(lost) - 5} more" if len(lost) > 5 else ""
    text = "<strong>The score covers {} of {} classes</strong>: no image of {}{} was scored."
    return [Markup(text).format(len(classes) - len(lost), len(classes), shown, more)]


def _about_predictions(evaluation: dict[str, Any]) -> list[Markup]:
    confusion = evaluation.get("confusion") or []
    names = [c["name"] for c in evaluation.get("classes", [])]
    used = {j for row in confusion for j, n in enumerate(row) if n}
    if len(used) == 1 and len(names) > 1:
        return [
            Markup(
                "<strong>Every image is predicted as <bdi>{}</bdi></strong>. Training collapsed; "
                "the usual cause is a learning rate that is too high."
            ).format(names[used.pop()])
        ]
    weak = [c for c in evaluation.get("classes", []) if c.get("images") and _or(c.get("recall"), 1) < 0.5]
    if not weak:
        return []
    weak.sort(key=lambda c: c["recall"])
    shown = Markup(", ").join(Markup("<bdi>{}</bdi>").format(c["name"]) for c in weak[:5])
    more = f" and {len(weak) - 5} more" if len(weak) > 5 else ""
    what = "One class has" if len(weak) == 1 else f"{len(weak)} classes have"
    return [Markup("<strong>{} a recall below 50&nbsp;%</strong>: {}{}.").format(what, shown, more)]


def _about_unreadable(evaluation: dict[str, Any]) -> list[Markup]:
    unreadable = evaluation.get("unreadable") or []
    if not unreadable:
        return []
    return [
        Markup(
            "<strong>{} could not be read</strong> and did not count towards the score; "
            '<a href="#unreadable">see the list with reasons</a>.'
        ).format(_files(len(unreadable)))
    ]


def _about_training(run: RunFiles) -> list[Markup]:
    found = []
    last, best = (run.epochs[-1] if run.epochs else {}), best_epoch(run)
    if best and len(run.epochs) >= 5 and best["epoch"] == last["epoch"] == last.get("epochs"):
        found.append(
            Markup(
                "<strong>The last epoch was the best one</strong>, so training longer may improve the score."
            )
        )
    return found


def _about_data(run: RunFiles) -> list[Markup]:
    found = []
    skipped = run.data.get("skipped") or []
    if skipped:
        found.append(
            Markup('<strong>{} skipped</strong>; <a href="#skipped">see which and why</a>.').format(
                f"{_files(len(skipped))} {'was' if len(skipped) == 1 else 'were'}"
            )
        )
    counts = [n for n in _split_counts(run.data, "train") if n]
    if counts and max(counts) > RARE_RATIO * min(counts):
        found.append(
            Markup(
                "<strong>Class sizes differ a lot</strong>: the largest class has {:,} training images, "
                "the smallest {:,}. Read the scores per class before the overall score."
            ).format(max(counts), min(counts))
        )
    return found


def _split_counts(data: dict[str, Any], name: str) -> list[int]:
    """Readable images of each class."""
    split = (data.get("splits") or {}).get(name) or {}
    there = list(split.get("per_class") or [])
    lost = list(split.get("unreadable") or [0] * len(there))
    return [images - unreadable for images, unreadable in zip(there, lost, strict=False)]


def _files(number: int) -> str:
    return "1 file" if number == 1 else f"{number:,} files"


def _or(value: Any, other: float) -> float:
    """`value`, or `other` if it is missing: a class that was never seen or never predicted has no score."""
    return value if isinstance(value, int | float) and value == value else other
