"""Train K times, each time with another fold held out, and score each image by the model that has not seen it.

The folder of such a run holds a run folder for each fold (fold-1, …), folds.json (how to train them, then the scores),
out-of-fold.csv and report.html.
"""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from patchword.data.folds import fold_numbers
from patchword.data.open import open_data
from patchword.data.request import OpenRequest
from patchword.errors import Interrupted, PatchwordError, UserError, plural
from patchword.formats.facts import Options
from patchword.metrics import percent, t_interval
from patchword.runs import ABSOLUTE_PATH, place_of_data, resume_folder, run
from patchword.runs.finish import Run
from patchword.runs.out_of_fold import PREDICTIONS, predict_out_of_fold
from patchword.runs.prepare import Prepared, TrainRequest, prepare, wanted_folder
from patchword.settings import from_plain, to_json, to_plain

if TYPE_CHECKING:
    from patchword.inference.model import Model
    from patchword.training.overlay import Overlay
    from patchword.training.progress import Pace, Progress
    from patchword.training.runfolder import RunFolder

FOLDS = "folds.json"


@dataclass(frozen=True, kw_only=True)
class FoldScore:
    """The score of one fold's run: top1 over its `scored` held-out images. folder: its run folder, in that of all."""

    fold: int
    folder: str
    training_images: int
    scored: int
    top1: float
    top1_interval: tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class FoldedRun(Run):
    """Finished trainings on K folds. evaluation: of all images, each predicted by the model that has not seen it.

    folder: of all; settings: of the first fold. mean_top1, mean_interval: over the folds, with its 95 % interval (t).
    left_out: images that no model was to predict, because its initial weights or its teacher were trained on them.
    """

    scores: tuple[FoldScore, ...]
    mean_top1: float
    mean_interval: tuple[float, float]
    left_out: int = 0

    @property
    def model(self) -> "Model":
        """Raises: UserError, because there is a model for each fold."""
        raise UserError(
            f"{self.folder} holds {len(self.scores)} models, one for each fold",
            f"load {self.folder / self.scores[0].folder}, or train on all images without --folds",
        )

    def __repr__(self) -> str:
        return f"FoldedRun({str(self.folder)!r}, mean top-1 of {len(self.scores)} folds {percent(self.mean_top1)})"


def train_folds(
    request: TrainRequest, progress: "Progress | None" = None, show: Callable[[Prepared], None] | None = None
) -> FoldedRun:
    """Train `request.opening.folds` runs, one after another, and score all images out of fold.

    show: called with the first fold's preparation, before it is trained.
    Raises: as `prepare` and `run`.
    """
    from patchword.training.runfolder import RunFolder, cannot_write, free_folder

    out = free_folder(wanted_folder(request))
    request = replace(request, overlay=located(request.overlay), out=str(out))
    first = prepare(_fold_request(request, 1), progress)
    request = replace(request, opening=first.opening)  # with the seed of the split from the settings
    if show is not None:
        show(first)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(out, error) from error
    folder = RunFolder(out)
    folder.write_text(FOLDS, to_json(_plan(request, first), indent=1) + "\n")
    return _train(request, folder, progress, first)


def extend_without_resume(extend: int) -> UserError:
    """The error for epochs to add without a run to add them to."""
    return UserError(
        f"--extend {extend}, but no run to lengthen", "name it with --resume, or set the length with --epochs"
    )


def resume(
    folder: str | Path,
    *,
    data: str | None = None,
    val: str | None = None,
    progress: "Progress | None" = None,
    extend: int = 0,
) -> Run:
    """Resume an interrupted run, or a run of folds with the fold that is unfinished.

    data, val: the images' new locations, if they have moved. extend: epochs to add to a finished run, which is not of folds.
    """
    from patchword.training.runfolder import RunFolder

    if not (Path(folder) / FOLDS).is_file():
        return resume_folder(folder, data=data, val=val, progress=progress, extend=extend)
    if extend:
        raise UserError(
            f"--extend {extend}, but {folder} was started with --folds; a run of folds cannot be extended",
            "start a new one with more --epochs",
        )
    if val is not None:
        raise UserError(f"--val {val}, but {folder} was started with --folds", "remove --val")
    plan = _read_plan(Path(folder))
    if "scores" in plan:
        raise UserError(
            f"{folder} is finished: all {len(plan['scores'])} folds are trained and scored", "start a new run"
        )
    request = _request_of(plan, Path(folder), data)
    return _train(request, RunFolder(Path(folder)), progress)


def _train(
    request: TrainRequest, folder: "RunFolder", progress: "Progress | None", first: Prepared | None = None
) -> FoldedRun:
    """Train the folds that are not finished, then score."""
    from patchword.training.progress import Silent

    out, shown = folder.path, progress or Silent()
    k, fold = request.opening.folds or 0, 1
    resume_it = f"resume with `patchword train --resume {out}`"
    try:
        for fold in range(1, k + 1):
            _train_fold(request, out, fold, Quiet(shown), first if fold == 1 else None)
            shown.message(_line(_score(out, fold), k))
        return _scored(request, folder)
    except (KeyboardInterrupt, Interrupted) as error:
        if _is_begun(out):
            raise Interrupted(f"interrupted in fold {fold} of {k}", resume_it) from error
        raise
    except PatchwordError as error:
        error.fix = error.fix.replace(f"--resume {out / f'fold-{fold}'}", f"--resume {out}")
        raise
    finally:
        if not _is_begun(out):  # nothing that could be resumed: the name stays free
            shutil.rmtree(out, ignore_errors=True)


def _is_begun(out: Path) -> bool:
    return any(out.glob("fold-*/state/*.pt"))


def _train_fold(
    request: TrainRequest, out: Path, fold: int, progress: "Progress", prepared: Prepared | None
) -> None:
    from patchword.training.runfolder import EVALUATION, REPORT

    place = out / f"fold-{fold}"
    if all((place / name).exists() for name in (EVALUATION, REPORT)):
        return
    if any((place / "state").glob("*.pt")):
        resume_folder(place, data=request.data, progress=progress)
        return
    shutil.rmtree(place, ignore_errors=True)  # killed before there was a state
    run(prepared or prepare(_fold_request(request, fold), progress), progress)


class Quiet:
    """Shows how far a fold is, and warnings; a fold has one line, when it is finished."""

    def __init__(self, shown: "Progress") -> None:
        self.shown = shown

    def message(self, text: str) -> None:
        if text.startswith("warning"):
            self.shown.message(text)

    def pace(self, pace: "Pace") -> None:
        self.shown.pace(pace)

    def epoch(self, record: dict[str, Any]) -> None:
        pass

    def reading(self, done: int, total: int) -> None:
        self.shown.reading(done, total)

    def close(self) -> None:
        pass


def _line(score: FoldScore, k: int) -> str:
    low, high = (100 * share for share in score.top1_interval)
    return (
        f"fold {score.fold}/{k}  top-1 {100 * score.top1:5.1f} %  95 % interval {low:.1f} to {high:.1f}  "
        f"on {plural(score.scored, 'image')}"
    )


def _score(out: Path, fold: int) -> FoldScore:
    """The score that the fold's run wrote."""
    from patchword.training.runfolder import DATA, EVALUATION

    place = out / f"fold-{fold}"
    found = json.loads((place / EVALUATION).read_text(encoding="utf-8"))
    data = json.loads((place / DATA).read_text(encoding="utf-8"))
    low, high = found["top1_interval"]
    return FoldScore(
        fold=fold,
        folder=place.name,
        training_images=data["splits"]["train"]["images"],
        scored=found["scored"],
        top1=found["top1"],
        top1_interval=(low, high),
    )


def _scored(request: TrainRequest, folder: "RunFolder") -> FoldedRun:
    """Predict every image by the fold's model that has not seen it; write predictions, scores and the page."""
    from patchword.reports.folds import write_folds_report
    from patchword.training.train import read_run

    out, k = folder.path, request.opening.folds or 0
    dataset = open_data(request.data, replace(request.opening, folds=None, split=False))
    pool = dataset.everything
    numbers = fold_numbers(pool, dataset.classes, k, request.opening.split_seed, path=dataset.path)
    models = [out / f"fold-{fold}" for fold in range(1, k + 1)]
    evaluation, left_out = predict_out_of_fold(dataset, pool, numbers, models, out / PREDICTIONS)
    scores = tuple(_score(out, fold) for fold in range(1, k + 1))
    mean, low, high = t_interval([score.top1 for score in scores])
    settings, _ = read_run(type(folder)(models[0]))
    plan = _read_plan(out) | {
        "scores": [to_plain(score) for score in scores],
        "mean_top1": mean,
        "mean_top1_interval": [low, high],
        "left_out": left_out,
        "out_of_fold": evaluation.to_dict(),
    }
    write_folds_report(out, plan)
    folder.write_text(FOLDS, to_json(plan, indent=1) + "\n")
    return FoldedRun(
        folder=out,
        settings=settings,
        evaluation=evaluation,
        skipped=tuple((bad["name"], bad["reason"]) for bad in evaluation.unreadable),
        scores=scores,
        mean_top1=mean,
        mean_interval=(low, high),
        left_out=left_out,
    )


def _fold_request(request: TrainRequest, fold: int) -> TrainRequest:
    return replace(
        request,
        opening=replace(request.opening, fold=fold),
        out=str(Path(request.out or "") / f"fold-{fold}"),
    )


def located(overlay: "Overlay") -> "Overlay":
    """Absolute paths of the weights and the teacher, so that the folds can be resumed from another folder."""
    entries = dict(overlay.entries)
    for path in ("run.weights", "task.distill.teacher"):
        value, source = entries.get(path, ("", ""))
        if isinstance(value, str) and value and os.path.exists(value):
            entries[path] = (os.path.abspath(value), source)
    return replace(overlay, entries=entries)


def _plan(request: TrainRequest, first: Prepared) -> dict[str, Any]:
    """What is needed to train the folds that are left, as JSON takes it."""
    dataset = first.dataset
    absolute = {ABSOLUTE_PATH: os.path.abspath(dataset.path)} if os.path.exists(dataset.path) else {}
    head = request.options.head
    return {
        "path": dataset.path,
        "kind": dataset.kind,
        **absolute,
        "classes": list(dataset.classes),
        "images": first.report.images,
        "folds": request.opening.folds,
        "opening": to_plain(replace(first.opening, fold=1)),
        "settings": [[path, value, source] for path, (value, source) in request.overlay.entries.items()],
        "options": to_plain(replace(request.options, head=None)),
        "head": None if head is None else os.path.abspath(head),
        "offline": request.offline,
    }


def _read_plan(out: Path) -> dict[str, Any]:
    try:
        plan = json.loads((out / FOLDS).read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise UserError(f"{out / FOLDS} cannot be read ({error})", "start a new run") from error
    if not isinstance(plan, dict) or not isinstance(plan.get("path"), str):
        raise UserError(f"{out / FOLDS} does not contain the path of the data", "start a new run")
    return plan


def _request_of(plan: dict[str, Any], out: Path, data: str | None) -> TrainRequest:
    """The request that the folds were started with."""
    from patchword.training.overlay import Overlay

    where, head = str(out / FOLDS), plan.get("head")
    options = from_plain(Options, plan.get("options", {}), where)
    return TrainRequest(
        data=place_of_data(plan, out) if data is None else data,
        overlay=Overlay({path: (value, source) for path, value, source in plan.get("settings", [])}),
        out=str(out),
        opening=from_plain(OpenRequest, plan.get("opening", {}), where),
        options=replace(options, head=None if head is None else Path(head)),
        offline=bool(plan.get("offline")),
    )
