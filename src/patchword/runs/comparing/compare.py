"""A comparison from the request to the report: plan, train, compare, write."""

import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from patchword.errors import Interrupted, PatchwordError, plural
from patchword.runs.comparing.answers import read_answers
from patchword.runs.comparing.measure import Given, Measure
from patchword.runs.comparing.plan import COMPARISON, CompareRequest, Plan, make_plan, read_plan, to_json_plan
from patchword.runs.comparing.result import (
    Comparison,
    compare_scored,
    conclusion,
    measured_power,
    planned_power,
)
from patchword.runs.comparing.train import interrupted, is_begun, is_finished, train_all
from patchword.runs.comparing.vary import Arm
from patchword.runs.comparing.verdict import RunScore, Scored
from patchword.runs.folds import Quiet
from patchword.runs.prepare import Prepared
from patchword.settings import to_json
from patchword.training.progress import Silent, clock
from patchword.training.runfolder import EVALUATION, RunFolder

if TYPE_CHECKING:
    from patchword.training.progress import Progress


def compare(
    request: CompareRequest,
    progress: "Progress | None" = None,
    show: Callable[[Plan, dict[str, Prepared]], None] | None = None,
) -> Comparison:
    """Train every setting with every seed, and compare them. show: called with the plan, before the first run.

    Raises: as `make_plan`; Interrupted, after which `resume` goes on.
    """
    from patchword.training.runfolder import cannot_write

    plan, prepared = make_plan(request, progress)
    if show is not None:
        show(plan, prepared)
    out = Path(plan.base.out or "")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(out, error) from error
    first = next(iter(prepared.values()))
    plain = to_json_plan(plan, first.dataset.kind)
    RunFolder(out).write_text(COMPARISON, to_json(plain, indent=1) + "\n")
    return _run(plan, progress or Silent(), first)


def resume(
    folder: str | Path,
    *,
    data: str | None = None,
    progress: "Progress | None" = None,
    show: Callable[[Plan], None] | None = None,
) -> Comparison:
    """Go on with a comparison that was stopped; of a finished one, only the report is written again.

    data: the images' new location, if they have moved. Raises: UserError if the folder holds no comparison; as `compare`.
    """
    plan = read_plan(Path(folder), data)
    if show is not None:
        show(plan)
    return _run(plan, progress or Silent())


def _run(plan: Plan, progress: "Progress", first: Prepared | None = None) -> Comparison:
    out = Path(plan.base.out or "")
    pace = _Pace(plan, progress)
    try:
        train_all(plan, Quiet(progress), pace.finished, first)
    except (KeyboardInterrupt, Interrupted) as error:
        if is_begun(out):
            raise interrupted(plan) from error
        raise
    except PatchwordError as error:
        error.fix = (
            f"{error.fix}, then go on with `patchword compare --resume {out}`" if is_begun(out) else error.fix
        )
        raise
    finally:
        if not is_begun(out):  # nothing that could be resumed: the name stays free
            shutil.rmtree(out, ignore_errors=True)
    return write_result(plan)


class _Pace:
    """Says which run is finished, its score, and about how long the others take."""

    def __init__(self, plan: Plan, progress: "Progress") -> None:
        self.plan, self.progress, self.done, self.seconds = plan, progress, 0, list[float]()

    def finished(self, arm: Arm, seed: int) -> None:
        self.done += 1
        plan = self.plan
        score = run_score(plan.place(arm, seed), seed, plan.measure)
        text = f"{self.done}/{plan.num_runs}  {arm.name}, seed {seed}  "
        if score.broken:
            self.progress.message(f"{text}diverged: {score.broken}")
            return
        self.seconds.append(score.seconds)
        text += f"{plan.measure.name} {100 * score.score:5.1f} %  {clock(score.seconds)}"
        left = sum(not is_finished(plan, a, s) for a, s in plan.runs)
        if left:
            each = sum(self.seconds) / len(self.seconds)
            text += f"  about {clock(left * each / plan.jobs)} left"
        self.progress.message(text)


def run_score(place: Path, seed: int, measure: Measure) -> RunScore:
    """The score that a run wrote, or why it diverged."""
    from patchword.reports.run_files import read_run

    found = read_run(place)
    seconds = float(found.epochs[-1]["seconds"]) if found.epochs else 0.0
    if found.broken is not None:
        why = str(found.broken.get("summary", "training diverged"))
        return RunScore(seed=seed, folder=str(place), score=float("nan"), seconds=seconds, broken=why)
    plain = json.loads((place / EVALUATION).read_text(encoding="utf-8"))
    return RunScore(seed=seed, folder=str(place), score=measure.written(plain), seconds=seconds)


def scored_arm(name: str, places: dict[int, Path], given: dict[int, Given], measure: Measure) -> Scored:
    """One setting with its runs. places: the run folder of each seed; given: the answers of each finished seed."""
    from patchword.training.train import read_run
    from patchword.training.workload import price

    settings, _ = read_run(RunFolder(next(iter(places.values()))))
    cost = price(settings)
    return Scored(
        name=name,
        runs=tuple(run_score(place, seed, measure) for seed, place in places.items()),
        given=given,
        parameters=cost.parameters,
        flops=cost.flops,
        curve=_curve([places[seed] for seed in given], measure),
    )


def _curve(places: list[Path], measure: Measure) -> tuple[tuple[float, float, float], ...]:
    """The mean seconds and validation score by epoch, over the runs that recorded them."""
    from patchword.reports.run_files import read_run

    by_epoch: dict[float, list[tuple[float, float]]] = {}
    for place in places:
        for record in read_run(place).epochs:
            if isinstance(record.get(measure.recorded), float):
                point = (float(record["seconds"]), record[measure.recorded])
                by_epoch.setdefault(float(record["epoch"]), []).append(point)
    return tuple(
        (epoch, *(sum(values) / len(values) for values in zip(*points, strict=True)))
        for epoch, points in sorted(by_epoch.items())
    )


def result_of(plan: Plan) -> Comparison:
    """Compare the finished runs of a plan."""
    scored = []
    for arm in plan.arms:
        places = {seed: plan.place(arm, seed) for seed in plan.seeds}
        files = {seed: plan.answers(arm, seed) for seed in plan.seeds}
        given = {seed: read_answers(file, plan.task).scored for seed, file in files.items() if file.is_file()}
        scored.append(scored_arm(arm.name, places, given, plan.measure))
    return comparison_of(
        scored,
        plan.measure,
        baseline=plan.baseline,
        path=plan.base.data,
        folder=Path(plan.base.out or ""),
        factors=plan.factors,
        of=plan.images,
        notes=plan.notes,
        left_out=plan.left_out,
    )


def comparison_of(
    scored: list[Scored],
    measure: Measure,
    *,
    baseline: str,
    path: str,
    folder: Path | None,
    factors: tuple[str, ...],
    of: int,
    notes: tuple[str, ...],
    left_out: tuple[tuple[str, str], ...] = (),
) -> Comparison:
    """The comparison of these settings, with its conclusion."""
    arms, contrasts, pairs, images = compare_scored(scored, baseline, measure)
    num_seeds = min(len(one.runs) for one in scored)
    if images < of:
        why = "the others are unreadable, or a run was trained on them"
        notes = (*notes, f"{images} of {plural(of, 'image')} are compared; {why}")
    return Comparison(
        path=path,
        measure=measure.name,
        folder=folder,
        factors=factors,
        baseline=baseline,
        arms=arms,
        contrasts=contrasts,
        pairs=pairs,
        images=images,
        of=of,
        planned=planned_power(num_seeds, max(of, 1), len(scored), measure),
        measured=measured_power(contrasts, num_seeds, max(images, 1)),
        notes=notes,
        left_out=left_out,
        words=conclusion(arms, contrasts, baseline),
    )


def write_result(plan: Plan) -> Comparison:
    """Compare the runs, and write comparison.json, report.html and comparison.svg."""
    path = Path(plan.base.out or "") / COMPARISON
    plain: dict[str, Any] = json.loads(path.read_text(encoding="utf-8-sig"))
    return write_found(result_of(plan), plain)


def write_found(found: Comparison, plain: Mapping[str, Any] | None = None) -> Comparison:
    """Write a comparison into its folder; returned with the runs' places as seen from there. plain: what comparison.json has."""
    from patchword.reports.comparison import write_comparison
    from patchword.training.runfolder import cannot_write

    out = found.folder
    assert out is not None
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(out, error) from error
    arms = (replace(arm, runs=tuple(_seen_from(out, run) for run in arm.runs)) for arm in found.arms)
    found = replace(found, arms=tuple(arms))
    result = found.to_dict()
    write_comparison(out, result)
    RunFolder(out).write_text(COMPARISON, to_json({**(plain or {}), "result": result}, indent=1) + "\n")
    return found


def _seen_from(out: Path, run: RunScore) -> RunScore:
    return replace(run, folder=Path(os.path.relpath(run.folder, out)).as_posix())
