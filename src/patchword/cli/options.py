"""Options shared by several commands."""

import functools
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from patchword.data.request import OpenRequest
from patchword.errors import SettingsError
from patchword.images.limits import MAX_PIXELS

if TYPE_CHECKING:
    from patchword.inference.sources import Reading

F = TypeVar("F", bound=Callable[..., Any])
_KEPT = "patchword.image_set_options"
_SPLIT_SEED_HELP = "Hold out images as `train --split-seed N` does. [default: the model's own split]"

_TARGETS = "patchword.target_options"
_BOXES = "patchword.box_options"


def kept_option(key: str, *names: str, **how: Any) -> Callable[[F], F]:
    """An option that is stored in the context, so that commands need not declare it; see `kept_values`."""

    def keep(ctx: click.Context, param: click.Parameter, value: Any) -> None:
        ctx.meta.setdefault(key, {})[param.name] = value

    return click.option(*names, expose_value=False, callback=keep, **how)


def kept_values(key: str) -> dict[str, Any]:
    """The values of the running command's options that were stored under `key`."""
    return dict(click.get_current_context().meta[key])


_TARGET_OPTIONS = (
    kept_option(
        _TARGETS,
        "--label-separator",
        metavar="TEXT",
        help="Text between the classes of an image, e.g. ';'.",
    ),
    kept_option(
        _TARGETS, "--target-column", metavar="NAME[,NAME]", help="Columns of numbers, instead of classes."
    ),
    kept_option(_TARGETS, "--labels", metavar="TABLE", help="Table that labels the images of a folder."),
)
_DATA_OPTIONS = (
    click.option("--image-column", metavar="NAME", help="Image column, if DATA is a table."),
    click.option(
        "--label-column",
        metavar="NAME",
        help="Class column, if DATA is a table; several of 0 and 1 as A,B,C.",
    ),
    click.option(
        "--class-level",
        type=click.IntRange(1),
        metavar="N",
        help="Depth of the class folders. [default: detected]",
    ),
    click.option(
        "--split-column", metavar="NAME", help="Split column (train, val, test), if DATA is a table."
    ),
    click.option(
        "--group-column",
        metavar="NAME",
        help="Column of groups (patient, scene) to hold out together, if DATA is a table.",
    ),
    click.option(
        "--ignore-unknown-classes",
        is_flag=True,
        help="Skip images of unknown classes and report the count.",
    ),
)


def box_options(command: F) -> F:
    """Add the options for reading boxes; `open_request` takes them along."""
    for option in reversed(_BOX_OPTIONS):
        command = option(command)
    return command


_BOX_OPTIONS = (
    kept_option(
        _BOXES,
        "--annotations",
        metavar="PATTERN",
        multiple=True,
        help="Annotation files to read where there are several sets, e.g. 'yolo/*'. Repeat it for one file per split.",
    ),
    kept_option(
        _BOXES,
        "--box-format",
        metavar="FORMAT",
        help="What the numbers of a box are: xywh, xyxy or cxcywh, or e.g. xywh-relative. [default: by the file]",
    ),
)

max_pixels_option = click.option(
    "--max-pixels",
    type=click.IntRange(1),
    default=MAX_PIXELS,
    show_default=True,
    help="Reject images with more pixels.",
)
split_seed_option = click.option("--split-seed", type=click.IntRange(0), metavar="N", help=_SPLIT_SEED_HELP)
val_option = click.option(
    "--val", metavar="PATH", help="Evaluate on these images instead of a held-out fifth of DATA."
)
offline_option = click.option("--offline", is_flag=True, help="Offline mode: use cached files only.")


device_option = click.option("--device", help="cpu, cuda, cuda:1 or mps. [default: CUDA GPU if available]")


def _range(ctx: click.Context, param: click.Parameter, text: str | None) -> tuple[float, float] | None:
    if text is None:
        return None
    try:
        low, high = (float(part) for part in text.split(","))
        if not -math.inf < low < high < math.inf:
            raise ValueError
    except ValueError:
        raise SettingsError(
            f"--value-range is {text!r}", "give the lowest and highest value, e.g. 0,255"
        ) from None
    return low, high


value_range_option = click.option(
    "--value-range",
    metavar="LOW,HIGH",
    callback=_range,
    help="Lowest and highest value of float, 16- and 32-bit images. [default: the model's]",
)


_kept = functools.partial(kept_option, _KEPT)
_IMAGE_SET_OPTIONS = (
    _kept("--split", metavar="NAME", help="Use only this split, e.g. val. [default: all images]"),
    _kept("--split-seed", type=click.IntRange(0), metavar="N", help=_SPLIT_SEED_HELP),
    _kept("--image-column", metavar="NAME", help="Image column of tables."),
    _kept("--label-column", metavar="NAME", help="Class column of tables."),
    _kept("--split-column", metavar="NAME", help="Split column of tables, with --split."),
    _kept(
        "--class-level",
        type=click.IntRange(1),
        metavar="N",
        help="Depth of the class folders, with --split. [default: detected]",
    ),
    _kept(
        "--max-pixels",
        type=click.IntRange(1),
        default=MAX_PIXELS,
        show_default=True,
        help="Reject images with more pixels.",
    ),
)


def image_set_options(command: F) -> F:
    """Add the options that select images, for commands that need no labels; `given_reading` returns them."""
    for option in reversed((*_IMAGE_SET_OPTIONS, value_range_option)):
        command = option(command)
    return command


def given_reading() -> "Reading":
    """How the running command reads its images, as given by `image_set_options`."""
    from patchword.inference.sources import Reading

    kept = kept_values(_KEPT)
    split, split_seed = kept.pop("split"), kept.pop("split_seed")
    return Reading(split=split, split_seed=split_seed, opening=OpenRequest(**kept))


def data_options(command: F) -> F:
    """Add the options for reading DATA."""
    for option in reversed((*_DATA_OPTIONS, *_TARGET_OPTIONS, max_pixels_option)):
        command = option(command)
    return command


def open_request(
    image_column: str | None,
    label_column: str | None,
    *,
    max_pixels: int,
    split_column: str | None = None,
    class_level: int | None = None,
    group_column: str | None = None,
    ignore_unknown_classes: bool = False,
    val: str | None = None,
    folds: int | None = None,
) -> OpenRequest:
    targets = kept_values(_TARGETS)
    boxes = click.get_current_context().meta.get(_BOXES)
    return OpenRequest(
        boxes=boxes is not None,
        annotations=(boxes or {}).get("annotations") or None,
        box_format=(boxes or {}).get("box_format"),
        image_column=image_column,
        label_column=label_column,
        label_separator=targets["label_separator"],
        target_column=targets["target_column"],
        labels=targets["labels"],
        class_level=class_level,
        split_column=split_column,
        ignore_unknown_classes=ignore_unknown_classes,
        max_pixels=max_pixels,
        group_column=group_column,
        val=val,
        folds=folds,
    )
