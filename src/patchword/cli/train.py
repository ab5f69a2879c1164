"""`patchword train`: from images to a classifier in a run folder."""

from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from patchword.cli.model_options import said, size, start_options
from patchword.cli.options import (
    data_options,
    device_option,
    offline_option,
    open_request,
    value_range_option,
)
from patchword.errors import UserError

if TYPE_CHECKING:
    from patchword.runs import Run, TrainRequest


@click.command()
@click.argument("data", required=False)
@click.option("--out", metavar="FOLDER", help="The run folder; an existing one is never overwritten.")
@click.option("--resume", metavar="RUN", help="Go on with an interrupted run (DATA only if it moved).")
@click.option(
    "--weights", metavar="NAME", help="Begin from a run, a file in any layout, hf://… or a release."
)
@click.option("--model", metavar="NAME", help="A named size, as ViT-Ti/16; else sized to the data.")
@click.option("--image-size", metavar="SIZE", help="Pixels a side, or HEIGHTxWIDTH.")
@click.option("--patch-size", metavar="SIZE", help="Pixels of a patch, likewise.")
@click.option("--epochs", type=click.IntRange(min=1), help="Rounds over the training images.")
@click.option("--batch-size", type=click.IntRange(min=1), help="Images a step.")
@click.option("--lr", type=float, help="Peak learning rate.")
@click.option("--seed", type=int, help="Random seed (weights, data order, augmentation). [default: 0]")
@click.option("--split-seed", type=int, help="Another number holds out other images. [default: 0]")
@click.option("--threads", type=click.IntRange(min=1), help="For compute; else what the machine grants.")
@device_option
@click.option("--recipe", metavar="NAME", help="How settings follow from the data: scratch, finetune.")
@click.option("--config", metavar="FILE", help="Settings as TOML, such as a run's config.toml.")
@click.option("-o", "overrides", metavar="A.B=C", multiple=True, help="Any setting; may be repeated.")
@data_options
@value_range_option
@start_options
@offline_option
def train(
    data: str | None, out: str | None, resume: str | None, overrides: tuple[str, ...], **given: Any
) -> None:
    """Train a classifier on DATA: `digits`, a folder or .zip of class folders, or a table.

    \b
    patchword train flowers/                          from scratch, sized to the data
    patchword train flowers/ --weights hf://org/name  from weights, with a new head

    The data are checked first. Model, patch and all else are chosen from them where nothing
    is said, and the choice is explained. Prints the run folder, which holds report.html.
    """
    from patchword import machine
    from patchword.cli.train_screen import screen, show_result

    machine.start_sampling()
    with screen() as progress:
        if resume is not None:
            _refuse_settings()
            from patchword.runs import resume_folder

            result = resume_folder(resume, data=data, progress=progress)
        else:
            result = _start(_request(data, out, overrides, given), progress)
    show_result(result)
    click.echo(str(result.folder))


def _start(request: "TrainRequest", progress: Any) -> "Run":
    from patchword import runs
    from patchword.cli.loading import tell
    from patchword.cli.train_screen import show_choices, show_problems

    prepared = runs.prepare(request, progress)
    show_problems(prepared.report)
    if prepared.start is not None:
        tell(prepared.start.report)
    show_choices(prepared)
    return runs.run(prepared, progress)


def _request(
    data: str | None, out: str | None, overrides: tuple[str, ...], given: dict[str, Any]
) -> "TrainRequest":
    if data is None:
        raise UserError("no DATA is given", "give `digits`, a folder or .zip of class folders, or a table")
    from patchword.runs import TrainRequest
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
        ignore_unknown_classes=given["ignore_unknown_classes"],
        max_pixels=given["max_pixels"],
    )
    return TrainRequest(
        data=data, overlay=overlay, out=out, opening=opening, options=said(), offline=given["offline"]
    )


def _refuse_settings() -> None:
    """A resumed run keeps its settings; asking for others must not pass in silence."""
    ctx = click.get_current_context()
    asked = [
        option.opts[0]
        for option in ctx.command.params
        if isinstance(option, click.Option)
        and option.name not in (None, "resume")
        and ctx.get_parameter_source(str(option.name)) is ParameterSource.COMMANDLINE
    ]
    if asked:
        raise UserError(
            f"--resume goes on with the run's own settings, so {', '.join(asked)} would change nothing",
            "leave them out, or start a new run",
        )
