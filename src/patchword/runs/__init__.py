"""A training from the user's request to the report: prepare, run, resume, finish."""

import contextlib
import os
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from patchword.data.open import open_data
from patchword.data.request import OpenRequest
from patchword.errors import (
    DataError,
    Interrupted,
    OutputError,
    PatchwordError,
    SettingsError,
    is_out_of_memory,
)
from patchword.runs.finish import Run, finish
from patchword.runs.prepare import Prepared
from patchword.settings import from_plain

if TYPE_CHECKING:
    from patchword.training.config import TrainSettings
    from patchword.training.progress import Progress

# Key in data.json: the data's location, independent of the folder that the run is resumed from.
ABSOLUTE_PATH = "absolute_path"
# The same of the data given with --val.
ABSOLUTE_VAL = "absolute_val"


def run(prepared: Prepared, progress: "Progress | None" = None) -> Run:
    """Train what `prepare` returned, score the last averaged weights and write the report."""
    from patchword.training.teacher import TAUGHT_BY
    from patchword.training.train import start_run

    if prepared.sanity:
        from patchword.training.progress import Silent
        from patchword.training.sanity import check_sanity

        check_sanity(prepared.dataset, prepared.chosen.settings, prepared.start, progress or Silent())
    # A resumed run must find the same images again.
    facts = {**prepared.report.to_dict(), "opening": _opening(prepared)}
    if prepared.teaching is not None:
        facts[TAUGHT_BY] = prepared.teaching.facts()
    if os.path.exists(prepared.dataset.path):
        facts[ABSOLUTE_PATH] = os.path.abspath(prepared.dataset.path)
    if prepared.opening.val is not None and os.path.exists(prepared.opening.val):
        facts[ABSOLUTE_VAL] = os.path.abspath(prepared.opening.val)
    reported = _reported(prepared.out, prepared.chosen.settings)
    with reported:
        result = start_run(
            prepared.dataset,
            prepared.chosen,
            facts,
            prepared.out,
            progress,
            prepared.start,
            reported.moved,
            prepared.store,
        )
        return finish(result.folder, result.settings, prepared.dataset, result.skipped)


def _opening(prepared: Prepared) -> dict[str, Any]:
    """How the data were opened, independent of the folder that the run is resumed from."""
    labels = prepared.opening.labels
    return asdict(prepared.opening) | {"labels": labels and os.path.abspath(labels)}


def resume_folder(
    folder: str | Path,
    *,
    data: str | None = None,
    val: str | None = None,
    progress: "Progress | None" = None,
    extend: int = 0,
) -> Run:
    """Resume an interrupted run from its last state. data, val: the images' new locations, if they have moved.

    extend: epochs to add to a finished run with a "constant" schedule.

    For the folder of a `--folds` run, see `folds.resume`.
    """
    from patchword import machine
    from patchword.training.runfolder import open_folder
    from patchword.training.train import read_run, resume_run

    machine.tune_allocator()
    run_folder = open_folder(folder)
    settings, facts = read_run(run_folder)
    opening = from_plain(OpenRequest, facts.get("opening", {}), f"{run_folder.path}/data.json")
    opening = replace(opening, val=place_of_val(facts, opening.val, run_folder.path, val))
    dataset = open_data(place_of_data(facts, run_folder.path) if data is None else data, opening)
    longer = replace(settings.schedule, epochs=settings.schedule.epochs + extend)
    with _reported(run_folder.path, replace(settings, schedule=longer)):
        result = resume_run(dataset, run_folder, progress, extend)
        return finish(result.folder, result.settings, dataset, result.skipped)


def place_of_data(facts: Mapping[str, Any], folder: Path) -> str:
    """The location of a run's images: the absolute path, or the path that was given, relative to here.

    Raises: DataError if neither exists.
    """
    given, kind = str(facts["path"]), facts.get("kind")
    places = [str(facts.get(ABSOLUTE_PATH, given)), given]
    existing = [place for place in places if os.path.exists(place)]
    if not existing and kind != "digits":
        raise DataError(
            f"{places[0]}, the data of {folder}, does not exist",
            f"give its new location: `patchword train DATA --resume {folder}`",
        )
    return existing[0] if existing else given


def place_of_val(facts: Mapping[str, Any], given: str | None, folder: Path, moved: str | None) -> str | None:
    """The location of the images that the run was given with --val. moved: their new one.

    Raises: DataError if they do not exist; SettingsError if the run has none.
    """
    if given is None:
        if moved is not None:
            raise SettingsError(f"--val {moved}, but {folder} was started without --val", "remove --val")
        return None
    places = [moved] if moved is not None else [str(facts.get(ABSOLUTE_VAL, given)), given]
    existing = [place for place in places if os.path.exists(place)]
    if not existing and places[0] != "digits":
        raise DataError(
            f"{places[0]}, the validation images of {folder}, does not exist",
            f"give their new location: `patchword train --resume {folder} --val PATH`",
        )
    return existing[0] if existing else places[0]


class _reported:
    """Context manager: write the report of a stopped run too, and say how to resume it."""

    def __init__(self, folder: Path, settings: "TrainSettings | None" = None) -> None:
        self.folder, self.settings = folder, settings

    def moved(self, folder: Path) -> None:
        self.folder = folder

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if error is None:
            return
        if self.settings is not None and is_out_of_memory(error):
            from patchword.training.memory import out_of_memory
            from patchword.training.runfolder import RunFolder

            trained = RunFolder(self.folder).epochs_done() == self.settings.schedule.epochs
            raise out_of_memory(self.settings, str(self.folder) if trained else "") from error
        if not any((self.folder / "state").glob("*.pt")):
            if isinstance(error, KeyboardInterrupt) and not self.folder.exists():
                raise Interrupted(
                    "interrupted before training started; no run folder was kept", "run the command again"
                ) from error
            return
        resume = f"resume with `patchword train --resume {self.folder}`"
        if isinstance(error, KeyboardInterrupt):
            kept = (self.folder / "last.safetensors").exists()
            what = (
                "the last complete epoch is kept"
                if kept
                else "no epoch was complete, so there are no weights"
            )
            raise Interrupted(f"interrupted; {what}", resume) from error
        if isinstance(error, PatchwordError) and (self.folder / "metrics.jsonl").exists():
            from patchword.reports.html import write_report

            # A failed report must not hide the reason why the run ended.
            with contextlib.suppress(PatchwordError):
                write_report(self.folder)
        if isinstance(error, Interrupted):
            raise Interrupted(error.message, resume) from error
        if isinstance(error, OutputError):
            raise OutputError(error.message, f"free some space, then {resume}") from error
