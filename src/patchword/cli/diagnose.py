"""`patchword diagnose`: run probes on someone's own Vision Transformer."""

import textwrap
from typing import TYPE_CHECKING

import click

from patchword.cli.model_options import size
from patchword.errors import one_line, plural
from patchword.settings import to_json

if TYPE_CHECKING:
    from patchword.diagnosis.findings import Diagnosis, Finding

_WIDTH = 80
_COLOURS = {"mistake": "red", "departure": "yellow", "note": "cyan"}
_OUTSIDE = (
    "Not tested, because it is outside the model: the learning rate (0.001 or less with Adam), the same mean and "
    "deviation for training and test images, shuffled data, model.train() and model.eval(), and zero_grad()."
)


@click.command()
@click.argument("file", metavar="FILE.py[:NAME]")
@click.option(
    "--image-size", metavar="N[xM]", help="Pixels per side, or HEIGHTxWIDTH. [default: found by trying]"
)
@click.option(
    "--channels", type=click.IntRange(min=1), help="Channels of an image. [default: found by trying]"
)
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
def diagnose(file: str, image_size: str | None, channels: int | None, as_json: bool) -> None:
    """Find mistakes in your own Vision Transformer.

    \b
    FILE.py   defines the model: a class or function that builds it without arguments,
              or the model itself. NAME chooses one if there are several.

    The file is run, but its source is never read: thirteen probes run the model on noise images. Each finding says what
    was done, what came out, what was expected, where, and how to fix it. A mistake breaks what every ViT keeps; a
    departure differs from the plain ViT; a note may be intended. Exits with 0 whatever is found.

    \b
    patchword diagnose my_vit.py
    patchword diagnose my_vit.py:ViT --image-size 28 --channels 1
    """
    from patchword.diagnosis.run import diagnose_model
    from patchword.diagnosis.student import load_student, split_target

    sides = None if image_size is None else size("--image-size", image_size)
    path, name = split_target(file)
    click.echo(one_line(f"running {path} once, then building and running its model many times"), err=True)
    build, title = load_student(path, name, size=sides, channels=channels)
    found = diagnose_model(build, title, size=sides, channels=channels)
    if as_json:
        click.echo(to_json(found.to_dict(), indent=2))
    else:
        _print(found)


def _print(found: "Diagnosis") -> None:
    rows, columns = found.image_size
    images = f"{plural(found.channels, 'channel')} of {rows} x {columns} pixels"
    _wrapped(f"{found.model}: {images}, {plural(found.outputs, 'output')}, {found.dtype}")
    _wrapped(found.parameters)
    if found.compared:
        _wrapped(found.compared)
    for finding in found.findings:
        click.echo()
        _show(finding)
    if found.skipped:
        click.echo()
        for skipped in found.skipped:
            _wrapped(f"skipped: {skipped}", "  ")
    click.echo()
    counts = [plural(len(found.of("mistake")), "mistake"), plural(len(found.of("departure")), "departure")]
    _wrapped(f"{', '.join(counts)}, {plural(len(found.of('note')), 'note')}")
    _wrapped(_OUTSIDE)


def _show(finding: "Finding") -> None:
    head = f"{finding.level}: {finding.title}"
    for number, text in enumerate(textwrap.wrap(one_line(head), _WIDTH, subsequent_indent="  ")):
        click.secho(text, fg=_COLOURS[finding.level], bold=number == 0)
    rows = {
        "where": finding.module or "the complete model",
        "probe": finding.probe,
        "did": finding.did,
        "got": finding.got,
        "expected": finding.expected,
        "fix": finding.cure,
        "learn": finding.learn,
    }
    for name, value in rows.items():
        _wrapped(f"  {name + ':':<10}{value}", " " * 12)


def _wrapped(text: str, indent: str = "") -> None:
    for part in textwrap.wrap(one_line(text), _WIDTH, subsequent_indent=indent, break_on_hyphens=False) or [
        ""
    ]:
        click.echo(part)
