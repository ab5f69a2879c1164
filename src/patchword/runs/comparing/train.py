"""Train the runs of a comparison, one after another or several at once, and go on with one that was stopped."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from patchword import errors
from patchword.data.open import open_data
from patchword.errors import Interrupted, PatchwordError, TrainingBroken, UserError
from patchword.runs import resume_folder, run
from patchword.runs.comparing.answers import answers_of_run, write_answers
from patchword.runs.comparing.plan import Plan
from patchword.runs.comparing.vary import Arm
from patchword.runs.prepare import Prepared, prepare, prepare_again
from patchword.training.runfolder import EVALUATION, REPORT, RunFolder

if TYPE_CHECKING:
    from patchword.training.progress import Progress

WORKER = "patchword.runs.comparing.worker"
_POLL_S = 0.1
_LAST_LINES = 5
Shown = Callable[[Arm, int], None]


def is_finished(plan: Plan, arm: Arm, seed: int) -> bool:
    """Whether the run is trained and its answers are written, or it diverged."""
    return plan.answers(arm, seed).is_file() or is_broken(plan.place(arm, seed))


def is_broken(place: Path) -> bool:
    return RunFolder(place).broken() is not None


def is_begun(folder: Path) -> bool:
    """Whether anything in the comparison's folder could be resumed."""
    return any(folder.glob("*/seed-*/state/*.pt")) or any(
        path for ending in ("csv", "jsonl") for path in folder.glob(f"*/seed-*.{ending}")
    )


def train_one(
    plan: Plan, arm: Arm, seed: int, progress: "Progress", first: Prepared | None = None
) -> Prepared | None:
    """Train or resume one run, and write its answers. A run that diverges stays as it is. Raises: as `run`.

    first: a preparation on the same data, which are then not checked again. Returns one, if there is any.
    """
    place = plan.place(arm, seed)
    if is_finished(plan, arm, seed):
        return first
    with contextlib.suppress(TrainingBroken):
        dataset = None
        if all((place / name).exists() for name in (EVALUATION, REPORT)):
            pass
        elif any((place / "state").glob("*.pt")):
            resume_folder(place, data=plan.base.data, progress=progress)
        else:
            shutil.rmtree(place, ignore_errors=True)  # killed before there was a state
            request = plan.request(arm, seed)
            prepared = prepare(request, progress) if first is None else prepare_again(request, first)
            first, dataset = prepared, prepared.dataset
            run(prepared, progress)
        if dataset is None:
            dataset = open_data(plan.base.data, plan.base.opening)
        write_answers(plan.answers(arm, seed), answers_of_run(place, plan.task, dataset))
    return first


def train_all(plan: Plan, progress: "Progress", finished: Shown, first: Prepared | None = None) -> None:
    """Train every run that is not finished. finished: called after each, and for those that were before.

    Raises: Interrupted; the error of a run that cannot be trained. A run that diverges does not stop the others.
    """
    left = []
    for arm, seed in plan.runs:
        if is_finished(plan, arm, seed):
            finished(arm, seed)
        else:
            left.append((arm, seed))
    if plan.jobs == 1 or len(left) == 1:
        for arm, seed in left:
            first = train_one(plan, arm, seed, progress, first)
            finished(arm, seed)
        return
    _train_at_once(plan, left, finished)


@dataclass(frozen=True, kw_only=True)
class _Job:
    arm: Arm
    seed: int
    process: "subprocess.Popen[str]"
    log: Path


def _train_at_once(plan: Plan, left: list[tuple[Arm, int]], finished: Shown) -> None:
    """Up to plan.jobs runs at a time, each in a process of its own."""
    waiting, running = list(left), list[_Job]()
    with _stopping(running):
        while waiting or running:
            while waiting and len(running) < plan.jobs:
                running.append(_start(plan, *waiting.pop(0)))
            time.sleep(_POLL_S)
            for job in [job for job in running if job.process.poll() is not None]:
                running.remove(job)
                _close(job)
                _check(plan, job)
                finished(job.arm, job.seed)


@contextlib.contextmanager
def _stopping(running: list[_Job]) -> Iterator[None]:
    """On an error or Ctrl-C, stop every process after its step, and wait: each saves its state."""
    try:
        yield
    finally:
        for job in running:
            if job.process.poll() is None:
                job.process.send_signal(signal.SIGTERM)
        for job in running:
            job.process.wait()
            _close(job)
            job.log.unlink(missing_ok=True)


def _close(job: _Job) -> None:
    if job.process.stdin is not None:
        job.process.stdin.close()


def _start(plan: Plan, arm: Arm, seed: int) -> _Job:
    place = plan.place(arm, seed)
    place.parent.mkdir(exist_ok=True)
    log = place.with_suffix(".log")
    threads = {"OMP_NUM_THREADS": str(plan.threads)} if plan.threads else {}
    with open(log, "w", encoding="utf-8") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", WORKER, str(plan.base.out), plan.base.data, arm.folder, str(seed)],
            stdin=subprocess.PIPE,  # closes when this process ends, however it ends; the worker then stops too
            stdout=file,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, **threads},
            start_new_session=True,  # Ctrl-C reaches the workers once, from here
        )
    return _Job(arm=arm, seed=seed, process=process, log=log)


def _check(plan: Plan, job: _Job) -> None:
    """Raises: the error of a process that did not finish its run."""
    code = job.process.returncode
    lines = job.log.read_text(encoding="utf-8", errors="replace").splitlines()
    if code == 0:
        job.log.unlink(missing_ok=True)
        return
    where = f"{job.arm.name}, seed {job.seed}"
    found = _error_in(lines)
    if found is not None:
        job.log.unlink(missing_ok=True)
        found.message = f"{where}: {found.message}"
        raise found
    why = f"was killed by signal {-code}" if code < 0 else f"ended with code {code}"
    raise UserError(
        f"{where}: the process {why}; last lines: {' / '.join(lines[-_LAST_LINES:])}",
        f"see {job.log}; go on with `patchword compare --resume {plan.base.out}`, with fewer --jobs if memory was short",
    )


def _error_in(lines: list[str]) -> PatchwordError | None:
    """The error that a worker wrote as its last line."""
    try:
        plain: dict[str, Any] = json.loads(lines[-1])
        kind = getattr(errors, plain["error"])
        if not issubclass(kind, PatchwordError):
            return None
        made: PatchwordError = kind(plain["message"], plain["fix"])
        return made
    except (ValueError, LookupError, AttributeError, TypeError):
        return None


def interrupted(plan: Plan) -> Interrupted:
    """How far a stopped comparison is, and how to go on."""
    done = sum(is_finished(plan, arm, seed) for arm, seed in plan.runs)
    return Interrupted(
        f"interrupted; {done} of {plan.num_runs} runs are finished",
        f"go on with `patchword compare --resume {plan.base.out}`",
    )
