"""`patchword inspect`: describe a checkpoint and how it would load, from names and shapes alone."""

from typing import Any

import click

from patchword.cli.console import line, make_console, say
from patchword.cli.model_options import (
    decoder_options,
    detector_options,
    given_detector_options,
    model_options,
)
from patchword.cli.options import offline_option
from patchword.settings import to_json


@click.command()
@click.argument("model")
@model_options
@decoder_options
@detector_options
@offline_option
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
def inspect(model: str, offline: bool, as_json: bool) -> None:
    """Describe a checkpoint and how it would load, without reading any tensor.

    \b
    MODEL   a weights file (.safetensors, .pth, .bin, .pt, .npz) or folder in any
            supported format, a run folder, hf://org/name[@revision], or a
            published name

    Shows each fact with its source, and each tensor that would be dropped with the reason.
    """
    from patchword.inference.inspect import inspected

    found = inspected(model, given_detector_options(), offline=offline)
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
