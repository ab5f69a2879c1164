"""A training from the user's request to the report: prepare, run, resume, finish."""

import contextlib
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from patchword.checkpoints.facts import Options, flag_of
from patchword.data.check import CheckReport, check_data, natural_channels
from patchword.data.dataset import Dataset
from patchword.data.look import glance
from patchword.data.open import open_data
from patchword.data.request import OpenRequest
from patchword.data.store import Store, open_store, stored_as
from patchword.errors import (
    DataError,
    Interrupted,
    OutputError,
    PatchwordError,
    SettingsError,
    is_out_of_memory,
)
from patchword.settings import from_plain, to_json

if TYPE_CHECKING:
    from patchword.inference.evaluate import Evaluation, TrainingScore
    from patchword.inference.model import Model
    from patchword.training.choose import Chosen
    from patchword.training.config import TrainSettings
    from patchword.training.overlay import Overlay
    from patchword.training.progress import Progress
    from patchword.training.recipes.facts import DataFacts
    from patchword.training.runfolder import RunFolder
    from patchword.training.teacher import Teaching
    from patchword.training.weights import Start

# Key in data.json: the data's location, independent of the folder that the run is resumed from.
ABSOLUTE_PATH = "absolute_path"
# Key in data.json: the teacher of a distillation.
TEACHER = "teacher"


@dataclass(frozen=True, kw_only=True)
class Run:
    """A finished training. evaluation: the scores of last.safetensors. skipped: unreadable images."""

    folder: Path
    settings: "TrainSettings"
    evaluation: "Evaluation"
    skipped: tuple[tuple[str, str], ...]

    @property
    def model(self) -> "Model":
        """The last averaged weights, ready to predict."""
        from patchword.inference.load import load

        return load(self.folder)

    def __repr__(self) -> str:
        return f"Run({str(self.folder)!r}, top-1 {100 * self.evaluation.top1:.1f} %)"


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """Everything needed to train: a checked data set, how it was opened, the starting weights, the teacher, the settings.

    store: of the training images at the size in the settings, with those that the check decoded.
    """

    dataset: Dataset
    report: CheckReport
    chosen: "Chosen"
    opening: OpenRequest
    out: Path
    start: "Start | None" = None
    store: Store | None = None
    teaching: "Teaching | None" = None


@dataclass(frozen=True, kw_only=True)
class TrainRequest:
    """A request to train.

    data: as for `open_data`. out: the run folder; None means runs/ plus the data's name.
    options, offline: how to read the weights of `run.weights`, if there are any. dry_run: nothing is kept for training.
    """

    data: str
    overlay: "Overlay"
    out: str | None = None
    opening: OpenRequest = field(default_factory=OpenRequest)
    options: Options = field(default_factory=Options)
    offline: bool = False
    dry_run: bool = False


def prepare(request: TrainRequest, progress: "Progress | None" = None) -> Prepared:
    """Open and check the data, read the starting weights and choose the settings, without writing anything.

    Raises: DataError for the first problem that makes training meaningless; CheckpointError.
    """
    from patchword import machine
    from patchword.training.choose import choose_here
    from patchword.training.config import RunSettings
    from patchword.training.memory import refuse_too_large
    from patchword.training.runfolder import free_folder

    machine.tune_allocator()
    overlay, known = request.overlay, ("split_seed", "weights", "device")
    # The split seed decides which images are held out, and the weights decide what the recipe starts from.
    given = {name: value for name in known if (value := overlay.get(f"run.{name}")) is not None}
    early = RunSettings(**given)
    if early.device not in ("auto", "cpu"):
        machine.find_device(early.device)  # before every image is decoded
    opening = replace(request.opening, split_seed=early.split_seed)
    dataset = open_data(request.data, opening)
    if early.weights == "" and overlay.is_option("run.weights"):
        raise SettingsError(
            "the name of the weights is empty", "give --weights NAME, or remove it to train from scratch"
        )
    start, teaching = _start(request, early.weights), _teaching(request, dataset)
    store = None if request.dry_run else _early_store(dataset, overlay, start)
    report = check_data(
        dataset,
        workers=machine.granted_cores(),
        value_range=overlay.get("preprocess.reading.value_range")
        or (None if start is None else start.value_range),
        progress=progress.reading if progress else None,
        before_training=True,
        store=store,
    )
    if report.fatal:
        raise DataError(report.fatal[0].message, report.fatal[0].fix)
    facts = replace(data_facts(report), weights=None if start is None else start.source.card)
    chosen = choose_here(dataset, facts, overlay, early.device)
    refuse_too_large(chosen.settings, len(dataset.training))
    if start is not None:
        from patchword.training.weights import doubts

        chosen = replace(chosen, choices=(*chosen.choices, *doubts(start, chosen.settings)))
    if teaching is not None:
        from patchword.training.teacher import with_teacher

        chosen = with_teacher(chosen, teaching)
    out = f"runs/{Path(request.data).resolve().stem}" if request.out is None else request.out
    settings = chosen.settings
    if store is not None and store.preprocess != stored_as(settings.preprocess, settings.run.stored_size):
        store = None  # the glance was wrong
    return Prepared(
        dataset=dataset,
        report=report,
        chosen=chosen,
        opening=opening,
        out=free_folder(out),
        start=start,
        store=store,
        teaching=teaching,
    )


def _early_store(dataset: Dataset, overlay: "Overlay", start: "Start | None") -> Store | None:
    """A store for the training images of the size that the recipe will probably choose, which the check can fill.

    The recipe needs the median size of the images, which a glance at some headers tells before the check.
    None if it cannot be foreseen; the check then says what is wrong.
    """
    from patchword.training.choose import choose
    from patchword.training.recipes.facts import DataFacts

    size, channels = glance(dataset), natural_channels(dataset)
    if size is None or "train" not in dataset.splits:
        return None
    facts = DataFacts(
        num_images=len(dataset.training),
        num_classes=len(dataset.classes),
        channels=channels,
        size=size,
        mean=(0.5,) * channels,
        std=(0.25,) * channels,
        mirrors=not _written_signs(dataset.classes),
        weights=None if start is None else start.source.card,
    )
    try:
        settings = choose(dataset, facts, overlay).settings
    except PatchwordError:
        return None
    stored = stored_as(settings.preprocess, settings.run.stored_size)
    return open_store(dataset.training, stored, settings.run.cache)


def _teaching(request: TrainRequest, dataset: Dataset) -> "Teaching | None":
    """The teacher, before every image is decoded. Raises: SettingsError for options that apply only to a teacher."""
    overlay, at = request.overlay, "task.distill.teacher"
    name = overlay.get(at)
    if name:
        from patchword.training.teacher import read_teacher

        return read_teacher(name, dataset.classes, offline=request.offline)
    if name == "" and not overlay.has_file():
        raise SettingsError(
            "the name of the teacher is empty", "give --teacher NAME, or remove it to learn from labels alone"
        )
    given = [p for p in overlay.entries if p.startswith("task.distill.") and p != at and overlay.is_option(p)]
    if given:
        raise SettingsError(
            f"{', '.join(given)} has no effect without a teacher",
            f"add --teacher, or remove {', '.join(given)}",
        )
    return None


def _start(request: TrainRequest, weights: str) -> "Start | None":
    """The starting weights. Raises: SettingsError for options that apply only to weights if there are none."""
    if weights:
        from patchword.training.weights import read_start

        return read_start(weights, request.options, offline=request.offline, overlay=request.overlay)
    unset = asdict(Options())
    given = [flag_of(name) for name, value in asdict(request.options).items() if value != unset[name]]
    if given:
        only = "only applies" if len(given) == 1 else "only apply"
        raise SettingsError(
            f"{', '.join(given)} {only} to the weights that training starts from, and none are given",
            f"add --weights, or remove {', '.join(given)}",
        )
    return None


def data_facts(report: CheckReport) -> "DataFacts":
    """The facts that recipes use, from the results of the check."""
    from patchword.training.recipes.facts import DataFacts

    dataset = report.dataset
    unreadable = {name for name, _ in report.skipped}
    height, width = report.sizes["median"]
    return DataFacts(
        num_images=sum(name not in unreadable for name in dataset.training.names),
        num_classes=len(dataset.classes),
        channels=natural_channels(dataset),
        size=(height, width),
        mean=tuple(report.channel_mean),
        std=tuple(report.channel_std),
        mirrors=not _written_signs(dataset.classes),
    )


def _written_signs(classes: tuple[str, ...]) -> bool:
    """Whether the classes look like letters or digits (one character or a number), which mirroring would change."""
    return all(len(name) == 1 or name.isdecimal() for name in classes)


def run(prepared: Prepared, progress: "Progress | None" = None) -> Run:
    """Train what `prepare` returned, score the last averaged weights and write the report."""
    from patchword.training.train import start_run

    # A resumed run must find the same images again.
    facts = {**prepared.report.to_dict(), "opening": asdict(prepared.opening)}
    if prepared.teaching is not None:
        facts[TEACHER] = prepared.teaching.facts()
    if os.path.exists(prepared.dataset.path):
        facts[ABSOLUTE_PATH] = os.path.abspath(prepared.dataset.path)
    reported = _reported(prepared.out, prepared.chosen.settings)
    with reported:
        result = start_run(
            prepared.dataset,
            prepared.chosen,
            facts,
            prepared.out,
            progress,
            prepared.start,
            reported.moved,
            prepared.store,
        )
        return _finish(result.folder, result.settings, prepared.dataset, result.skipped)


def resume_folder(folder: str | Path, *, data: str | None = None, progress: "Progress | None" = None) -> Run:
    """Resume an interrupted run from its last complete epoch. data: the images' new location, if they have moved."""
    from patchword import machine
    from patchword.training.runfolder import open_folder
    from patchword.training.train import read_run, resume_run

    machine.tune_allocator()
    run_folder = open_folder(folder)
    settings, facts = read_run(run_folder)
    opening = from_plain(OpenRequest, facts.get("opening", {}), f"{run_folder.path}/data.json")
    dataset = open_data(_place_of_data(facts, run_folder.path) if data is None else data, opening)
    with _reported(run_folder.path, settings):
        result = resume_run(dataset, run_folder, progress)
        return _finish(result.folder, result.settings, dataset, result.skipped)


def _place_of_data(facts: Mapping[str, Any], folder: Path) -> str:
    """The location of a run's images: the absolute path, or the path that was given, relative to here.

    Raises: DataError if neither exists.
    """
    given, kind = str(facts["path"]), facts.get("kind")
    places = [str(facts.get(ABSOLUTE_PATH, given)), given]
    existing = [place for place in places if os.path.exists(place)]
    if not existing and kind != "digits":
        raise DataError(
            f"{places[0]}, the data of {folder}, does not exist",
            f"give its new location: `patchword train DATA --resume {folder}`",
        )
    return existing[0] if existing else given


class _reported:
    """Context manager: write the report of a stopped run too, and say how to resume it."""

    def __init__(self, folder: Path, settings: "TrainSettings | None" = None) -> None:
        self.folder, self.settings = folder, settings

    def moved(self, folder: Path) -> None:
        self.folder = folder

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if error is None:
            return
        if self.settings is not None and is_out_of_memory(error):
            from patchword.training.memory import out_of_memory
            from patchword.training.runfolder import RunFolder

            trained = RunFolder(self.folder).epochs_done() == self.settings.schedule.epochs
            raise out_of_memory(self.settings, str(self.folder) if trained else "") from error
        if not any((self.folder / "state").glob("*.pt")):
            if isinstance(error, KeyboardInterrupt) and not self.folder.exists():
                raise Interrupted(
                    "interrupted before training started; no run folder was kept", "run the command again"
                ) from error
            return
        resume = f"resume with `patchword train --resume {self.folder}`"
        if isinstance(error, KeyboardInterrupt):
            kept = (self.folder / "last.safetensors").exists()
            what = (
                "the last complete epoch is kept"
                if kept
                else "no epoch was complete, so there are no weights"
            )
            raise Interrupted(f"interrupted; {what}", resume) from error
        if isinstance(error, PatchwordError) and (self.folder / "metrics.jsonl").exists():
            from patchword.reports.html import write_report

            # A failed report must not hide the reason why the run ended.
            with contextlib.suppress(PatchwordError):
                write_report(self.folder)
        if isinstance(error, Interrupted):
            raise Interrupted(error.message, resume) from error
        if isinstance(error, OutputError):
            raise OutputError(error.message, f"free some space, then {resume}") from error


def _finish(
    folder: Path, settings: "TrainSettings", dataset: Dataset, skipped: tuple[tuple[str, str], ...]
) -> Run:
    from patchword.inference.evaluate import evaluate as score
    from patchword.inference.load import load
    from patchword.reports.html import write_report
    from patchword.training.runfolder import EVALUATION, LAST, REPORT, RunFolder

    model = load(folder / LAST)
    evaluation = replace(score(model, dataset), data=dataset.path)
    run_folder = RunFolder(folder)
    training = _score_of_probe(settings, dataset, run_folder) or _training_score(model, dataset, run_folder)
    evaluation = replace(evaluation, training=training)
    _keep_temperature(folder / LAST, evaluation)
    text = to_json(evaluation.to_dict(), indent=1)
    # Remove the report of the unfinished run first: if killed here, the run can still be resumed.
    (folder / REPORT).unlink(missing_ok=True)
    RunFolder(folder).write_text(EVALUATION, text + "\n")
    write_report(folder)
    return Run(folder=folder, settings=settings, evaluation=evaluation, skipped=skipped)


def write_training_views(report: CheckReport, overlay: "Overlay", path: Path) -> "Chosen":
    """Draw sixteen training views, as `train` with these settings would make them, into a PNG; return the settings.

    Raises: as `prepare`; OutputError.
    """
    from patchword.reports.views import check_picture, write_views
    from patchword.training.choose import choose
    from patchword.training.preview import draw_views

    check_picture(path)
    if report.fatal:
        raise DataError(report.fatal[0].message, report.fatal[0].fix)
    dataset = report.dataset
    start = _start(TrainRequest(data=dataset.path, overlay=overlay), overlay.get("run.weights") or "")
    facts = replace(data_facts(report), weights=None if start is None else start.source.card)
    chosen = choose(dataset, facts, overlay)
    settings = chosen.settings
    views = draw_views(dataset, settings)
    (height, width), (rows, columns) = settings.view_size, settings.run.stored_size
    first = (
        ""
        if settings.preprocess.in_channels in (1, 3)
        else f"; the first of {settings.preprocess.in_channels} channels"
    )
    title = (
        f"{len(views)} training views of {os.path.basename(os.path.normpath(dataset.path))}, recipe {settings.run.recipe}",
        f"left: the stored image, {columns} x {rows} pixels; right: a training view, {width} x {height}{first}; below: the target",
    )
    write_views(views, title, path)
    return chosen


def _score_of_probe(
    settings: "TrainSettings", dataset: Dataset, folder: "RunFolder"
) -> "TrainingScore | None":
    """The training score of a head that is a probe: it was computed with its features."""
    from patchword.inference.evaluate import TrainingScore
    from patchword.metrics import wilson_interval
    from patchword.training.floor import FLOOR
    from patchword.training.train import read_run
    from patchword.training.tune import Head

    _, facts = read_run(folder)
    if not isinstance(settings.tune, Head) or FLOOR not in facts:
        return None
    scored, top1 = int(facts[FLOOR]["training_images"]), float(facts[FLOOR]["training_top1"])
    return TrainingScore(
        scored=scored,
        of=len(dataset.training),
        top1=top1,
        top1_interval=wilson_interval(round(top1 * scored), scored),
        loss=float(facts[FLOOR]["training_loss"]),
    )


def _training_score(model: "Model", dataset: Dataset, folder: "RunFolder") -> "TrainingScore | None":
    """The score on clean training images, or None if their files are no longer readable: the run has its weights."""
    from patchword.inference.evaluate import training_score

    try:
        return training_score(model, dataset)
    except DataError as error:
        folder.log(f"no training score: {error.message}")
        return None


def _keep_temperature(path: Path, evaluation: "Evaluation") -> None:
    """Write the temperature fitted on the held-out images into the card of the weights; no prediction changes."""
    from patchword.checkpoints.native import read_model, write_model

    if evaluation.calibration is None or evaluation.calibration.temperature is None:
        return
    card, tensors = read_model(path)
    write_model(path, tensors, replace(card, temperature=evaluation.calibration.temperature))
