"""`patchword explain` with a detector: where the queries of the objects that it finds look."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from patchword.cli.console import say
from patchword.cli.loading import report_loading
from patchword.cli.options import kept_option, kept_values
from patchword.cli.predict_boxes import refuse_options
from patchword.cli.progress import counting
from patchword.errors import SettingsError, plural
from patchword.settings import to_json

if TYPE_CHECKING:
    from patchword.cli.given_images import Images
    from patchword.explaining.detection import Looked
    from patchword.inference.detector import Detector
    from patchword.inference.failures import Failures

F = TypeVar("F", bound=Callable[..., Any])
_KEPT = "patchword.explain_boxes"
# Options that have a meaning for other models only.
_OF_OTHERS = ("mask_ratio", "decoder_num_heads", "norm_pix_loss")


def explain_box_options(command: F) -> F:
    """Add the options that a detector has."""
    for option in (
        kept_option(
            _KEPT,
            "--objects",
            type=click.IntRange(1),
            metavar="N",
            help="Detectors: explain at most N objects of an image, the surest first. [default: 5]",
        ),
        kept_option(
            _KEPT,
            "--conf",
            type=click.FloatRange(0, 1),
            metavar="P",
            help="Detectors: the lowest score of an object. [default: as in predict]",
        ),
    ):
        command = option(command)
    return command


def refuse_box_options_of_explain(model: str) -> None:
    """Raises: SettingsError if an option of detectors is given for a model that is none."""
    for name, value in kept_values(_KEPT).items():
        if value is not None:
            raise SettingsError(
                f"--{name} applies to detectors only, and {model} predicts no boxes", f"remove --{name}"
            )


def explain_boxes(
    detector: "Detector",
    given: "Images",
    out: Path | None,
    as_json: bool,
    sample: tuple[int | None, int],
    value_range: tuple[float, float] | None,
) -> None:
    """Draw, or print as JSON, where the queries look. sample: so many random images (None for all), and their seed."""
    from patchword.explaining.detection import DEFAULT_OBJECTS, look_each
    from patchword.explaining.drawing.detection import MOST_ROWS
    from patchword.explaining.sample import as_named, chosen
    from patchword.inference.failures import Failures

    refuse_options(click.get_current_context(), _OF_OTHERS, str(detector.report.path))
    report_loading(detector.report)
    asked = kept_values(_KEPT)
    conf = detector.checked_conf(asked["conf"])
    sources = [as_named(item) for item in chosen(given.known_to(detector), *sample)]
    if out is not None and len(sources) > MOST_ROWS:
        raise SettingsError(
            f"{len(sources)} images are too many for one picture",
            "add --images 20 to draw a sample, or --json for the numbers alone",
        )
    failures = Failures()
    images: list[Looked] = []
    with counting("explaining", quiet=as_json) as progress:
        for image in look_each(
            detector,
            sources,
            conf=conf,
            objects=asked["objects"] or DEFAULT_OBJECTS,
            preprocess=detector.preprocess.with_range(value_range),
            max_pixels=given.reading.opening.max_pixels,
            failures=failures,
        ):
            images.append(image)
            if progress:
                progress(len(images), len(sources))
    _show(detector, images, conf, out, as_json=as_json)
    _check(failures, len(sources))


def _check(failures: "Failures", count: int) -> None:
    failures.check(count, "explained")


def _show(
    detector: "Detector", images: "list[Looked]", conf: float, out: Path | None, *, as_json: bool
) -> None:
    from patchword.explaining.drawing.detection import detection_sheet
    from patchword.explaining.drawing.reconstruction import write_sheet

    if as_json:
        facts = {"model": str(detector.report.path), "conf": conf}
        click.echo(to_json({**facts, "images": [image.numbers() for image in images]}, indent=1))
    else:
        for image in images:
            say(f"{image.name}: {plural(len(image.looks) + image.more, 'object')}", err=False)
            for look in image.looks:
                say(f"  {look.name} {look.score:.2f}   query {look.query}", err=False)
    if out is None or not images:
        return
    if not any(image.looks for image in images):
        say(f"nothing drawn: no object has a score of at least {conf:g}; --conf lowers it")
        return
    sheet = detection_sheet(images, Path(str(detector.report.path)).name, conf)
    write_sheet(sheet, out)
    say(f"{plural(len(sheet.rows), 'object')} drawn: {out}")
