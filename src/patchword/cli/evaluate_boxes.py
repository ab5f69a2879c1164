"""`patchword evaluate` with a detector."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from patchword.cli.console import line, make_console, percent, say
from patchword.cli.loading import report_loading
from patchword.cli.options import kept_option, kept_values
from patchword.cli.predict_boxes import refuse_options
from patchword.cli.progress import counting
from patchword.errors import OutputError, SettingsError, near_text, plural
from patchword.settings import to_json

if TYPE_CHECKING:
    from rich.console import Console

    from patchword.data.request import OpenRequest
    from patchword.inference.box_scores import BoxEvaluation
    from patchword.inference.detector import Detector
    from patchword.inference.evaluate import EvaluationRequest

F = TypeVar("F", bound=Callable[..., Any])
_KEPT = "patchword.evaluate_boxes"
# Options that have a meaning for models of classes or numbers only.
_OF_CLASSES = ("probe", "k", "epochs", "seed", "no_cache")
_MOST_CLASSES = 40


def evaluate_box_options(command: F) -> F:
    """Add what a detector's evaluation can write besides its scores."""
    for option in (
        kept_option(
            _KEPT,
            "--pictures",
            metavar="FOLDER",
            help="Detectors: draw the worst images into FOLDER, next to their true boxes.",
        ),
        kept_option(
            _KEPT,
            "--report",
            metavar="FILE",
            help="Detectors: write a page with scores, curves and errors (.html).",
        ),
    ):
        command = option(command)
    return command


def check_box_outputs() -> None:
    """Before a model is loaded. Raises: OutputError for a report that cannot be written."""
    from patchword.inference.output import check_place

    report = kept_values(_KEPT)["report"]
    if report is None:
        return
    ending = Path(report).suffix.lower()
    if ending != ".html":
        problem = f"unknown file extension {ending!r}" if ending else "no file extension"
        raise OutputError(f"--report {report}: {problem}{near_text(ending, ['.html'])}", "use .html")
    check_place(Path(report))


def refuse_box_outputs_for(model: str, request: "OpenRequest") -> None:
    """Raises: SettingsError if an option of detectors is given for a model that is none."""
    given = {**kept_values(_KEPT), "annotations": request.annotations, "box_format": request.box_format}
    for name, value in given.items():
        if value is not None:
            option = f"--{name.replace('_', '-')}"
            raise SettingsError(
                f"{option} applies to detectors only, and {model} predicts no boxes",
                f"remove {option}, or give a detector",
            )


def score_boxes(
    detector: "Detector",
    data: str,
    how: "tuple[OpenRequest, int | None]",
    request: "EvaluationRequest",
    *,
    as_json: bool,
    output: str | None,
) -> None:
    """Score, print and write. how: to open the data, and the seed of its split."""
    from dataclasses import replace

    from patchword.inference.evaluate_boxes import evaluate_boxes, open_boxes_for
    from patchword.inference.failures import Failures

    refuse_options(click.get_current_context(), _OF_CLASSES, str(detector.report.path))
    report_loading(detector.report)
    dataset = open_boxes_for(detector, data, *how)
    with counting("scoring images", quiet=as_json) as progress:
        found = evaluate_boxes(detector, dataset, replace(request, progress=progress))
    text = to_json(found.to_dict(), indent=1)
    if output is not None:
        from patchword.inference.output import whole_file

        with whole_file(Path(output), text=True) as file:
            file.write(text + "\n")
    if as_json:
        click.echo(text)
    else:
        _print(found, detector.report.why)
    _draw(found)
    for note in found.notes:
        if note not in detector.report.notes:
            say(f"note: {note}")
    if found.notice:
        say(f"warning: {found.notice}")
    failures = Failures()
    for bad in found.unreadable:  # the reason already includes the fix
        failures.add(bad["name"], _Reason(bad["reason"]))
    failures.check(found.images, "scored")


class _Reason(OutputError):
    """A reason that includes its fix."""


def _draw(found: "BoxEvaluation") -> None:
    asked = kept_values(_KEPT)
    if asked["pictures"] is not None:
        from patchword.reports.box_evaluation import write_worst

        count = write_worst(found, Path(asked["pictures"]))
        say(f"{plural(count, 'image')} with errors drawn into {asked['pictures']}")
    if asked["report"] is not None:
        from patchword.reports.box_evaluation import write_box_page

        write_box_page(found, Path(asked["report"]))
        say(f"report: {asked['report']}")


def _print(found: "BoxEvaluation", why: str) -> None:
    console, scores = make_console(), found.scores
    heading = line(found.weights, "bold")
    heading.append_text(line(f" on {found.data}, split {found.split}", "not bold"))
    console.print(heading)
    for text in (why, found.matched):
        if text:
            console.print(line(text, "dim"))
    if found.trained_on is not None and found.trained_on.images:
        console.print(line(found.trained_on.text, "yellow"))
    console.print()
    ap = line(f"AP    {_share(scores.ap)}", "bold")
    ap.append_text(
        line("   mean over overlaps of 0.50 to 0.95, without a threshold of the scores", "not bold")
    )
    console.print(ap)
    console.print(f"AP50  {_share(scores.ap50)}\nAP75  {_share(scores.ap75)}")
    recalls = "   ".join(f"{_share(one.value)} with {one.detections}" for one in scores.ar)
    console.print(f"AR    {recalls} detections of each image and class")
    for size in scores.sizes:
        console.print(
            f"{size.name:<8} AP {_share(size.ap)}   AR {_share(size.ar)}   {plural(size.truths, 'box', 'boxes')}"
        )
    of = "" if found.scored == found.images else f" of {found.images}"
    images = plural(found.scored, "image") if not of else f"{found.scored}{of} images"
    console.print(
        f"scored {scores.detections:,} detections in {images} with {plural(scores.truths, 'box', 'boxes')}"
    )
    if found.foreign:
        console.print(f"not scored: {found.foreign:,} detections of classes that the data do not have")
    console.print()
    _print_classes(console, found)
    _print_errors(console, found)


def _share(value: float | None) -> str:
    return "–" if value is None else percent(value)


def _print_classes(console: "Console", found: "BoxEvaluation") -> None:
    """Lowest AP first; classes without a box are not listed."""
    from rich.table import Table

    there = sorted((c for c in found.scores.classes if c.truths), key=lambda c: (c.ap or 0.0, c.name))
    table = Table(box=None, pad_edge=False)
    table.add_column("class")
    for title in ("boxes", "AP", "AP50", "AP75", "AR", "best F1", "at score"):
        table.add_column(title, justify="right")
    for one in there[:_MOST_CLASSES]:
        best = ("–", "–") if one.best is None else (percent(one.best.f1), f"{one.best.score:.2f}")
        shares = map(_share, (one.ap, one.ap50, one.ap75, one.ar))
        table.add_row(line(one.name), str(one.truths), *shares, *best)
    console.print(table)
    if len(there) > _MOST_CLASSES:
        console.print(f"and {len(there) - _MOST_CLASSES} classes with a higher AP: --json lists all")


def _print_errors(console: "Console", found: "BoxEvaluation") -> None:
    from rich.table import Table

    from patchword.reports.detection import MEANINGS

    scores = found.scores
    if scores.ap is None:
        return
    score = f"from a score of {scores.best.score:.2f} on" if scores.best is not None else "of all scores"
    console.print(f"\nerrors {score}, and what AP50 would gain without them")
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column("error")
    table.add_column("shown", justify="right")
    table.add_column("gain", justify="right")
    table.add_column("meaning", style="dim")
    for one in sorted(scores.errors, key=lambda e: -(e.dap or 0.0)):
        table.add_row(one.name, f"{one.shown:,}", _share(one.dap), MEANINGS[one.name])
    console.print(table)
