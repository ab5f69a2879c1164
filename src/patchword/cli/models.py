"""`patchword models`: the named sizes, their cost and their sources."""

import json
from dataclasses import asdict, dataclass

import click

from patchword.cli.console import make_console
from patchword.errors import SettingsError

IMAGE_SIZE = 224


@dataclass(frozen=True, kw_only=True)
class Row:
    """One named size at an image size and a number of classes. flops: a multiply-add counts as two."""

    name: str
    image_size: tuple[int, int]
    classes: int
    dim: int
    depth: int
    heads: int
    parameters: int
    flops: int
    tokens: int
    source: str


@click.command()
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option(
    "--image-size",
    default=str(IMAGE_SIZE),
    show_default=True,
    metavar="PIXELS",
    help="Pixels per side, or HEIGHTxWIDTH.",
)
@click.option(
    "--classes",
    default=1000,
    show_default=True,
    type=click.IntRange(0),
    help="Number of classes; 0 for no head.",
)
@click.option(
    "--published", is_flag=True, help="List published weights instead (all, or those matching NAME)."
)
@click.option(
    "--license-allow",
    "allow",
    multiple=True,
    metavar="LICENCE",
    help="With --published: only weights under this licence; repeatable.",
)
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON, including sources.")
def models(
    names: tuple[str, ...],
    image_size: str,
    classes: int,
    published: bool,
    allow: tuple[str, ...],
    as_json: bool,
) -> None:
    """List model sizes with parameters, GFLOPs and tokens, or published weights.

    \b
    patchword models                         list all sizes
    patchword models ViT-S/16 ViT-S/8        compare two sizes
    patchword models ViT-Ti/4 --image-size 32 --classes 10

    \b
    patchword models --published             list weights to start training from
    patchword models --published dinov2      list this family or matching names
    patchword models --published facebook/dinov2-base  show all facts and sources
    patchword models --published --license-allow apache-2.0 --license-allow mit
    """
    if published:
        from patchword.cli.published import show_published

        return show_published(names, allow, as_json)
    if allow:
        raise SettingsError("--license-allow only applies to published weights", "add --published")
    rows = rows_of(names, _read_size(image_size), classes)
    if as_json:
        click.echo(json.dumps([asdict(row) for row in rows], indent=2))
    else:
        _print(rows)


def rows_of(names: tuple[str, ...], image_size: tuple[int, int], classes: int) -> list[Row]:
    """One row per name, or for every named size. Raises: SettingsError for an unknown name."""
    from patchword.model.cost import cost
    from patchword.model.sizes import SIZES, canonical, sized, source_of

    rows = []
    for name in names or SIZES:
        config = sized(name, image_size=image_size, num_classes=classes)
        price = cost(config)
        rows.append(
            Row(
                name=canonical(name),
                image_size=image_size,
                classes=classes,
                dim=config.dim,
                depth=config.depth,
                heads=config.attention.num_heads,
                parameters=price.parameters,
                flops=price.flops,
                tokens=price.tokens,
                source=source_of(name),
            )
        )
    return rows


def _read_size(text: str) -> tuple[int, int]:
    """ "224" or "224x320" → (rows, columns)."""
    parts = text.lower().replace("×", "x").split("x")
    if len(parts) > 2 or not all(part.strip().isdecimal() and int(part) > 0 for part in parts):
        raise SettingsError(
            f"--image-size is {text!r}", "give pixels, e.g. 224, or HEIGHTxWIDTH, e.g. 224x320"
        )
    return int(parts[0]), int(parts[-1])


def _print(rows: list[Row]) -> None:
    from rich import box
    from rich.table import Table

    console = make_console()
    table = Table(box=box.SIMPLE_HEAD if console.is_terminal else None, pad_edge=False)
    table.add_column("model", no_wrap=True)
    for title in ("dim", "depth", "heads", "parameters", "GFLOPs", "tokens"):
        table.add_column(title, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(
            row.name,
            str(row.dim),
            str(row.depth),
            str(row.heads),
            f"{row.parameters:,}",
            _three_digits(row.flops / 1e9),
            f"{row.tokens:,}",
        )
    console.print(table)
    height, width = rows[0].image_size
    make_console(stderr=True).print(
        f"{height} x {width} pixels, {rows[0].classes} classes. GFLOPs per image; a multiply-add counts as two; "
        "includes attention. --json lists each model's paper."
    )


def _three_digits(value: float) -> str:
    """Three significant digits: 2.51, 35.1, 407, 0.0123."""
    decimals = 0 if value >= 100 else 1 if value >= 10 else 2
    return f"{value:.{decimals}f}" if value >= 0.1 else f"{value:.3g}"
