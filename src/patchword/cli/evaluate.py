"""`patchword evaluate`: how right a model is on labelled images."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from patchword import machine
from patchword.cli.console import make_console
from patchword.cli.loading import tell
from patchword.cli.model_options import model_options, said
from patchword.cli.options import data_options, offline_option, open_request
from patchword.cli.progress import counting
from patchword.settings import to_json

if TYPE_CHECKING:
    from patchword.inference.evaluate import Evaluation


@click.command()
@click.argument("model")
@click.argument("data")
@click.option("--split", help="train, val, test or all. [val, else test, else all that is there]")
@click.option(
    "--include-trained",
    is_flag=True,
    help="Score images that MODEL was trained on too (they are left out otherwise).",
)
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
@click.option("--output", metavar="FILE", help="Also write the JSON to FILE.")
@click.option(
    "--batch-size", type=click.IntRange(1), help="Images computed together. [chosen for the machine]"
)
@click.option("--device", help="cpu, cuda, cuda:1, mps. [a GPU where there is one]")
@offline_option
@model_options
@data_options
def evaluate(
    model: str,
    data: str,
    split: str | None,
    include_trained: bool,
    as_json: bool,
    output: str | None,
    batch_size: int | None,
    device: str | None,
    offline: bool,
    image_column: str | None,
    label_column: str | None,
    split_column: str | None,
    ignore_unknown_classes: bool,
    max_pixels: int,
) -> None:
    """Score MODEL on DATA: top-1 with its 95 % interval, top-5, loss, and every class.

    \b
    MODEL  a run folder, a weights file, hf://org/name[@revision], or a published name
    DATA   digits, a folder or .zip of class folders, or a table (CSV, JSONL, Parquet)

    Classes are matched by name. Images that MODEL was trained on are left out. Images that cannot be read are listed and not scored; the exit
    code is then 3.
    """
    machine.watch()
    machine.tune_allocator()
    from patchword.inference.load import load

    loaded = load(model, device=device, options=said(), offline=offline)
    tell(loaded.report)
    from patchword.inference.evaluate import EvaluationRequest, open_for
    from patchword.inference.evaluate import evaluate as score
    from patchword.inference.predict import raise_failures

    opening = open_request(image_column, label_column, split_column, ignore_unknown_classes, max_pixels)
    dataset = open_for(loaded, data, opening)
    with counting("scoring images", quiet=as_json) as progress:
        request = EvaluationRequest(
            split=split,
            include_trained=include_trained,
            batch_size=batch_size,
            ignore_unknown_classes=ignore_unknown_classes,
            progress=progress,
        )
        found = score(loaded, dataset, request)
    text = to_json(found.to_dict(), indent=1)
    if output is not None:
        from patchword.cli.writers import whole_file

        with whole_file(Path(output), text=True) as file:
            file.write(text + "\n")
    if as_json:
        click.echo(text)
    else:
        _print(found, loaded.report.why)
    for note in found.notes:
        click.echo(f"note: {note}", err=True)
    if found.notice:
        click.echo(f"warning: {found.notice}", err=True)
    reasons = [f"{u['name']}: {u['reason']}" for u in found.unreadable]
    raise_failures(len(reasons), found.images, reasons[:3])


def _print(found: "Evaluation", why: str) -> None:
    from rich.markup import escape
    from rich.table import Table

    console = make_console()
    low, high = found.top1_interval
    of = "" if found.scored == found.images else f" of {found.images}"
    console.print(f"[bold]{escape(found.weights)}[/bold] on {escape(found.data)}, split {found.split}")
    if why:
        console.print(f"[dim]{escape(why)}[/dim]")
    if found.trained_on is not None and found.trained_on.images:
        console.print(f"[yellow]{found.trained_on.text}[/yellow]")
    console.print(f"\n[bold]top-1  {found.top1:.1%}[/bold]   95 % interval {low:.1%} to {high:.1%}")
    if found.top5 is not None:
        console.print(f"top-5  {found.top5:.1%}")
    console.print(f"loss   {found.loss:.4f}\nscored {found.scored}{of} images\n")
    table = Table(box=None, pad_edge=False)
    table.add_column("class")
    for heading in ("images", "precision", "recall", "F1", "taken for"):
        table.add_column(heading, justify="left" if heading == "taken for" else "right")
    for index, (name, c) in enumerate(zip(found.class_names, found.classes, strict=True)):
        if not c.images and c.precision is None:
            continue
        taken = _taken_for(found.confusion[index], index, found.class_names)
        table.add_row(
            escape(name), str(c.images), *(_share(x) for x in (c.precision, c.recall, c.f1)), escape(taken)
        )
    console.print(table)


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.1%}"


def _taken_for(row: list[int], index: int, names: tuple[str, ...]) -> str:
    """The class that this one is most often mistaken for."""
    others = [(count, -j) for j, count in enumerate(row) if j != index and count]
    if not others:
        return ""
    count, j = max(others)
    return f"{names[-j]} {count}×"
