"""The learning rate as a pure function of the step."""

import math
from dataclasses import dataclass, replace
from typing import Literal

from patchword.errors import SettingsError


@dataclass(frozen=True, kw_only=True)
class ScheduleSettings:
    """Linear warm-up to the peak, then down to `final_lr` times the peak.

    Args:
        shape: "cosine" falls as half a cosine (Loshchilov and Hutter 2017, arXiv 1608.03983), "linear" as a line. "constant"
            keeps the peak until the cooldown, so such a run can be extended (Hägele et al. 2024, arXiv 2405.18392).
        cooldown: the share of the steps that the fall of "constant" takes, at the end; 0 for none.
        cooldown_shape: "1-sqrt", which Hägele et al. found best, or "linear".
    """

    shape: Literal["cosine", "linear", "constant"] = "cosine"
    epochs: int = 100
    warmup_epochs: float = 5.0
    final_lr: float = 0.001
    cooldown: float = 0.2
    cooldown_shape: Literal["1-sqrt", "linear"] = "1-sqrt"

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.warmup_epochs < 0:
            raise SettingsError(
                f"schedule: epochs {self.epochs}, warmup_epochs {self.warmup_epochs}",
                "use at least 1 epoch, and 0 or more warm-up epochs",
            )
        if not 0 <= self.cooldown <= 1 or not 0 <= self.final_lr <= 1:
            raise SettingsError(
                f"schedule: cooldown {self.cooldown}, final_lr {self.final_lr}", "use shares from 0 to 1"
            )


def lr_factor(step: int, steps_per_epoch: int, settings: ScheduleSettings) -> float:
    """The share of the peak learning rate at `step` (from 0)."""
    total = settings.epochs * steps_per_epoch
    warmup = _warmup(steps_per_epoch, settings)
    if step < warmup:
        return (step + 1) / (warmup + 1)
    start = cooldown_start(steps_per_epoch, settings) if settings.shape == "constant" else warmup
    progress = min(max(step - start, 0) / max(total - start, 1), 1.0)
    return settings.final_lr + (1 - settings.final_lr) * _left(progress, settings)


def _warmup(steps_per_epoch: int, settings: ScheduleSettings) -> float:
    """The steps of the warm-up: at most half of the run, because a longer one would never reach the peak."""
    return min(settings.warmup_epochs, settings.epochs / 2) * steps_per_epoch


def _left(progress: float, settings: ScheduleSettings) -> float:
    """What is left of the fall after this share of it: from 1 to 0."""
    if settings.shape == "cosine":
        return 0.5 * (1 + math.cos(math.pi * progress))
    if settings.shape == "linear" or settings.cooldown_shape == "linear":
        return 1 - progress
    return 1 - math.sqrt(progress)


def cooldown_start(steps_per_epoch: int, settings: ScheduleSettings) -> float:
    """The number of steps before the cooldown of a "constant" run. A state saved here is what a longer run goes on from."""
    total = settings.epochs * steps_per_epoch
    warmup = _warmup(steps_per_epoch, settings)
    return max(warmup, (1 - settings.cooldown) * total)


def extended(settings: ScheduleSettings, epochs: int) -> ScheduleSettings:
    """The schedule of a "constant" run made longer, in all: the same rates up to the start of the old cooldown.

    Raises: SettingsError if the schedule is another, or `epochs` is not more than before.
    """
    if settings.shape != "constant":
        raise SettingsError(
            f"a run with a {settings.shape} schedule cannot be extended: its rates depend on its length from the start",
            f"start a new run with --epochs {epochs}, and with -o schedule.shape=constant if it is to be extended later",
        )
    if epochs <= settings.epochs:
        raise SettingsError(
            f"the run has {settings.epochs} epochs already, so {epochs} do not extend it",
            f"give more than {settings.epochs} epochs",
        )
    # The warm-up takes at most half of the run, and must not grow with it.
    warmup = min(settings.warmup_epochs, settings.epochs / 2)
    return replace(settings, epochs=epochs, warmup_epochs=warmup)
