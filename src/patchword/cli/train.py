"""`patchword train`: train a classifier or a detector into a run folder."""

from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from patchword.cli.options import box_options
from patchword.cli.train_options import file_options, setting_options, train_request
from patchword.errors import UserError

if TYPE_CHECKING:
    from patchword.runs.finish import Run
    from patchword.runs.prepare import Prepared, TrainRequest


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
@setting_options
@click.option(
    "--folds", type=int, metavar="K", help="Train K times, each time with another Kth of DATA held out."
)
@click.option(
    "--sanity", is_flag=True, help="First overfit eight images with boxes; stop with the cause if that fails."
)
@click.option("--dry-run", is_flag=True, help="Print the plan and every setting; write nothing.")
@file_options
@box_options
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
        show_plan(train_request(data, out, overrides, given))
        return
    with screen() as progress:
        if resume is not None:
            refuse_settings()
            from patchword.runs.folds import resume as resume_any

            result = resume_any(
                resume, data=data, val=given["val"], progress=progress, extend=given["extend"] or 0
            )
        else:
            result = _start(train_request(data, out, overrides, given), progress)
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
