"""The functions of `import patchword as pw`. They compose the other packages and contain no logic of their own."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from patchword.data.check import CheckReport, check_data
from patchword.data.open import open_data
from patchword.data.request import refuse_box_options
from patchword.errors import SettingsError
from patchword.formats.facts import Options, part_of
from patchword.images.limits import MAX_PIXELS
from patchword.probes.kinds import ProbeKind
from patchword.python_parameters import (
    Sides,
    opening_of,
    overlay_of,
    sides,
    trained,
)
from patchword.python_words import as_python, in_python
from patchword.reports.box_pictures import write_annotated
from patchword.runs.finish import Run
from patchword.runs.near import near_report
from patchword.runs.views import refuse_other_pictures, write_training_views

if TYPE_CHECKING:
    from patchword.data.request import OpenRequest
    from patchword.inference.box_scores import BoxEvaluation
    from patchword.inference.conversion import Conversion
    from patchword.inference.detector import Detector
    from patchword.inference.evaluate import Evaluation, EvaluationRequest
    from patchword.inference.evaluate_targets import TargetEvaluation
    from patchword.inference.inspect import Inspected
    from patchword.inference.inspect_detector import InspectedDetector
    from patchword.inference.model import Model
    from patchword.inference.probe import ProbeRequest
    from patchword.training.progress import Progress
    from patchword.weights.adapt import Adapted


@in_python
def inspect(
    model: str | Path,
    *,
    options: Options | None = None,
    below: str | None = None,
    drop: Sequence[str] = (),
    offline: bool = False,
) -> "Inspected | InspectedDetector":
    """Describe a checkpoint and how it would load, without reading any tensor. Raises: CheckpointError."""
    from patchword.inference.inspect import inspected

    return inspected(model, part_of(options, below, drop), offline=offline)


@in_python
def convert(
    model: str | Path,
    to: str,
    out: str | Path,
    *,
    options: Options | None = None,
    accept: Sequence[str] = (),
    below: str | None = None,
    drop: Sequence[str] = (),
    offline: bool = False,
) -> "Conversion":
    """Write a model in the format `to` ("timm", "google", …), read it back and compare the outputs for one image.

    accept: config fields for which readers of the format may use a different value ("norm.eps").
    Raises: CheckpointError with the facts that the format cannot store; OutputError. No files remain then.
    """
    from patchword.inference.convert import convert as run_conversion

    return run_conversion(
        model, to, Path(out), options=part_of(options, below, drop), accept=accept, offline=offline
    )


@in_python
def adapt(
    model: str | Path,
    out: str | Path,
    *,
    image_size: Sides = None,
    patch_size: Sides = None,
    channels: int | None = None,
    how: Literal["inflate", "average", "map"] = "inflate",
    source: Sequence[int] = (),
    classes: Sequence[str] | None = None,
    options: Options | None = None,
    below: str | None = None,
    drop: Sequence[str] = (),
    offline: bool = False,
) -> "Adapted":
    """Write `model` for another image size, patch size, channels or classes, and list what was done to each tensor.

    how: new channels repeat the old ones cyclically ("inflate"), are their mean ("average"), or are chosen by
    `source` ("map"). classes: rows of classes in both lists are kept; a head with new rows does not
    predict until it is trained. below, drop: the part of the file that is read; see `load`.
    Raises: SettingsError, CheckpointError, OutputError.
    """
    from patchword.inference.adapt_file import adapt_file
    from patchword.weights.adapt import Wanted

    wanted = Wanted(
        image_size=sides(image_size, "image_size"),
        patch_size=sides(patch_size, "patch_size"),
        channels=channels,
        how=how,
        source=tuple(source),
        classes=None if classes is None else tuple(classes),
    )
    return adapt_file(model, wanted, Path(out), options=part_of(options, below, drop), offline=offline)


@in_python
def check(
    data: str | Path,
    *,
    val: str | Path | None = None,
    image_column: str | None = None,
    label_column: str | None = None,
    label_separator: str | None = None,
    target_column: str | None = None,
    labels: str | None = None,
    class_level: int | None = None,
    split_column: str | None = None,
    group_column: str | None = None,
    ignore_unknown_classes: bool = False,
    annotations: str | Sequence[str] | None = None,
    box_format: str | None = None,
    max_pixels: int = MAX_PIXELS,
    value_range: tuple[float, float] | None = None,
    all: bool = False,
    augment: str | Path | None = None,
    draw: str | Path | None = None,
    near_duplicates: bool = False,
    recipe: str | None = None,
    weights: str | Path | None = None,
    config: str | Path | None = None,
    settings: Mapping[str, Any] | None = None,
) -> CheckReport:
    """Check a data set and list its problems.

    val: other data, the evaluation split. image_column, label_column, split_column, group_column: columns of a table; several label columns of 0 and 1 as "a,b", or
    label_separator, give images several classes; target_column gives them numbers instead. labels: a table that labels
    the images of a folder. class_level: depth of the class folders.
    value_range: lowest and highest value of float, 16- and 32-bit images. all: no sample, also of more than 50,000.
    annotations: the annotation files of boxes to read, as a pattern such as "yolo/*", or several. box_format: what the four numbers
    of a box are, such as "xyxy". draw: a PNG to write, of sixteen images with their boxes.
    near_duplicates: also find nearly equal images, by grey thumbnails, or with `weights` by the embeddings of that model.
    augment: a PNG to write, of sixteen training views as `train` with recipe, weights, config and settings makes them.
    Raises: DataError if there is no data set, or with `augment` if it cannot be trained on; SettingsError; OutputError.
    """
    asked = locals()
    from patchword import machine

    if augment is None and any((recipe, weights and not near_duplicates, config, settings)):
        message = "recipe, weights, config and settings only apply to the training views"
        raise SettingsError(message, "give augment, or remove them")
    given = {"recipe": recipe, "weights": weights and str(weights), "value_range": value_range}
    overlay = overlay_of(config, given, settings)
    opening = replace(opening_of(asked), split_seed=overlay.get("run.split_seed") or 0)
    dataset, workers = open_data(data, opening), machine.granted_threads()
    refuse_other_pictures(dataset, draw=draw is not None)
    found = check_data(dataset, workers=workers, value_range=value_range, every=all, thumbs=near_duplicates)
    if near_duplicates:
        found = near_report(found, weights, value_range=value_range)
    if augment is not None:
        write_training_views(found, overlay, Path(augment))
    if draw is not None:
        write_annotated(dataset, Path(draw))
    problems = (replace(p, message=as_python(p.message), fix=as_python(p.fix)) for p in found.problems)
    return replace(found, problems=tuple(problems))


@in_python
def evaluate(
    model: "Model | Detector | str | Path",
    data: str | Path,
    *,
    split: str | None = None,
    split_seed: int | None = None,
    include_trained: bool = False,
    probe: ProbeKind | None = None,
    k: int | None = None,
    epochs: int | None = None,
    seed: int | None = None,
    no_cache: bool = False,
    batch_size: int | None = None,
    device: str | None = None,
    options: Options | None = None,
    offline: bool = False,
    image_column: str | None = None,
    label_column: str | None = None,
    label_separator: str | None = None,
    target_column: str | None = None,
    labels: str | None = None,
    class_level: int | None = None,
    split_column: str | None = None,
    group_column: str | None = None,
    ignore_unknown_classes: bool = False,
    value_range: tuple[float, float] | None = None,
    max_pixels: int = MAX_PIXELS,
    annotations: str | Sequence[str] | None = None,
    box_format: str | None = None,
) -> "Evaluation | TargetEvaluation | BoxEvaluation":
    """Evaluate a model (or anything that `load` accepts) on labelled images. Classes are matched by name.

    split: "train", "val", "test" or "all"; None uses the first one available of val, test and all.
    split_seed: hold out images as `train` does with this seed; None for the split of the model's training. device,
    options, offline: how the model is loaded. value_range: (lowest, highest) of deep images, if it differs
    from the model's. Images that the model was trained on are excluded and counted, unless
    `include_trained`. Unreadable images are listed in `unreadable` and not scored. probe: score a probe
    that is fitted to the features of the training split, instead of the model's head. k: neighbours of
    "knn". epochs, seed: of "attentive", "dino-linear" and "mae-linear". no_cache: neither use nor store the features on disk.
    A detector is scored on boxes: annotations selects annotation files where there are several sets, and box_format says what
    the numbers of a box are, as in `check`; its probe and the columns of classes do not apply.
    Raises: DataError, CheckpointError, SettingsError.
    """
    asked = locals()
    from patchword.inference import evaluate as scoring
    from patchword.inference.probe import probe_request

    probed = probe_request(probe, k, not no_cache, epochs, seed)
    opening = opening_of(asked)
    request = scoring.EvaluationRequest(
        split=split,
        batch_size=batch_size,
        ignore_unknown_classes=ignore_unknown_classes,
        value_range=value_range,
        include_trained=include_trained,
    )
    found = _scored_by_kind(model, data, (device, options, offline), (opening, split_seed), request, probed)
    unreadable = [{**bad, "reason": as_python(bad["reason"])} for bad in found.unreadable]
    return replace(found, unreadable=unreadable, notes=tuple(map(as_python, found.notes)))


def _scored_by_kind(
    model: "Model | Detector | str | Path",
    data: str | Path,
    loading: tuple[str | None, Options | None, bool],
    how: "tuple[OpenRequest, int | None]",
    request: "EvaluationRequest",
    probe: "ProbeRequest | None",
) -> "Evaluation | TargetEvaluation | BoxEvaluation":
    """loading: device, options and whether offline. how: to open the data, and the seed of its split."""
    if (detector := _detector(model, *loading)) is not None:
        return _scored_boxes(detector, data, how, request, probe)
    opening, split_seed = how
    refuse_box_options(opening, "a model without boxes")
    loaded = _loaded(cast("Model | str | Path", model), *loading)
    return _scored(loaded, data, (replace(opening, boxes=False), split_seed), request, probe)


def _detector(
    model: "Model | Detector | str | Path", device: str | None, options: Options | None, offline: bool
) -> "Detector | None":
    """The detector that is given, or at that path; None for a model without boxes."""
    from patchword.formats.detection.layout import with_detector_facts
    from patchword.inference.any_model import is_detector
    from patchword.inference.detector import Detector, load_detector

    if isinstance(model, Detector):
        return model
    said = options or Options()
    if not isinstance(model, str | Path) or not is_detector(
        model, offline=offline, below=said.below, drop=said.drop
    ):
        return None
    return load_detector(model, device=device, options=with_detector_facts(said), offline=offline)


def _scored_boxes(
    detector: "Detector",
    data: str | Path,
    how: "tuple[OpenRequest, int | None]",
    request: "EvaluationRequest",
    probe: "ProbeRequest | None",
) -> "BoxEvaluation":
    from patchword.inference.evaluate_boxes import evaluate_boxes, open_boxes_for

    if probe is not None:
        raise SettingsError(
            f"--probe applies to models of classes, and {detector.report.path} is a detector",
            "remove --probe",
        )
    return evaluate_boxes(detector, open_boxes_for(detector, data, *how), request)


def _scored(
    model: "Model",
    data: str | Path,
    how: "tuple[OpenRequest, int | None]",
    request: "EvaluationRequest",
    probe: "ProbeRequest | None",
) -> "Evaluation | TargetEvaluation":
    """Score the model's own head, or a probe. how: to open the data, and the seed of its split."""
    from patchword.inference.evaluate import open_for
    from patchword.inference.evaluate_targets import score
    from patchword.inference.probe import open_for_probe
    from patchword.runs.probing import evaluate_probe

    if probe is not None:
        return evaluate_probe(model, open_for_probe(model, data, *how), probe, request)
    return score(model, open_for(model, data, *how), request)


def _loaded(
    model: "Model | str | Path", device: str | None, options: Options | None, offline: bool
) -> "Model":
    from patchword.inference.load import load as load_model

    if isinstance(model, str | Path):
        return load_model(model, device=device, options=options, offline=offline)
    if device is not None or options is not None:
        raise SettingsError(
            "device and options do not apply to a model that is already loaded", "remove device and options"
        )
    return model


@in_python
def train(
    data: str | Path | None = None,
    *,
    out: str | Path | None = None,
    resume: str | Path | None = None,
    extend: int | None = None,
    weights: str | Path | None = None,
    teacher: str | Path | None = None,
    model: str | None = None,
    image_size: Sides = None,
    patch_size: Sides = None,
    epochs: int | None = None,
    batch_size: int | None = None,
    lr: float | None = None,
    tune: str | None = None,
    cache: str | None = None,
    find_lr: bool | None = None,
    max_time: float | None = None,
    patience: int | None = None,
    balance: Literal["none", "loss", "sample", "logits"] | None = None,
    seed: int | None = None,
    split_seed: int | None = None,
    val: str | Path | None = None,
    folds: int | None = None,
    threads: int | None = None,
    device: str | None = None,
    recipe: str | None = None,
    config: str | Path | None = None,
    settings: Mapping[str, Any] | None = None,
    image_column: str | None = None,
    label_column: str | None = None,
    label_separator: str | None = None,
    target_column: str | None = None,
    labels: str | None = None,
    class_level: int | None = None,
    split_column: str | None = None,
    group_column: str | None = None,
    ignore_unknown_classes: bool = False,
    annotations: str | Sequence[str] | None = None,
    box_format: str | None = None,
    sanity: bool = False,
    max_pixels: int = MAX_PIXELS,
    value_range: tuple[float, float] | None = None,
    options: Options | None = None,
    offline: bool = False,
    progress: "Progress | bool" = True,
) -> Run:
    """Train and evaluate a classifier, or a detector on data with boxes, from scratch or from `weights`, like `patchword train`.

    resume: a run to resume; `data` and `val` are then needed only if they have moved. extend: epochs to add to the finished run `resume`, which
    needs schedule.shape "constant". val: other data to evaluate on, instead of held-out images. folds: train so many times, each image held out
    once; returns a `FoldedRun`. group_column: images with the same value are held out together. weights: anything that `load` accepts.
    teacher: a trained model whose answers are learned too, as `load` accepts it. balance: how classes of unequal size are balanced, in the loss,
    the drawing of images or the logits. config: a TOML file of settings. settings: settings by dotted path, e.g. {"optim.lr": 3e-4}. None leaves
    the choice to the recipe. tune: "auto", "head", "lora:8", "last:2", "llrd:0.75", "full", or of DETR "trunk:0.1". cache: "auto", "memory", "disk" or "none", where
    decoded images are kept. find_lr: measure the learning rate first. max_time: in minutes. patience: evaluations without a better score before
    training stops. annotations, box_format: as for `check`. sanity: overfit eight images with boxes first. options, offline: how the weights are
    read. progress: True for lines on standard error, False for none, or your own object. Raises: PatchwordError; TrainingBroken, Interrupted.
    """
    return trained(train, locals())


def resume(
    folder: str | Path,
    *,
    data: str | None = None,
    val: str | None = None,
    extend: int | None = None,
    progress: "Progress | bool" = True,
) -> Run:
    """Resume an interrupted run, or one of folds; the same as `train(data, val=val, resume=folder, extend=extend)`."""
    return train(data, val=val, resume=folder, extend=extend, progress=progress)
