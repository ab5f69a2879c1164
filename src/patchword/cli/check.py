"""`patchword check`: check a data set and list its problems."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from patchword import machine
from patchword.cli.options import data_options, open_request, val_option, value_range_option
from patchword.cli.progress import counting
from patchword.errors import SettingsError
from patchword.settings import to_json

if TYPE_CHECKING:
    from patchword.data.check import CheckReport
    from patchword.training.overlay import Overlay


def _named_png(ctx: click.Context, param: click.Parameter, given: str | None) -> str | None:
    """Refuse DATA that was taken for the file, before DATA is reported missing."""
    if given:
        from patchword.reports.views import check_name

        check_name(Path(given))
    return given


@click.command()
@click.argument("data")
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
@click.option("--all", "every", is_flag=True, help="Check every image, also beyond 50,000.")
@click.option(
    "--augment",
    metavar="[FILE.png]",
    is_flag=False,
    flag_value="",
    callback=_named_png,
    help="Draw sixteen training views. [default: DATA-views.png]",
)
@click.option(
    "--near-duplicates", "near", is_flag=True, help="Also find nearly equal images, within and across splits."
)
@click.option("--recipe", metavar="NAME", help="Recipe of the views, as in train.")
@click.option(
    "--weights",
    metavar="NAME",
    help="Weights that training would start from, or that compare near duplicates.",
)
@click.option("--config", metavar="FILE", help="TOML file of settings for the views.")
@click.option(
    "-o", "overrides", metavar="A.B=C", multiple=True, help="Set any setting of the views; repeatable."
)
@val_option
@data_options
@value_range_option
@click.pass_context
def check(
    ctx: click.Context,
    data: str,
    as_json: bool,
    every: bool,
    augment: str | None,
    near: bool,
    recipe: str | None,
    weights: str | None,
    config: str | None,
    overrides: tuple[str, ...],
    val: str | None,
    image_column: str | None,
    label_column: str | None,
    class_level: int | None,
    split_column: str | None,
    group_column: str | None,
    ignore_unknown_classes: bool,
    max_pixels: int,
    value_range: tuple[float, float] | None,
) -> None:
    """Check DATA and list its problems, without changing anything.

    DATA: `digits`, a folder or .zip of class folders, or a table (CSV, JSONL, Parquet).
    Decodes every image; of more than 50,000, a random sample of that number unless --all is given.
    Exits with 2 if training would be meaningless.

    --near-duplicates finds copies that were compressed again, resized or cropped a little, by grey
    thumbnails, or with --weights by the embeddings of that model.

    \b
    patchword check flowers/ --augment                       what train would see
    patchword check flowers/ --augment a.png --recipe deit   with other settings
    """
    from patchword.data.check import check_data
    from patchword.data.open import open_data

    overlay = _overlay(augment, recipe, weights, config, overrides, value_range, near=near)
    picture = None if augment is None else _picture(augment, data)
    opening = open_request(
        image_column,
        label_column,
        split_column=split_column,
        class_level=class_level,
        group_column=group_column,
        ignore_unknown_classes=ignore_unknown_classes,
        max_pixels=max_pixels,
        val=val,
    )
    opening = replace(opening, split_seed=overlay.get("run.split_seed") or 0)
    dataset, workers = open_data(data, opening), machine.granted_threads()
    with counting("checking images", quiet=as_json) as progress:
        report = check_data(
            dataset, workers=workers, value_range=value_range, progress=progress, every=every, thumbs=near
        )
    if near:
        report = _with_near(report, weights, value_range, quiet=as_json)
    _print(report, as_json)
    if picture is not None and not report.fatal:
        _draw(report, overlay, picture)
    ctx.exit(2 if report.fatal else 0)


def _overlay(
    augment: str | None,
    recipe: str | None,
    weights: str | None,
    config: str | None,
    overrides: tuple[str, ...],
    value_range: tuple[float, float] | None,
    *,
    near: bool,
) -> "Overlay":
    """Raises: SettingsError for settings of the views without --augment; --weights also serves --near-duplicates."""
    from patchword.training.overlay import PATHS, make_overlay

    given: dict[str, Any] = {"recipe": recipe, "weights": weights}
    asked = {"--recipe": recipe, "--weights": weights, "--config": config, "-o": overrides}
    names = [name for name, value in asked.items() if value and not (near and name == "--weights")]
    if names and augment is None:
        raise SettingsError(
            f"{', '.join(names)} {'only applies' if len(names) == 1 else 'only apply'} to the training views",
            f"add --augment, or remove {', '.join(names)}"
            + ("; --near-duplicates takes --weights too" if names == ["--weights"] else ""),
        )
    options = [(PATHS[name], f"--{name}", value) for name, value in given.items() if value is not None]
    if value_range is not None:
        options.append((PATHS["value_range"], "--value-range", value_range))
    return make_overlay(config, options, overrides)


def _print(report: "CheckReport", as_json: bool) -> None:
    if as_json:
        click.echo(to_json(report.to_dict(), indent=2))
        return
    from patchword.cli.check_screen import print_report

    print_report(report)


def _with_near(
    report: "CheckReport", weights: str | None, value_range: tuple[float, float] | None, *, quiet: bool
) -> "CheckReport":
    from patchword.runs.near import near_report

    with counting("embedding images", quiet=quiet or weights is None) as progress:
        return near_report(report, weights, value_range=value_range, progress=progress)


def _picture(given: str, data: str) -> Path:
    from patchword.reports.views import check_picture

    path = Path(given or f"{Path(data).resolve().stem}-views.png")
    check_picture(path)
    return path


def _draw(report: "CheckReport", overlay: "Overlay", path: Path) -> None:
    """Write the views, and say on standard error what they show; --json keeps standard output."""
    from patchword.runs.views import write_training_views

    chosen = write_training_views(report, overlay, path)
    click.echo(f"16 training views, recipe {chosen.settings.run.recipe}: {path}", err=True)
