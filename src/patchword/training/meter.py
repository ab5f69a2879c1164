"""What the loop measures: losses of an epoch, speed, waiting, memory, time left."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from patchword import machine
from patchword.errors import plural
from patchword.training.config import TrainSettings
from patchword.training.progress import Pace, Progress, clock
from patchword.training.state import TrainingState
from patchword.training.task import Feed

# Steps that the expected time is measured on, and the shortest time worth a line.
FORECAST_STEPS, SHORT_S = 20, 10.0


class Meter:
    """Sums over the steps of an epoch; those of `state.sums` survive a stop.

    Losses stay on the device until `read`, so that a GPU isn't waited for at each step.
    """

    def __init__(
        self,
        settings: TrainSettings,
        feed: Feed,
        state: TrainingState,
        device: torch.device,
        progress: Progress,
    ) -> None:
        self.settings, self.feed, self.state, self.device, self.progress = (
            settings,
            feed,
            state,
            device,
            progress,
        )
        self.loss: float | None = None
        self.forecast = False
        self._unread: list[tuple[int, Tensor, Tensor, int]] = []
        self._augment_s = self._last_shown = 0.0
        self._started = self._saved_at = time.perf_counter()
        self._waited, self._stages = feed.waited_s, dict(feed.seconds)
        self._steps_here = 0

    def begin(self) -> None:
        """Start or continue an epoch."""
        self._started, self._waited, self._augment_s = time.perf_counter(), self.feed.waited_s, 0.0
        self._unread, self._steps_here, self._last_shown = [], 0, 0.0
        self._stages = dict(self.feed.seconds)

    def add(self, loss: Tensor, finite: Tensor, images: int) -> None:
        self._unread.append((self.state.step, loss, finite, images))
        self._steps_here += 1

    def read(self) -> list[int]:
        """Add what was computed since the last time; returns the steps that were not finite."""
        unread, self._unread = self._unread, []
        if not unread:
            return []
        values = torch.stack(
            [torch.stack((loss.float(), finite.float())) for _, loss, finite, _ in unread]
        ).tolist()
        broken, sums = [], self.state.sums
        for (step, _, _, images), (loss, finite) in zip(unread, values, strict=True):
            if finite:
                self.loss = loss
                sums["loss"] = sums.get("loss", 0.0) + loss
                sums["steps"] = sums.get("steps", 0.0) + 1
            else:
                broken.append(step)
            sums["images"] = sums.get("images", 0.0) + images
        return broken

    def pause(self) -> None:
        """Move the time of this process into the state, before it is saved."""
        now, state = time.perf_counter(), self.state
        passed = {
            "seconds": now - self._started,
            "waited": self.feed.waited_s - self._waited,
            "augment": self._augment_s,
        }
        for name, value in passed.items():
            state.sums[name] = state.sums.get(name, 0.0) + value
        state.seconds += passed["seconds"]
        self._started, self._waited, self._augment_s = now, self.feed.waited_s, 0.0
        self._stages = dict(self.feed.seconds)

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self._augment_s += time.perf_counter() - started

    def saved(self) -> None:
        self._saved_at = time.perf_counter()

    @property
    def since_saved_s(self) -> float:
        return time.perf_counter() - self._saved_at

    @property
    def rate(self) -> float:
        """The largest current learning rate of any group."""
        return max(float(group["lr"]) for group in self.state.optimiser.param_groups)

    @property
    def here_s(self) -> float:
        return time.perf_counter() - self._started

    def step_record(self) -> dict[str, Any]:
        state = self.state
        record = {
            "kind": "step",
            "epoch": state.epoch + 1,
            "step": state.step,
            "loss": self.loss,
            "lr": self.rate,
        }
        return {**record, "seconds": round(state.seconds + self.here_s, 3)}

    def epoch_record(self) -> dict[str, Any]:
        """What was measured in the epoch that ends; its time is moved into the state."""
        self.pause()
        sums, state = self.state.sums, self.state
        seconds = max(sums.get("seconds", 0.0), 1e-9)
        steps = sums.get("steps", 0.0)
        return {
            "kind": "epoch",
            "step": state.step,
            "lr": self.rate,
            "train_loss": round(sums["loss"] / steps, 6) if steps else None,
            "images_per_s": round(sums.get("images", 0.0) / seconds, 6),
            "data_wait": round(sums.get("waited", 0.0) / seconds, 6),
            **{f"{name}_s": round(sums.get(name, 0.0), 3) for name in self.feed.seconds},
            "augment_s": round(sums.get("augment", 0.0), 3),
            "step_s": round(max(seconds - sums.get("waited", 0.0) - sums.get("augment", 0.0), 0.0), 3),
            **self.peak_memory(),
        }

    def show(self, every_s: float) -> None:
        """Show the pace, and once, after the first steps, how long training will take."""
        if self.here_s - self._last_shown > every_s:
            self._last_shown = self.here_s
            self.progress.pace(self.pace())
        enough = min(FORECAST_STEPS, self.feed.steps_per_epoch)
        if not self.forecast and self._steps_here >= enough:
            self.forecast = True
            pace = self.pace()
            if pace.seconds_left >= SHORT_S:
                self.progress.message(
                    f"expected training time: {clock(pace.seconds_left)} for {pace.epochs} epochs, without evaluation "
                    f"(measured on the first {plural(self._steps_here, 'step')}); --epochs changes it"
                )

    def pace(self) -> Pace:
        state, steps, epochs = self.state, self.feed.steps_per_epoch, self.settings.schedule.epochs
        within = state.step - state.epoch * steps
        per_step = self.here_s / max(self._steps_here, 1)
        epoch_left = per_step * max(steps - within, 0)
        return Pace(
            epoch=state.epoch + 1,
            epochs=epochs,
            step=within,
            steps_per_epoch=steps,
            loss=self.loss,
            lr=self.rate,
            images_per_s=self._steps_here * self.settings.run.batch_size / max(self.here_s, 1e-9),
            data_wait=(self.feed.waited_s - self._waited) / max(self.here_s, 1e-9),
            seconds=state.seconds + self.here_s,
            seconds_left=epoch_left + per_step * steps * (epochs - state.epoch - 1),
            epoch_seconds_left=epoch_left,
            peak_memory_mib=next(iter(self.peak_memory().values())),
        )

    def peak_memory(self) -> dict[str, float]:
        """Peak memory so far in MiB: of the process; on a GPU, of torch on the device as well."""
        host = round(machine.peak_memory_bytes() / 2**20, 1)
        if self.device.type != "cuda":
            return {"peak_memory_mib": host}
        gpu = torch.cuda.max_memory_allocated(self.device) / 2**20
        return {"peak_gpu_memory_mib": round(gpu, 1), "peak_host_memory_mib": host}
