"""Combine the settings of a recipe, a file and options, and record the source of each value."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from patchword import machine
from patchword import settings as tree
from patchword.data.dataset import Dataset
from patchword.errors import SettingsError, plural
from patchword.model.sizes import backbone_of
from patchword.model.yolos_config import YolosConfig
from patchword.training.augment.settings import MixSettings
from patchword.training.autotune import choose_tune
from patchword.training.config import TrainSettings
from patchword.training.doubts import doubts
from patchword.training.optim_settings import effective_lr
from patchword.training.overlay import Overlay
from patchword.training.recipes import DESCRIPTIONS, WITH_BOXES, WITHOUT_LABELS, default_recipe, recipe_named
from patchword.training.recipes.detr import is_detr
from patchword.training.recipes.facts import Choice, DataFacts
from patchword.training.tasks.detect_settings import DetectSettings
from patchword.training.tasks.settings import ClassifySettings, MAESettings, RegressSettings
from patchword.training.tune import Head, Last, LoRA

# Settings that mean training, not only fitting a head.
TRAINING = (
    "schedule",
    "optim",
    "augment",
    "run.batch_size",
    "run.find_lr",
    "run.max_minutes",
    "run.patience",
)


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """Settings with their sources (dotted path → source) and the recipe's choices as text."""

    settings: TrainSettings
    sources: Mapping[str, str]
    choices: tuple[Choice, ...]


def choose(dataset: Dataset, facts: DataFacts, overlay: Overlay | None = None) -> Chosen:
    """Return the recipe's settings, overridden by the user's. overlay: the user's settings, which the recipe reads.

    Raises: SettingsError for an unknown key or value (with suggestions), or if the number of classes
    contradicts the data.
    """
    overlay = overlay or Overlay()
    name = overlay.get("run.recipe")
    who = "chosen because weights are given" if facts.weights else "chosen because no weights are given"
    who = "chosen because labels are not read" if isinstance(facts.task, MAESettings) else who
    who = "chosen because the data have boxes" if isinstance(facts.task, DetectSettings) else who
    if facts.detr is not None or isinstance(facts.detector, YolosConfig):
        who = "chosen because of the weights"
    if name is None:
        name = default_recipe(facts, overlay)
    else:
        who = overlay.source("run.recipe")
    recipe = recipe_named(name)
    _check_labels(name, facts)
    _check_boxes(name, overlay, dataset, facts)
    by_recipe, choices = recipe(facts, overlay)
    by_recipe = _for_targets(by_recipe, facts)
    sources = {"": f"recipe {name}"}
    if "optim.lr" in overlay.entries and "optim.lr_rule" not in overlay.entries:
        # A rate that the user gives is the rate of the run.
        by_recipe = _with_plain_rate(by_recipe)
        sources["optim.lr_rule"] = overlay.source("optim.lr")
    if facts.detr is not None:
        sources |= {"task.detector": "weights"}
    if facts.weights is not None:
        # Everything except what follows from the data.
        sources |= {"model": "weights", "model.head.num_classes": f"recipe {name}"}
    sources |= overlay.sources()
    if by_recipe.model is None:
        # The recipe has read it, and there is no ViT that it could be laid over.
        overlay = overlay.without("model.image.size")
    settings = overlay.laid_over(by_recipe)
    _check_tune(settings, facts)
    _check_task(settings, dataset, facts)
    _check_classes(settings, dataset, sources)
    if overlay.has_file():
        choices = []
    choices = [Choice(what=f"recipe {name}, {DESCRIPTIONS[name]}", why=who), *choices]
    return Chosen(
        settings=settings,
        sources=sources,
        choices=(*choices, *doubts(settings, by_recipe, facts), *_unused(settings, overlay)),
    )


def _check_labels(recipe: str, facts: DataFacts) -> None:
    """Raises: SettingsError if a recipe that needs labels is used without any."""
    if isinstance(facts.task, MAESettings) and recipe not in WITHOUT_LABELS:
        raise SettingsError(
            f"the recipe {recipe} needs labels, which pre-training does not read",
            f"use {' or '.join(WITHOUT_LABELS)}, or `patchword train`",
        )


def _check_boxes(recipe: str, overlay: Overlay, dataset: Dataset, facts: DataFacts) -> None:
    """Raises: SettingsError if a detector is asked for without boxes, or another recipe with them."""
    has_boxes = isinstance(facts.task, DetectSettings)
    if has_boxes and recipe not in WITH_BOXES:
        raise SettingsError(
            f"the recipe {recipe} is for images with classes, but {dataset.path} has boxes",
            f"use {' or '.join(WITH_BOXES)}, or remove --recipe",
        )
    name = overlay.model_name()
    asked = (
        recipe if recipe in WITH_BOXES else name if name and (is_detr(name) or backbone_of(name)) else None
    )
    if asked and not has_boxes:
        raise SettingsError(
            f"{asked} trains a detector, but {dataset.path} has no boxes",
            "give data with boxes (COCO, Pascal VOC, YOLO or a table), or remove it to train a classifier",
        )


def _for_targets(settings: TrainSettings, facts: DataFacts) -> TrainSettings:
    """The recipe's settings with the task of the data: recipes are written for one class per image."""
    if isinstance(facts.task, ClassifySettings | MAESettings | DetectSettings):
        return settings
    settings = replace(settings, task=facts.task)
    if isinstance(facts.task, RegressSettings):
        # Between two objects that are mixed there is no measure.
        settings = replace(settings, augment=replace(settings.augment, mixing=MixSettings()))
    return settings


def _check_task(settings: TrainSettings, dataset: Dataset, facts: DataFacts) -> None:
    """Raises: SettingsError if the settings ask for another kind of training than the targets."""
    task, wanted = settings.task, facts.task
    if task.kind != wanted.kind:
        raise SettingsError(
            f"task.kind is {task.kind!r}, but {dataset.path} is labelled for {wanted.kind!r}",
            "remove the setting, or read the data with --label-column, --label-separator or --target-column",
        )
    if isinstance(task, RegressSettings) and len(task.mean) != len(dataset.outputs):
        raise SettingsError(
            f"task.mean has {plural(len(task.mean), 'value')}, but {dataset.path} has "
            f"{plural(len(dataset.outputs), 'number')} for each image",
            "remove task.mean and task.std; they come from the data",
        )


def choose_here(
    dataset: Dataset, facts: DataFacts, overlay: Overlay | None = None, device: str = "auto"
) -> Chosen:
    """As `choose`; what is tuned is chosen for this machine, if weights are fine-tuned and the user did not choose it.

    Times one block of the model on the device.
    """
    overlay = overlay or Overlay()
    chosen = choose(dataset, facts, overlay)
    settings = chosen.settings
    if facts.weights is None or settings.run.recipe != "finetune" or overlay.has_any("tune"):
        return chosen
    from patchword.training.speed import seconds_per_image

    where = machine.find_device(device)
    tuning = choose_tune(
        facts,
        settings,
        str(where),
        seconds_per_image(settings, where),
        machine.device_memory_left_bytes(where),
        keeps_training=next(filter(overlay.has_any, TRAINING), ""),
    )
    entry = {"tune": (tree.to_plain(tuning.tune), "chosen for this machine")}
    chosen = choose(dataset, facts, Overlay({**overlay.entries, **entry}))
    choice = Choice(what=f"--tune {tuning.tune.text}", why=tuning.text)
    return replace(chosen, choices=(*chosen.choices, choice))


def _with_plain_rate(settings: TrainSettings) -> TrainSettings:
    """The same rate without a rule for the batch."""
    lr, _ = effective_lr(settings.optim, settings.run.batch_size)
    return replace(settings, optim=replace(settings.optim, lr=lr, lr_rule="none"))


def _check_tune(settings: TrainSettings, facts: DataFacts) -> None:
    """Raises: SettingsError if random weights would be frozen."""
    tune = settings.tune
    begun = facts.weights is not None or facts.detr is not None or settings.run.weights
    if isinstance(tune, Head | Last | LoRA) and not begun:
        raise SettingsError(
            f"--tune {tune.text} freezes the rest of the model, which has random weights",
            "add --weights, or remove --tune",
        )


def _unused(settings: TrainSettings, overlay: Overlay) -> list[Choice]:
    """What the user set in vain: a head alone is fitted to cached features, without steps."""
    given = [path for path in overlay.entries if overlay.is_option(path) and path.startswith(TRAINING)]
    is_fitted = isinstance(settings.tune, Head) and not isinstance(settings.task, DetectSettings)
    if not is_fitted or not given:
        return []
    why = "the head is fitted to the features of the images, without steps or augmentation; use --tune last:1 to train it"
    return [Choice(what=f"warning: {', '.join(given)} without effect", why=why)]


def _check_classes(settings: TrainSettings, dataset: Dataset, sources: Mapping[str, str]) -> None:
    there, path = len(dataset.outputs), "model.head.num_classes"
    if isinstance(settings.task, DetectSettings):
        # The backbone's head is not used.
        wanted, path = settings.task.num_classes, "task.num_classes"
    else:
        wanted = settings.vit.head.num_classes
    if wanted == there:
        return
    who = tree.source_of(path, sources)
    raise SettingsError(
        f"{path} is {wanted} ({who}), but {dataset.path} has {plural(there, 'class', 'classes')}",
        "remove the setting; the number of classes comes from the data",
    )


def resolved(settings: TrainSettings, sources: Mapping[str, str], **measured: Any) -> Chosen:
    """The settings with the values measured at the start (precision, threads, device).

    Values that the user specified are kept.
    """
    new_sources = dict(sources)
    run = settings.run
    for name, value in measured.items():
        who = tree.source_of(f"run.{name}", sources)
        if who.startswith(("option", "file")) and getattr(run, name) not in ("auto", 0):
            continue
        run = replace(run, **{name: value})
        new_sources[f"run.{name}"] = "measured at the start"
    settings = replace(settings, run=run)
    return Chosen(settings=settings, sources=new_sources, choices=())
