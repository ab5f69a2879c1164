"""The learning rate as a pure function of the step."""

import math
from dataclasses import dataclass

from patchword.errors import SettingsError


@dataclass(frozen=True, kw_only=True)
class ScheduleSettings:
    """Linear warm-up, then half a cosine down to `final_lr` times the peak."""

    epochs: int = 100
    warmup_epochs: float = 5.0
    final_lr: float = 0.001

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.warmup_epochs < 0:
            raise SettingsError(
                f"schedule: epochs {self.epochs}, warmup_epochs {self.warmup_epochs}",
                "use at least 1 epoch, and 0 or more warm-up epochs",
            )


def lr_factor(step: int, steps_per_epoch: int, settings: ScheduleSettings) -> float:
    """The share of the peak learning rate at `step` (from 0). Source: Loshchilov and Hutter 2017 (arXiv 1608.03983)."""
    total = settings.epochs * steps_per_epoch
    # A warm-up longer than the run would never reach the peak.
    warmup = min(settings.warmup_epochs * steps_per_epoch, total / 2)
    if step < warmup:
        return (step + 1) / (warmup + 1)
    progress = (step - warmup) / max(total - warmup, 1)
    return settings.final_lr + (1 - settings.final_lr) * 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))
