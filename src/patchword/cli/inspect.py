"""`patchword inspect`: what a checkpoint is and what loading it would do, from names and shapes alone."""

from typing import Any

import click

from patchword.cli.console import line, make_console, say
from patchword.cli.model_options import model_options, said
from patchword.cli.options import offline_option
from patchword.settings import to_json


@click.command()
@click.argument("model")
@model_options
@offline_option
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
def inspect(model: str, offline: bool, as_json: bool) -> None:
    """Say what a checkpoint is, and what loading it would do.

    \b
    MODEL   a weights file (.safetensors, .pth, .bin, .pt, .npz) or folder in any layout, a run folder,
            hf://org/name[@revision], the name of a published release

    No tensor is read. Every fact is shown with the place it comes from, every tensor that would be
    left out with the reason.
    """
    from patchword.inference.inspect import inspected

    found = inspected(model, said(), offline=offline)
    if as_json:
        click.echo(to_json(found.to_dict(), indent=2))
        return
    _print(found)


def _print(found: Any) -> None:
    from rich.padding import Padding
    from rich.table import Table

    console = make_console()
    say(found.title, err=False)
    for heading, rows in found.sections():
        if not rows:
            continue
        click.echo(f"\n{heading}")
        table = Table(box=None, show_header=False, pad_edge=False)
        table.add_column(no_wrap=True, min_width=16)
        table.add_column(overflow="fold")
        if any(len(row) > 2 for row in rows):
            table.add_column(style="dim", overflow="fold")
        for row in rows:
            table.add_row(*map(line, row))
        console.print(Padding(table, (0, 0, 0, 2), expand=False))
