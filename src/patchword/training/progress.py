"""What a training tells while it runs. The loop calls; the command shows; a library call may stay silent."""

from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True, kw_only=True)
class Pace:
    """Where a run is. data_wait: share of the time spent waiting for images, 0..1."""

    epoch: int
    epochs: int
    step: int
    steps_per_epoch: int
    loss: float
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
    """Tells nothing."""

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
