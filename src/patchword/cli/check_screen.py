"""The output of `patchword check`: classes and counts, image statistics and problems."""

from typing import TYPE_CHECKING

from rich.table import Table

from patchword.cli.console import line, make_console
from patchword.data.box_targets import Boxes
from patchword.data.boxes.findings import box_lines
from patchword.data.findings_targets import target_lines
from patchword.data.targets import Numbers
from patchword.errors import plural

if TYPE_CHECKING:
    from patchword.data.check import CheckReport
    from patchword.data.dataset import Dataset

MAX_CLASSES = 30
COLOURS = {"error": "red", "warning": "yellow", "note": "cyan"}


def print_report(report: "CheckReport") -> None:
    console = make_console()
    dataset = report.dataset
    console.print(
        line(f"{dataset.path}: {dataset.kind}, {_labelled_with(dataset)}, {plural(report.images, 'image')}")
    )
    console.print(_counts(report))
    for fact in _facts(report):
        console.print(line(fact))
    if all(problem.severity == "note" for problem in report.problems):
        console.print("[green]no problems found[/green]")
    for problem in report.problems:
        console.print(line(f"{problem.severity}: {problem.message}", COLOURS[problem.severity]))
        if problem.fix:
            console.print(line(f"  fix: {problem.fix}"))


def _labelled_with(dataset: "Dataset") -> str:
    targets = next(iter(dataset.splits.values())).targets if dataset.splits else None
    if isinstance(targets, Numbers):
        return plural(len(targets.names), "number per image", "numbers per image")
    if dataset.task_kind == "boxes":
        boxes = sum(sum(_counted(dataset, name)) for name in dataset.splits)
        return f"{plural(boxes, 'box', 'boxes')} of {plural(len(dataset.classes), 'class', 'classes')}"
    several = " (several per image)" if dataset.task_kind == "multi" else ""
    return plural(len(dataset.classes), "class", "classes") + several


def _counts(report: "CheckReport") -> Table:
    dataset = report.dataset
    table = Table(box=None, pad_edge=False)
    title = {"single": "class", "multi": "images with", "number": "images", "boxes": "boxes"}[
        dataset.task_kind
    ]
    table.add_column(title, overflow="fold")
    for name in dataset.splits:
        table.add_column(line(name), justify="right")
    counts = {name: _counted(dataset, name) for name in dataset.splits}
    for i, name in enumerate(dataset.classes[:MAX_CLASSES]):
        # Leading and trailing spaces would be invisible.
        shown = name if name == name.strip() else repr(name)
        table.add_row(line(shown), *(str(counts[split][i]) for split in dataset.splits))
    if len(dataset.classes) > MAX_CLASSES:
        table.add_row(f"… {plural(len(dataset.classes) - MAX_CLASSES, 'more class', 'more classes')}")
    if dataset.task_kind == "boxes":
        table.add_row("all", *(str(sum(counts[name])) for name in dataset.splits), style="bold")
        table.add_row("images", *(str(len(split)) for split in dataset.splits.values()), style="bold")
    else:
        table.add_row("all", *(str(len(split)) for split in dataset.splits.values()), style="bold")
    return table


def _counted(dataset: "Dataset", name: str) -> list[int]:
    """Boxes of each class in a split, or images."""
    targets = dataset.splits[name].targets
    count = targets.box_counts if isinstance(targets, Boxes) else targets.counts
    return count(len(dataset.classes))


def _target_lines(dataset: "Dataset") -> list[str]:
    return box_lines(dataset) if dataset.task_kind == "boxes" else target_lines(dataset)


def _facts(report: "CheckReport") -> list[str]:
    facts = [*report.dataset.readings, *_target_lines(report.dataset)]
    if report.dataset.split_seed is not None:
        seed = report.dataset.split_seed
        another = f", split seed {seed}" if seed else ""
        of = "" if report.dataset.task_kind == "number" else " of each class"
        facts.append(f"no split in the data: about a fifth{of} is held out, chosen by file name{another}")
    if report.sizes:
        low, middle, high = (f"{w}x{h}" for h, w in (report.sizes[k] for k in ("min", "median", "max")))
        facts.append(f"sizes: {low} .. {high}, median {middle} (width x height)")
        facts.append("modes: " + ", ".join(f"{mode} {count}" for mode, count in report.modes.items()))
        mean, std = (
            " ".join(f"{v:.4f}" for v in values) for values in (report.channel_mean, report.channel_std)
        )
        facts.append(f"mean {mean}   std {std}   (training images, values from 0 to 1)")
    facts.append(f"readable: {report.looked_at - len(report.skipped)} of {report.looked_at}")
    if report.dataset.passed_by:
        facts.append("skipped: " + ", ".join(f"{n} {why}" for why, n in report.dataset.passed_by.items()))
    return facts
