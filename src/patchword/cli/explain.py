"""`patchword explain`: see what a model does, and how much images repeat themselves."""

from pathlib import Path
from typing import Any

import click

from patchword import machine
from patchword.cli.explain_boxes import explain_box_options, explain_boxes, refuse_box_options_of_explain
from patchword.cli.explain_maps import explain_maps
from patchword.cli.explain_options import (
    asks_for_maps,
    given_methods,
    method_options,
    refuse_decoder_options,
    refuse_method_options,
    refuse_model_options,
    refuse_unused_settings,
)
from patchword.cli.explain_reconstruction import explain_reconstruction
from patchword.cli.explain_redundancy import explain_redundancy
from patchword.cli.given_images import Images
from patchword.cli.model_options import decoder_options, detector_options, given_options, model_options
from patchword.cli.options import device_option, given_reading, image_set_options, offline_option
from patchword.cli.predict_boxes import detector_at
from patchword.errors import SettingsError

DEFAULT_OUT = "explain.png"


@click.command()
@click.argument("arguments", nargs=-1, required=True, metavar="MODEL FILES…")
@click.option(
    "--redundancy", is_flag=True, help="Measure how much images repeat themselves, without a model."
)
@click.option(
    "--out",
    "--output",
    "output",
    metavar="FILE",
    help=f"Draw into FILE: .png or .html. [default: {DEFAULT_OUT}; with --json or --redundancy none]",
)
@click.option("--json", "as_json", is_flag=True, help="Print the numbers as JSON.")
@click.option(
    "--mask-ratio",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    metavar="X",
    help="Share of hidden patches. [default: that of the model's training]",
)
@click.option(
    "--seed",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    metavar="N",
    help="Seed of masks, samples and random orders.",
)
@click.option(
    "--images",
    "count",
    type=click.IntRange(1),
    metavar="N",
    help="Use N random images. [default: all; with --redundancy 150]",
)
@explain_box_options
@device_option
@offline_option
@method_options
@decoder_options
@model_options
@detector_options
@image_set_options
@click.pass_context
def explain(
    ctx: click.Context,
    arguments: tuple[str, ...],
    redundancy: bool,
    output: str | None,
    as_json: bool,
    mask_ratio: float | None,
    seed: int,
    count: int | None,
    device: str | None,
    offline: bool,
    value_range: tuple[float, float] | None,
) -> None:
    """Show what an answer rests on, what a masked autoencoder reconstructs, or how much images repeat themselves.

    \b
    MODEL   a classifier, backbone, masked autoencoder or detector: a run folder,
            weights file, hf://org/name[@revision] or published name
    FILES…  images, folders, zips, tables (CSV, TSV, JSONL, Parquet), patterns,
            lists of paths (.txt); - reads paths or one image from standard input

    \b
    patchword explain runs/flowers photo.jpg
    patchword explain runs/flowers photo.jpg --class tulip --method occlusion,relevance
    patchword explain runs/flowers garden/ --images 12 --out garden.html
    patchword explain --redundancy garden/ --out redundancy.png

    \b
    Methods that know the class:
      relevance, integrated-relevance, grad-cam, gradient-activation,
      integrated-gradients, occlusion
    The same for every class:
      attention, rollout, value-norm, pca, outliers

    Each map comes with its faithfulness on a few of the images: what is left of the answer while
    the patches it marks go (deletion) or come (insertion), next to a random order, and how alike
    the map of shuffled weights is. Without --method, the most faithful method is used.

    A file with a decoder is shown by its reconstructions, unless a method is asked for. The seed and
    the file name decide which patches are hidden, so the same command draws the same picture.

    Of a detector, each object that it finds gets a row: its box, and where its query looked.

    --redundancy takes FILES… alone, and measures the correlation of pixels and how well a patch
    (--patch-size, 16 by default) is predicted from its neighbours, next to white noise and to the
    same images with shuffled patches.

    Unreadable images are listed; the exit code is then 3.
    """
    machine.start_sampling()
    if redundancy:
        refuse_model_options(ctx)
        explain_redundancy(arguments, _checked(output), as_json, count or 150, seed, value_range)
        return
    _require_image(arguments)
    out = _checked(output or (None if as_json else DEFAULT_OUT))
    shared = {"out": out, "as_json": as_json, "seed": seed, "count": count, "value_range": value_range}
    _explain_model(ctx, arguments, mask_ratio, device, offline, shared)


def _explain_model(
    ctx: click.Context,
    arguments: tuple[str, ...],
    mask_ratio: float | None,
    device: str | None,
    offline: bool,
    shared: dict[str, Any],
) -> None:
    """Explain a detector, a masked autoencoder, or a classifier or backbone, by what the file holds."""
    model, given = arguments[0], Images(arguments[1:], given_reading())
    machine.tune_allocator()
    if (detector := detector_at(model, device=device, offline=offline)) is not None:
        refuse_method_options(ctx, model)
        drawn = shared["out"], shared["as_json"], (shared["count"], shared["seed"]), shared["value_range"]
        explain_boxes(detector, given, *drawn)
        return
    refuse_box_options_of_explain(model)
    shared |= {"device": device, "offline": offline}
    if asks_for_maps(ctx) or not _has_decoder(model, offline):
        refuse_decoder_options(ctx)
        refuse_unused_settings(ctx, given_methods()[0])
        explain_maps(model, given, **shared)
    else:
        explain_reconstruction(model, given, mask_ratio=mask_ratio, **shared)


def _has_decoder(model: str, offline: bool) -> bool:
    from patchword.inference.load_mae import has_decoder

    return has_decoder(model, options=given_options(), offline=offline)


def _require_image(arguments: tuple[str, ...]) -> None:
    """Raises: SettingsError for MODEL alone."""
    if len(arguments) < 2:
        raise SettingsError(
            f"only one argument is given, {arguments[0]!r}, but MODEL and an image are needed",
            "give both, or --redundancy to measure images without a model",
        )


def _checked(output: str | None) -> Path | None:
    """Raises: OutputError if nothing can be drawn there."""
    from patchword.explaining.drawing.files import check_out

    if output is not None:
        check_out(Path(output))
    return None if output is None else Path(output)
