"""`patchword check`: check a data set and list its problems."""

import click

from patchword.cli.options import data_options, open_request, value_range_option
from patchword.cli.progress import counting
from patchword.settings import to_json


@click.command()
@click.argument("data")
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
@click.option("--all", "every", is_flag=True, help="Check every image, also beyond 50,000.")
@data_options
@value_range_option
@click.pass_context
def check(
    ctx: click.Context,
    data: str,
    as_json: bool,
    every: bool,
    image_column: str | None,
    label_column: str | None,
    class_level: int | None,
    split_column: str | None,
    ignore_unknown_classes: bool,
    max_pixels: int,
    value_range: tuple[float, float] | None,
) -> None:
    """Check DATA and list its problems, without changing anything.

    DATA: `digits`, a folder or .zip of class folders, or a table (CSV, JSONL, Parquet).
    Decodes every image; of more than 50,000, a random sample of that number unless --all is given.
    Exits with 2 if training would be meaningless.
    """
    from patchword import machine
    from patchword.data.check import check_data
    from patchword.data.open import open_data

    opening = open_request(
        image_column,
        label_column,
        split_column=split_column,
        class_level=class_level,
        ignore_unknown_classes=ignore_unknown_classes,
        max_pixels=max_pixels,
    )
    dataset = open_data(data, opening)
    with counting("checking images", quiet=as_json) as progress:
        report = check_data(
            dataset,
            workers=machine.granted_threads(),
            value_range=value_range,
            progress=progress,
            every=every,
        )
    if as_json:
        click.echo(to_json(report.to_dict(), indent=2))
    else:
        from patchword.cli.check_screen import print_report

        print_report(report)
    ctx.exit(2 if report.fatal else 0)
