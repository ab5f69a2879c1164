"""Recipes: functions from data facts and the user's settings to complete settings. To add one, add a module here and an entry below."""

from collections.abc import Callable

from patchword.errors import SettingsError, near_text
from patchword.model.yolos_config import YolosConfig
from patchword.training.config import TrainSettings
from patchword.training.overlay import Overlay
from patchword.training.recipes import (
    augreg,
    cifar,
    deit,
    deit3,
    detect,
    detr,
    finetune,
    finetune_sgd,
    mae,
    mae_finetune,
    mae_small,
    scratch,
    simple,
    small_data,
    yolos,
)
from patchword.training.recipes.facts import Choice, DataFacts
from patchword.training.tasks.detect_settings import DetectSettings
from patchword.training.tasks.settings import MAESettings

Recipe = Callable[[DataFacts, Overlay], tuple[TrainSettings, list[Choice]]]

RECIPES: dict[str, Recipe] = {
    "scratch": scratch.settings_for,
    "small-data": small_data.settings_for,
    "finetune": finetune.settings_for,
    "finetune-sgd": finetune_sgd.settings_for,
    "mae-finetune": mae_finetune.settings_for,
    "simple": simple.settings_for,
    "deit": deit.settings_for,
    "deit3": deit3.settings_for,
    "augreg": augreg.settings_for,
    "cifar": cifar.settings_for,
    "mae": mae.settings_for,
    "mae-small": mae_small.settings_for,
    "detect": detect.settings_for,
    "detr": detr.settings_for,
    "yolos": yolos.settings_for,
}
DESCRIPTIONS: dict[str, str] = {
    "scratch": scratch.DESCRIPTION,
    "small-data": small_data.DESCRIPTION,
    "finetune": finetune.DESCRIPTION,
    "finetune-sgd": finetune_sgd.DESCRIPTION,
    "mae-finetune": mae_finetune.DESCRIPTION,
    "simple": simple.DESCRIPTION,
    "deit": deit.DESCRIPTION,
    "deit3": deit3.DESCRIPTION,
    "augreg": augreg.DESCRIPTION,
    "cifar": cifar.DESCRIPTION,
    "mae": mae.DESCRIPTION,
    "mae-small": mae_small.DESCRIPTION,
    "detect": detect.DESCRIPTION,
    "detr": detr.DESCRIPTION,
    "yolos": yolos.DESCRIPTION,
}
# Those that start from weights; the others refuse them.
FROM_WEIGHTS = ("finetune", "finetune-sgd", "mae-finetune", "yolos")
# Those that learn without labels; the others need them.
WITHOUT_LABELS = ("mae", "mae-small")
# Those for data with boxes, and for no other.
WITH_BOXES = ("detect", "detr", "yolos")
# From so many images on, the published recipe for pre-training is used.
MANY = 200_000


def default_recipe(facts: DataFacts, overlay: Overlay | None = None) -> str:
    overlay = overlay or Overlay()
    if isinstance(facts.task, MAESettings):
        return "mae" if facts.weights is None and facts.num_images >= MANY else "mae-small"
    if isinstance(facts.task, DetectSettings):
        if isinstance(facts.detector, YolosConfig):
            return "yolos"
        asked = detr.is_detr(overlay.model_name()) or overlay.kind("task.detector") == "detr"
        return "detr" if facts.detr is not None or asked else "detect"
    return "scratch" if facts.weights is None else "finetune"


def recipe_named(name: str) -> Recipe:
    if name not in RECIPES:
        raise SettingsError(
            f"unknown recipe {name!r}{near_text(name, RECIPES)}", f"use one of: {', '.join(RECIPES)}"
        )
    return RECIPES[name]
