"""`patchword explain --redundancy`: how much images repeat themselves."""

from pathlib import Path
from typing import Any

import click

from patchword.cli.console import say
from patchword.cli.given_images import Images
from patchword.cli.model_options import given_options
from patchword.cli.options import given_reading
from patchword.cli.progress import counting
from patchword.settings import to_json


def explain_redundancy(
    files: tuple[str, ...],
    out: Path | None,
    as_json: bool,
    count: int,
    seed: int,
    value_range: tuple[float, float] | None,
) -> None:
    from patchword.explaining.drawing.redundancy import (
        redundancy_notes,
        redundancy_tables,
        redundancy_title,
        write_redundancy,
    )
    from patchword.explaining.redundancy import redundancy
    from patchword.explaining.sample import as_named, read_sample, square
    from patchword.inference.failures import Failures

    options = given_options()
    patch = square(options.patch_size, "--patch-size") or 16
    size = square(options.image_size, "--image-size")
    given = Images(files, given_reading())
    failures = Failures()
    with counting("reading images", quiet=as_json) as progress:
        sample = read_sample(
            [as_named(item) for item in given.known_to(None)],
            count=count,
            patch=patch,
            size=size,
            seed=seed,
            value_range=value_range,
            max_pixels=given.reading.opening.max_pixels,
            failures=failures,
            progress=progress,
        )
    found = redundancy(sample.images, patch, seed)
    title = redundancy_title(found, sample, files, seed)
    if as_json:
        click.echo(to_json({**found.numbers(), "seed": seed, "files": list(sample.names)}, indent=2))
    else:
        say(title[1], err=False)
        for table in redundancy_tables(found):
            _print_table(table)
        click.echo()
        for note in redundancy_notes(found, sample):
            click.echo(click.wrap_text(note, 80))
    if out is not None:
        write_redundancy(found, sample, title, out)
        say(f"drawn: {out}")
    failures.check(failures.count + len(sample.names), "used")


def _print_table(table: dict[str, Any]) -> None:
    """A table of at most 80 columns: 24 for the name, 8 for each number."""
    click.echo(f"\n{table['title']}")
    if table["groups"]:
        width = 8 * len(table["headings"]) // len(table["groups"])
        click.echo(" " * 24 + "".join(f"{name:>{width}}" for name in table["groups"]))
    click.echo(" " * 24 + "".join(f"{heading:>8}" for heading in table["headings"]))
    for name, values in table["rows"]:
        click.echo(f"{name:<24}" + "".join(f"{value:>8}" for value in values))
