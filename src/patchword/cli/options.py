"""Options that several commands share."""

import math
from collections.abc import Callable
from typing import Any, TypeVar

import click

from patchword.data.request import OpenRequest
from patchword.errors import SettingsError
from patchword.images.limits import MAX_PIXELS

F = TypeVar("F", bound=Callable[..., Any])

_TABLE_OPTIONS = (
    click.option("--image-column", metavar="NAME", help="Column of the image, where DATA is a table."),
    click.option("--label-column", metavar="NAME", help="Column of the class, where DATA is a table."),
)
_DATA_OPTIONS = (
    *_TABLE_OPTIONS,
    click.option(
        "--class-level",
        type=click.IntRange(1),
        metavar="N",
        help="How many folders deep the class folders lie.",
    ),
    click.option(
        "--ignore-unknown-classes",
        is_flag=True,
        help="Leave images out whose class is not known, and say how many.",
    ),
)


max_pixels_option = click.option(
    "--max-pixels",
    type=click.IntRange(1),
    default=MAX_PIXELS,
    show_default=True,
    help="Larger images are refused.",
)
offline_option = click.option(
    "--offline", is_flag=True, help="Open no socket: what would be fetched must be in the cache."
)


device_option = click.option("--device", help="cpu, cuda, cuda:1, mps. [a GPU where there is one]")


def _range(ctx: click.Context, param: click.Parameter, text: str | None) -> tuple[float, float] | None:
    if text is None:
        return None
    try:
        low, high = (float(part) for part in text.split(","))
        if not -math.inf < low < high < math.inf:
            raise ValueError
    except ValueError:
        raise SettingsError(
            f"--value-range is {text!r}", "write the lowest and the highest value, as 0,255"
        ) from None
    return low, high


value_range_option = click.option(
    "--value-range",
    metavar="LOW,HIGH",
    callback=_range,
    help="Lowest and highest value of float, 16- and 32-bit images. [the model's own]",
)


def image_set_options(command: F) -> F:
    """The options that say which images of a data set are read, by commands that need no labels."""
    split = click.option(
        "--split", metavar="NAME", help="Only this split of a data set, such as val. [all images]"
    )
    for option in reversed((split, *_TABLE_OPTIONS, value_range_option, max_pixels_option)):
        command = option(command)
    return command


def data_options(command: F) -> F:
    """The options that say how DATA is read."""
    for option in reversed((*_DATA_OPTIONS, max_pixels_option)):
        command = option(command)
    return command


def open_request(
    image_column: str | None,
    label_column: str | None,
    ignore_unknown_classes: bool,
    max_pixels: int,
    *,
    class_level: int | None = None,
) -> OpenRequest:
    return OpenRequest(
        image_column=image_column,
        label_column=label_column,
        class_level=class_level,
        ignore_unknown_classes=ignore_unknown_classes,
        max_pixels=max_pixels,
    )
