"""`patchword predict`: classify images."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from patchword import machine
from patchword.cli.against import Against, against_options, given_against
from patchword.cli.console import say
from patchword.cli.given_images import Images
from patchword.cli.loading import report_loading
from patchword.cli.model_options import detector_options, given_options, model_options
from patchword.cli.options import device_option, image_set_options, offline_option
from patchword.cli.predict_boxes import (
    detector_at,
    given_boxes,
    predict_box_options,
    predict_boxes,
    refuse_box_options_for,
)

if TYPE_CHECKING:
    from patchword.cli.writers import Several, Writer
    from patchword.inference.target_scores import Thresholds


def _thresholds(ctx: click.Context, param: click.Parameter, text: str | None) -> "Thresholds | None":
    if text is None or text.strip().lower() == "best":
        return None if text is None else "best"
    try:
        share = float(text)
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:
        from patchword.errors import SettingsError

        raise SettingsError(
            f"--thresholds is {text!r}", "give best, or a probability from 0 to 1, such as 0.5"
        )
    return share


@click.command()
@click.argument("model")
@click.argument("files", nargs=-1, required=True)
@click.option("--top", type=click.IntRange(1), default=5, show_default=True, help="Classes listed per image.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON array.")
@click.option("--jsonl", "as_jsonl", is_flag=True, help="Print one JSON object per line as results arrive.")
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV with a header line.")
@click.option(
    "--out",
    "--output",
    "output",
    metavar="FILE",
    help="Write to FILE: .txt, .json, .jsonl, .csv or .parquet.",
)
@against_options
@click.option(
    "--thresholds",
    metavar="BEST|P",
    callback=_thresholds,
    help="A class is present from this probability on, or from its best threshold in the file (best), if MODEL gives several "
    "per image. [default: 0.5]",
)
@click.option("--calibrated", is_flag=True, help="Apply the temperature fitted in training, if there is one.")
@click.option(
    "--batch-size", type=click.IntRange(1), help="Images per batch. [default: chosen for the machine]"
)
@predict_box_options
@device_option
@offline_option
@model_options
@detector_options
@image_set_options
def predict(
    model: str,
    files: tuple[str, ...],
    top: int,
    as_json: bool,
    as_jsonl: bool,
    as_csv: bool,
    output: str | None,
    thresholds: "Thresholds | None",
    calibrated: bool,
    batch_size: int | None,
    device: str | None,
    offline: bool,
    value_range: tuple[float, float] | None,
) -> None:
    """Classify images and print the most probable classes, or the boxes of a detector.

    \b
    MODEL   a run folder, weights file, hf://org/name[@revision] or published name
    FILES…  images, folders, zips, tables (CSV, TSV, JSONL, Parquet), patterns,
            lists of paths (.txt); - reads paths or one image from standard input

    \b
    patchword predict runs/flowers photo.jpg garden/
    patchword predict runs/flowers flowers.zip --split val --out flowers.csv
    patchword predict runs/flowers garden/ --against labels.csv

    \b
    patchword predict runs/cells photo.jpg --pictures drawn/
    patchword predict detr-r50 val2017/ --coco results.json --annotations instances_val2017.json

    A detector gives boxes: left, top, right, bottom in pixels of the upright image.
    An unreadable image gets a row with the reason; the exit code is then 3. With --against, the score
    is printed after the rows; --json prints one object with predictions and score (with --out, only score).
    """
    machine.start_sampling()
    against = given_against(files, as_json=as_json, as_rows=as_csv or as_jsonl, to_file=output is not None)
    # With a file for the rows, --json is the format of the score.
    formats = {"json": as_json and not against.json_score, "jsonl": as_jsonl, "csv": as_csv}
    kind = _kind(formats, output)
    given_boxes().check()
    given = Images(files, against.reading)

    machine.tune_allocator()
    if (detector := detector_at(model, device=device, offline=offline)) is not None:
        predict_boxes(detector, given, kind, output, batch_size, value_range)
        return
    refuse_box_options_for(model)
    loaded = _loaded(model, device, offline)
    several = _several(loaded, thresholds)
    sources = against.match(given.known_to(loaded), loaded, several)
    how = {"value_range": value_range, "calibrated": calibrated, "batch_size": batch_size}
    found = _predictions(loaded, sources, given, **how)
    numbers = loaded.classes if loaded.card.task == "number" else ()
    _write_all(found, against, given, (kind, output, min(top, len(loaded.classes)), numbers, several))
    if loaded.report.why:
        say(f"model: {loaded.report.path} ({loaded.report.why})")
    if found.notice:
        say(f"warning: {found.notice}")
    against.report()
    found.check()


def _loaded(model: str, device: str | None, offline: bool) -> Any:
    """The model, which can predict. Raises: CheckpointError."""
    from patchword.inference.load import load

    loaded = load(model, device=device, options=given_options(), offline=offline)
    report_loading(loaded.report)
    loaded.check_can_predict()
    return loaded


def _several(loaded: Any, thresholds: "Thresholds | None") -> "Several | None":
    """How several classes are written; None for a model of one class, or of numbers. Raises: PatchwordError."""
    from patchword.cli.writers import several_of
    from patchword.errors import SettingsError
    from patchword.inference.prediction import without_thresholds
    from patchword.inference.target_scores import DEFAULT_THRESHOLD

    if loaded.card.task != "multi":
        if thresholds is not None:
            gives = "numbers" if loaded.card.task == "number" else "one class per image"
            raise SettingsError(
                f"--thresholds applies to models that give several classes per image; {loaded.report.path} gives {gives}",
                "remove --thresholds",
            )
        return None
    if thresholds == "best" and not loaded.card.thresholds:
        raise without_thresholds()
    return several_of(loaded.classes, DEFAULT_THRESHOLD if thresholds is None else thresholds)


def _predictions(loaded: Any, sources: Any, given: Images, **how: Any) -> Any:
    from patchword.inference.predict import Predictions

    return Predictions(loaded, sources, max_pixels=given.reading.opening.max_pixels, **how)


def _write_all(
    found: Any,
    against: Against,
    given: Images,
    where: "tuple[str, str | None, int, tuple[str, ...], Several | None]",
) -> None:
    """Write the predictions as they are made. where: format, output, number of classes listed, names of numbers, several classes."""
    from patchword.cli.writers import Progress

    kind, output, top, numbers, several = where
    how = {"with_truth": against.asked, "numbers": numbers, "several": several}
    progress = Progress(given.total, quiet=output is None and sys.stdout.isatty())
    with _writer(kind, output, top, given.width, how) as writer:
        for prediction in found:
            writer.add(against.add(prediction))
            progress.step()
    progress.close()


def _kind(asked: dict[str, bool], output: str | None) -> str:
    """The output format. Raises: SettingsError for two formats, or one that contradicts the file's ending."""
    from patchword.errors import SettingsError

    kinds = [kind for kind, is_asked in asked.items() if is_asked]
    if len(kinds) > 1:
        both = " and ".join(f"--{kind}" for kind in kinds)
        raise SettingsError(f"{both} select different formats", "give only one of them")
    if output is None:
        return kinds[0] if kinds else "txt"
    from patchword.cli.writers import format_of
    from patchword.inference.output import check_place

    kind = format_of(output)
    if kinds and kinds[0] != kind:
        raise SettingsError(
            f"--{kinds[0]} and --out {output} select different formats", f"remove --{kinds[0]}"
        )
    check_place(Path(output))
    return kind


@contextmanager
def _writer(kind: str, output: str | None, top: int, width: int, how: dict[str, Any]) -> "Iterator[Writer]":
    from patchword.cli.writers import make_writer
    from patchword.inference.output import whole_file

    if output is None:
        writer = make_writer(kind, sys.stdout, top, width, **how)
        yield writer
        writer.close()
        return
    with whole_file(Path(output), text=kind != "parquet") as stream:
        writer = make_writer(kind, stream, top, width, **how)
        yield writer
        writer.close()
