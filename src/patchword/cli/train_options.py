"""The options that say how to train, which `train` and `compare` share."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import click

from patchword.cli.model_options import given_options, size, start_options
from patchword.cli.options import (
    data_options,
    device_option,
    offline_option,
    open_request,
    val_option,
    value_range_option,
)
from patchword.errors import UserError

if TYPE_CHECKING:
    from patchword.runs.prepare import TrainRequest

Command = Callable[..., Any]
_RECIPES = (
    "Training recipe: scratch, small-data, simple, deit, deit3, augreg or cifar; with --weights finetune, finetune-sgd or mae-finetune; with boxes detect, detr or yolos. "
    "[default: scratch, finetune with --weights, detect with boxes, detr or yolos with their weights]"
)


def _tune(ctx: click.Context, param: click.Parameter, text: str | None) -> dict[str, Any] | None:
    """The setting of --tune; None leaves the choice to the recipe."""
    if text is None or text.strip().lower() == "auto":
        return None
    from patchword.settings import to_plain
    from patchword.training.tune import parse_tune

    plain: dict[str, Any] = to_plain(parse_tune(text))
    return plain


_SETTINGS = (
    click.option(
        "--weights", metavar="NAME", help="Start from a run, a weights file, hf://… or a published name."
    ),
    click.option(
        "--teacher", metavar="NAME", help="Learn from this trained model's answers too (distillation)."
    ),
    click.option(
        "--model",
        metavar="NAME",
        help="Named size, e.g. ViT-Ti/16; with boxes vit-s16-det or detr-r50. [default: chosen from the data]",
    ),
    click.option("--image-size", metavar="SIZE", help="Pixels per side, or HEIGHTxWIDTH."),
    click.option("--patch-size", metavar="SIZE", help="Patch size in pixels, or HEIGHTxWIDTH."),
    click.option("--epochs", type=click.IntRange(min=1), help="Passes over the training images."),
    click.option("--batch-size", type=click.IntRange(min=1), help="Images per step."),
    click.option("--lr", type=float, help="Peak learning rate."),
    click.option(
        "--tune",
        metavar="WHAT",
        callback=_tune,
        help="auto, head, lora[:RANK], last:K, llrd[:DECAY] or full; of DETR head, trunk[:RATE] or full. [default: auto with --weights]",
    ),
    click.option("--find-lr", is_flag=True, default=None, help="Measure the learning rate before training."),
    click.option(
        "--max-time",
        type=click.FloatRange(min=0),
        metavar="MINUTES",
        help="Stop after so many minutes, and score.",
    ),
    click.option(
        "--patience",
        type=click.IntRange(min=0),
        metavar="N",
        help="Stop after N evaluations without a better score.",
    ),
    click.option(
        "--balance",
        type=click.Choice(["none", "loss", "sample", "logits"]),
        help="Balance classes of unequal size. [default: none]",
    ),
    click.option(
        "--seed", type=int, help="Random seed for weights, data order and augmentation. [default: 0]"
    ),
    click.option(
        "--split-seed",
        type=int,
        help="Seed of the validation split; another seed holds out other images. [default: 0]",
    ),
    val_option,
    click.option(
        "--cache",
        type=click.Choice(["auto", "memory", "disk", "none"]),
        help="Where decoded images are kept. [default: auto]",
    ),
    click.option("--threads", type=click.IntRange(min=1), help="Compute threads. [default: all available]"),
    device_option,
    click.option("--recipe", metavar="NAME", help=_RECIPES),
)
_FILES = (
    click.option("--config", metavar="FILE", help="TOML file of settings, e.g. a run's config.toml."),
    click.option("-o", "overrides", metavar="A.B=C", multiple=True, help="Set any setting; repeatable."),
    data_options,
    value_range_option,
    start_options,
    offline_option,
)


def setting_options(command: Command) -> Command:
    """Add --weights, --model, --epochs and the others that set one setting each, and --val."""
    return _with(_SETTINGS, command)


def file_options(command: Command) -> Command:
    """Add --config, -o, and how data and weights are read."""
    return _with(_FILES, command)


def _with(options: tuple[Any, ...], command: Command) -> Command:
    for option in reversed(options):
        command = option(command)
    return command


def train_request(
    data: str | None, out: str | None, overrides: tuple[str, ...], given: Mapping[str, Any]
) -> "TrainRequest":
    """What the running command was asked to train. Raises: UserError without DATA; SettingsError."""
    if data is None:
        raise UserError("DATA is missing", "give `digits`, a folder or .zip of class folders, or a table")
    from patchword.runs.prepare import TrainRequest
    from patchword.training.overlay import PATHS, make_overlay

    options: list[tuple[str, str, Any]] = []
    for name, path in PATHS.items():
        if given[name] is not None:
            flag = f"--{name.replace('_', '-')}"
            is_size = name in ("image_size", "patch_size")
            options.append((path, flag, size(flag, given[name]) if is_size else given[name]))
    overlay = make_overlay(given["config"], options, overrides)
    opening = open_request(
        given["image_column"],
        given["label_column"],
        split_column=given["split_column"],
        class_level=given["class_level"],
        group_column=given["group_column"],
        ignore_unknown_classes=given["ignore_unknown_classes"],
        max_pixels=given["max_pixels"],
        val=given["val"],
        folds=given.get("folds"),
    )
    return TrainRequest(
        data=data,
        overlay=overlay,
        out=out,
        opening=opening,
        options=given_options(),
        offline=given["offline"],
        dry_run=given.get("dry_run", False),
        sanity=given.get("sanity", False),
    )
