"""`patchword predict` with a detector: boxes instead of classes."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.core import ParameterSource

from patchword.cli.console import say
from patchword.cli.loading import report_loading
from patchword.cli.options import kept_option, kept_values
from patchword.errors import SettingsError, plural

if TYPE_CHECKING:
    from patchword.cli.given_images import Images
    from patchword.inference.coco_results import CocoResults
    from patchword.inference.detector import Detector
    from patchword.inference.tiles import Tiling

F = TypeVar("F", bound=Callable[..., Any])
_KEPT = "patchword.predict_boxes"
_LISTED = 3
# Options that have a meaning for classes or numbers only.
_OF_CLASSES = (
    *("top", "thresholds", "calibrated", "against", "ignore_unknown_classes"),
    *("label_separator", "target_column"),
)
_BOX_OPTIONS = (
    kept_option(
        _KEPT,
        "--conf",
        type=click.FloatRange(0, 1),
        metavar="P",
        help="Detectors: the lowest score of a box. [default: by the model, printed with the reason]",
    ),
    kept_option(
        _KEPT,
        "--tile",
        type=click.IntRange(1),
        metavar="SIZE",
        help="Detectors: cut images in tiles of SIZE pixels, and merge the answers where tiles overlap.",
    ),
    kept_option(
        _KEPT,
        "--overlap",
        type=float,
        metavar="SHARE",
        help="With --tile: share of a side that neighbours have in common. [default: 0.2]",
    ),
    kept_option(
        _KEPT, "--pictures", metavar="FOLDER", help="Detectors: draw each image with its boxes into FOLDER."
    ),
    kept_option(
        _KEPT,
        "--coco",
        metavar="FILE",
        help="Detectors: also write COCO's list of results, with the boxes of all scores unless --conf is given.",
    ),
    kept_option(
        _KEPT,
        "--annotations",
        metavar="FILE",
        multiple=True,
        help="With --coco: COCO file with the ids of the images. [default: the numbers in their names, or the names]",
    ),
)


def predict_box_options(command: F) -> F:
    """Add the options that a detector has; `given_boxes` returns them."""
    for option in reversed(_BOX_OPTIONS):
        command = option(command)
    return command


@dataclass(frozen=True, kw_only=True)
class BoxRequest:
    """The options of the running command about boxes."""

    conf: float | None
    tile: int | None
    overlap: float | None
    pictures: str | None
    coco: str | None
    annotations: str | None

    def check(self) -> "Tiling | None":
        """Before a model is loaded. Raises: SettingsError, OutputError."""
        from patchword.inference.output import check_place
        from patchword.inference.tiles import make_tiling

        if self.annotations is not None and self.coco is None:
            raise SettingsError(
                f"--annotations {self.annotations} gives the image ids of --coco, which is missing",
                "remove --annotations, or add --coco FILE",
            )
        if self.coco is not None:
            if Path(self.coco).suffix.lower() != ".json":
                raise SettingsError(
                    f"--coco {self.coco}: COCO results are written as JSON only",
                    "use a name that ends in .json",
                )
            check_place(Path(self.coco))
        return make_tiling(self.tile, self.overlap)


def given_boxes() -> BoxRequest:
    """Raises: SettingsError if annotations are given twice: results are scored with one file, whose ids they have."""
    values = kept_values(_KEPT)
    files = values.pop("annotations") or (None,)
    if len(files) > 1:
        raise SettingsError(
            f"--annotations is given {len(files)} times, but COCO results have the ids of one file",
            "predict the images of each file by themselves",
        )
    return BoxRequest(annotations=files[0], **values)


def refuse_box_options_for(model: str) -> None:
    """Raises: SettingsError if an option of detectors is given for a model that is none."""
    for name, value in kept_values(_KEPT).items():
        if value not in (None, ()):
            raise SettingsError(
                f"--{name.replace('_', '-')} applies to detectors only, and {model} predicts no boxes",
                "remove the option, or give a detector",
            )


def predict_boxes(
    detector: "Detector",
    given: "Images",
    kind: str,
    output: str | None,
    batch_size: int | None,
    value_range: tuple[float, float] | None,
) -> None:
    """Write the boxes of all images, as they are made."""
    ctx, asked = click.get_current_context(), given_boxes()
    refuse_options(ctx, _OF_CLASSES, str(detector.report.path))
    tiling = asked.check()
    report_loading(detector.report)
    conf, why = _conf(detector, asked.conf)
    sources = given.known_to(detector)
    with _coco(detector, asked, sources) as coco:
        failures, count = _run(
            detector, given, sources, _Outputs(kind, output, asked.pictures, coco), (conf, asked.conf, tiling),
            batch_size, value_range,
        )  # fmt: skip
    if detector.report.why:
        say(f"model: {detector.report.path} ({detector.report.why})")
    say(
        f"boxes with a score of at least {conf:g}{why}: left, top, right, bottom in pixels of the upright image"
    )
    _say_coco(coco, asked)
    failures.check(count, "searched for objects")


def _conf(detector: "Detector", asked: float | None) -> tuple[float, str]:
    """The lowest score, and the reason in brackets if it was not given."""
    if asked is not None:
        return asked, ""
    conf, reason = detector.default_conf()
    return conf, f" ({reason}; --conf changes it)"


@dataclass(frozen=True)
class _Outputs:
    """Where the boxes go."""

    kind: str
    output: str | None
    pictures: str | None
    coco: "CocoResults | None"


def _run(
    detector: "Detector",
    given: "Images",
    sources: Any,
    to: _Outputs,
    scores: "tuple[float, float | None, Tiling | None]",
    batch_size: int | None,
    value_range: tuple[float, float] | None,
) -> tuple[Any, int]:
    """The failures, and the number of images. scores: lowest score shown, that of the COCO file, and how images are cut."""
    from patchword.cli.writers import Progress
    from patchword.inference.engine import SameAnswers
    from patchword.inference.failures import Failures

    conf, coco_conf, tiling = scores
    drawn = None if to.pictures is None else _Pictures(Path(to.pictures))
    failures, same, count = Failures(), SameAnswers(), 0
    progress = Progress(given.total, quiet=to.output is None and sys.stdout.isatty())
    with _writer(to.kind, to.output) as writer:
        for answer in detector.detect_each(
            sources,
            tiling=tiling,
            value_range=value_range,
            batch_size=batch_size,
            max_pixels=given.reading.opening.max_pixels,
        ):
            count += 1
            if answer.error is not None:
                failures.add(answer.image.name, answer.error)
            if tiling is None:
                same.add(answer.output)
            found = detector.detections(answer, value_range)
            if to.coco is not None:
                to.coco.add(found if coco_conf is None else found.above(coco_conf))
            found = found.above(conf)
            writer.add(found)
            if drawn is not None:
                drawn.add(found)
            progress.step()
    progress.close()
    if same.notice:
        say(f"warning: {same.notice}")
    if drawn is not None:
        say(f"{plural(drawn.count, 'image')} drawn into {to.pictures}")
    return failures, count


def refuse_options(ctx: click.Context, names: tuple[str, ...], model: str) -> None:
    """Raises: SettingsError if one of these options is given on the command line: they have no meaning for a detector."""
    for name in names:
        if ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            option = f"--{name.replace('_', '-')}"
            raise SettingsError(
                f"{option} applies to models of classes, and {model} is a detector", f"remove {option}"
            )


class _Pictures:
    """Draws images with their boxes into a folder, one file for each."""

    def __init__(self, folder: Path) -> None:
        from patchword.inference.output import cannot_write

        self.folder, self.count, self.taken = folder, 0, set[str]()
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise cannot_write(folder / "image.jpg", error) from error

    def add(self, found: Any) -> None:
        from patchword.reports.box_pictures import write_detections

        if found.size is None:
            return
        write_detections(found, self.folder / f"{self._name(found.name)}.jpg")
        self.count += 1

    def _name(self, name: str) -> str:
        """The file's name without folder and ending, with a number if another image has it too."""
        stem = Path(name).stem or "image"
        number, free = 1, stem
        while free.lower() in self.taken:
            number += 1
            free = f"{stem}-{number}"
        self.taken.add(free.lower())
        return free


@contextmanager
def _writer(kind: str, output: str | None) -> Iterator[Any]:
    from patchword.cli.box_writers import make_box_writer
    from patchword.inference.output import whole_file

    if output is None:
        writer = make_box_writer(kind, sys.stdout)
        yield writer
        writer.close()
        return
    with whole_file(Path(output), text=kind != "parquet") as stream:
        writer = make_box_writer(kind, stream)
        yield writer
        writer.close()


@contextmanager
def _coco(detector: "Detector", asked: BoxRequest, sources: Any) -> "Iterator[CocoResults | None]":
    """The file of results, complete or not at all. Raises: DataError if no image has an id in the annotations."""
    if asked.coco is None:
        yield None
        return
    from patchword.data.boxes.coco_ids import ImageIds
    from patchword.inference.coco_results import CocoResults
    from patchword.inference.inputs import named

    ids = ImageIds(asked.annotations)
    if hasattr(sources, "__len__"):
        ids.refuse_unknown(named(source).name for source in sources)
    results = CocoResults(Path(asked.coco), ids, detector.classes)
    try:
        yield results
        results.close()
    finally:
        results.discard()


def _say_coco(coco: "CocoResults | None", asked: BoxRequest) -> None:
    """What the file of results holds, and what it does not."""
    if coco is None:
        return
    scores = "of all scores" if asked.conf is None else f"with a score of at least {asked.conf:g}"
    say(f"COCO results: {plural(coco.count, 'box', 'boxes')} {scores}: {asked.coco}")
    if asked.annotations is None and any(isinstance(one, str) for one in coco.ids.used):
        say("note: image ids in the COCO results are file names; --annotations gives those of a data set")
    if coco.left_out:
        shown = ", ".join(coco.left_out[:_LISTED]) + (" …" if len(coco.left_out) > _LISTED else "")
        say(
            f"note: {plural(len(coco.left_out), 'image')} not in {asked.annotations} and not in the results: {shown}"
        )
    if coco.lacking:
        shown = ", ".join(f"{name} ({count})" for name, count in list(coco.lacking.items())[:_LISTED])
        say(
            f"note: boxes of {plural(len(coco.lacking), 'class', 'classes')} that {asked.annotations} lacks: {shown}"
        )


def detector_at(model: str, *, device: str | None, offline: bool) -> "Detector | None":
    """The detector of this name or path; None if it is no detector. Raises: PatchwordError."""
    from patchword.cli.model_options import given_detector_options
    from patchword.inference.any_model import is_detector

    options = given_detector_options()
    if not is_detector(model, offline=offline, below=options.below, drop=options.drop):
        return None
    from patchword.inference.detector import load_detector

    return load_detector(model, device=device, options=options, offline=offline)
