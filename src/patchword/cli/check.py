"""`patchword check`: check a data set and list its problems."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from patchword import machine
from patchword.cli.options import (
    box_options,
    data_options,
    kept_option,
    kept_values,
    open_request,
    val_option,
    value_range_option,
)
from patchword.cli.progress import counting
from patchword.errors import SettingsError, plural
from patchword.settings import to_json

if TYPE_CHECKING:
    from patchword.data.check import CheckReport
    from patchword.training.overlay import Overlay

_VIEWS = "patchword.view_options"


def _named_png(ctx: click.Context, param: click.Parameter, given: str | None) -> str | None:
    """Refuse DATA that was taken for the file, before DATA is reported missing."""
    if given:
        from patchword.reports.views import check_name

        check_name(Path(given), f"--{param.name}")
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
@click.option(
    "--draw",
    metavar="[FILE.png]",
    is_flag=False,
    flag_value="",
    callback=_named_png,
    help="Draw sixteen images with their boxes. [default: DATA-boxes.png]",
)
@kept_option(_VIEWS, "--recipe", metavar="NAME", help="Recipe of the views, as in train.")
@kept_option(
    _VIEWS,
    "--weights",
    metavar="NAME",
    help="Weights that training would start from, or that compare near duplicates.",
)
@kept_option(_VIEWS, "--config", metavar="FILE", help="TOML file of settings for the views.")
@kept_option(
    _VIEWS,
    "-o",
    "overrides",
    metavar="A.B=C",
    multiple=True,
    help="Set any setting of the views; repeatable.",
)
@val_option
@data_options
@box_options
@value_range_option
@click.pass_context
def check(
    ctx: click.Context,
    data: str,
    as_json: bool,
    every: bool,
    augment: str | None,
    draw: str | None,
    near: bool,
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

    DATA: `digits`, a folder or .zip of class folders, a table (CSV, JSONL, Parquet), or images with boxes: a folder or
    .zip with COCO JSON, Pascal VOC, YOLO labels or a table of boxes, or such a JSON file or table itself.
    Decodes every image; of more than 50,000, a random sample, unless --all is given. Exits with 2 if training would be
    meaningless.

    --near-duplicates finds copies that were compressed again, resized or cropped a little, by grey
    thumbnails, or with --weights by the embeddings of that model.

    \b
    patchword check flowers/ --augment                       what train would see
    patchword check flowers/ --augment a.png --recipe deit   with other settings
    patchword check cells.zip --draw                         boxes as they are read
    """
    from patchword.data.check import check_data
    from patchword.data.open import open_data
    from patchword.runs.views import refuse_other_pictures

    overlay = _overlay(augment, value_range, near=near)
    pictures = _picture(augment, data, "views"), _picture(draw, data, "boxes")
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
    refuse_other_pictures(dataset, draw=draw is not None)
    with counting("checking images", quiet=as_json) as progress:
        report = check_data(
            dataset, workers=workers, value_range=value_range, progress=progress, every=every, thumbs=near
        )
    if near:
        report = _with_near(report, value_range, quiet=as_json)
    _print(report, as_json)
    _draw(report, overlay, *pictures)
    ctx.exit(2 if report.fatal else 0)


def _overlay(augment: str | None, value_range: tuple[float, float] | None, *, near: bool) -> "Overlay":
    """Raises: SettingsError for settings of the views without --augment; --weights also serves --near-duplicates."""
    from patchword.training.overlay import PATHS, make_overlay

    kept = kept_values(_VIEWS)
    given: dict[str, Any] = {"recipe": kept["recipe"], "weights": kept["weights"]}
    config, overrides = kept["config"], kept["overrides"]
    asked = {**{f"--{name}": value for name, value in given.items()}, "--config": config, "-o": overrides}
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
    report: "CheckReport", value_range: tuple[float, float] | None, *, quiet: bool
) -> "CheckReport":
    from patchword.runs.near import near_report

    weights = kept_values(_VIEWS)["weights"]
    with counting("embedding images", quiet=quiet or weights is None) as progress:
        return near_report(report, weights, value_range=value_range, progress=progress)


def _picture(given: str | None, data: str, what: str) -> Path | None:
    """The file of a picture that was asked for. Raises: OutputError."""
    from patchword.inference.output import check_place

    if given is None:
        return None
    path = Path(given or f"{Path(data).resolve().stem}-{what}.png")
    check_place(path)
    return path


def _draw(report: "CheckReport", overlay: "Overlay", views: Path | None, boxes: Path | None) -> None:
    """Write the pictures asked for, and say on standard error what they show; --json keeps standard output.

    Boxes that cannot be trained on are drawn too: the picture may show why.
    """
    if views is not None and not report.fatal:
        from patchword.runs.views import write_training_views

        chosen = write_training_views(report, overlay, views)
        click.echo(f"16 training views, recipe {chosen.settings.run.recipe}: {views}", err=True)
    if boxes is not None:
        from patchword.reports.box_pictures import write_annotated

        drawn = write_annotated(report.dataset, boxes)
        click.echo(f"{plural(drawn, 'annotated image')}: {boxes}", err=True)
