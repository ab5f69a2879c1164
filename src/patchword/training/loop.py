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

from patchword.errors import Interrupted, TrainingBroken, plural
from patchword.model.vit import DropPath
from patchword.training.ahead import ahead
from patchword.training.broken import Break, advised_rate, broken, first_broken_module, shown_rate, skipped
from patchword.training.chance import Draws, seed_of
from patchword.training.checkpointer import Checkpointer
from patchword.training.config import TrainSettings
from patchword.training.extension import plateau_steps
from patchword.training.find_lr import FoundRate, find_rate
from patchword.training.groups import train_mode
from patchword.training.meter import Meter
from patchword.training.optim_settings import effective_lr
from patchword.training.optimiser import set_lr
from patchword.training.precision import LossScale, autocast
from patchword.training.progress import Progress
from patchword.training.ranks import Ranks
from patchword.training.schedule import lr_factor
from patchword.training.state import TrainingState
from patchword.training.stop import StopRequest, listening
from patchword.training.task import Batch, Fed, Feed, Scores, Task, moved

# After this many steps that were not finite, a run stops.
MOST_BROKEN = 3
# Steps between two looks at the losses. A look makes the host wait for a GPU.
LOOK_EVERY_GPU = 20
# A run is stopped when so many evaluations in a row gave one class for everything, after so many steps.
COLLAPSED_EVALUATIONS, COLLAPSED_STEPS = 3, 200
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
        if self.settings.run.compile == "always":
            self.forward = torch.compile(module)
        self.look_every = LOOK_EVERY_GPU if self.device.type == "cuda" else 1
        self.meter = Meter(self.settings, self.feed, self.state, self.device, self.events.progress)
        self.scales = self.settings.run.precision == "float16"
        self.warned, self.constant = False, 0
        plateau = plateau_steps(self.settings, self.feed.steps_per_epoch)
        # A run that was resumed after these steps has kept that state before.
        self.plateau = plateau if plateau is not None and self.state.step <= plateau else None
        self.started = time.perf_counter()

    def run(self) -> None:
        """Train to the last epoch, to `run.max_minutes`, or until `run.patience` evaluations were no better."""
        state, steps = self.state, self.feed.steps_per_epoch
        with listening() as stop:
            while state.epoch < self.settings.schedule.epochs and not state.ended:
                while state.step < (state.epoch + 1) * steps:
                    self._epoch(stop)
                    if self._is_over():
                        break
                self._finish_epoch(is_whole=state.step == (state.epoch + 1) * steps)
                if self._is_over() and state.epoch < self.settings.schedule.epochs:
                    self._tell_of_the_end()
                    return

    def _is_over(self) -> bool:
        limit = 60 * self.settings.run.max_minutes
        return self.ranks.any(bool(limit) and time.perf_counter() - self.started > limit)

    def _tell_of_the_end(self) -> None:
        minutes, epochs = self.settings.run.max_minutes, self.settings.schedule.epochs
        self.events.warn(
            f"stopped after {minutes:g} minutes in epoch {self.state.epoch + 1} of {epochs}; "
            f"`patchword train --resume` goes on from here"
        )

    def _epoch(self, stop: StopRequest) -> None:
        """The rest of the epoch; ends early after a return to an earlier state."""
        state, steps = self.state, self.feed.steps_per_epoch
        train_mode(self.task.module)
        self.task.begin(state.epoch)
        self.meter.begin()
        records = max(steps // RECORDS_PER_EPOCH, 1)
        feed = self.feed.epoch(state.epoch, state.step - state.epoch * steps)
        for fed, batch in ahead(feed, self._views, self.device):
            # A step of which no image can be read is passed by.
            state.step = state.epoch * steps + fed.step
            if self._keep_plateau(fed.names):
                return
            self._step(batch)
            within = fed.step + 1
            if within % self.look_every == 0 or within == steps:
                went_back = self._look(fed.names)
                if went_back:
                    return
                if within % records == 0:
                    self.events.record(self.meter.step_record())
                self.meter.show(PROGRESS_INTERVAL_S)
                self._save_or_stop(stop, within == steps)
                if self._is_over():
                    return
        state.step = (state.epoch + 1) * steps
        self._keep_plateau(())

    def _keep_plateau(self, names: tuple[str, ...]) -> bool:
        """After the last step at the peak rate, save the state that a longer run goes on from. Returns whether the state went back."""
        if self.plateau is None or self.state.step < self.plateau:
            return False
        # Losses that were not read yet belong to that state.
        if self._look(names):
            return True
        self.plateau = None
        self.meter.pause()
        if self.ranks.is_first:
            self.keep.before_cooldown(self.state)
        return False

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

    def try_step(self, fed: Fed) -> None:
        """Allocate all that a step needs; weights and optimiser state are as before."""
        train_mode(self.task.module)
        self._gradients(self._views(fed))
        # The optimiser takes this for a step that is not finite, so it only makes its state.
        self.state.optimiser.step(found_inf=torch.ones((), device=self.device))

    def measure_rate(self) -> FoundRate:
        """Try learning rates on the first batches; the state is as before afterwards."""
        train_mode(self.task.module)
        state = self.state

        def trial(fed: Fed, rate: float) -> float:
            self._set_rate(rate)
            loss, _, _ = self._gradients(self._views(fed))
            state.optimiser.step()
            return loss.item()

        return find_rate(state, self.feed, trial)

    def _set_rate(self, rate: float) -> None:
        set_lr(self.state.optimiser, rate)

    def _step(self, batch: Batch) -> None:
        """One optimiser step. One that is not finite changes nothing, without the host knowing."""
        state = self.state
        # The batch size is that of all processes and micro-batches together.
        peak, _ = effective_lr(self.settings.optim, self.settings.run.batch_size)
        self._set_rate(peak * lr_factor(state.step, self.feed.steps_per_epoch, self.settings.schedule))
        loss, norm, images = self._gradients(batch)
        finite = loss.isfinite() & norm.isfinite()
        state.optimiser.step(found_inf=(~finite).float())
        if self.scales:
            # An overflow is how the scale finds its level; it counts as broken only at the lowest scale.
            finite = finite | (loss.isfinite() & (state.loss_scale.scale.squeeze() > LossScale.LEAST))
            state.loss_scale.update((~norm.isfinite()).float())
        state.step += 1
        state.average.update(state.step)
        self.meter.add(loss, finite, images)

    def _gradients(self, batch: Batch) -> tuple[Tensor, Tensor, int]:
        """Fill the gradients, clipped; returns the loss, their norm before, and the number of images, over all processes."""
        state, run = self.state, self.settings.run
        # Dropout draws from torch's generator; everything else from the draws of each image.
        torch.manual_seed(seed_of(run.seed, self.ranks.rank, state.step))
        counts, images = self._counts(batch)
        state.optimiser.zero_grad()
        sums: list[Tensor] = []
        for part in self._parts(batch):
            self._drop_paths(part.draws)
            with self._precision():
                losses = self.forward(part.images, part.targets)
            total = torch.stack([loss / counts[name] for name, loss in losses.items()]).sum()
            (total * state.loss_scale.scale.squeeze() if self.scales else total).backward()  # type: ignore[no-untyped-call]
            sums.append(total.detach())
        loss = torch.stack(sums).sum()
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        # Each process divided by the counts of the global batch, so the sum is what one process would compute.
        self.ranks.sum([loss, *gradients])
        if self.scales:
            torch._foreach_mul_(gradients, 1 / state.loss_scale.scale.squeeze())
        norm = nn.utils.clip_grad_norm_(self.parameters, self.settings.optim.clip_grad or math.inf)
        return loss, norm, images

    def _views(self, fed: Fed) -> Batch:
        draws = Draws(self.settings.run.seed, self.state.epoch, fed.samples)
        batch = Batch(images=fed.images, targets=fed.targets, names=fed.names, draws=draws)
        with self.meter.timed("augment"):
            return self.task.views(batch.to(self.device))

    def _counts(self, batch: Batch) -> tuple[dict[str, float], int]:
        """What each loss is divided by, and the number of images, over all processes."""
        found = self.ranks.gather((dict(self.task.counts(batch)), len(batch)))
        counts = {name: max(sum(f[name] for f, _ in found), 1.0) for name in found[0][0]}
        return counts, sum(images for _, images in found)

    def _parts(self, batch: Batch) -> Iterator[Batch]:
        """Micro-batches of an even size, as the mixing of neighbours needs."""
        size = self.settings.run.micro_batch or len(batch)
        size += size % 2
        for first in range(0, len(batch), size):
            yield batch if size >= len(batch) else batch.part(slice(first, first + size))

    def _drop_paths(self, draws: Draws) -> None:
        if self.drop_paths:
            chances = moved(draws.stream("drop path").uniform(len(self.drop_paths)), self.device)
            for path, chance in zip(self.drop_paths, chances.T, strict=True):
                path.chance = chance

    def _precision(self) -> AbstractContextManager[Any]:
        return autocast(self.device, self.settings.run.precision)

    # What goes wrong --------------------------------------------------------------------------

    def _look(self, names: tuple[str, ...]) -> bool:
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

    def _finish_epoch(self, *, is_whole: bool = True) -> None:
        """Score and save. An epoch cut short by a time limit is scored too, but goes on when the run is resumed."""
        state, epochs = self.state, self.settings.schedule.epochs
        record = self.meter.epoch_record()
        is_last = state.epoch + 1 == epochs or not is_whole
        scores = None
        if is_last or (state.epoch + 1) % self.settings.run.evaluate_every == 0:
            started = time.perf_counter()
            scores = self._evaluate()
            state.seconds += time.perf_counter() - started
        number = state.epoch + 1
        state.epoch = number if is_whole else state.epoch
        if scores is not None:
            self._refuse_broken(scores)
        is_best = scores is not None and scores.beats(state.best)
        if scores is not None:
            state.best = scores.values[scores.best] if is_best else state.best
            state.worse = 0 if is_best else state.worse + 1
            self._end_without_progress(number)
        values = {} if scores is None else dict(scores.values)
        record = {
            **record,
            "epoch": state.epoch,
            "epochs": epochs,
            "seconds": round(state.seconds, 3),
            **values,
        }
        if is_whole:
            state.sums = {}
        self.events.record(record)
        if self.ranks.is_first:
            self.keep.epoch(state, is_best, values)
        self.meter.saved()
        self.events.progress.epoch(record)
        if scores is not None:
            self._stop_or_warn_of_collapse(scores, is_last)

    def _evaluate(self) -> Scores:
        """Score the averaged weights; on a GPU in the training precision, on a CPU in float32, like `evaluate`."""
        tally = self.task.tally()
        low = self.device.type == "cuda"
        with torch.inference_mode(), autocast(self.device, self.settings.run.precision, enabled=low):
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

    def _end_without_progress(self, number: int) -> None:
        patience = self.settings.run.patience
        if patience and self.state.worse >= patience and number < self.settings.schedule.epochs:
            self.state.ended = f"no better score in {plural(self.state.worse, 'evaluation')}"
            self.events.warn(f"stopped after epoch {number}: {self.state.ended} (run.patience {patience})")

    def _stop_or_warn_of_collapse(self, scores: Scores, is_last: bool) -> None:
        """An untrained ViT predicts one class for everything; after a third of the run this means collapse."""
        state = self.state
        late = 3 * state.epoch >= self.settings.schedule.epochs
        self.constant = self.constant + 1 if scores.constant else 0
        if not scores.constant:
            self.warned = False
            return
        what = f"{scores.what} after epoch {state.epoch}"
        rate = f"a lower learning rate than {self.settings.optim.lr:g} often helps, such as --lr {shown_rate(advised_rate(self.settings))}"
        if late and not is_last and self.constant >= COLLAPSED_EVALUATIONS and state.step >= COLLAPSED_STEPS:
            found = Break(what="answer", epoch=state.epoch, step=state.step, lr=self.meter.rate)
            raise self._stop(found, TrainingBroken(f"training collapsed: {what}", rate))
        if (late and not self.warned) or is_last:
            self.warned = True
            self.events.warn(f"{what}; {rate}")
