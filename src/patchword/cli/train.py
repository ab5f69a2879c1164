"""`patchword train`: train a classifier or a detector into a run folder."""

from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from patchword.cli.model_options import given_options, size, start_options
from patchword.cli.options import (
    box_options,
    data_options,
    device_option,
    offline_option,
    open_request,
    val_option,
    value_range_option,
)
from patchword.errors import UserError

if TYPE_CHECKING:
    from patchword.runs.finish import Run
    from patchword.runs.prepare import Prepared, TrainRequest


_RECIPES = (
    "Training recipe: scratch, small-data, simple, deit, deit3, augreg or cifar; with --weights finetune, finetune-sgd or mae-finetune. "
    "[default: scratch, finetune with --weights, detect with boxes]"
)


def _tune(ctx: click.Context, param: click.Parameter, text: str | None) -> dict[str, Any] | None:
    """The setting of --tune; None leaves the choice to the recipe."""
    if text is None or text.strip().lower() == "auto":
        return None
    from patchword.settings import to_plain
    from patchword.training.tune import parse_tune

    plain: dict[str, Any] = to_plain(parse_tune(text))
    return plain


@click.command()
@click.argument("data", required=False)
@click.option(
    "--out", metavar="FOLDER", help="Run folder to create; an existing folder is never overwritten."
)
@click.option(
    "--resume", metavar="RUN", help="Resume an interrupted run (give DATA and --val only if they have moved)."
)
@click.option(
    "--extend",
    type=click.IntRange(min=1),
    metavar="N",
    help="With --resume: add N epochs to a finished run (schedule.shape constant).",
)
@click.option(
    "--weights", metavar="NAME", help="Start from a run, a weights file, hf://… or a published name."
)
@click.option("--teacher", metavar="NAME", help="Learn from this trained model's answers too (distillation).")
@click.option("--model", metavar="NAME", help="Named size, e.g. ViT-Ti/16. [default: chosen from the data]")
@click.option("--image-size", metavar="SIZE", help="Pixels per side, or HEIGHTxWIDTH.")
@click.option("--patch-size", metavar="SIZE", help="Patch size in pixels, or HEIGHTxWIDTH.")
@click.option("--epochs", type=click.IntRange(min=1), help="Passes over the training images.")
@click.option("--batch-size", type=click.IntRange(min=1), help="Images per step.")
@click.option("--lr", type=float, help="Peak learning rate.")
@click.option(
    "--tune",
    metavar="WHAT",
    callback=_tune,
    help="auto, head, lora[:RANK], last:K, llrd[:DECAY] or full. [default: auto with --weights]",
)
@click.option("--find-lr", is_flag=True, default=None, help="Measure the learning rate before training.")
@click.option(
    "--max-time",
    type=click.FloatRange(min=0),
    metavar="MINUTES",
    help="Stop after so many minutes, and score.",
)
@click.option(
    "--patience",
    type=click.IntRange(min=0),
    metavar="N",
    help="Stop after N evaluations without a better score.",
)
@click.option(
    "--balance",
    type=click.Choice(["none", "loss", "sample", "logits"]),
    help="Balance classes of unequal size. [default: none]",
)
@click.option("--seed", type=int, help="Random seed for weights, data order and augmentation. [default: 0]")
@click.option(
    "--split-seed",
    type=int,
    help="Seed of the validation split; another seed holds out other images. [default: 0]",
)
@val_option
@click.option(
    "--folds", type=int, metavar="K", help="Train K times, each time with another Kth of DATA held out."
)
@click.option(
    "--cache",
    type=click.Choice(["auto", "memory", "disk", "none"]),
    help="Where decoded images are kept. [default: auto]",
)
@click.option("--threads", type=click.IntRange(min=1), help="Compute threads. [default: all available]")
@device_option
@click.option("--recipe", metavar="NAME", help=_RECIPES)
@click.option(
    "--sanity", is_flag=True, help="First overfit eight images with boxes; stop with the cause if that fails."
)
@click.option("--dry-run", is_flag=True, help="Print the plan and every setting; write nothing.")
@click.option("--config", metavar="FILE", help="TOML file of settings, e.g. a run's config.toml.")
@click.option("-o", "overrides", metavar="A.B=C", multiple=True, help="Set any setting; repeatable.")
@data_options
@box_options
@value_range_option
@start_options
@offline_option
def train(
    data: str | None, out: str | None, resume: str | None, overrides: tuple[str, ...], **given: Any
) -> None:
    """Train a classifier on DATA: `digits`, a folder or .zip of class folders, or a table; a detector if DATA has boxes.

    \b
    patchword train flowers/                          train from scratch
    patchword train cells.zip --sanity                find objects: COCO, Pascal VOC or YOLO
    patchword train flowers/ --weights hf://org/name  fine-tune with a new head
    patchword train flowers/ --folds 5                train five times, score every image
    patchword train --resume runs/flowers             go on with an interrupted run

    The data are checked first. Anything not specified is chosen from the data and explained.
    Prints the path of the run folder, which contains report.html.
    """
    from patchword import machine
    from patchword.cli.train_screen import screen, show_result

    machine.start_sampling()
    if given["extend"] is not None and resume is None:
        from patchword.runs.folds import extend_without_resume

        raise extend_without_resume(given["extend"])
    if given["dry_run"] and resume is None:
        show_plan(_request(data, out, overrides, given))
        return
    with screen() as progress:
        if resume is not None:
            refuse_settings()
            from patchword.runs.folds import resume as resume_any

            result = resume_any(
                resume, data=data, val=given["val"], progress=progress, extend=given["extend"] or 0
            )
        else:
            result = _start(_request(data, out, overrides, given), progress)
    show_result(result)
    click.echo(str(result.folder))


def _start(request: "TrainRequest", progress: Any) -> "Run":
    from patchword import runs
    from patchword.runs.folds import train_folds
    from patchword.runs.prepare import prepare

    if request.opening.folds is not None:
        return train_folds(request, progress, show)
    prepared = prepare(request, progress)
    show(prepared)
    return runs.run(prepared, progress)


def show(prepared: "Prepared") -> None:
    """Print what was found in the data and the weights, and what will be trained."""
    from patchword.cli.loading import report_loading
    from patchword.cli.train_screen import show_choices, show_problems

    show_problems(prepared.report)
    if prepared.start is not None:
        report_loading(prepared.start.report)
    show_choices(prepared)


def show_plan(request: "TrainRequest") -> None:
    """Every setting on standard output, as config.toml would hold it; the plan on standard error."""
    from patchword.cli.loading import report_loading
    from patchword.cli.train_screen import screen, show_problems
    from patchword.runs.prepare import prepare
    from patchword.training.plan import make_plan

    with screen() as progress:
        prepared = prepare(request, progress)
        plan = make_plan(prepared.dataset, prepared.chosen)
    click.echo(plan.toml)
    show_problems(prepared.report)
    if prepared.start is not None:
        report_loading(prepared.start.report)
    click.echo(plan.text, err=True)
    if request.opening.folds is not None:
        click.echo(f"\nthis is the first of {request.opening.folds} folds", err=True)
    click.echo("\nnothing was written (--dry-run)", err=True)


def _request(
    data: str | None, out: str | None, overrides: tuple[str, ...], given: dict[str, Any]
) -> "TrainRequest":
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
        folds=given["folds"],
    )
    return TrainRequest(
        data=data,
        overlay=overlay,
        out=out,
        opening=opening,
        options=given_options(),
        offline=given["offline"],
        dry_run=given["dry_run"],
        sanity=given["sanity"],
    )


def refuse_settings() -> None:
    """Raises: UserError if --resume is combined with other settings, which it would ignore."""
    ctx = click.get_current_context()
    asked = [
        option.opts[0]
        for option in ctx.command.params
        if isinstance(option, click.Option)
        and option.name not in (None, "resume", "extend", "val")
        and ctx.get_parameter_source(str(option.name)) is ParameterSource.COMMANDLINE
    ]
    if asked:
        raise UserError(
            f"{', '.join(asked)} cannot be combined with --resume, which keeps the run's settings",
            f"remove {', '.join(asked)}, or start a new run",
        )
