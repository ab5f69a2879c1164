"""`patchword convert`: convert a model between formats and verify the result."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from patchword.cli.console import say
from patchword.cli.model_options import (
    decoder_options,
    detector_options,
    given_detector_options,
    model_options,
)
from patchword.cli.options import offline_option
from patchword.settings import to_json

if TYPE_CHECKING:
    from patchword.inference.conversion import Conversion


@click.command()
@click.argument("model")
@click.option("--to", required=True, metavar="FORMAT", help="Format to write; `--to help` lists them.")
@click.option("--out", metavar="PATH", help="New file, or new folder if the format has several files.")
@click.option(
    "--accept",
    multiple=True,
    metavar="FIELD",
    help="Allow readers of the format to use a different value for this field, e.g. norm.eps.",
)
@model_options
@decoder_options
@detector_options
@offline_option
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def convert(
    model: str, to: str, out: str | None, accept: tuple[str, ...], offline: bool, as_json: bool
) -> None:
    """Convert MODEL to another format and verify that its outputs stay the same.

    \b
    MODEL   a weights file or folder in any supported format, or a run folder

    \b
    patchword convert B_16.npz --to timm --out b16/
    patchword convert runs/flowers --to timm --out for-hub/

    The written files are read back, one image is run through both models, and the largest
    difference is printed. Facts that the format cannot store are refused by name.
    """
    from patchword import machine
    from patchword.errors import SettingsError
    from patchword.formats.layouts import LAYOUTS

    if to == "help":
        from patchword.inference.convert_detector import detector_formats

        for name, title in sorted((layout.name, layout.title) for layout in LAYOUTS):
            click.echo(f"{name:<30}{title}")
        for name, title in detector_formats():
            click.echo(f"{name:<30}{title}, a detector")
        click.echo(f"{'patchword':<30}one file with config, preprocessing and classes")
        return
    if out is None:
        raise SettingsError("--out is missing", "give the file or folder to write: --out PATH")
    machine.start_sampling()
    from patchword.inference.convert import convert as run

    done = run(model, to, Path(out), options=given_detector_options(), accept=accept, offline=offline)
    if as_json:
        click.echo(to_json(to_dict(done), indent=2))
    else:
        _print(done)


def to_dict(done: "Conversion") -> dict[str, object]:
    return {
        "path": str(done.path),
        "layout": done.layout,
        "files": [str(file) for file in done.files],
        "difference": done.difference,
        "compared": done.compared,
        "readers_must_be_told": {k: str(v) if isinstance(v, Path) else v for k, v in done.told.items()},
        "changed": [{"field": f, "ours": repr(a), "theirs": repr(b)} for f, a, b in done.changed],
        "prepared": [{"field": f, "ours": repr(a), "theirs": repr(b)} for f, a, b in done.prepared],
        "rewritten_for": [{"field": f, "ours": repr(a), "theirs": repr(b)} for f, a, b in done.rewritten_for],
        "class_names": None if done.names is None else str(done.names),
        "elsewhere": [{"table": t, "ours": a, "theirs": b} for t, a, b in done.elsewhere],
        "notes": list(done.notes),
        "reader": None if done.reader is None else asdict(done.reader),
        "dropped": [{"reason": reason, "tensors": count} for reason, count in done.dropped],
    }


def _print(done: "Conversion") -> None:
    say(f"{done.path}: {done.layout}", err=False)
    for file in done.files:
        say(f"  wrote      {file}", err=False)
    for note in done.notes:
        say(f"  note       {note}", err=False)
    for reason, count in done.dropped:
        say(f"  dropped    {count} tensor{'' if count == 1 else 's'}: {reason}", err=False)
    for field, ours, theirs in done.changed:
        say(f"  accepted   {field}: was {ours!r}, readers of this format use {theirs!r}", err=False)
    for field, ours, theirs in done.prepared:
        say(f"  images     {field}: was {ours!r}, readers of this format use {theirs!r}", err=False)
    for table, ours, theirs in done.elsewhere:
        say(f"  elsewhere  at another size, {table} are resampled by {theirs} instead of {ours}", err=False)
    for field, ours, theirs in done.rewritten_for:
        say(f"  rewritten  {field} = {theirs!r}, was {ours!r}: same outputs", err=False)
    for name, value in done.told.items():
        say(f"  specify    {name} = {value}: this format cannot store it", err=False)
    if done.names is not None:
        say(f"  specify    class_names = {done.names}: this format cannot store them", err=False)
    say(f"  compared   {done.compared}: largest difference {done.difference:.2g}", err=False)
    if done.reader is not None:
        reader = done.reader
        say(f"  opened     {reader.reader}: largest difference {reader.difference:.2g}", err=False)
