"""Prepare a training: open and check the data, read weights and teacher, choose the settings. Writes nothing."""

from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from patchword.data.check import CheckReport, check_data, natural_channels
from patchword.data.dataset import Dataset
from patchword.data.look import glance
from patchword.data.open import open_data
from patchword.data.request import OpenRequest
from patchword.data.store import Store, open_store
from patchword.errors import (
    DataError,
    PatchwordError,
    SettingsError,
)
from patchword.formats.facts import Options, flag_of

if TYPE_CHECKING:
    from patchword.training.choose import Chosen
    from patchword.training.overlay import Overlay
    from patchword.training.progress import Progress
    from patchword.training.recipes.facts import DataFacts
    from patchword.training.teacher import Teaching
    from patchword.training.weights import AnyStart


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """Everything needed to train: a checked data set, how it was opened, the starting weights, the teacher, the settings.

    store: of the training images at the size in the settings, with those that the check decoded. sanity: overfit eight
    images first.
    """

    dataset: Dataset
    report: CheckReport
    chosen: "Chosen"
    opening: OpenRequest
    out: Path
    start: "AnyStart | None" = None
    store: Store | None = None
    teaching: "Teaching | None" = None
    sanity: bool = False


@dataclass(frozen=True, kw_only=True)
class TrainRequest:
    """A request to train.

    data: as for `open_data`. out: the run folder; None means runs/ plus the data's name.
    options, offline: how to read the weights of `run.weights`, if there are any. dry_run: nothing is kept for training.
    sanity: overfit eight images before training, and stop with the cause if that fails.
    """

    data: str
    overlay: "Overlay"
    out: str | None = None
    opening: OpenRequest = field(default_factory=OpenRequest)
    options: Options = field(default_factory=Options)
    offline: bool = False
    dry_run: bool = False
    sanity: bool = False


def prepare(request: TrainRequest, progress: "Progress | None" = None) -> Prepared:
    """Open and check the data, read the starting weights and choose the settings, without writing anything.

    Raises: DataError for the first problem that makes training meaningless; CheckpointError.
    """
    from patchword import machine
    from patchword.training.memory import refuse_too_large
    from patchword.training.recipes.facts import data_facts
    from patchword.training.runfolder import free_folder
    from patchword.training.tasks.settings import MAESettings
    from patchword.training.teacher import asked_teacher

    machine.tune_allocator()
    overlay = request.overlay
    dataset, opening, weights, device = _opened(request)
    _refuse_sanity(request, dataset)
    start = read_weights(request, weights)
    if start is not None and start.for_boxes and dataset.task_kind != "boxes":
        raise SettingsError(
            f"{start.name} is {start.for_boxes}, but {dataset.path} has no boxes",
            "give data with boxes, or the weights of a ViT",
        )
    teaching = asked_teacher(overlay, dataset.classes, offline=request.offline)
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
    facts = _begun_from(data_facts(report), start)
    chosen = _chosen(dataset, facts, overlay, start, teaching, device)
    refuse_too_large(chosen.settings, len(dataset.training))
    settings = chosen.settings
    if isinstance(settings.task, MAESettings) and settings.task.watch:
        from patchword.training.tasks.watch import open_watched

        open_watched(settings.task.watch)  # before anything is trained
    if store is not None and store.preprocess != settings.stored:
        store = None  # the glance was wrong
    return Prepared(
        dataset=dataset,
        report=report,
        chosen=chosen,
        opening=opening,
        out=free_folder(wanted_folder(request)),
        start=start,
        store=store,
        teaching=teaching,
        sanity=request.sanity,
    )


def prepare_again(request: TrainRequest, first: Prepared) -> Prepared:
    """Another request for the data of `first`, which are neither opened nor checked again. Raises: as `prepare`."""
    from patchword.training.config import RunSettings
    from patchword.training.memory import refuse_too_large
    from patchword.training.recipes.facts import data_facts
    from patchword.training.runfolder import free_folder
    from patchword.training.teacher import asked_teacher

    overlay = request.overlay
    start = read_weights(request, overlay.get("run.weights") or "")
    teaching = asked_teacher(overlay, first.dataset.classes, offline=request.offline)
    facts = _begun_from(data_facts(first.report), start)
    device = overlay.get("run.device") or RunSettings().device
    chosen = _chosen(first.dataset, facts, overlay, start, teaching, device)
    refuse_too_large(chosen.settings, len(first.dataset.training))
    out = free_folder(wanted_folder(request))
    return replace(first, chosen=chosen, out=out, start=start, store=None, teaching=teaching)


def _refuse_sanity(request: TrainRequest, dataset: Dataset) -> None:
    """Raises: SettingsError if --sanity has nothing to overfit."""
    if request.sanity and request.dry_run:
        raise SettingsError("--sanity trains, but --dry-run does not", "remove one of them")
    if request.sanity and dataset.task_kind != "boxes":
        raise SettingsError(
            f"--sanity overfits a detector, but {dataset.path} has no boxes",
            "remove it, or give data with boxes",
        )


def _begun_from(facts: "DataFacts", start: "AnyStart | None") -> "DataFacts":
    return facts if start is None else start.added_to(facts)


def wanted_folder(request: TrainRequest) -> str:
    """The run folder to create, if it is free."""
    return f"runs/{Path(request.data).resolve().stem}" if request.out is None else request.out


def _opened(request: TrainRequest) -> tuple[Dataset, OpenRequest, str, str]:
    """The data set, how it was opened, the weights and the device: what must be known before a recipe chooses."""
    from patchword import machine
    from patchword.training.config import RunSettings

    overlay, known = request.overlay, ("split_seed", "weights", "device")
    # The split seed decides which images are held out, and the weights decide what the recipe starts from.
    given = {name: value for name in known if (value := overlay.get(f"run.{name}")) is not None}
    early = RunSettings(**given)
    if early.device not in ("auto", "cpu"):
        machine.find_device(early.device)  # before every image is decoded
    opening = replace(request.opening, split_seed=early.split_seed)
    if opening.val is not None and overlay.is_option("run.split_seed"):
        raise SettingsError(
            f"--split-seed {early.split_seed} has no effect with --val {opening.val}: no image of DATA is held out",
            "remove --split-seed or --val",
        )
    dataset = open_data(request.data, opening)
    if early.weights == "" and overlay.is_option("run.weights"):
        raise SettingsError(
            "the name of the weights is empty", "give --weights NAME, or remove it to train from scratch"
        )
    return dataset, opening, early.weights, early.device


def _chosen(
    dataset: Dataset,
    facts: "DataFacts",
    overlay: "Overlay",
    start: "AnyStart | None",
    teaching: "Teaching | None",
    device: str,
) -> "Chosen":
    """The settings, with doubts about the weights and the part of the teacher."""
    from patchword.training.choose import choose_here
    from patchword.training.teacher import with_teacher
    from patchword.training.weights import doubts

    chosen = choose_here(dataset, facts, overlay, device)
    if start is not None:
        chosen = replace(chosen, choices=(*chosen.choices, *doubts(start, chosen.settings)))
    return chosen if teaching is None else with_teacher(chosen, teaching)


def _early_store(dataset: Dataset, overlay: "Overlay", start: "AnyStart | None") -> Store | None:
    """A store for the training images of the size that the recipe will probably choose, which the check can fill.

    The recipe needs the median size of the images, which a glance at some headers tells before the check.
    None if it cannot be foreseen; the check then says what is wrong.
    """
    from patchword.training.choose import choose
    from patchword.training.recipes.facts import DataFacts, object_facts, task_of, written_signs

    size, channels = glance(dataset), natural_channels(dataset)
    if size is None or "train" not in dataset.splits:
        return None
    known = DataFacts(
        num_images=len(dataset.training),
        num_classes=len(dataset.outputs),
        channels=channels,
        size=size,
        mean=(0.5,) * channels,
        std=(0.25,) * channels,
        mirrors=not written_signs(dataset.classes),
        task=task_of(dataset),
        objects=object_facts(dataset),
    )
    facts = _begun_from(known, start)
    try:
        settings = choose(dataset, facts, overlay).settings
    except PatchwordError:
        return None
    stored = settings.stored
    return open_store(dataset.training, stored, settings.run.cache)


def read_weights(request: TrainRequest, weights: str) -> "AnyStart | None":
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
