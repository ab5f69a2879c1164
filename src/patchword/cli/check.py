"""`patchword check`: check a data set and list its problems."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from patchword.cli.options import box_options, data_options, open_request, val_option, value_range_option
from patchword.cli.progress import counting
from patchword.errors import SettingsError
from patchword.settings import to_json

if TYPE_CHECKING:
    from patchword.data.check import CheckReport
    from patchword.data.dataset import Dataset
    from patchword.training.overlay import Overlay


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
    "--draw",
    metavar="[FILE.png]",
    is_flag=False,
    flag_value="",
    callback=_named_png,
    help="Draw sixteen images with their boxes. [default: DATA-boxes.png]",
)
@click.option("--recipe", metavar="NAME", help="Recipe of the views, as in train.")
@click.option("--weights", metavar="NAME", help="Weights that training would start from.")
@click.option("--config", metavar="FILE", help="TOML file of settings for the views.")
@click.option(
    "-o", "overrides", metavar="A.B=C", multiple=True, help="Set any setting of the views; repeatable."
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

    DATA: `digits`, a folder or .zip of class folders, a table (CSV, JSONL, Parquet), or images with boxes: a folder or
    .zip with COCO JSON, Pascal VOC, YOLO labels or a table of boxes, or such a JSON file or table itself.
    Decodes every image; of more than 50,000, a random sample of that number unless --all is given.
    Exits with 2 if training would be meaningless.

    \b
    patchword check flowers/ --augment                       what train would see
    patchword check flowers/ --augment a.png --recipe deit   with other settings
    patchword check cells.zip --draw                         boxes as they are read
    """
    from patchword import machine
    from patchword.data.check import check_data
    from patchword.data.open import open_data

    overlay = _overlay(augment, recipe, weights, config, overrides, value_range)
    picture = None if augment is None else _picture(augment, data, "views")
    drawing = None if draw is None else _picture(draw, data, "boxes")
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
    if seed := overlay.get("run.split_seed"):
        opening = replace(opening, split_seed=seed)
    dataset, workers = open_data(data, opening), machine.granted_threads()
    _refuse_other_pictures(dataset, augment, draw)
    with counting("checking images", quiet=as_json) as progress:
        report = check_data(dataset, workers=workers, value_range=value_range, progress=progress, every=every)
    if as_json:
        click.echo(to_json(report.to_dict(), indent=2))
    else:
        from patchword.cli.check_screen import print_report

        print_report(report)
    if picture is not None and not report.fatal:
        _draw(report, overlay, picture)
    if drawing is not None:
        _draw_boxes(report, drawing)
    ctx.exit(2 if report.fatal else 0)


def _overlay(
    augment: str | None,
    recipe: str | None,
    weights: str | None,
    config: str | None,
    overrides: tuple[str, ...],
    value_range: tuple[float, float] | None,
) -> "Overlay":
    """Raises: SettingsError for settings of the views without --augment."""
    from patchword.training.overlay import PATHS, make_overlay

    given: dict[str, Any] = {"recipe": recipe, "weights": weights}
    asked = {"--recipe": recipe, "--weights": weights, "--config": config, "-o": overrides}
    names = [name for name, value in asked.items() if value]
    if names and augment is None:
        raise SettingsError(
            f"{', '.join(names)} {'only applies' if len(names) == 1 else 'only apply'} to the training views",
            f"add --augment, or remove {', '.join(names)}",
        )
    options = [(PATHS[name], f"--{name}", value) for name, value in given.items() if value is not None]
    if value_range is not None:
        options.append((PATHS["value_range"], "--value-range", value_range))
    return make_overlay(config, options, overrides)


def _picture(given: str, data: str, what: str) -> Path:
    from patchword.inference.output import check_place

    path = Path(given or f"{Path(data).resolve().stem}-{what}.png")
    check_place(path)
    return path


def _refuse_other_pictures(dataset: "Dataset", augment: str | None, draw: str | None) -> None:
    """Raises: SettingsError for a picture that these data do not give."""
    has_boxes = dataset.task_kind == "boxes"
    if augment is not None and has_boxes:
        raise SettingsError(
            f"--augment draws training views of images with classes, but {dataset.path} has boxes",
            "remove it, or draw the boxes with --draw",
        )
    if draw is not None and not has_boxes:
        raise SettingsError(
            f"--draw draws boxes, but {dataset.path} has none",
            "remove it, or draw training views with --augment",
        )


def _draw_boxes(report: "CheckReport", path: Path) -> None:
    """Data that cannot be trained on are drawn too: the picture may show why."""
    from patchword.reports.box_pictures import write_annotated

    drawn = write_annotated(report.dataset, path)
    click.echo(f"{drawn} annotated images: {path}", err=True)


def _draw(report: "CheckReport", overlay: "Overlay", path: Path) -> None:
    """Write the views, and say on standard error what they show; --json keeps standard output."""
    from patchword.runs.views import write_training_views

    chosen = write_training_views(report, overlay, path)
    click.echo(f"16 training views, recipe {chosen.settings.run.recipe}: {path}", err=True)
