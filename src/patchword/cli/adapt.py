"""`patchword adapt`: change a model's image size, patch size, channels or classes."""

from pathlib import Path
from typing import Any

import click

from patchword.cli.console import line, make_console, say
from patchword.cli.model_options import class_names, decoder_options, given_options, model_options, size
from patchword.cli.options import offline_option
from patchword.errors import SettingsError, plural


@click.command()
@click.argument("model")
@click.option("--out", required=True, metavar="FILE", help="New weights file, .safetensors.")
@click.option("--to-image-size", metavar="SIZE", help="Pixels per side, or HEIGHTxWIDTH.")
@click.option("--to-patch-size", metavar="SIZE", help="Pixels per side, or HEIGHTxWIDTH.")
@click.option("--to-channels", type=click.IntRange(1), metavar="N", help="Number of image channels.")
@click.option(
    "--how",
    type=click.Choice(("inflate", "average", "map")),
    default="inflate",
    show_default=True,
    help="Repeat old channels cyclically, use their mean, or use --map.",
)
@click.option("--map", "source", metavar="I,J,…", help="Old channel (from 0) for each new channel.")
@click.option(
    "--to-classes", metavar="A,B,…", help="New class names; rows of classes in both lists are kept."
)
@click.option(
    "--to-classes-from",
    metavar="PATH",
    help="Text file with one name per line, or a folder of class folders.",
)
@model_options
@decoder_options
@offline_option
def adapt(
    model: str,
    out: str,
    to_image_size: str | None,
    to_patch_size: str | None,
    to_channels: int | None,
    how: Any,
    source: str | None,
    to_classes: str | None,
    to_classes_from: str | None,
    offline: bool,
) -> None:
    """Change a model's image size, patch size, channels or classes.

    \b
    patchword adapt B_16.npz --to-image-size 384 --out b16-384.safetensors
    patchword adapt runs/rgb --to-channels 4 --out four.safetensors
    patchword adapt runs/ab --to-classes rose,tulip --out new.safetensors

    Lists what was done to each tensor. Positions and patch kernels are resampled by the rule of the
    weights' own family. New tensors are listed; the model refuses to predict with them until trained.
    """
    from patchword import machine

    machine.start_sampling()
    from patchword.inference.adapt_file import adapt_file
    from patchword.weights.adapt import Wanted

    if to_classes is not None and to_classes_from is not None:
        raise SettingsError("--to-classes and --to-classes-from exclude each other", "give only one of them")
    names = tuple(name.strip() for name in to_classes.split(",")) if to_classes is not None else None
    wanted = Wanted(
        image_size=size("--to-image-size", to_image_size) if to_image_size is not None else None,
        patch_size=size("--to-patch-size", to_patch_size) if to_patch_size is not None else None,
        channels=to_channels,
        how=how,
        source=_numbers(source),
        classes=names if to_classes_from is None else _classes_from(to_classes_from),
    )
    done = adapt_file(model, wanted, Path(out), options=given_options(), offline=offline)
    _print(done, out)


def _numbers(text: str | None) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(",")) if text is not None else ()
    except ValueError as error:
        raise SettingsError(f"--map is {text!r}", "give channel numbers from 0, e.g. 2,1,0") from error


def _classes_from(path: str) -> tuple[str, ...]:
    place = Path(path)
    if not place.is_dir():
        return class_names("--to-classes-from", path)
    names = tuple(sorted(p.name for p in place.iterdir() if p.is_dir() and not p.name.startswith(".")))
    if not names:
        raise SettingsError(
            f"{path} contains no class folders", "give a folder with one folder per class, or a text file"
        )
    return names


def _print(done: Any, out: str) -> None:
    from rich import box
    from rich.table import Table

    console = make_console()
    table = Table(box=box.SIMPLE_HEAD if console.is_terminal else None, pad_edge=False)
    for title in ("tensor", "from", "to", "how"):
        table.add_column(title, overflow="fold", no_wrap=title == "tensor")
    for change in done.changes:
        table.add_row(*map(line, (change.part, change.before, change.after, change.how)))
    if done.changes:
        console.print(table)
    say(
        f"{plural(len(done.changes), 'tensor')} changed, {done.kept} unchanged; written to {out}",
        err=False,
    )
    for note in done.notes:
        say(f"note: {note}")
