"""`patchword explain`: see what a model does, and how much images repeat themselves."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from patchword import machine
from patchword.cli.console import say
from patchword.cli.explain_boxes import explain_box_options, explain_boxes, refuse_box_options_of_explain
from patchword.cli.loading import report_loading
from patchword.cli.model_options import decoder_options, detector_options, given_options, model_options
from patchword.cli.options import device_option, given_reading, image_set_options, offline_option
from patchword.cli.predict import Images
from patchword.cli.predict_boxes import detector_at
from patchword.cli.progress import counting
from patchword.errors import SettingsError, plural
from patchword.settings import to_json

if TYPE_CHECKING:
    from patchword.explain.reconstruction import Reconstructed
    from patchword.inference.load_mae import LoadedMAE

DEFAULT_OUT = "explain.png"
# Options that have a meaning without a model.
_WITHOUT_MODEL = frozenset(
    (
        *("arguments", "redundancy", "output", "as_json", "count", "seed", "image_size", "patch_size"),
        *("split", "split_seed", "image_column", "label_column", "split_column", "class_level"),
        *("max_pixels", "value_range"),
    )
)


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
    help="Seed of the masks and of samples.",
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
    """Draw what a masked autoencoder reconstructs or where a detector's queries look, or measure the redundancy of images.

    \b
    MODEL   a masked autoencoder with its decoder, or a detector: a run folder,
            weights file, hf://org/name[@revision] or published name
    FILES…  images, folders, zips, tables (CSV, TSV, JSONL, Parquet), patterns,
            lists of paths (.txt); - reads paths or one image from standard input

    \b
    patchword explain runs/flowers-mae photo.jpg
    patchword explain runs/flowers-mae garden/ --images 12 --out garden.html
    patchword explain --redundancy garden/ --out redundancy.png

    Each image is shown as it is, masked, reconstructed, and with its visible patches pasted in.
    The loss is printed next to that of fills that need no model. The seed and the file name decide
    which patches are hidden, so the same command draws the same picture.

    Of a detector, each object that it finds gets a row: its box, and where its query looked.

    --redundancy takes FILES… alone, and measures the correlation of pixels and how well a patch
    (--patch-size, 16 by default) is predicted from its neighbours, next to white noise and to the
    same images with shuffled patches.

    Unreadable images are listed; the exit code is then 3.
    """
    machine.start_sampling()
    if redundancy:
        _refuse_model_options(ctx)
        _redundancy(arguments, _checked(output), as_json, count or 150, seed, value_range)
        return
    if len(arguments) < 2:
        raise SettingsError(
            f"only one argument is given, {arguments[0]!r}, but MODEL and an image are needed",
            "give both, or --redundancy to measure images without a model",
        )
    out = _checked(output or (None if as_json else DEFAULT_OUT))
    given = Images(arguments[1:], given_reading())
    machine.tune_allocator()
    if (detector := detector_at(arguments[0], device=device, offline=offline)) is not None:
        explain_boxes(detector, given, out, as_json=as_json, count=count, seed=seed, value_range=value_range)
        return
    refuse_box_options_of_explain(arguments[0])
    from patchword.inference.load_mae import load_mae

    loaded = load_mae(arguments[0], device=device, options=given_options(), offline=offline)
    report_loading(loaded.report)
    how = {"mask_ratio": mask_ratio, "seed": seed}
    images = _reconstructions(loaded, given, how, count, value_range, drawn=out is not None)
    _show(loaded, arguments[0], how, images, out, as_json)
    images.failures.check(images.count, "reconstructed")


def _checked(output: str | None) -> Path | None:
    """Raises: OutputError if nothing can be drawn there."""
    from patchword.explain.drawing.files import check_out

    if output is not None:
        check_out(Path(output))
    return None if output is None else Path(output)


def _refuse_model_options(ctx: click.Context) -> None:
    """Raises: SettingsError for an option that has no effect without a model."""
    for param in ctx.command.params:
        name = param.name or ""
        is_given = ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE
        if is_given and name not in _WITHOUT_MODEL:
            raise SettingsError(
                f"{param.opts[0]} only applies to a model, and --redundancy uses none",
                f"remove {param.opts[0]}",
            )


class _Images:
    """Reconstructed images. numbers: of each. drawn: their pixels, None if nothing is drawn."""

    def __init__(self, count: int, *, drawn: bool) -> None:
        from patchword.inference.failures import Failures

        self.count, self.failures = count, Failures()
        self.numbers: list[dict[str, Any]] = []
        # Without a picture, any number of images can be measured.
        self.drawn: list[Reconstructed] | None = [] if drawn else None

    @property
    def mean(self) -> dict[str, float]:
        from patchword.explain.reconstruction import mean_losses

        return mean_losses([row["losses"] for row in self.numbers])


def _reconstructions(
    loaded: "LoadedMAE",
    given: Images,
    how: dict[str, Any],
    count: int | None,
    value_range: tuple[float, float] | None,
    *,
    drawn: bool,
) -> _Images:
    from patchword.explain.drawing.reconstruction import check_number
    from patchword.explain.reconstruction import reconstruct_each
    from patchword.explain.sample import as_named, chosen

    sources = [as_named(item) for item in chosen(given.known_to(loaded.card), count, how["seed"])]
    if drawn:
        check_number(len(sources))
    images = _Images(len(sources), drawn=drawn)
    with counting("reconstructing") as progress:
        for image in reconstruct_each(
            loaded.mae,
            loaded.card.preprocess.with_range(value_range),
            sources,
            **how,
            max_pixels=given.reading.opening.max_pixels,
            failures=images.failures,
        ):
            images.numbers.append(image.numbers())
            if images.drawn is not None:
                images.drawn.append(image)
            if progress:
                progress(len(images.numbers), len(sources))
    return images


def _show(
    loaded: "LoadedMAE", model: str, how: dict[str, Any], images: _Images, out: Path | None, as_json: bool
) -> None:
    from patchword.explain.drawing.reconstruction import (
        reconstruction_notes,
        reconstruction_sheet,
        write_sheet,
    )

    if as_json:
        _print_json(loaded, how, images)
    elif images.numbers:
        _print_losses(images)
        click.echo("\n" + click.wrap_text(reconstruction_notes(loaded.mae.config.norm_targets)[0], 80))
    if images.drawn and out is not None:
        write_sheet(reconstruction_sheet(images.drawn, Path(model).name, how["seed"]), out)
        say(f"{plural(len(images.drawn), 'image')} drawn: {out}")


def _print_json(loaded: "LoadedMAE", how: dict[str, Any], images: _Images) -> None:
    given, config = how["mask_ratio"], loaded.mae.config
    facts = {
        "model": str(loaded.report.path),
        "mask_ratio": config.mask_ratio if given is None else given,
        "seed": how["seed"],
        "normalised_targets": config.norm_targets,
    }
    click.echo(to_json({**facts, "images": images.numbers, "mean": images.mean}, indent=2))


def _print_losses(images: _Images) -> None:
    """A table of 80 columns: 24 for the name, 14 for each number."""
    from patchword.explain.drawing.reconstruction import BASELINE_NAMES

    names = {"model": "model", **BASELINE_NAMES}
    click.echo(f"{'loss over hidden patches':<24}" + "".join(f"{name:>14}" for name in names.values()))
    rows = [(row["file"], row["losses"]) for row in images.numbers]
    if len(rows) > 1:
        rows.append((f"mean of {len(rows)} images", images.mean))
    for name, losses in rows:
        shown = name if len(name) <= 23 else "…" + name[-22:]
        say(f"{shown:<24}" + "".join(f"{losses[key]:>14.3f}" for key in names), err=False)


def _redundancy(
    files: tuple[str, ...],
    out: Path | None,
    as_json: bool,
    count: int,
    seed: int,
    value_range: tuple[float, float] | None,
) -> None:
    from patchword.explain.drawing.redundancy import (
        redundancy_notes,
        redundancy_tables,
        redundancy_title,
        write_redundancy,
    )
    from patchword.explain.redundancy import redundancy
    from patchword.explain.sample import as_named, read_sample, square
    from patchword.inference.failures import Failures

    options = given_options()
    patch = square(options.patch_size, "--patch-size") or 16
    size = square(options.image_size, "--image-size")
    given = Images(files, given_reading())
    failures = Failures()
    with counting("reading images", quiet=as_json) as progress:
        sample = read_sample(
            [as_named(item) for item in given.known_to(None)],
            count=count,
            patch=patch,
            size=size,
            seed=seed,
            value_range=value_range,
            max_pixels=given.reading.opening.max_pixels,
            failures=failures,
            progress=progress,
        )
    found = redundancy(sample.images, patch, seed)
    title = redundancy_title(found, sample, files, seed)
    if as_json:
        click.echo(to_json({**found.numbers(), "seed": seed, "files": list(sample.names)}, indent=2))
    else:
        say(title[1], err=False)
        for table in redundancy_tables(found):
            _print_table(table)
        click.echo()
        for note in redundancy_notes(found, sample):
            click.echo(click.wrap_text(note, 80))
    if out is not None:
        write_redundancy(found, sample, title, out)
        say(f"drawn: {out}")
    failures.check(failures.count + len(sample.names), "used")


def _print_table(table: dict[str, Any]) -> None:
    """A table of at most 80 columns: 24 for the name, 8 for each number."""
    click.echo(f"\n{table['title']}")
    if table["groups"]:
        width = 8 * len(table["headings"]) // len(table["groups"])
        click.echo(" " * 24 + "".join(f"{name:>{width}}" for name in table["groups"]))
    click.echo(" " * 24 + "".join(f"{heading:>8}" for heading in table["headings"]))
    for name, values in table["rows"]:
        click.echo(f"{name:<24}" + "".join(f"{value:>8}" for value in values))
