"""Compare finished runs on the same evaluation images: runs with equal settings are the seeds of one setting."""

import itertools
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from patchword.data.dataset import Dataset
from patchword.data.open import open_data
from patchword.data.request import OpenRequest
from patchword.data.targets import TaskKind
from patchword.errors import DataError, SettingsError, UserError, near_text, plural
from patchword.runs import place_of_data, place_of_val
from patchword.runs.comparing.answers import Answers, Row, answers_of_run
from patchword.runs.comparing.compare import comparison_of, scored_arm, write_found
from patchword.runs.comparing.measure import MEASURES, Measure
from patchword.runs.comparing.plan import COMPARISON, read_plan
from patchword.runs.comparing.result import Comparison
from patchword.runs.comparing.verdict import Scored
from patchword.settings import from_plain, leaves
from patchword.training.runfolder import free_folder

if TYPE_CHECKING:
    from patchword.training.config import TrainSettings
    from patchword.training.progress import Progress

# These change how a run is computed, not what it learns; the seed tells runs of one setting apart.
_SAME_SETTING = frozenset(
    f"run.{name}"
    for name in (
        "seed",
        "threads",
        "device",
        "cache",
        "micro_batch",
        "compile",
        "save_minutes",
        "tensorboard",
    )
)
# What images are labelled with, by task.
_TASKS: Mapping[str, TaskKind] = {
    "classify": "single",
    "multilabel": "multi",
    "regress": "number",
    "detect": "boxes",
}
_LISTED = 3
_NAMED = 2


@dataclass(frozen=True, kw_only=True)
class _Run:
    """A finished run: its settings, and where it was trained and evaluated."""

    folder: Path
    settings: "TrainSettings"
    facts: dict[str, Any]
    answers: Answers

    @property
    def task(self) -> TaskKind:
        return _TASKS[self.settings.task.kind]

    @property
    def setting(self) -> dict[str, Any]:
        return {path: value for path, value in leaves(self.settings).items() if path not in _SAME_SETTING}


def compare_runs(
    folders: Sequence[str | Path],
    *,
    baseline: str | None = None,
    out: str | Path | None = None,
    progress: "Progress | None" = None,
) -> Comparison:
    """Compare the last weights of finished runs. A comparison's folder stands for its runs.

    baseline: a setting's name, or a run's folder; None is the first. out: where to write the report; None is a new folder in runs/.
    Raises: UserError for a folder without a finished run; DataError if runs were evaluated on different images, or other labels.
    """
    places = _places(folders)
    runs: list[_Run] = []
    opened: dict[str, Dataset] = {}
    for done, place in enumerate(places):
        if progress is not None:
            progress.reading(done, len(places))
        runs.append(_read(place, opened))
        _refuse_other_images(runs[0], runs[-1])
    names, varied = _named(runs)
    groups: dict[str, list[_Run]] = {}
    for run, name in zip(runs, names, strict=True):
        groups.setdefault(name, []).append(run)
    measure = MEASURES[runs[0].task]
    scored = [_scored(name, group, measure) for name, group in groups.items()]
    measure.refuse(scored[0].given[min(scored[0].given)].truth, str(runs[0].facts["path"]))
    notes = []
    if len({run.facts.get("file_list_sha256") for run in runs}) > 1:
        notes.append("the runs were not trained on the same list of images")
    counts = {len(group) for group in groups.values()}
    if len(counts) > 1 or len({tuple(sorted(r.settings.run.seed for r in g)) for g in groups.values()}) > 1:
        notes.append("the settings were not trained with the same seeds, so their runs are not paired")
    found = comparison_of(
        scored,
        measure,
        baseline=_baseline(baseline, groups),
        path=str(runs[0].facts["path"]),
        folder=free_folder(out or "runs/comparison"),
        factors=varied,
        of=len(runs[0].answers.keys),
        notes=tuple(notes),
    )
    return write_found(found)


def _places(folders: Sequence[str | Path]) -> list[Path]:
    """The run folders. Raises: UserError for fewer than two, or one that is given twice."""
    places: list[Path] = []
    for folder in map(Path, folders):
        if (folder / COMPARISON).is_file():
            plan = read_plan(folder)
            places += [plan.place(arm, seed) for arm in plan.arms for seed in plan.seeds]
        else:
            places.append(folder)
    if len(places) < 2:
        raise UserError(
            f"only {places[0]} is given, so there is nothing to compare",
            "give two finished runs or more, or DATA with --vary NAME=A,B to train them",
        )
    absolute = [os.path.abspath(place) for place in places]
    for index, place in enumerate(absolute):
        if place in absolute[:index]:
            raise UserError(f"{places[index]} is given twice", "give each run once")
    return places


def _read(place: Path, opened: dict[str, Dataset]) -> _Run:
    """A run with its answers. opened: data sets by how they were opened, so that each is opened once."""
    from patchword.training.runfolder import EVALUATION, open_folder
    from patchword.training.train import read_run

    folder = open_folder(place)
    settings, facts = read_run(folder)
    if settings.task.kind not in _TASKS:
        raise UserError(
            f"{place} was trained for {settings.task.kind!r}; runs are compared by classes, numbers or boxes",
            "give runs of models of classes, numbers or boxes",
        )
    if not (place / EVALUATION).is_file():
        raise UserError(
            f"{place} is not finished: it has no {EVALUATION}",
            f"finish it with `patchword train --resume {place}`",
        )
    opening = from_plain(OpenRequest, facts.get("opening", {}), f"{place}/data.json")
    opening = replace(opening, val=place_of_val(facts, opening.val, place, None))
    where = place_of_data(facts, place)
    key = repr((where, opening))
    if key not in opened:
        opened[key] = open_data(where, opening)
    return _Run(
        folder=place,
        settings=settings,
        facts=facts,
        answers=answers_of_run(place, _TASKS[settings.task.kind], opened[key]),
    )


def _refuse_other_images(first: _Run, other: _Run) -> None:
    """Raises: DataError if the images, or their classes, are not those of the first run."""
    fix = "compare runs that were evaluated on the same images: the same data, --val and --split-seed"
    if (first.task, first.answers.outputs) != (other.task, other.answers.outputs):
        kinds = [
            f"{r.folder} predicts {', '.join(filter(None, r.answers.outputs)) or 'one class'}"
            for r in (first, other)
        ]
        raise DataError(f"{kinds[0]}, but {kinds[1]}", "compare runs that were trained on the same labels")
    known = dict(zip(first.answers.keys, first.answers.true, strict=True))
    found = dict(zip(other.answers.keys, other.answers.true, strict=True))
    alone = [n for n, key in zip(other.answers.names, other.answers.keys, strict=True) if key not in known]
    missing = len(known.keys() - found.keys())
    if alone or missing:
        shown = f" ({', '.join(alone[:_LISTED])}, …)" if alone else ""
        raise DataError(
            f"{first.folder} and {other.folder} were evaluated on different images: {len(alone)} of "
            f"{plural(len(found), 'image')} are new in the second{shown}, and {missing} of the first are missing",
            fix,
        )
    changed = [key for key in known if known[key] != found[key]]
    if changed:
        raise DataError(
            f"{first.folder} and {other.folder} label {plural(len(changed), 'image')} differently, e.g. "
            f"{_shown(known[changed[0]])} and {_shown(found[changed[0]])}",
            fix,
        )


def _shown(row: Row) -> str:
    if row and isinstance(row[0], tuple):
        return plural(len(row), "box", "boxes")
    return ", ".join(repr(cell) if isinstance(cell, str) else f"{cell:g}" for cell in row)


def _named(runs: Sequence[_Run]) -> tuple[list[str], tuple[str, ...]]:
    """The name of each run's setting, and the settings that differ.

    One that differs alone names a run by its value. Runs of one setting alone, or twice with one seed, go by folder.
    """
    settings = [run.setting for run in runs]
    keys = [repr(sorted((path, repr(value)) for path, value in s.items())) for s in settings]
    seeds = [(key, run.settings.run.seed) for key, run in zip(keys, runs, strict=True)]
    if len(set(keys)) == 1 or len(set(seeds)) < len(seeds):
        return _folder_names([run.folder for run in runs]), ()
    differing = _differing(settings)
    shown = tuple(map(_short, differing))
    if len(differing) == 1:
        names = [str(s.get(differing[0])) for s in settings]
    else:
        more = f", … ({len(differing)} settings)" if len(differing) > _NAMED else ""
        pairs = [[f"{_short(path)}={s.get(path, 'unset')}" for path in differing[:_NAMED]] for s in settings]
        names = [", ".join(pair) + more for pair in pairs]
    if len(set(names)) < len(set(keys)):  # they differ in more than a name can say
        number = {key: i for i, key in enumerate(dict.fromkeys(keys), 1)}
        names = [f"{number[key]}: {name}" for key, name in zip(keys, names, strict=True)]
    return names, shown


def _differing(settings: Sequence[Mapping[str, Any]]) -> list[str]:
    """The paths that differ; of a part whose kind differs, that kind alone."""
    paths = dict.fromkeys(itertools.chain.from_iterable(settings))
    found = [p for p in paths if len({repr(s.get(p)) for s in settings}) > 1]
    parts = [p.removesuffix("kind") for p in found if p.endswith(".kind")]
    kept = [p for p in found if not any(p.startswith(part) and p != f"{part}kind" for part in parts)]
    # The recipe and the weights name everything that follows from them.
    return [path for path in kept if path in ("run.recipe", "run.weights")] or kept


def _short(path: str) -> str:
    parts = path.split(".")
    return ".".join(parts[-2:]) if parts[-1] in ("kind", "size", "norm") else parts[-1]


def _folder_names(folders: Sequence[Path]) -> list[str]:
    """The shortest ends of the paths that tell the folders apart."""
    parts = [Path(os.path.abspath(folder)).parts for folder in folders]
    for count in range(1, max(map(len, parts)) + 1):
        names = ["/".join(p[-count:]) for p in parts]
        if len(set(names)) == len(names):
            return names
    return [str(folder) for folder in folders]


def _scored(name: str, group: Sequence[_Run], measure: Measure) -> Scored:
    ordered = sorted(group, key=lambda run: run.settings.run.seed)
    places = {run.settings.run.seed: run.folder for run in ordered}
    given = {run.settings.run.seed: run.answers.scored for run in ordered}
    return scored_arm(name, places, given, measure)


def _baseline(given: str | None, groups: Mapping[str, Sequence[_Run]]) -> str:
    """The setting with this name, or of this run. Raises: SettingsError if there is none."""
    if given is None:
        return next(iter(groups))
    for name, runs in groups.items():
        folders = {os.path.abspath(run.folder) for run in runs}
        if given == name or os.path.abspath(given) in folders:
            return name
    raise SettingsError(
        f"--baseline {given!r} is none of the compared settings{near_text(given, groups)}",
        f"use one of: {'; '.join(list(groups)[:8])}",
    )
