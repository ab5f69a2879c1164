"""`patchword evaluate`: evaluate a model on labelled images."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from patchword import machine
from patchword.cli.class_table import print_classes
from patchword.cli.console import line, make_console, percent, say
from patchword.cli.evaluate_boxes import (
    check_box_outputs,
    evaluate_box_options,
    refuse_box_outputs_for,
    score_boxes,
)
from patchword.cli.loading import report_loading
from patchword.cli.model_options import detector_options, given_options, model_options
from patchword.cli.options import (
    box_options,
    data_options,
    device_option,
    offline_option,
    open_request,
    split_seed_option,
    value_range_option,
)
from patchword.cli.predict_boxes import detector_at
from patchword.cli.probe_options import chosen_probe, probe_lines, probe_options
from patchword.cli.progress import counting
from patchword.errors import ImageError, SettingsError, plural
from patchword.settings import to_json

if TYPE_CHECKING:
    from rich.console import Console

    from patchword.data.request import OpenRequest
    from patchword.formats.report import LoadReport
    from patchword.inference.evaluate import Evaluation, EvaluationRequest
    from patchword.inference.evaluate_targets import TargetEvaluation
    from patchword.inference.model import Model
    from patchword.inference.probe import ProbeRequest


@click.command()
@click.argument("model")
@click.argument("data")
@click.option("--split", help="train, val, test or all. [default: val, else test, else all]")
@split_seed_option
@click.option(
    "--include-trained",
    is_flag=True,
    help="Also score images that MODEL was trained on (excluded by default).",
)
@probe_options
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
@click.option("--out", "--output", "output", metavar="FILE", help="Also write the JSON to FILE.")
@click.option(
    "--batch-size", type=click.IntRange(1), help="Images per batch. [default: chosen for the machine]"
)
@evaluate_box_options
@device_option
@offline_option
@model_options
@detector_options
@data_options
@box_options
@value_range_option
def evaluate(
    model: str,
    data: str,
    split: str | None,
    split_seed: int | None,
    include_trained: bool,
    as_json: bool,
    output: str | None,
    batch_size: int | None,
    device: str | None,
    offline: bool,
    image_column: str | None,
    label_column: str | None,
    class_level: int | None,
    split_column: str | None,
    group_column: str | None,
    ignore_unknown_classes: bool,
    max_pixels: int,
    value_range: tuple[float, float] | None,
) -> None:
    """Evaluate MODEL on DATA: top-1 with its 95 % interval, top-5, loss and class scores; of a detector AP.

    \b
    MODEL  a run folder, weights file, hf://org/name[@revision] or published name
    DATA   `digits`, class folders, a .zip or a table; of a detector, data with boxes
    \b
    patchword evaluate runs/flowers flowers.zip --split val --json
    patchword evaluate hf://facebook/dinov2-small flowers/ --probe linear
    patchword evaluate MODEL imagenet/ --probe mae-linear
    patchword evaluate runs/cells bccd.zip --split test --report cells.html

    Classes are matched by name. Images that MODEL was trained on are excluded and counted.
    Unreadable images are listed; the exit code is then 3.
    """
    _begin(output)
    probed = chosen_probe()
    from patchword.inference.evaluate import EvaluationRequest

    opening = open_request(
        image_column,
        label_column,
        split_column=split_column,
        class_level=class_level,
        group_column=group_column,
        ignore_unknown_classes=ignore_unknown_classes,
        max_pixels=max_pixels,
    )
    request = EvaluationRequest(
        split=split,
        include_trained=include_trained,
        batch_size=batch_size,
        ignore_unknown_classes=ignore_unknown_classes,
        value_range=value_range,
    )
    if (detector := detector_at(model, device=device, offline=offline)) is not None:
        score_boxes(detector, data, (opening, split_seed), request, as_json=as_json, output=output)
        return
    refuse_box_outputs_for(model, opening)
    loaded = _loaded(model, device, offline)
    found = _scored(loaded, data, (opening, split_seed), request, probed, quiet=as_json)
    _deliver(found, loaded.report, as_json=as_json, output=output)


def _begin(output: str | None) -> None:
    """Refuse an unusable --out, and prepare the process before torch is imported."""
    machine.start_sampling()
    _check_output(output)
    check_box_outputs()
    machine.tune_allocator()


def _loaded(model: str, device: str | None, offline: bool) -> "Model":
    """Load the model, and print what a user should know about it."""
    from patchword.inference.load import load

    loaded = load(model, device=device, options=given_options(), offline=offline)
    report_loading(loaded.report)
    return loaded


def _scored(
    model: "Model",
    data: str,
    how: "tuple[OpenRequest, int | None]",
    request: "EvaluationRequest",
    probe: "ProbeRequest | None",
    *,
    quiet: bool,
) -> "Evaluation | TargetEvaluation":
    """Score the model's own head, or a probe. how: to open the data, and the seed of its split."""
    from patchword.inference.evaluate import open_for
    from patchword.inference.evaluate_targets import score
    from patchword.inference.probe import open_for_probe
    from patchword.runs.probing import evaluate_probe

    with counting("scoring images", quiet=quiet) as progress:
        request, how = replace(request, progress=progress), (replace(how[0], boxes=False), how[1])
        if probe is not None:
            return evaluate_probe(model, open_for_probe(model, data, *how), probe, request)
        return score(model, open_for(model, data, *how), request)


def _check_unreadable(found: "Evaluation | TargetEvaluation") -> None:
    """Raises: PartialFailure with the unreadable images, if there are any."""
    from patchword.inference.failures import Failures

    failures = Failures()
    for bad in found.unreadable:  # the reason already includes the fix
        failures.add(bad["name"], ImageError(bad["reason"]))
    failures.check(found.images, "scored")


def _deliver(
    found: "Evaluation | TargetEvaluation", report: "LoadReport", *, as_json: bool, output: str | None
) -> None:
    """Print the score, and write it to `output` if there is one."""
    text = to_json(found.to_dict(), indent=1)
    if output is not None:
        _write(Path(output), text)
    if as_json:
        click.echo(text)
    else:
        _print(found, report.why)
    for note in found.notes:
        if note not in report.notes:  # those were printed after loading
            say(f"note: {note}")
    if found.notice:
        say(f"warning: {found.notice}")
    _check_unreadable(found)


def _write(path: Path, text: str) -> None:
    from patchword.inference.output import whole_file

    with whole_file(path, text=True) as file:
        file.write(text + "\n")


def _check_output(output: str | None) -> None:
    """Raises: SettingsError if the file does not end in .json; OutputError if it cannot be written."""
    from patchword.inference.output import check_place

    if output is None:
        return
    if Path(output).suffix.lower() != ".json":
        raise SettingsError(
            f"--out {output}: scores are written as JSON only", "use a name that ends in .json"
        )
    check_place(Path(output))


def _print(found: "Evaluation | TargetEvaluation", why: str) -> None:
    from patchword.inference.evaluate import Evaluation

    console = make_console()
    heading = line(found.weights, "bold")
    heading.append_text(line(f" on {found.data}, split {found.split}", "not bold"))
    console.print(heading)
    if why:
        console.print(line(why, "dim"))
    if found.trained_on is not None and found.trained_on.images:
        console.print(line(found.trained_on.text, "yellow"))
    if isinstance(found, Evaluation):
        _print_classes(console, found)
        return
    console.print()
    console.print(line(found.headline, "bold"))
    for text in found.lines:
        console.print(line(text))
    console.print(line(f"scored {found.scored} of {plural(found.images, 'image')}"))


def _print_classes(console: "Console", found: "Evaluation") -> None:
    low, high = map(percent, found.top1_interval)
    of = "" if found.scored == found.images else f" of {found.images}"
    if found.probe is not None:
        for text in probe_lines(found.probe):
            console.print(line(text))
    console.print()
    top1 = line(f"top-1  {percent(found.top1)}", "bold")
    over = f" {found.coverage}" if found.coverage else ""
    top1.append_text(line(f"{over}   95 % interval {low} to {high}", "not bold"))
    console.print(top1)
    if found.top5 is not None:
        console.print(f"top-5  {percent(found.top5)}")
    images = plural(found.scored, "image") if not of else f"{found.scored}{of} images"
    console.print(f"loss   {found.loss:.4f}\n{_calibration(found)}scored {images}\n")
    print_classes(console, found.class_names, found.classes, found.confusion)


def _calibration(found: "Evaluation") -> str:
    """One line, if there are enough images to fit a temperature: below that, the error says little."""
    measured = found.calibration
    if measured is None or measured.temperature is None:
        return ""
    return (
        f"calibration error {percent(measured.ece)} (ECE, {len(measured.bins)} bins of equal mass); "
        f"{percent(measured.ece_after or 0.0)} with a fitted temperature\n"
    )
