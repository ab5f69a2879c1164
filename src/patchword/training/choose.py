"""Combine the settings of a recipe, a file and options, and record the source of each value."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from patchword import machine
from patchword import settings as tree
from patchword.data.dataset import Dataset
from patchword.errors import SettingsError, plural
from patchword.training.config import TrainSettings
from patchword.training.overlay import Overlay
from patchword.training.recipes import default_recipe, recipe_named
from patchword.training.recipes.facts import Choice, DataFacts
from patchword.training.recipes.sizes import HEAD_DIM, MIN_TOKENS


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
    if name is None:
        name = default_recipe(facts)
    by_recipe, choices = recipe_named(name)(facts, overlay)
    sources = {"": f"recipe {name}"}
    if facts.weights is not None:
        # Everything except what follows from the data.
        sources |= {"model": "weights", "model.head.num_classes": f"recipe {name}"}
    sources |= overlay.sources()
    settings = overlay.laid_over(by_recipe)
    _check_classes(settings, dataset, sources)
    if overlay.has_file():
        choices = []
    return Chosen(settings=settings, sources=sources, choices=(*choices, *doubts(settings, by_recipe)))


def doubts(settings: TrainSettings, by_recipe: TrainSettings) -> list[Choice]:
    """Warnings about settings that are known to train badly; nothing is refused."""
    model, found = settings.model, []
    rows, columns = model.grid_size
    if rows * columns < MIN_TOKENS:
        why = (
            f"fewer than {MIN_TOKENS} are too few for attention to help; use a smaller patch or larger images"
        )
        found.append(Choice(what=f"warning: only {rows} x {columns} tokens", why=why))
    # Trained heads work, however narrow.
    if model.head_dim < HEAD_DIM and not settings.run.weights:
        why = f"heads narrower than {HEAD_DIM} cannot distinguish tokens; use fewer heads"
        found.append(Choice(what=f"warning: heads of {model.head_dim} channels", why=why))
    if settings.optim.lr > 10 * by_recipe.optim.lr:
        why = f"more than ten times the recipe's {by_recipe.optim.lr:g}; training is likely to diverge or collapse to one class"
        found.append(Choice(what=f"warning: learning rate {settings.optim.lr:g}", why=why))
    if settings.run.threads > (granted := machine.granted_cores()):
        why = f"only {plural(granted, 'core')} available, and additional threads wait for each other"
        found.append(Choice(what=f"warning: {settings.run.threads} threads", why=why))
    padded = [-size % patch for size, patch in zip(model.image.size, model.patch_span, strict=True)]
    if any(padded):
        why = "the patch size does not divide the image size, so the right and bottom edges are padded with zeros"
        found.append(Choice(what=f"{padded[1]} columns and {padded[0]} rows of padding", why=why))
    return found


def _check_classes(settings: TrainSettings, dataset: Dataset, sources: Mapping[str, str]) -> None:
    wanted, there = settings.model.head.num_classes, len(dataset.classes)
    if wanted == there:
        return
    who = tree.source_of("model.head.num_classes", sources)
    raise SettingsError(
        f"model.head.num_classes is {wanted} ({who}), but {dataset.path} has {plural(there, 'class', 'classes')}",
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
        run = dataclasses.replace(run, **{name: value})
        new_sources[f"run.{name}"] = "measured at the start"
    settings = dataclasses.replace(settings, run=run)
    return Chosen(settings=settings, sources=new_sources, choices=())
