"""`patchword explain` of a classifier or backbone: maps of what its answers rest on."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from patchword.cli.console import say
from patchword.cli.explain_options import given_method_settings, given_methods, given_score_settings
from patchword.cli.given_images import Images
from patchword.cli.loading import report_loading
from patchword.cli.model_options import given_options
from patchword.cli.progress import counting
from patchword.errors import plural
from patchword.settings import to_json

if TYPE_CHECKING:
    from patchword.explaining.explanation import Explanation


def explain_maps(
    model: str,
    given: Images,
    *,
    out: Path | None,
    as_json: bool,
    seed: int,
    count: int | None,
    device: str | None,
    offline: bool,
    value_range: tuple[float, float] | None,
) -> None:
    """Load the model, explain, print and draw. Raises: PatchwordError."""
    settings, (names, class_name) = given_method_settings(), given_methods()
    from patchword.explaining.drawing.maps import map_sheet
    from patchword.explaining.drawing.reconstruction import check_number, write_sheet
    from patchword.explaining.explanation import explain_images
    from patchword.explaining.sample import as_named, chosen
    from patchword.inference.failures import Failures
    from patchword.inference.load import load

    loaded = load(model, device=device, options=given_options(), offline=offline)
    report_loading(loaded.report)
    sources = [as_named(item) for item in chosen(given.known_to(loaded), count, seed)]
    if out is not None:
        check_number(len(sources))
    failures = Failures()
    with counting("explaining", quiet=as_json) as progress:
        found = explain_images(
            loaded,
            sources,
            methods=names,
            class_name=class_name,
            settings=settings,
            scores=given_score_settings(len(sources), seed),
            value_range=value_range,
            max_pixels=given.reading.opening.max_pixels,
            with_pixels=out is not None,
            failures=failures,
            progress=progress,
        )
    if as_json:
        click.echo(to_json({"model": str(loaded.report.path), **found.numbers()}, indent=2))
    elif found.images:
        _print(found)
    if out is not None and found.images:
        write_sheet(map_sheet(found, Path(model).name), out)
        say(f"{plural(len(found.images), 'image')} drawn: {out}")
    failures.check(len(sources), "explained")


def _print(found: "Explanation") -> None:
    """Tables of 80 columns, and notes."""
    from patchword.explaining.drawing.maps import doubtful, explanation_notes, faithfulness_table, image_words

    for image in found.images:
        say(f"{image.name}: {image_words(image)}", err=False)
    table = faithfulness_table(found)
    for line in table:
        click.echo(line)
    click.echo()
    for note in (*doubtful(found), *explanation_notes(found)):
        click.echo(click.wrap_text(note, 80))
