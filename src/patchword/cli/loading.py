"""What a command says of the model it loaded, before it answers through it."""

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from patchword.checkpoints.report import LoadReport


def tell(report: "LoadReport") -> None:
    """On standard error: the format of a file that another program wrote, and whatever is doubtful in it."""
    if report.layout == "patchword":
        for note in report.notes:
            click.echo(f"warning: {note}", err=True)
        return
    dropped = sum(len(part.names) for part in report.dropped)
    left = f", {dropped} tensor{'' if dropped == 1 else 's'} dropped" if dropped else ""
    click.echo(f"read as {report.layout} ({report.filled:.0%} of the backbone{left})", err=True)
    if report.new:
        shown = ", ".join(report.new[:3]) + (", …" if len(report.new) > 3 else "")
        click.echo(f"warning: drawn at random, for no file holds it: {shown}", err=True)
    for text in report.resampled:
        click.echo(f"resampled: {text}", err=True)
    for note in report.notes:
        click.echo(f"note: {note}", err=True)
