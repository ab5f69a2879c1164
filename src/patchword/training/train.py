"""Train into a run folder, or resume a run."""

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from patchword import machine
from patchword import settings as tree
from patchword.data.contents import pack, unpack
from patchword.data.dataset import Dataset, Split
from patchword.data.feed import Feed
from patchword.data.splits import file_list_sha256
from patchword.data.store import Store, open_store
from patchword.errors import DataError, OutputError, TrainingBroken, UserError
from patchword.training import floor, runfolder, start_score
from patchword.training.checkpointer import BEGUN_FROM, Checkpointer
from patchword.training.choose import Chosen
from patchword.training.config import TrainSettings
from patchword.training.expected import expectation
from patchword.training.extension import extend_run, extension_begun, plateau_steps
from patchword.training.groups import Group, table, table_lines
from patchword.training.loop import Events, Loop
from patchword.training.measure import Fitted, fits_time, measure_steps, say
from patchword.training.optim_settings import effective_lr
from patchword.training.progress import Progress, Silent
from patchword.training.run_data import refuse_changed_files, unreadable_by_name, unreadable_places, unseen
from patchword.training.runfolder import RunFolder, write_whole
from patchword.training.setup import (
    described,
    is_given,
    measured,
    new_model,
    new_state,
    refuse_without_memory,
)
from patchword.training.state import TrainingState
from patchword.training.tasks.make import make_task
from patchword.training.teacher import TAUGHT_BY, TRAINED_ON
from patchword.training.tensorboard import TensorBoard, require_tensorboard
from patchword.training.tune import Full
from patchword.training.weights import Start, fill, fill_rest

# Key in data.json: the table of parameter groups.
GROUPS = "groups"
# Key in data.json: the images that the initial weights of the run were trained on.
TRAINED_BEFORE = "trained_before"


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """skipped: training images that could not be read, with the reason."""

    folder: Path
    settings: TrainSettings
    skipped: tuple[tuple[str, str], ...]


def start_run(
    dataset: Dataset,
    chosen: Chosen,
    facts: Mapping[str, Any],
    out: Path,
    progress: Progress | None = None,
    start: Start | None = None,
    claimed: Callable[[Path], None] | None = None,
    store: Store | None = None,
) -> RunResult:
    """Train from scratch, or from the weights `start`, into the new folder `out`.

    If another run takes that name meanwhile, the next free name is used; `claimed` is called with the folder.
    facts: for data.json. store: of the training images, with those that were decoded already.

    Raises: OutputError if `out` cannot be written, SettingsError if the settings describe another model
    than `start`, TrainingBroken, Interrupted.
    """
    progress = progress or Silent()
    device = machine.find_device(chosen.settings.run.device)
    refuse_without_memory(chosen.settings, dataset, device)
    if chosen.settings.run.tensorboard:
        require_tensorboard()
    progress.message(f"device: {described(device)}")
    model = new_model(chosen.settings)
    if start is not None:
        for change in fill(model, start, chosen.settings, _classes_of_head(dataset, chosen.settings)):
            progress.message(f"  {change.part}: {change.before} to {change.after}, {change.how}")
        card = start.source.card
        kept = 0 if "head" in card.untrained else len(set(card.classes) & set(dataset.classes))
        facts = {**facts, BEGUN_FROM: start.facts(), TRAINED_BEFORE: card.provenance.trained_on}
        facts[floor.KEPT_ROWS] = kept
    chosen = measured(chosen, model, len(dataset.training), device, progress)
    state, groups = new_state(model.to(device), chosen.settings)
    if start is not None and (said := fill_rest((state.module, state.average.model), start, dataset.classes)):
        progress.message(f"  {said}")
    _show_groups(groups, chosen.settings, progress)
    facts = {**facts, GROUPS: [asdict(row) for row in table(groups, _peak_rate(chosen.settings))]}
    if text := expectation(chosen.settings, len(dataset.training)):
        progress.message(f"note: {text}")
    folder = runfolder.make_folder(out)
    if folder.path != out:
        progress.message(f"another run took {out}; writing to {folder.path}")
    if claimed is not None:
        claimed(folder.path)
    with runfolder.locked(folder):
        _write_initial_files(folder, chosen, facts, state)
        folder.log(f"started on {dataset.path} with patchword {metadata.version('patchword')}")
        try:
            fit = Fitted(micro_batch=not is_given("run.micro_batch", chosen), epochs=fits_time(chosen))
            return _run(dataset, chosen.settings, state, folder, facts, progress, store, fit=fit)
        except DataError:
            if not (folder.path / runfolder.LAST).exists():  # failed before the first epoch was saved
                shutil.rmtree(folder.path, ignore_errors=True)
            raise


def _classes_of_head(dataset: Dataset, settings: TrainSettings) -> tuple[str, ...]:
    """The classes that the backbone's own head is for; a detector has its own."""
    return () if settings.task.kind == "detect" else dataset.outputs


def _peak_rate(settings: TrainSettings) -> float:
    return effective_lr(settings.optim, settings.run.batch_size)[0]


def _show_groups(groups: Sequence[Group], settings: TrainSettings, progress: Progress) -> None:
    """Print what is tuned at which rate, unless it is everything at one rate."""
    rows = table(groups, _peak_rate(settings))
    if settings.optim.lr_rule != "none":
        progress.message(effective_lr(settings.optim, settings.run.batch_size)[1])
    if not isinstance(settings.tune, Full):
        for line in table_lines(rows):
            progress.message(f"  {line}")


def _write_initial_files(
    folder: RunFolder, chosen: Chosen, facts: Mapping[str, Any], state: TrainingState
) -> None:
    try:
        folder.write_text(runfolder.CONFIG, tree.to_toml(chosen.settings, chosen.sources))
        folder.write_text(runfolder.DATA, tree.to_json(dict(facts), indent=1) + "\n")
        # Save before the first step: this detects a full disk early, and a run killed in its first
        # epoch can be resumed.
        state.save(folder)
    except BaseException:  # including Ctrl-C: a run that cannot be resumed must not keep the name
        shutil.rmtree(folder.path, ignore_errors=True)
        raise


def resume_run(
    dataset: Dataset, folder: RunFolder, progress: Progress | None = None, extend: int = 0
) -> RunResult:
    """Resume an interrupted run from its last state, bit-equal on the same machine.

    A run that was stopped after its last epoch, before its evaluation or report, is returned without training.
    extend: epochs to add to a finished run with a "constant" schedule (extension.py).
    Raises: UserError if the run is finished or diverged, or cannot be extended, or if the data or settings have changed.
    """
    with runfolder.locked(folder):
        return _resume(dataset, folder, progress or Silent(), extend)


def _resume(dataset: Dataset, folder: RunFolder, progress: Progress, extend: int) -> RunResult:
    settings, facts = read_run(folder)
    if (record := folder.broken()) is not None:
        raise UserError(
            f"{folder.path} cannot be resumed: {record.get('summary', 'training diverged')}; resuming would repeat the same steps",
            str(record.get("fix") or "start a new run with a lower --lr"),
        )
    if facts.get("file_list_sha256") != file_list_sha256(dataset):
        raise UserError(
            f"the images in {dataset.path} have changed since {folder.path} was started",
            "restore the data, or start a new run",
        )
    device = machine.find_device(settings.run.device)
    refuse_without_memory(settings, dataset, device)
    state, _ = new_state(new_model(settings).to(device), settings)
    if passed_by := state.restore(folder):
        progress.message(f"warning: {passed_by}")
        folder.log(f"warning: {passed_by}")
    if not extension_begun(folder):
        refuse_other_settings(settings, state.settings, folder)
    settings, done = extend_run(state, settings, folder, extend)
    say(done, progress, folder)
    if state.epoch >= settings.schedule.epochs:
        if not all((folder.path / name).exists() for name in (runfolder.EVALUATION, runfolder.REPORT)):
            return RunResult(
                folder=folder.path,
                settings=settings,
                skipped=tuple(unreadable_by_name(facts, dataset.training)),
            )
        raise UserError(
            f"{folder.path} is finished: {state.epoch} of {settings.schedule.epochs} epochs are done",
            _how_to_go_on(settings, folder),
        )
    folder.keep_metrics_until(state.step, state.epoch)
    folder.log(f"resumed after epoch {state.epoch}, step {state.step}")
    progress.message(f"resuming after epoch {state.epoch} of {settings.schedule.epochs}, step {state.step}")
    # One that is not 0 was given, or found to fit.
    fit = Fitted(micro_batch=not settings.run.micro_batch, epochs=False)
    return _run(dataset, settings, state, folder, facts, progress, fit=fit)


def _how_to_go_on(settings: TrainSettings, folder: RunFolder) -> str:
    if plateau_steps(settings, 1) is None:
        return "start a new run with --epochs N to train for more epochs"
    return f"train for N more epochs with `patchword train --resume {folder.path} --extend N`"


def _run(
    dataset: Dataset,
    settings: TrainSettings,
    state: TrainingState,
    folder: RunFolder,
    facts: Mapping[str, Any],
    progress: Progress,
    store: Store | None = None,
    *,
    fit: Fitted,
) -> RunResult:
    torch.set_num_threads(settings.run.threads)
    workers, split = machine.granted_cores(), dataset.training
    store = _opened_store(dataset, settings, store, folder, progress)
    unreadable = unreadable_places(facts, split, folder)

    def warn(text: str) -> None:
        progress.message(f"warning: {text}")
        folder.log(f"warning: {text}")

    trained = store.stamps.contents() | _trained_before(facts)
    device = next(state.module.parameters()).device
    evaluation = unseen(dataset, trained, warn)
    task = make_task(settings, state.module, dataset, evaluation, workers)
    keep = Checkpointer(dataset, settings, task, folder, facts, lambda: pack(trained))
    feed = Feed(
        split,
        store,
        task.collate,
        batch_size=settings.run.batch_size,
        seed=settings.run.seed,
        workers=workers,
        repeats=settings.run.repeats,
        weights=task.sample_weights(),
        unreadable=unreadable,
        pin=device.type == "cuda",
    )
    board = TensorBoard(folder.path, state.step) if settings.run.tensorboard else None
    record = folder.append_metrics if board is None else _both(folder.append_metrics, board.write)
    loop = Loop(settings, task, feed, state, keep, Events(record=record, warn=warn, progress=progress))
    facts = _before_the_first_step(loop, dataset, evaluation, workers, facts, folder)
    try:
        if state.step == 0:
            measure_steps(loop, folder, len(evaluation), fit=fit)
        loop.run()
        if said := floor.verdict(loop, facts) or start_score.verdict(loop, facts):
            warn(said)
    except TrainingBroken as error:
        folder.log(f"stopped: {error.message}")
        raise
    except OutputError as error:
        raise runfolder.resumable(folder, error) from error
    finally:
        progress.close()
        if board is not None:
            board.close()
    _log_end(folder, feed)
    return RunResult(
        folder=folder.path, settings=loop.settings, skipped=(*unreadable_by_name(facts, split), *feed.skipped)
    )


def _log_end(folder: RunFolder, feed: Feed) -> None:
    folder.log("finished")
    for name, reason in feed.skipped:
        folder.log(f"skipped {name}: {reason}")


def _trained_before(facts: Mapping[str, Any]) -> frozenset[bytes]:
    """The images that the initial weights and the teacher were trained on."""
    texts = (facts.get(TRAINED_BEFORE, ""), facts.get(TAUGHT_BY, {}).get(TRAINED_ON, ""))
    return frozenset().union(*(unpack(str(text)) for text in texts))


def _before_the_first_step(
    loop: Loop,
    dataset: Dataset,
    evaluation: Split,
    workers: int,
    facts: Mapping[str, Any],
    folder: RunFolder,
) -> Mapping[str, Any]:
    """Fit the probe of the floor, or score the start, where asked for; returns the facts with theirs."""
    if floor.applies(loop):
        keeps_head = bool(facts.get(floor.KEPT_ROWS))
        probe = floor.begin_with_probe(loop, dataset, evaluation, workers, keeps_head=keeps_head)
        facts = {**facts, **probe}
        folder.write_text(runfolder.DATA, tree.to_json(dict(facts), indent=1) + "\n")
    if start_score.applies(loop):
        facts = {**facts, **start_score.begin(loop)}
        folder.write_text(runfolder.DATA, tree.to_json(dict(facts), indent=1) + "\n")
    return facts


def _both(
    first: Callable[[Mapping[str, Any]], None], second: Callable[[Mapping[str, Any]], None]
) -> Callable[[Mapping[str, Any]], None]:
    def record(values: Mapping[str, Any]) -> None:
        first(values)
        second(values)

    return record


def _opened_store(
    dataset: Dataset, settings: TrainSettings, store: Store | None, folder: RunFolder, progress: Progress
) -> Store:
    """The store of the training images, with the hash of each file, which is remembered for a resume."""
    stored = settings.stored
    if store is None or store.preprocess != stored:
        store = open_store(dataset.training, stored, settings.run.cache)
    progress.message(store.text)
    refuse_changed_files(store.stamps, dataset, folder)
    store.stamps.read_rest(dataset.training, progress.reading)
    write_whole(folder.path / runfolder.STAMPS, store.stamps.to_bytes())
    return store


def refuse_other_settings(settings: TrainSettings, original: str, folder: RunFolder) -> None:
    """Refuse to resume if config.toml was edited: one run must not mix two sets of settings."""
    # Parse as settings, so that settings added since the run was started get their defaults.
    before = _flat(tree.to_plain(tree.from_plain(TrainSettings, json.loads(original), runfolder.STATE)))
    now = _flat(tree.to_plain(settings))
    changed = [path for path in {**before, **now} if now.get(path) != before.get(path)]
    if changed:
        shown = ", ".join(f"{p} is {now.get(p)}, was {before.get(p)}" for p in changed[:3])
        raise UserError(
            f"{folder.path}/{runfolder.CONFIG} was changed after the run was started: {shown}",
            f"restore the file, or start a new run with --config {folder.path}/{runfolder.CONFIG}",
        )


def _flat(plain: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(plain, Mapping):
        return {prefix.removesuffix("."): plain}
    return {k: v for key, value in plain.items() for k, v in _flat(value, f"{prefix}{key}.").items()}


def read_run(folder: RunFolder) -> tuple[TrainSettings, dict[str, Any]]:
    """The settings and data facts of a run."""
    path = folder.path / runfolder.CONFIG
    settings = tree.from_plain(TrainSettings, tree.read_toml(path), str(path))
    try:
        facts = json.loads((folder.path / runfolder.DATA).read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise UserError(
            f"{folder.path}/{runfolder.DATA} cannot be read ({error})", "start a new run"
        ) from error
    if not isinstance(facts, dict) or not isinstance(facts.get("path"), str):
        raise UserError(
            f"{folder.path}/{runfolder.DATA} does not contain the path of the data", "start a new run"
        )
    return settings, facts
