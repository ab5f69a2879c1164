"""Settings from a recipe, a file and options, and who chose each value."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from patchword import settings as tree
from patchword.data.dataset import Dataset
from patchword.errors import SettingsError
from patchword.training.config import TrainSettings
from patchword.training.recipes import DEFAULT, recipe_named
from patchword.training.recipes.facts import Asked, Choice, DataFacts


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
    name = wishes.recipe or DEFAULT
    settings, choices = recipe_named(name)(facts, wishes.asked)
    sources = {"": f"recipe {name}"}
    if wishes.config_file:
        settings = _with_file(settings, wishes.config_file, sources)
    for path, option, value in wishes.options:
        settings = tree.replace_at(settings, path, value, option)
        sources[path] = f"option {option}"
    for override in wishes.overrides:
        path, text = tree.parse_override(override)
        settings = tree.replace_at(settings, path, text, "option -o")
        sources[path] = "option -o"
    _note_asked(wishes.asked, sources)
    _check_classes(settings, dataset, sources)
    return Chosen(settings=settings, sources=sources, choices=tuple(choices))


def _note_asked(asked: Asked, sources: dict[str, str]) -> None:
    if asked.image_size is not None:
        sources |= {"model.image.size": "option --image-size", "preprocess.image_size": "option --image-size"}
    if asked.patch_size is not None:
        sources["model.patch.size"] = "option --patch-size"
    if asked.epochs is not None:
        sources["schedule.epochs"] = "option --epochs"
    if asked.model is not None:
        sources["model"] = "option --model"


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
        if who.startswith(("option", "file")) and getattr(run, name) not in ("", 0):
            continue
        run = dataclasses.replace(run, **{name: value})
        new_sources[f"run.{name}"] = "measured at the start"
    settings = dataclasses.replace(settings, run=run)
    return Chosen(settings=settings, sources=new_sources, choices=())
