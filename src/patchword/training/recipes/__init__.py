"""Recipes: functions from data facts and the user's settings to complete settings. To add one, add a module here and an entry below."""

from collections.abc import Callable

from patchword.errors import SettingsError, near_text
from patchword.training.config import TrainSettings
from patchword.training.overlay import Overlay
from patchword.training.recipes import (
    augreg,
    cifar,
    deit,
    deit3,
    finetune,
    finetune_sgd,
    mae_finetune,
    scratch,
    simple,
    small_data,
)
from patchword.training.recipes.facts import Choice, DataFacts

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
}
# Those that start from weights; the others refuse them.
FROM_WEIGHTS = ("finetune", "finetune-sgd", "mae-finetune")


def default_recipe(facts: DataFacts) -> str:
    return "scratch" if facts.weights is None else "finetune"


def recipe_named(name: str) -> Recipe:
    if name not in RECIPES:
        raise SettingsError(
            f"unknown recipe {name!r}{near_text(name, RECIPES)}", f"use one of: {', '.join(RECIPES)}"
        )
    return RECIPES[name]
