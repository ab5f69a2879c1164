"""The training loop: epochs of steps, averaged weights, evaluation, and a saved state after each epoch.

The loop is task-agnostic: a task such as `tasks.classify.Classify` supplies inputs, loss and evaluation.
"""

import math
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Generator, Tensor, nn

from patchword import machine
from patchword.data.batches import Batches, TrainingBatch
from patchword.errors import Interrupted, TrainingBroken, plural
from patchword.training.broken import Break, advised_rate, broken, first_broken_module, shown_rate
from patchword.training.config import TrainSettings
from patchword.training.progress import Pace, Progress, clock
from patchword.training.schedule import lr_factor
from patchword.training.state import TrainingState
from patchword.training.stop import StopRequest, listening

# Steps that the expected time is measured on, and the shortest time worth a line.
FORECAST_STEPS, SHORT_S = 20, 10.0
PROGRESS_INTERVAL_S = 0.5
RECORDS_PER_EPOCH = 10


class EvaluationScores(Protocol):
    @property
    def top1(self) -> float: ...

    @property
    def constant(self) -> bool: ...

    def as_record(self) -> dict[str, float]: ...


class Task(Protocol):
    def inputs(self, batch: TrainingBatch, generator: Generator) -> tuple[Tensor, Tensor]: ...

    def loss(self, model: nn.Module, images: Tensor, targets: Tensor) -> Tensor: ...

    def evaluate(self, model: nn.Module) -> EvaluationScores: ...


@dataclass(frozen=True, kw_only=True)
class Hooks:
    """Callbacks for the loop's results. keep: called after each epoch, with whether it is the best so far.

    on_divergence: called on divergence; the files on disk are then better than the weights in memory.
    """

    record: Callable[[dict[str, Any]], None]
    keep: Callable[[TrainingState, bool, dict[str, float]], None]
    keep_interrupted: Callable[[TrainingState], None]
    on_divergence: Callable[[TrainingState, Break], None]
    warn: Callable[[str], None]
    progress: Progress


@dataclass
class _EpochMeter:
    """Sums over the steps of an epoch."""

    start: float = field(default_factory=time.perf_counter)
    loss_sum: float = 0.0
    steps: int = 0
    images: int = 0
    last_shown: float = 0.0

    def add(self, loss: float, images: int) -> None:
        self.loss_sum += loss
        self.steps += 1
        self.images += images

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self.start


class Loop:
    """Train `state` to the end of the schedule.

    Raises: TrainingBroken if a loss, gradient or score is not finite (the averaged weights of the
    steps before are kept), Interrupted after Ctrl-C or SIGTERM (the weights are kept too).
    """

    def __init__(
        self, settings: TrainSettings, task: Task, batches: Batches, state: TrainingState, hooks: Hooks
    ) -> None:
        self.settings, self.task, self.batches, self.state, self.hooks = settings, task, batches, state, hooks
        self.device = next(state.model.parameters()).device
        self.warned = self.forecast = False
        self.parameters = [p for p in state.model.parameters() if p.requires_grad]

    def run(self) -> None:
        epochs = self.settings.schedule.epochs
        with listening() as stop:
            while self.state.epoch < epochs:
                record = self._epoch(stop)
                self._finish_epoch(record)

    def _epoch(self, stop: StopRequest) -> dict[str, Any]:
        self.state.model.train()
        meter, waited = _EpochMeter(), self.batches.waited_s
        every = max(self.batches.steps_per_epoch // RECORDS_PER_EPOCH, 1)
        for batch in self.batches.epoch(self.state.epoch):
            loss = self._step(batch)
            meter.add(loss, len(batch.labels))
            if meter.steps % every == 0:
                self._record_step(loss, meter)
            if meter.seconds - meter.last_shown > PROGRESS_INTERVAL_S:
                meter.last_shown = meter.seconds
                self.hooks.progress.pace(self._pace(meter, loss, self.batches.waited_s - waited))
            if not self.forecast and meter.steps == min(FORECAST_STEPS, self.batches.steps_per_epoch):
                self._forecast(self._pace(meter, loss, 0.0))
            if stop.asked:
                self.hooks.keep_interrupted(self.state)
                done, all_epochs = self.state.epoch, self.settings.schedule.epochs
                raise Interrupted(
                    f"interrupted in epoch {done + 1} of {all_epochs}; the weights so far are kept"
                )
        return {
            "train_loss": meter.loss_sum / max(meter.steps, 1),
            "seconds": self.state.seconds + meter.seconds,
            "images_per_s": meter.images / max(meter.seconds, 1e-9),
            "data_wait": (self.batches.waited_s - waited) / max(meter.seconds, 1e-9),
        }

    def _step(self, batch: TrainingBatch) -> float:
        state, optim = self.state, self.settings.optim
        lr = optim.lr * lr_factor(state.step, self.batches.steps_per_epoch, self.settings.schedule)
        for group in state.optimiser.param_groups:
            group["lr"] = lr
        images, targets = self.task.inputs(batch, state.generator)
        with self._precision():
            loss = self.task.loss(state.model, images, targets)
        state.optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        norm = nn.utils.clip_grad_norm_(self.parameters, optim.clip_grad or math.inf)
        value = loss.item()
        if not math.isfinite(value) or not math.isfinite(norm.item()):
            what = "gradient" if math.isfinite(value) else "loss"
            raise self._broken(images, batch, what, lr)
        state.optimiser.step()
        state.step += 1
        state.average.update(state.step)
        return value

    def _precision(self) -> AbstractContextManager[Any]:
        enabled = self.settings.run.precision == "bfloat16"
        return torch.autocast(self.device.type, torch.bfloat16, enabled=enabled)

    def _broken(self, images: Tensor, batch: TrainingBatch, what: str, lr: float) -> TrainingBroken:
        state = self.state
        found = Break(what=what, epoch=state.epoch + 1, step=state.step + 1, lr=lr)
        module = first_broken_module(state.model, images)
        return self._stop(
            found, broken(found, self.settings, kept=state.epoch, module=module, names=batch.names)
        )

    def _stop(self, found: Break, error: TrainingBroken) -> TrainingBroken:
        """Record the divergence in the run's files and return the error to raise."""
        self.hooks.record(found.as_record(error, self.settings))
        self.hooks.on_divergence(self.state, found)
        return error

    def _record_step(self, loss: float, meter: _EpochMeter) -> None:
        lr = self.state.optimiser.param_groups[0]["lr"]
        seconds = self.state.seconds + meter.seconds
        step = {
            "kind": "step",
            "epoch": self.state.epoch + 1,
            "step": self.state.step,
            "loss": loss,
            "lr": lr,
        }
        self.hooks.record({**step, "seconds": round(seconds, 3)})

    def _finish_epoch(self, record: dict[str, Any]) -> None:
        state, schedule = self.state, self.settings.schedule
        state.epoch += 1
        started = time.perf_counter()
        is_last = state.epoch == schedule.epochs
        scores, scored = None, {}
        if is_last or state.epoch % self.settings.run.evaluate_every == 0:
            scores = self.task.evaluate(state.average.model)
            scored = scores.as_record()
            self._refuse_broken(scores)
        record["seconds"] += time.perf_counter() - started
        state.seconds = record["seconds"]
        is_best = scores is not None and scores.top1 > state.best_top1
        if scores is not None and is_best:
            state.best_top1 = scores.top1
        whole = {
            "kind": "epoch",
            "epoch": state.epoch,
            "epochs": schedule.epochs,
            "step": state.step,
            "lr": state.optimiser.param_groups[0]["lr"],
            **{k: round(v, 6) for k, v in record.items()},
            **scored,
            **self._peak_memory(),
        }
        self.hooks.record(whole)
        self.hooks.keep(state, is_best, scored)
        self.hooks.progress.epoch(whole)
        if scores is not None:
            self._warn_of_collapse(scores, is_last)

    def _refuse_broken(self, scores: EvaluationScores) -> None:
        """Never record a NaN score as a result. No loss is computed after the last step, so check here."""
        if all(math.isfinite(value) for value in scores.as_record().values()):
            return
        state = self.state
        lr = state.optimiser.param_groups[0]["lr"]
        found = Break(what="evaluation", epoch=state.epoch, step=state.step, lr=lr)
        raise self._stop(found, broken(found, self.settings, kept=state.epoch - 1))

    def _warn_of_collapse(self, scores: EvaluationScores, is_last: bool) -> None:
        """An untrained ViT predicts one class for everything; after a third of the run this means collapse."""
        late = 3 * self.state.epoch >= self.settings.schedule.epochs
        if not scores.constant:
            self.warned = False
        elif (late and not self.warned) or is_last:
            self.warned = True
            rate = f"a lower learning rate than {self.settings.optim.lr:g} often helps, such as --lr {shown_rate(advised_rate(self.settings))}"
            self.hooks.warn(
                f"all held-out images are predicted as one class after epoch {self.state.epoch}; {rate}"
            )

    def _forecast(self, pace: Pace) -> None:
        """Report the time that training will take, once, from its first steps; not if it is over soon."""
        self.forecast = True
        if pace.seconds_left >= SHORT_S:
            self.hooks.progress.message(
                f"expected training time: {clock(pace.seconds_left)} for {pace.epochs} epochs, without evaluation "
                f"(measured on the first {plural(pace.step, 'step')}); --epochs changes it"
            )

    def _pace(self, meter: _EpochMeter, loss: float, waited: float) -> Pace:
        steps, epochs = self.batches.steps_per_epoch, self.settings.schedule.epochs
        per_step = meter.seconds / meter.steps
        epoch_left = per_step * max(steps - meter.steps, 0)
        return Pace(
            epoch=self.state.epoch + 1,
            epochs=epochs,
            step=meter.steps,
            steps_per_epoch=steps,
            loss=loss,
            lr=self.state.optimiser.param_groups[0]["lr"],
            images_per_s=meter.images / meter.seconds,
            data_wait=waited / meter.seconds,
            seconds=self.state.seconds + meter.seconds,
            seconds_left=epoch_left + per_step * steps * (epochs - self.state.epoch - 1),
            epoch_seconds_left=epoch_left,
            peak_memory_mib=next(iter(self._peak_memory().values())),
        )

    def _peak_memory(self) -> dict[str, float]:
        """Peak memory so far in MiB: of the process; on a GPU, of torch on the device as well."""
        host = round(machine.peak_memory_bytes() / 2**20, 1)
        if self.device.type != "cuda":
            return {"peak_memory_mib": host}
        gpu = torch.cuda.max_memory_allocated(self.device) / 2**20
        return {"peak_gpu_memory_mib": round(gpu, 1), "peak_host_memory_mib": host}
