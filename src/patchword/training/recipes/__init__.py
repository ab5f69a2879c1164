"""Recipes: functions from facts of the data and what the user decided to settings. A new one is a file here and a line below."""

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
            f"no recipe {name!r}{near_text(name, RECIPES)}", f"use one of: {', '.join(RECIPES)}"
        )
    return RECIPES[name]
