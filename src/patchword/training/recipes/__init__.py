"""Recipes: functions from data facts and the user's settings to complete settings. To add one, add a module here and an entry below."""

from collections.abc import Callable

from patchword.errors import SettingsError, near_text
from patchword.training.config import TrainSettings
from patchword.training.overlay import Overlay
from patchword.training.recipes import finetune, scratch
from patchword.training.recipes.facts import Choice, DataFacts

Recipe = Callable[[DataFacts, Overlay], tuple[TrainSettings, list[Choice]]]

RECIPES: dict[str, Recipe] = {
    "scratch": scratch.settings_for,
    "finetune": finetune.settings_for,
}


def default_recipe(facts: DataFacts) -> str:
    return "scratch" if facts.weights is None else "finetune"


def recipe_named(name: str) -> Recipe:
    if name not in RECIPES:
        raise SettingsError(
            f"unknown recipe {name!r}{near_text(name, RECIPES)}", f"use one of: {', '.join(RECIPES)}"
        )
    return RECIPES[name]
