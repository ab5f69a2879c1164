"""Progress of a training run: the loop reports it, and the command shows it; library calls may be silent."""

import sys
import time
from dataclasses import dataclass
from typing import Any, Protocol

from patchword.errors import one_line

PLAIN_EVERY_S = 15.0


@dataclass(frozen=True, kw_only=True)
class Pace:
    """The current position of a run. data_wait: share of the time spent waiting for images, 0..1.

    loss: None before the first that is finite.
    """

    epoch: int
    epochs: int
    step: int
    steps_per_epoch: int
    loss: float | None
    lr: float
    images_per_s: float
    data_wait: float
    seconds: float
    seconds_left: float
    epoch_seconds_left: float
    peak_memory_mib: float


class Progress(Protocol):
    def message(self, text: str) -> None: ...

    def pace(self, pace: Pace) -> None: ...

    def epoch(self, record: dict[str, Any]) -> None: ...

    def reading(self, done: int, total: int) -> None: ...

    def close(self) -> None: ...


class Silent:
    """Show nothing."""

    def message(self, text: str) -> None:
        pass

    def pace(self, pace: Pace) -> None:
        pass

    def epoch(self, record: dict[str, Any]) -> None:
        pass

    def reading(self, done: int, total: int) -> None:
        pass

    def close(self) -> None:
        pass


def clock(seconds: float) -> str:
    """Seconds as 0:42, 12:05 or 3:07:10."""
    whole = int(seconds + 0.5)
    hours, rest = divmod(whole, 3600)
    return f"{hours}:{rest // 60:02d}:{rest % 60:02d}" if hours else f"{rest // 60}:{rest % 60:02d}"


# The scores that one line shows, with their label; the first that occur.
_PERCENT = {"val_top1": "top-1", "val_map": "mAP", "val_ap": "AP", "val_ap50": "AP50"}


def epoch_line(record: dict[str, Any]) -> str:
    """One epoch in fewer than 80 columns."""
    text = f"epoch {record['epoch']:>3}/{record['epochs']}  loss {shown_loss(record['train_loss'])}"
    for name, label in _PERCENT.items():
        if name in record:
            text += f"  {label} {100 * record[name]:5.1f} %"
    if "val_r2" in record:
        text += f"  R2 {record['val_r2']:.3f}"
    if "val_knn" in record:
        text += f"  k-NN {100 * record['val_knn']:5.1f} %"
    if "val_pixels" in record:
        text += f"  val {record['val_pixels']:.3f}"
    if "val_loss" in record:
        text += f"  val loss {record['val_loss']:.3f}"
    return f"{text}  {clock(record['seconds'])}  {record['images_per_s']:.0f} images/s"


def shown_loss(loss: float | None) -> str:
    return "none yet" if loss is None else f"{loss:.3f}"


class Lines:
    """Occasional lines on standard error, for files, pipes and Python."""

    def __init__(self) -> None:
        self._last = 0.0

    def message(self, text: str) -> None:
        print(one_line(text), file=sys.stderr, flush=True)

    def pace(self, pace: "Pace") -> None:
        if time.monotonic() - self._last < PLAIN_EVERY_S:
            return
        self._last = time.monotonic()
        self.message(
            f"epoch {pace.epoch}/{pace.epochs} step {pace.step}/{pace.steps_per_epoch}  loss {shown_loss(pace.loss)}  "
            f"{pace.images_per_s:.0f} images/s  {clock(pace.seconds_left)} left"
        )

    def epoch(self, record: dict[str, Any]) -> None:
        is_last = record["epoch"] == record["epochs"]
        if is_last or time.monotonic() - self._last >= PLAIN_EVERY_S:
            self._last = time.monotonic()
            self.message(epoch_line(record))

    def reading(self, done: int, total: int) -> None:
        pass

    def close(self) -> None:
        pass
