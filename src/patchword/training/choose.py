"""Settings from a recipe, a file and options, and who chose each value."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from patchword import settings as tree
from patchword.data.dataset import Dataset
from patchword.errors import SettingsError
from patchword.images.preprocess import Reading, ValueRange
from patchword.training.config import RunSettings, TrainSettings
from patchword.training.recipes import default_recipe, recipe_named
from patchword.training.recipes.facts import Asked, Choice, DataFacts
from patchword.training.recipes.sizes import FEWEST_TOKENS, HEAD_DIM


@dataclass(frozen=True, kw_only=True)
class Wishes:
    """What a user said beside the data. overrides: (path, text) of each `-o`, `options` those of other options."""

    asked: Asked = field(default_factory=Asked)
    recipe: str | None = None
    config_file: str | None = None
    options: tuple[tuple[str, str, Any], ...] = ()
    overrides: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """Settings; sources: dotted path → who chose it; choices: the recipe's, in words."""

    settings: TrainSettings
    sources: Mapping[str, str]
    choices: tuple[Choice, ...]


def choose(dataset: Dataset, facts: DataFacts, wishes: Wishes) -> Chosen:
    """Recipe first, then the file, then options, then `-o`; the later wins.

    Raises: SettingsError for an unknown key or value (nearest names), and where the number of
    classes contradicts the data.
    """
    name = wishes.recipe or default_recipe(wishes.asked)
    by_recipe, choices = recipe_named(name)(facts, wishes.asked)
    settings, sources = by_recipe, {"": f"recipe {name}"}
    if wishes.asked.weights is not None:
        # All but what follows from the data.
        sources |= {"model": "weights", "model.head.num_classes": f"recipe {name}"}
    if wishes.config_file:
        settings = _with_file(settings, wishes.config_file, sources)
        settings = _asked_again(settings, by_recipe, wishes.asked)
        choices = []
    _note_asked(wishes.asked, sources)
    said = _said(wishes)
    settings = tree.replace_all(settings, said)
    sources |= {path: where for path, _, where in said}
    _check_classes(settings, dataset, sources)
    return Chosen(settings=settings, sources=sources, choices=(*choices, *doubts(settings, by_recipe)))


def _said(wishes: Wishes) -> list[tuple[str, Any, str]]:
    """(path, value, by which option), the later winning."""
    said: list[tuple[str, Any, str]] = [
        (path, value, f"option {name}") for path, name, value in wishes.options
    ]
    return said + [(*tree.parse_override(text), "option -o") for text in wishes.overrides]


def wished_run(wishes: Wishes) -> RunSettings:
    """With the seed of the split and the weights that the settings will have, all else at its default.

    They are wanted before the rest: one decides which images are held out, the other what the
    recipe starts from. Raises: SettingsError where they are of another type.
    """
    early = ("split_seed", "weights")
    settings = RunSettings()
    if wishes.config_file:
        run = tree.read_toml(wishes.config_file).get("run", {})
        given = {name: run[name] for name in early if name in run} if isinstance(run, Mapping) else {}
        settings = tree.from_plain(RunSettings, given, wishes.config_file)
    for path, value, option in _said(wishes):
        room, _, name = path.partition(".")
        if room == "run" and name in early:
            settings = tree.replace_at(settings, name, value, option)
    return settings


def wished_range(wishes: Wishes, of_weights: ValueRange | None) -> ValueRange | None:
    """The range that images will be read with: the data are checked and measured with it.

    of_weights: that of the weights to begin from.
    """
    reading = Reading(value_range=of_weights)
    if wishes.config_file:
        given: Any = tree.read_toml(wishes.config_file)
        for name in ("preprocess", "reading"):
            given = given.get(name) if isinstance(given, Mapping) else None
        if isinstance(given, Mapping) and "value_range" in given:
            reading = tree.replace_at(reading, "value_range", given["value_range"], wishes.config_file)
    for path, value, option in _said(wishes):
        if path == "preprocess.reading.value_range":
            reading = tree.replace_at(reading, "value_range", value, option)
    return reading.value_range


def _asked_again(settings: TrainSettings, by_recipe: TrainSettings, asked: Asked) -> TrainSettings:
    """Options win over the file: what they decided in the recipe is laid over it once more."""
    if asked.epochs is not None:
        schedule = dataclasses.replace(settings.schedule, epochs=asked.epochs)
        settings = dataclasses.replace(settings, schedule=schedule)
    model, preprocess = settings.model, settings.preprocess
    augment, run = settings.augment, settings.run
    if asked.model is not None:
        model = by_recipe.model
    if asked.patch_size is not None:
        model = dataclasses.replace(model, patch=dataclasses.replace(model.patch, size=asked.patch_size))
    if asked.image_size is not None or asked.model is not None:
        preprocess = by_recipe.preprocess
        model = dataclasses.replace(model, image=by_recipe.model.image)
        run = dataclasses.replace(run, stored_size=by_recipe.run.stored_size)
        augment = dataclasses.replace(augment, view=by_recipe.augment.view)
    return dataclasses.replace(settings, model=model, preprocess=preprocess, augment=augment, run=run)


def doubts(settings: TrainSettings, by_recipe: TrainSettings) -> list[Choice]:
    """What was asked for and is known to train badly, in words; nothing is refused."""
    model, found = settings.model, []
    rows, columns = model.grid_size
    if rows * columns < FEWEST_TOKENS:
        why = (
            f"fewer than {FEWEST_TOKENS} leave attention little to do; take a smaller patch or larger images"
        )
        found.append(Choice(what=f"warning: only {rows} x {columns} tokens", why=why))
    # Weights come with heads that work, however narrow.
    if model.head_dim < HEAD_DIM and not settings.run.weights:
        why = f"narrower than {HEAD_DIM} they cannot tell tokens apart; take fewer heads"
        found.append(Choice(what=f"warning: heads of {model.head_dim} channels", why=why))
    if settings.optim.lr > 10 * by_recipe.optim.lr:
        why = f"more than ten times the recipe's {by_recipe.optim.lr:g}; a ViT breaks or answers one class"
        found.append(Choice(what=f"warning: learning rate {settings.optim.lr:g}", why=why))
    padded = [-size % patch for size, patch in zip(model.image.size, model.patch_span, strict=True)]
    if any(padded):
        why = "the patch does not divide the image, so zeros fill up the right and the bottom"
        found.append(Choice(what=f"{padded[1]} columns and {padded[0]} rows of padding", why=why))
    return found


def _note_asked(asked: Asked, sources: dict[str, str]) -> None:
    # What a file said below these parts is gone (_asked_again).
    replaced = ["model."] if asked.model is not None else []
    replaced += ["preprocess."] if asked.model is not None or asked.image_size is not None else []
    for path in [p for p in sources if p.startswith(tuple(replaced))]:
        del sources[path]
    if asked.model is not None:
        sources["model"] = "option --model"
    if asked.image_size is not None:
        sources |= {"model.image.size": "option --image-size", "preprocess.image_size": "option --image-size"}
    if asked.patch_size is not None:
        sources["model.patch.size"] = "option --patch-size"
    if asked.epochs is not None:
        sources["schedule.epochs"] = "option --epochs"


def _with_file(settings: TrainSettings, file: str, sources: dict[str, str]) -> TrainSettings:
    given = tree.read_toml(file)
    merged = _merge(tree.to_plain(settings), given)
    for path in _paths(given):
        sources[path] = f"file {Path(file).name}"
    return tree.from_plain(TrainSettings, _without_none(merged), file)


def _merge(base: Any, given: Any) -> Any:
    """Tables are merged key by key; a part of another kind replaces the recipe's."""
    if not isinstance(base, Mapping) or not isinstance(given, Mapping):
        return given
    if given.get("kind", base.get("kind")) != base.get("kind"):
        return given
    return {**base, **{key: _merge(base.get(key), value) for key, value in given.items()}}


def _without_none(plain: Any) -> Any:
    """TOML has no null; an absent key takes the default, which is None for every such field."""
    if isinstance(plain, Mapping):
        return {k: _without_none(v) for k, v in plain.items() if v is not None}
    return plain


def _paths(given: Mapping[str, Any], prefix: str = "") -> list[str]:
    paths = []
    for key, value in given.items():
        paths += _paths(value, f"{prefix}{key}.") if isinstance(value, Mapping) else [prefix + key]
    return paths


def _check_classes(settings: TrainSettings, dataset: Dataset, sources: Mapping[str, str]) -> None:
    wanted, there = settings.model.head.num_classes, len(dataset.classes)
    if wanted == there:
        return
    who = tree.source_of("model.head.num_classes", sources)
    raise SettingsError(
        f"model.head.num_classes is {wanted} ({who}), {dataset.path} has {there} classes",
        "leave it out: the number of classes comes from the data",
    )


def resolved(settings: TrainSettings, sources: Mapping[str, str], **measured: Any) -> Chosen:
    """The settings with what was measured at the start (precision, threads, device) filled in.

    A value that the user set stays.
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
