"""`patchword embed`: write image embeddings to one file."""

from pathlib import Path
from typing import Any

import click

from patchword import machine
from patchword.cli.console import say
from patchword.cli.given_images import Images
from patchword.cli.loading import report_loading
from patchword.cli.model_options import given_options, model_options
from patchword.cli.options import device_option, given_reading, image_set_options, offline_option
from patchword.errors import plural


@click.command()
@click.argument("model")
@click.argument("files", nargs=-1, required=True)
@click.option(
    "--out",
    "--output",
    "output",
    required=True,
    metavar="FILE",
    help="Output file: .npy (with files of names and settings next to it) or .parquet.",
)
@click.option(
    "--part",
    type=click.Choice(("pooled", "class", "registers", "grid", "mean", "tokens")),
    default="pooled",
    show_default=True,
    help="Head input (pooled, recommended), class token, registers, grid of patches, their mean, or all tokens.",
)
@click.option(
    "--layer",
    type=int,
    metavar="N",
    help="Block whose tokens are read, from 0; -1 is the last. [default: the last]",
)
@click.option(
    "--norm/--no-norm", default=None, help="Apply the final norm. [default: applied, if the model has one]"
)
@click.option(
    "--batch-size", type=click.IntRange(1), help="Images per batch. [default: chosen for the machine]"
)
@device_option
@offline_option
@model_options
@image_set_options
def embed(
    model: str,
    files: tuple[str, ...],
    output: str,
    part: Any,
    layer: int | None,
    norm: bool | None,
    batch_size: int | None,
    device: str | None,
    offline: bool,
    value_range: tuple[float, float] | None,
) -> None:
    """Compute an embedding for each image.

    \b
    MODEL   a run folder, weights file, hf://org/name[@revision] or published name
    FILES…  images, folders, zips, tables (CSV, TSV, JSONL, Parquet), patterns,
            lists of paths (.txt); - reads paths or one image from standard input

    \b
    patchword embed runs/flowers garden/ flowers.zip --out vectors.npy

    Row i of FILE.npy belongs to line i of FILE.names.txt, and FILE.card.json says how the vectors were
    made; a Parquet file has the columns file and vector, and the same card. `patchword search` finds
    the nearest images in either. All patches are computed, none is masked. Unreadable images get no row and are listed; the exit code is then 3.
    """
    machine.start_sampling()
    given = Images(files, given_reading())
    machine.tune_allocator()
    from patchword.cli.writers import Progress
    from patchword.inference.embed import check_output, embed_to
    from patchword.inference.load import load

    check_output(Path(output), part)
    loaded = load(model, device=device, options=given_options(), offline=offline)
    report_loading(loaded.report)
    sources = given.known_to(loaded)
    progress = Progress(given.total)
    done = embed_to(
        loaded,
        sources,
        Path(output),
        part=part,
        layer=layer,
        norm=norm,
        weights=model,
        files=files,
        value_range=value_range,
        batch_size=batch_size,
        max_pixels=given.reading.opening.max_pixels,
        progress=lambda _: progress.step(),
    )
    progress.close()
    say(f"{plural(done.count - done.failed, 'vector')} in {output}")
    if done.same.notice:
        say(f"warning: {done.same.notice}")
    done.check()
