"""The training loop, for every task: epochs of steps, averaged weights, evaluation, and a state saved at any step.

A task (task.py) brings batches, losses, evaluation and the score that decides which epoch is best. What a step does is a pure
function of the state and of (seed, step), so a run may stop after any step and go on in another process with the same bits.
"""

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from patchword.errors import Interrupted, TrainingBroken
from patchword.model.vit import DropPath
from patchword.training.broken import Break, advised_rate, broken, first_broken_module, shown_rate, skipped
from patchword.training.chance import Draws, seed_of
from patchword.training.checkpointer import Checkpointer
from patchword.training.config import TrainSettings
from patchword.training.meter import Meter
from patchword.training.progress import Progress
from patchword.training.ranks import Ranks
from patchword.training.schedule import lr_factor
from patchword.training.state import TrainingState
from patchword.training.stop import StopRequest, listening
from patchword.training.task import Batch, Fed, Feed, Scores, Task

# After this many steps that were not finite, a run stops.
MOST_BROKEN = 3
# Steps between two looks at the losses. A look makes the host wait for a GPU.
LOOK_EVERY_GPU = 20
PROGRESS_INTERVAL_S = 0.5
RECORDS_PER_EPOCH = 10


@dataclass(frozen=True, kw_only=True)
class Events:
    """Where the loop reports: lines of metrics.jsonl, warnings, the screen."""

    record: Callable[[dict[str, Any]], None]
    warn: Callable[[str], None]
    progress: Progress


@dataclass
class Loop:
    """Train `state` to the end of the schedule.

    Raises: TrainingBroken after three steps that are not finite, or one score (the averaged weights are kept),
    Interrupted after Ctrl-C or SIGTERM (weights and state are kept).
    """

    settings: TrainSettings
    task: Task
    feed: Feed
    state: TrainingState
    keep: Checkpointer
    events: Events
    ranks: Ranks = field(default_factory=Ranks)

    def __post_init__(self) -> None:
        module = self.task.module
        self.device = next(module.parameters()).device
        self.parameters = [p for p in module.parameters() if p.requires_grad]
        self.drop_paths = [m for m in module.modules() if isinstance(m, DropPath) and m.rate]
        self.forward: Callable[[Tensor, Any], Mapping[str, Tensor]] = module
        self.look_every = LOOK_EVERY_GPU if self.device.type == "cuda" else 1
        self.meter = Meter(self.settings, self.feed, self.state, self.device, self.events.progress)
        self.warned = False

    def run(self) -> None:
        state, steps = self.state, self.feed.steps_per_epoch
        with listening() as stop:
            while state.epoch < self.settings.schedule.epochs:
                while state.step < (state.epoch + 1) * steps:
                    self._epoch(stop)
                self._finish_epoch()

    def _epoch(self, stop: StopRequest) -> None:
        """The rest of the epoch; ends early after a return to an earlier state."""
        state, steps = self.state, self.feed.steps_per_epoch
        self.task.module.train()
        self.meter.begin()
        records = max(steps // RECORDS_PER_EPOCH, 1)
        for fed in self.feed.epoch(state.epoch, state.step - state.epoch * steps):
            finite = self._step(fed)
            within = state.step - state.epoch * steps
            if within % self.look_every == 0 or within == steps:
                went_back = self._look(finite, fed.names)
                if went_back:
                    return
                if within % records == 0:
                    self.events.record(self.meter.step_record())
                self.meter.show(PROGRESS_INTERVAL_S)
                self._save_or_stop(stop, within == steps)

    def _save_or_stop(self, stop: StopRequest, is_last: bool) -> None:
        state = self.state
        if self.ranks.any(stop.asked):
            self.meter.pause()
            if self.ranks.is_first:
                self.keep.interrupted(state)
            done, epochs = state.epoch, self.settings.schedule.epochs
            raise Interrupted(
                f"interrupted in epoch {done + 1} of {epochs}; the weights so far are kept and a resumed run goes on from here"
            )
        minutes = self.settings.run.save_minutes
        if minutes and not is_last and self.meter.since_saved_s > 60 * minutes:
            self.meter.pause()
            if self.ranks.is_first:
                self.keep.within_epoch(state)
            self.meter.saved()

    def _step(self, fed: Fed) -> Tensor:
        """One optimiser step; returns whether all of its numbers were finite, on the device."""
        state, optim, run = self.state, self.settings.optim, self.settings.run
        rate = optim.lr * lr_factor(state.step, self.feed.steps_per_epoch, self.settings.schedule)
        for group in state.optimiser.param_groups:
            group["lr"] = rate * group.get("lr_scale", 1.0)
        # Dropout draws from torch's generator; everything else from the draws of each image.
        torch.manual_seed(seed_of(run.seed, self.ranks.rank, state.step))
        batch = self._views(fed)
        counts = self._counts(batch)
        state.optimiser.zero_grad()
        sums: dict[str, Tensor] = {}
        for part in self._parts(batch):
            self._drop_paths(part.draws)
            with self._precision():
                losses = self.forward(part.images, part.targets)
            means = {name: loss / counts[name] for name, loss in losses.items()}
            torch.stack(list(means.values())).sum().backward()  # type: ignore[no-untyped-call]
            for name, mean in means.items():
                sums[name] = sums[name] + mean.detach() if name in sums else mean.detach()
        norm = nn.utils.clip_grad_norm_(self.parameters, optim.clip_grad or math.inf)
        loss = torch.stack(list(sums.values())).sum()
        finite = loss.isfinite() & norm.isfinite()
        state.optimiser.step(found_inf=(~finite).float())
        state.step += 1
        state.average.update(state.step)
        self.meter.add(loss, finite, len(batch))
        return finite

    def _views(self, fed: Fed) -> Batch:
        draws = Draws(self.settings.run.seed, self.state.epoch, fed.samples)
        batch = Batch(images=fed.images, targets=fed.targets, names=fed.names, draws=draws)
        with self.meter.timed("augment"):
            return self.task.views(batch.to(self.device))

    def _counts(self, batch: Batch) -> dict[str, float]:
        """What each loss is divided by, over all processes."""
        found = self.ranks.gather(dict(self.task.counts(batch)))
        return {name: max(sum(f[name] for f in found), 1.0) for name in found[0]}

    def _parts(self, batch: Batch) -> Iterator[Batch]:
        """Micro-batches of an even size, as the mixing of neighbours needs."""
        size = self.settings.run.micro_batch or len(batch)
        size += size % 2
        for first in range(0, len(batch), size):
            yield batch if size >= len(batch) else batch.part(slice(first, first + size))

    def _drop_paths(self, draws: Draws) -> None:
        if self.drop_paths:
            chances = draws.stream("drop path").uniform(len(self.drop_paths)).to(self.device)
            for path, chance in zip(self.drop_paths, chances.T, strict=True):
                path.chance = chance

    def _precision(self) -> AbstractContextManager[Any]:
        enabled = self.settings.run.precision == "bfloat16"
        return torch.autocast(self.device.type, torch.bfloat16, enabled=enabled)

    # What goes wrong --------------------------------------------------------------------------

    def _look(self, finite: Tensor, names: tuple[str, ...]) -> bool:
        """Read the sums and deal with steps that were not finite. Returns whether the state went back."""
        state = self.state
        for step in self.meter.read():
            state.broken.append(step)
            found = self._described(step, names)
            if len(state.broken) >= MOST_BROKEN:
                raise self._stop(found, broken(found, self.settings, kept=state.epoch))
            self.events.warn(skipped(found))
            self.events.record({"kind": "skipped", "epoch": found.epoch, "step": step, "what": found.what})
            if not all(bool(p.isfinite().all()) for p in self.parameters):
                # The step before was the one that broke the weights, although its loss was finite.
                known = list(state.broken)
                self.keep.restore(state)
                state.broken = known
                self.events.warn(f"the weights were not finite either; going on from step {state.step}")
                return True
        return False

    def _described(self, step: int, names: tuple[str, ...]) -> Break:
        """The step that was not finite: the first module, by computing it again, and its images."""
        steps = self.feed.steps_per_epoch
        epoch = (step - 1) // steps
        fed = next(iter(self.feed.epoch(epoch, step - 1 - epoch * steps)), None)
        module, what = "", "gradient"
        if fed is not None:
            names, batch = fed.names, self._views(fed)
            self._drop_paths(batch.draws)
            with self._precision(), torch.no_grad():
                losses = torch.stack(list(self.task.module(batch.images, batch.targets).values()))
                module = first_broken_module(self.task.module, batch.images, batch.targets)
            what = "gradient" if bool(losses.isfinite().all()) and not module else "loss"
        return Break(what=what, epoch=epoch + 1, step=step, lr=self.meter.rate, module=module, names=names)

    def _stop(self, found: Break, error: TrainingBroken) -> TrainingBroken:
        """Record the divergence in the run's files and return the error to raise."""
        self.events.record(found.as_record(error, self.settings))
        self.keep.diverged(self.state, found)
        return error

    # After an epoch ---------------------------------------------------------------------------

    def _finish_epoch(self) -> None:
        state, epochs = self.state, self.settings.schedule.epochs
        record = self.meter.epoch_record()
        is_last = state.epoch + 1 == epochs
        scores = None
        if is_last or (state.epoch + 1) % self.settings.run.evaluate_every == 0:
            started = time.perf_counter()
            scores = self._evaluate()
            state.seconds += time.perf_counter() - started
        state.epoch += 1
        if scores is not None:
            self._refuse_broken(scores)
        is_best = scores is not None and scores.beats(state.best)
        if scores is not None:
            state.best = scores.values[scores.best] if is_best else state.best
            state.worse = 0 if is_best else state.worse + 1
        values = {} if scores is None else dict(scores.values)
        record = {
            **record,
            "epoch": state.epoch,
            "epochs": epochs,
            "seconds": round(state.seconds, 3),
            **values,
        }
        state.sums = {}
        self.events.record(record)
        if self.ranks.is_first:
            self.keep.epoch(state, is_best, values)
        self.meter.saved()
        self.events.progress.epoch(record)
        if scores is not None:
            self._warn_of_collapse(scores, is_last)

    def _evaluate(self) -> Scores:
        """Score the averaged weights; on a GPU in the training precision, on a CPU in float32, like `evaluate`."""
        tally = self.task.tally()
        low = self.device.type == "cuda" and self.settings.run.precision == "bfloat16"
        with torch.inference_mode(), torch.autocast(self.device.type, torch.bfloat16, enabled=low):
            for batch in self.task.evaluation(self.ranks):
                tally.add(self.state.average.model, batch.to(self.device))
        return tally.merged(self.ranks.gather(tally.state()))

    def _refuse_broken(self, scores: Scores) -> None:
        """Never record a NaN score as a result. No loss is computed after the last step, so check here."""
        if all(math.isfinite(value) for value in scores.values.values()):
            return
        state = self.state
        found = Break(what="evaluation", epoch=state.epoch, step=state.step, lr=self.meter.rate)
        raise self._stop(found, broken(found, self.settings, kept=state.epoch - 1))

    def _warn_of_collapse(self, scores: Scores, is_last: bool) -> None:
        """An untrained ViT predicts one class for everything; after a third of the run this means collapse."""
        late = 3 * self.state.epoch >= self.settings.schedule.epochs
        if not scores.constant:
            self.warned = False
        elif (late and not self.warned) or is_last:
            self.warned = True
            rate = f"a lower learning rate than {self.settings.optim.lr:g} often helps, such as --lr {shown_rate(advised_rate(self.settings))}"
            self.events.warn(
                f"all held-out images are predicted as one class after epoch {self.state.epoch}; {rate}"
            )
