"""The plan of a comparison: which settings, which seeds, how many runs at once. It lies in comparison.json, so that it resumes."""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from patchword import machine
from patchword.data.align import LABELLED
from patchword.data.dataset import Dataset
from patchword.data.request import OpenRequest
from patchword.data.targets import TaskKind
from patchword.errors import DataError, SettingsError, UserError, near_text, plural
from patchword.formats.facts import Options
from patchword.runs import ABSOLUTE_PATH, place_of_data
from patchword.runs.comparing.answers_boxes import true_boxes
from patchword.runs.comparing.measure import MEASURES, Measure
from patchword.runs.comparing.vary import Arm, Factor, combinations
from patchword.runs.folds import located
from patchword.runs.prepare import Prepared, TrainRequest, prepare, prepare_again
from patchword.settings import from_plain, to_plain

if TYPE_CHECKING:
    from patchword.training.config import TrainSettings
    from patchword.training.overlay import Overlay
    from patchword.training.progress import Progress

COMPARISON = "comparison.json"
VARY = "option --vary"
MAX_SEEDS = 1000
# Python, torch and what a small run holds besides its model.
PROCESS_BYTES = 700 * 2**20


@dataclass(frozen=True, kw_only=True)
class CompareRequest:
    """What to compare. base: the training that all share. baseline: the value (or values, joined by ", ") to compare with.

    num_seeds: from the seed of the settings on. jobs: runs at once; None decides by the machine.
    """

    base: TrainRequest
    factors: tuple[Factor, ...]
    num_seeds: int = 5
    jobs: int | None = None
    baseline: str | None = None


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A comparison to run. base.out: its folder. left_out: combinations that cannot work, with the reason.

    threads: of each run. why_jobs: the reason for the number of runs at once. images: to evaluate on. notes: what else a reader of the
    result should know. task: what the images are labelled with.
    """

    base: TrainRequest
    factors: tuple[str, ...]
    arms: tuple[Arm, ...]
    baseline: str
    seeds: tuple[int, ...]
    jobs: int
    threads: int
    why_jobs: str
    images: int
    left_out: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()
    task: TaskKind = "single"

    @property
    def measure(self) -> Measure:
        """How its runs are scored."""
        return MEASURES[self.task]

    @property
    def num_runs(self) -> int:
        return len(self.arms) * len(self.seeds)

    @property
    def runs(self) -> list[tuple[Arm, int]]:
        """In the order of training: every setting with the first seed, then with the next."""
        return [(arm, seed) for seed in self.seeds for arm in self.arms]

    def answers(self, arm: Arm, seed: int) -> Path:
        """The file of a run's answers. It lies next to the run's folder, which holds only what training writes."""
        return self.place(arm, seed).with_suffix(".jsonl" if self.task == "boxes" else ".csv")

    def place(self, arm: Arm, seed: int) -> Path:
        """The run folder."""
        return Path(self.base.out or "") / arm.folder / f"seed-{seed}"

    def request(self, arm: Arm, seed: int) -> TrainRequest:
        """The training of one run."""
        overlay = _with_arm(self.base.overlay, arm)
        own = [("run.seed", seed, "option --seeds"), ("run.threads", self.threads, "option --jobs")]
        given = overlay.is_option("run.threads") or not self.threads
        return replace(
            self.base, overlay=overlay.with_options(own[:1] if given else own), out=str(self.place(arm, seed))
        )


def make_plan(
    request: CompareRequest, progress: "Progress | None" = None
) -> tuple[Plan, dict[str, Prepared]]:
    """Check the data and the settings of every run, without writing anything. Returns the preparation of each arm too.

    Raises: SettingsError if a value cannot be trained; DataError for data whose evaluation images have no score to compare; as `prepare`.
    """
    from patchword.training.runfolder import free_folder

    base, arms = request.base, combinations(request.factors)
    if not 1 <= request.num_seeds <= MAX_SEEDS:
        raise SettingsError(f"--seeds is {request.num_seeds}", f"give 1 to {MAX_SEEDS}; 5 is usual")
    if base.opening.folds is not None:
        raise SettingsError("--folds cannot be combined with a comparison", "remove --folds")
    baseline = _baseline(request.baseline, arms)
    first_seed = base.overlay.get("run.seed") or 0
    out = free_folder(base.out or f"runs/{Path(base.data).resolve().stem}-comparison")
    base = replace(base, overlay=located(base.overlay), out=str(out))
    prepared, failed = _prepared(base, arms, progress)
    _refuse_impossible(request.factors, arms, failed)
    kept = tuple(arm for arm in arms if arm.name in prepared)
    first = next(iter(prepared.values()))
    _refuse_unscored(first.dataset)
    seeds = tuple(range(first_seed, first_seed + request.num_seeds))
    settings = [prepared[arm.name].chosen.settings for arm in kept]
    jobs, threads, why = _jobs(request.jobs, settings, len(first.dataset.training), len(kept) * len(seeds))
    if baseline not in prepared:
        baseline = kept[0].name
    plan = Plan(
        base=replace(base, opening=_absolute(first.opening)),
        factors=tuple(f.name for f in request.factors),
        arms=kept,
        baseline=baseline,
        seeds=seeds,
        jobs=jobs,
        threads=threads,
        why_jobs=why,
        images=len(first.dataset.evaluation),
        left_out=tuple((name, error.message) for name, error in failed.items()),
        notes=_notes(request.factors, kept),
        task=first.dataset.task_kind,
    )
    return plan, prepared


def _refuse_unscored(dataset: Dataset) -> None:
    """Raises: DataError if the evaluation images have no score that could be compared."""
    if dataset.task_kind not in MEASURES:
        raise DataError(
            f"{dataset.path} has {LABELLED[dataset.task_kind]}, which `compare` does not score",
            "give data with classes, numbers or boxes",
        )
    if dataset.task_kind == "boxes":
        rows = true_boxes(dataset, dataset.classes)
        labels = [np.array(row, float).reshape(-1, 7) for row in rows]
    else:
        labels = [np.atleast_1d(row).astype(float) for row in dataset.evaluation.image_targets.values]
    MEASURES[dataset.task_kind].refuse(labels, dataset.path)


def _absolute(opening: OpenRequest) -> OpenRequest:
    """The paths of other files as seen from anywhere, so that the comparison goes on from another folder."""
    paths = {name: getattr(opening, name) for name in ("val", "labels")}
    there = {name: os.path.abspath(path) for name, path in paths.items() if path and os.path.exists(path)}
    return replace(opening, **there)


def _prepared(
    base: TrainRequest, arms: Sequence[Arm], progress: "Progress | None"
) -> tuple[dict[str, Prepared], dict[str, SettingsError]]:
    """The preparation of each arm, or why its settings cannot work. The data are checked once."""
    prepared: dict[str, Prepared] = {}
    failed: dict[str, SettingsError] = {}
    first: Prepared | None = None
    for arm in arms:
        asked = replace(base, overlay=_with_arm(base.overlay, arm), dry_run=True)
        try:
            found = prepare(asked, progress) if first is None else prepare_again(asked, first)
        except SettingsError as error:
            failed[arm.name] = error
            continue
        first = first or found
        prepared[arm.name] = found
    return prepared, failed


def _refuse_impossible(
    factors: Sequence[Factor], arms: Sequence[Arm], failed: dict[str, SettingsError]
) -> None:
    """Raises: SettingsError for a value that works in no combination, with the reason of the first."""
    for index, factor in enumerate(factors):
        for value in factor.values:
            using = [arm.name for arm in arms if arm.values[index] == value.label]
            if all(name in failed for name in using):
                error = failed[using[0]]
                more = "" if len(factors) == 1 else " in any combination"
                raise SettingsError(
                    f"{factor.name}={value.label} cannot be trained{more}: {error.message}",
                    f"{error.fix}; or remove {value.label} from --vary",
                ) from error


def _with_arm(overlay: "Overlay", arm: Arm) -> "Overlay":
    """The user's settings with the arm's values, and the class token that its pooling needs."""
    from patchword.model.kinds import ClassPool, JoinedPool

    entries = [(path, value, VARY) for path, value in arm.entries if (path, value) != ("run.weights", "")]
    changed = overlay.with_options(entries)
    if ("run.weights", "") in arm.entries:  # this arm trains from scratch
        left = {path: entry for path, entry in changed.entries.items() if path != "run.weights"}
        changed = replace(changed, entries=left)
    pool = dict(arm.entries).get("model.head.pool.kind")
    if pool in (ClassPool.kind, JoinedPool.kind) and not changed.has_any("model.tokens"):
        changed = changed.with_options([("model.tokens.class_token", True, VARY)])
    return changed


def _baseline(given: str | None, arms: Sequence[Arm]) -> str:
    """The arm to compare with: the one named, else the first. Raises: SettingsError if there is none of that name."""
    names = [arm.name for arm in arms]
    if given is None:
        return names[0]
    found = [name for name in names if name.replace(" ", "") == given.replace(" ", "")]
    if not found:
        raise SettingsError(
            f"--baseline {given!r} is none of the compared settings{near_text(given, names)}",
            f"use one of: {'; '.join(names[:8])}",
        )
    return found[0]


def _notes(factors: Sequence[Factor], arms: Sequence[Arm]) -> tuple[str, ...]:
    notes = [f.note for f in factors if f.note]
    paths = {path for arm in arms for path, _ in arm.entries}
    if "model.head.pool.kind" in paths and any(
        value in ("class", "joined") for arm in arms for _, value in arm.entries
    ):
        notes.append("pooling by class token adds that token; the other settings have none unless it is set")
    if not paths & {"optim.lr", "run.find_lr"}:
        notes.append("the learning rate is the same recipe's for every setting; it is not tuned for each")
    return tuple(notes)


def _jobs(
    asked: int | None, settings: "Sequence[TrainSettings]", num_images: int, num_runs: int
) -> tuple[int, int, str]:
    """Runs at once, the threads of each (0: as a run alone would choose), and the reason.

    Several small runs with one thread each use cores better than one run with several threads. Raises: SettingsError.
    """
    from patchword.training.memory import ROOM, needed

    if asked is not None and asked < 1:
        raise SettingsError(f"--jobs is {asked}", "give 1 or more")
    device = machine.find_device(None if settings[0].run.device == "auto" else settings[0].run.device)
    given = max(s.run.threads for s in settings)
    if asked == 1 or (asked is None and device.type != "cpu"):
        why = "asked for" if asked else "runs on one GPU would slow each other down"
        return 1, given, why
    cores = machine.granted_threads()
    size = max(int(needed(s, num_images).total * ROOM) for s in settings) + PROCESS_BYTES
    room = max(int(machine.most_memory_left_bytes() // size), 1)
    jobs = min(asked or min(cores // max(given, 1), room), num_runs)
    jobs = max(jobs, 1)
    threads = given or max(cores // jobs, 1)
    if asked:
        return jobs, threads, "asked for"
    free = f"{plural(cores, 'free core')}, and memory for {plural(room, 'run')}"
    return jobs, threads, free


def to_json_plan(plan: Plan, dataset_kind: str) -> dict[str, Any]:
    """What comparison.json holds before the first run."""
    base = plan.base
    absolute = {ABSOLUTE_PATH: os.path.abspath(base.data)} if os.path.exists(base.data) else {}
    head = base.options.head
    return {
        "path": base.data,
        "kind": dataset_kind,
        **absolute,
        "factors": list(plan.factors),
        "arms": [to_plain(arm) for arm in plan.arms],
        "baseline": plan.baseline,
        "seeds": list(plan.seeds),
        "jobs": plan.jobs,
        "threads": plan.threads,
        "why_jobs": plan.why_jobs,
        "images": plan.images,
        "task": plan.task,
        "left_out": [list(pair) for pair in plan.left_out],
        "notes": list(plan.notes),
        "opening": to_plain(base.opening),
        "settings": [[path, value, source] for path, (value, source) in base.overlay.entries.items()],
        "options": to_plain(replace(base.options, head=None)),
        "head": None if head is None else os.path.abspath(head),
        "offline": base.offline,
    }


def read_plan(folder: Path, data: str | None = None) -> Plan:
    """The plan of a comparison's folder. data: where the images are now, if they have moved.

    Raises: UserError if the folder holds no comparison, or a damaged one.
    """
    from patchword.training.overlay import Overlay

    path = folder / COMPARISON
    if not path.is_file():
        near = (
            [p.parent.name for p in folder.parent.glob(f"*/{COMPARISON}")] if folder.parent.is_dir() else []
        )
        there = f" (found: {', '.join(sorted(near)[:5])})" if near else ""
        raise UserError(
            f"{folder} is not the folder of a comparison: it has no {COMPARISON}{there}",
            "give a folder that `patchword compare` created",
        )
    try:
        plain = json.loads(path.read_text(encoding="utf-8-sig"))
        if "arms" not in plain:
            raise UserError(
                f"{folder} compares finished runs, so nothing is left to train",
                "name the runs to compare them again",
            )
        options = from_plain(Options, plain["options"], str(path))
        head = plain["head"]
        base = TrainRequest(
            data=place_of_data(plain, folder) if data is None else data,
            overlay=Overlay({p: (value, source) for p, value, source in plain["settings"]}),
            out=str(folder),
            opening=from_plain(OpenRequest, plain["opening"], str(path)),
            options=replace(options, head=None if head is None else Path(head)),
            offline=bool(plain["offline"]),
        )
        return Plan(
            base=base,
            factors=tuple(plain["factors"]),
            arms=tuple(_arm(arm) for arm in plain["arms"]),
            baseline=plain["baseline"],
            seeds=tuple(plain["seeds"]),
            jobs=int(plain["jobs"]),
            threads=int(plain["threads"]),
            why_jobs=plain["why_jobs"],
            images=int(plain["images"]),
            left_out=tuple((name, reason) for name, reason in plain["left_out"]),
            notes=tuple(plain["notes"]),
            task=plain.get("task", "single"),
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} cannot be read ({error})", "start a new comparison") from error


def _arm(plain: dict[str, Any]) -> Arm:
    return Arm(
        name=plain["name"],
        folder=plain["folder"],
        values=tuple(plain["values"]),
        entries=tuple((path, value) for path, value in plain["entries"]),
    )
