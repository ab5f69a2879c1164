"""Lengthen a finished run: go on from the state before its cooldown, as if it had been that long from the start.

The loop keeps that state, and the weights that lay in the run folder then. What is changed in the folder is first written
as a plan, and the plan is removed last, so an extension that was killed is completed by the next resume.
"""

import json
import math
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

from patchword import settings as tree
from patchword.errors import UserError, plural
from patchword.training import runfolder
from patchword.training.config import TrainSettings
from patchword.training.run_config import change_config
from patchword.training.runfolder import RunFolder, writing
from patchword.training.schedule import cooldown_start, extended
from patchword.training.state import TrainingState, saved_in
from patchword.training.tune import Head

# The state before the cooldown, and the names of the weights that lay beside it, in state/.
COOLDOWN = "cooldown"
_WEIGHTS = (runfolder.LAST, runfolder.BEST)
_PLAN = "state/extension.json"


@dataclass(frozen=True, kw_only=True)
class _Plan:
    before: int
    epochs: int
    warmup_epochs: float


def plateau_steps(settings: TrainSettings, steps_per_epoch: int) -> int | None:
    """The steps after which the state is kept for an extension; None for a schedule that cannot be extended."""
    if settings.schedule.shape != "constant":
        return None
    return math.floor(cooldown_start(steps_per_epoch, settings.schedule))


def keep_plateau(state: TrainingState, folder: RunFolder) -> None:
    """Save the state that a longer run goes on from, and copies of the weights. Raises: OutputError."""
    for name in _WEIGHTS:
        _copy(folder.path / name, _kept(folder, name))
    # Last: an extension needs this file, so it finds all or nothing.
    state.save(folder, COOLDOWN)


def extension_begun(folder: RunFolder) -> bool:
    """Whether an extension was begun and killed, so that config.toml and the states may differ."""
    return (folder.path / _PLAN).exists()


def extend_run(
    state: TrainingState, settings: TrainSettings, folder: RunFolder, epochs: int
) -> tuple[TrainSettings, str]:
    """Lengthen the run by `epochs`, or complete what was begun before a kill; returns its settings and what was done.

    Nothing is changed, and "" returned, if `epochs` is 0 and nothing was begun. state: filled from the run's last state if
    `epochs` is not 0.
    Raises: UserError or SettingsError if the run cannot be extended, OutputError.
    """
    path = folder.path / _PLAN
    plan = _Plan(**json.loads(path.read_text(encoding="utf-8"))) if extension_begun(folder) else None
    if epochs:
        plan = _new_plan(state, settings, folder, epochs, plan)
        folder.write_text(_PLAN, json.dumps(plan.__dict__) + "\n")
    if plan is None:
        return settings, ""
    schedule = replace(settings.schedule, epochs=plan.epochs, warmup_epochs=plan.warmup_epochs)
    settings = replace(settings, schedule=schedule)
    old_end = f"epoch-{plan.before}.safetensors"
    _go_back(state, settings, folder, old_end)
    changed = {"schedule.epochs": plan.epochs, "schedule.warmup_epochs": float(plan.warmup_epochs)}
    change_config(folder, changed, f"extended from {plural(plan.before, 'epoch')}")
    path.unlink()
    kept = f"; the weights of epoch {plan.before} are kept in {old_end}"
    return settings, f"extended from {plan.before} to {plan.epochs} epochs, from step {state.step} on{kept}"


def _new_plan(
    state: TrainingState, settings: TrainSettings, folder: RunFolder, epochs: int, begun: _Plan | None
) -> _Plan:
    before = settings.schedule.epochs
    if begun is not None or not (state.epoch >= before or state.ended):
        of = before if begun is None else begun.epochs
        raise UserError(
            f"{folder.path} is not finished: {state.epoch} of {of} epochs are done, so it cannot be extended yet",
            f"finish it first with `patchword train --resume {folder.path}`",
        )
    if isinstance(settings.tune, Head):
        raise UserError(
            f"{folder.path} cannot be extended: --tune head fits a head to features, without epochs",
            "start a new run with another --tune, such as last:2 or lora",
        )
    schedule = extended(settings.schedule, before + epochs)
    state_file = folder.path / runfolder.STATE / f"{COOLDOWN}.pt"
    if not state.restore_named(folder, COOLDOWN):
        missing = "is damaged" if state_file.exists() else "is missing"
        why = f": {state.ended}" if state.ended else ""
        raise UserError(
            f"{folder.path} cannot be extended: {state_file}, its state before the cooldown, {missing}{why}",
            f"start a new run with --config {folder.path}/{runfolder.CONFIG} --epochs {before + epochs}",
        )
    return _Plan(before=before, epochs=schedule.epochs, warmup_epochs=schedule.warmup_epochs)


def _go_back(state: TrainingState, settings: TrainSettings, folder: RunFolder, old_end: str) -> None:
    """Make the folder that of a run of these settings, stopped before the old cooldown. May be repeated."""
    if not state.restore_named(folder, COOLDOWN):
        raise UserError(
            f"{folder.path}/{runfolder.STATE}/{COOLDOWN}.pt is damaged or missing", "start a new run"
        )
    if not (folder.path / old_end).exists():
        _copy(folder.path / runfolder.LAST, folder.path / old_end)
    state.settings = json.dumps(tree.to_plain(settings))
    name = f"{state.step:08d}"
    state.save(folder, name)
    for other in saved_in(folder):
        if other.stem != name:
            other.unlink()
    for weights in _WEIGHTS:
        (folder.path / weights).unlink(missing_ok=True)
        _copy(_kept(folder, weights), folder.path / weights)
    for result in (runfolder.EVALUATION, runfolder.REPORT):
        (folder.path / result).unlink(missing_ok=True)


def _kept(folder: RunFolder, name: str) -> Path:
    return folder.path / runfolder.STATE / f"{COOLDOWN}-{name}"


def _copy(source: Path, target: Path) -> None:
    """Copy a file whole. If there is none, there is none at the target either."""
    if not source.exists():
        target.unlink(missing_ok=True)
        return
    with source.open("rb") as read, writing(target) as write:
        shutil.copyfileobj(read, write)
