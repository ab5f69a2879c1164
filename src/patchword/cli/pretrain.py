"""`patchword pretrain`: learn from images without labels, into a run folder."""

from typing import TYPE_CHECKING, Any

import click

from patchword.cli.model_options import given_options, size, start_options
from patchword.cli.options import device_option, max_pixels_option, offline_option, value_range_option
from patchword.cli.train import refuse_settings, show_plan
from patchword.data.request import OpenRequest
from patchword.errors import UserError

if TYPE_CHECKING:
    from patchword.runs.prepare import TrainRequest


@click.command()
@click.argument("data", required=False)
@click.option(
    "--out", metavar="FOLDER", help="Run folder to create; an existing folder is never overwritten."
)
@click.option("--resume", metavar="RUN", help="Resume an interrupted run (give DATA only if it has moved).")
@click.option(
    "--weights", metavar="NAME", help="Continue from a run, a weights file, hf://… or a published name."
)
@click.option("--model", metavar="NAME", help="Named size, e.g. ViT-S/16. [default: chosen from the data]")
@click.option("--image-size", metavar="SIZE", help="Pixels per side, or HEIGHTxWIDTH.")
@click.option("--patch-size", metavar="SIZE", help="Patch size in pixels, or HEIGHTxWIDTH.")
@click.option("--mask-ratio", type=float, metavar="SHARE", help="Share of hidden patches. [default: 0.75]")
@click.option(
    "--decoder-dim", type=click.IntRange(min=1), help="Channels of the decoder. [default: from the model]"
)
@click.option(
    "--decoder-depth", type=click.IntRange(min=1), help="Blocks of the decoder. [default: from the model]"
)
@click.option(
    "--decoder-heads",
    type=click.IntRange(min=1),
    help="Attention heads of the decoder. [default: from the model]",
)
@click.option(
    "--norm-targets/--raw-targets",
    default=None,
    help="Predict standardised patches, or pixels. [default: standardised]",
)
@click.option(
    "--watch",
    metavar="DATA",
    help="Labelled images: keep the weights with the best k-NN accuracy on them, against the start.",
)
@click.option("--epochs", type=click.IntRange(min=1), help="Passes over the images.")
@click.option("--batch-size", type=click.IntRange(min=1), help="Images per step.")
@click.option("--lr", type=float, help="Peak learning rate.")
@click.option("--find-lr", is_flag=True, default=None, help="Measure the learning rate before training.")
@click.option(
    "--max-time", type=click.FloatRange(min=0), metavar="MINUTES", help="Stop after so many minutes."
)
@click.option("--seed", type=int, help="Random seed for weights, order, views and masks. [default: 0]")
@click.option("--split-seed", type=int, help="Seed of the held-out images. [default: 0]")
@click.option(
    "--cache",
    type=click.Choice(["auto", "memory", "disk", "none"]),
    help="Where decoded images are kept. [default: auto]",
)
@click.option("--threads", type=click.IntRange(min=1), help="Compute threads. [default: all available]")
@device_option
@click.option("--recipe", metavar="NAME", help="mae-small or mae. [default: mae from 200,000 images on]")
@click.option("--dry-run", is_flag=True, help="Print the plan and every setting; write nothing.")
@click.option("--config", metavar="FILE", help="TOML file of settings, e.g. a run's config.toml.")
@click.option("-o", "overrides", metavar="A.B=C", multiple=True, help="Set any setting; repeatable.")
@click.option("--image-column", metavar="NAME", help="Image column, if DATA is a table.")
@click.option("--split-column", metavar="NAME", help="Split column, if DATA is a table.")
@max_pixels_option
@value_range_option
@start_options
@offline_option
def pretrain(
    data: str | None, out: str | None, resume: str | None, overrides: tuple[str, ...], **given: Any
) -> None:
    """Learn from the images of DATA without labels, as a masked autoencoder.

    \b
    patchword pretrain images/ --model ViT-S/16        any folder, zip or table of images
    patchword pretrain images/ --watch flowers/        and watch what the features are worth
    patchword train flowers/ --weights runs/images     then fine-tune the encoder

    A part of each image is hidden, and the model learns to draw it from the rest. Where DATA has
    splits, only its training images are used. Prints the path of the run folder, which contains
    report.html.
    """
    from patchword import machine, runs
    from patchword.cli.train import show
    from patchword.cli.train_screen import screen, show_result
    from patchword.runs.prepare import prepare

    machine.start_sampling()
    if given["dry_run"] and resume is None:
        show_plan(_request(data, out, overrides, given))
        return
    with screen() as progress:
        if resume is not None:
            refuse_settings()
            result = runs.resume_folder(resume, data=data, progress=progress)
        else:
            prepared = prepare(_request(data, out, overrides, given), progress)
            show(prepared)
            result = runs.run(prepared, progress)
    show_result(result)
    click.echo(str(result.folder))


def _request(
    data: str | None, out: str | None, overrides: tuple[str, ...], given: dict[str, Any]
) -> "TrainRequest":
    if data is None:
        raise UserError("DATA is missing", "give a folder, .zip or table of images")
    from patchword.runs.prepare import TrainRequest
    from patchword.training.overlay import PATHS, PRETRAINING, make_overlay

    options: list[tuple[str, str, Any]] = []
    for name, path in {**PATHS, **PRETRAINING}.items():
        if given.get(name) is not None:
            flag = f"--{name.replace('_', '-')}"
            is_size = name in ("image_size", "patch_size")
            options.append((path, flag, size(flag, given[name]) if is_size else given[name]))
    opening = OpenRequest(
        without_labels=True,
        image_column=given["image_column"],
        split_column=given["split_column"],
        max_pixels=given["max_pixels"],
    )
    return TrainRequest(
        data=data,
        overlay=make_overlay(given["config"], options, overrides),
        out=out,
        opening=opening,
        options=given_options(),
        offline=given["offline"],
        dry_run=given["dry_run"],
    )
