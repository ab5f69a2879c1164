"""`patchword predict`: names and probabilities for images."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from patchword import machine
from patchword.cli.console import say
from patchword.cli.loading import tell
from patchword.cli.model_options import model_options, said
from patchword.cli.options import device_option, max_pixels_option, offline_option

if TYPE_CHECKING:
    from patchword.cli.writers import Writer


@click.command()
@click.argument("model")
@click.argument("files", nargs=-1, required=True)
@click.option(
    "--top", type=click.IntRange(1), default=5, show_default=True, help="Classes named for each image."
)
@click.option("--json", "kind", flag_value="json", help="Print one JSON array.")
@click.option("--jsonl", "kind", flag_value="jsonl", help="Print a JSON object a line, as they come.")
@click.option("--csv", "kind", flag_value="csv", help="Print CSV with a header.")
@click.option(
    "--out",
    "--output",
    "output",
    metavar="FILE",
    help="Write to FILE: .txt, .json, .jsonl, .csv or .parquet.",
)
@click.option(
    "--batch-size", type=click.IntRange(1), help="Images computed together. [chosen for the machine]"
)
@device_option
@offline_option
@model_options
@max_pixels_option
def predict(
    model: str,
    files: tuple[str, ...],
    top: int,
    kind: str | None,
    output: str | None,
    batch_size: int | None,
    device: str | None,
    offline: bool,
    max_pixels: int,
) -> None:
    """Name what is in images.

    \b
    MODEL   a run folder, a weights file, hf://org/name[@revision], or a published name
    FILES…  images, folders, patterns; - reads paths, or one image, from standard input

    A file that cannot be read gets a row that says why; the exit code is then 3.
    """
    machine.watch()
    sources, total, width = given_sources(files)
    kind = _kind(kind, output)

    machine.tune_allocator()
    from patchword.inference.load import load

    loaded = load(model, device=device, options=said(), offline=offline)
    tell(loaded.report)
    loaded.check_can_predict()
    from patchword.cli.writers import Progress
    from patchword.inference.predict import Predictions

    found = Predictions(loaded, sources, batch_size=batch_size, max_pixels=max_pixels)
    progress = Progress(total, quiet=output is None and sys.stdout.isatty())
    with _writer(kind, output, min(top, len(loaded.classes)), width) as writer:
        for prediction in found:
            writer.add(prediction)
            progress.step()
    progress.close()
    if loaded.report.why:
        say(f"model: {loaded.report.path} ({loaded.report.why})")
    if found.notice:
        say(f"warning: {found.notice}")
    found.check()


def given_sources(files: tuple[str, ...]) -> tuple[Any, int | None, int]:
    """The sources, how many there are if that is known, and the width of the longest name."""
    from patchword.inference.sources import STDIN, expand, from_stream

    if files != (STDIN,):
        found = expand(files)
        return found, len(found), max(map(len, found))
    given = from_stream(sys.stdin.buffer)  # type: ignore[arg-type]
    if isinstance(given, bytes):
        return [given], 1, len("image")
    return given, None, 40


def _kind(kind: str | None, output: str | None) -> str:
    from patchword.errors import SettingsError

    if output is None:
        return kind or "txt"
    from patchword.cli.writers import format_of

    if kind is not None and kind != format_of(output):
        raise SettingsError(f"--{kind} and --out {output} ask for different formats", f"leave out --{kind}")
    return format_of(output)


@contextmanager
def _writer(kind: str, output: str | None, top: int, width: int) -> "Iterator[Writer]":
    from patchword.cli.writers import make_writer, whole_file

    if output is None:
        writer = make_writer(kind, sys.stdout, top, width)
        yield writer
        writer.close()
        return
    with whole_file(Path(output), text=kind != "parquet") as stream:
        writer = make_writer(kind, stream, top, width)
        yield writer
        writer.close()
