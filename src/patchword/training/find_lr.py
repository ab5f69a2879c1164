"""Measure a learning rate: it grows at each of a hundred steps until the loss does too.

Source: Smith 2017, "Cyclical learning rates" (arXiv 1506.01186), section 3.3 (range test).
"""

import copy
import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass

from patchword.errors import TrainingBroken
from patchword.training.state import TrainingState
from patchword.training.task import Fed, Feed

LOW, HIGH, STEPS = 1e-6, 1.0, 100
# The loss is smoothed over about ten steps; the search ends when it is so many times the smallest.
SMOOTHING, BLOWN = 0.9, 3.0
# The share of the rate at which the loss was smallest: there, it is already at the edge.
SHARE = 0.1
MIN_STEPS = 10


@dataclass(frozen=True, kw_only=True)
class FoundRate:
    """The advised rate, and the smoothed loss at each rate that was tried."""

    lr: float
    tried: tuple[tuple[float, float], ...]

    @property
    def text(self) -> str:
        lowest = min(self.tried, key=lambda pair: pair[1])
        return (
            f"learning rate {self.lr:.2g}: a tenth of {lowest[0]:.2g}, at which the loss of "
            f"{len(self.tried)} trial steps was smallest ({lowest[1]:.3f}, from {self.tried[0][1]:.3f})"
        )


def find_rate(state: TrainingState, feed: Feed, step: Callable[[Fed, float], float]) -> FoundRate:
    """Try rates from 1e-6 to 1 on the first batches; the state is as before afterwards.

    step: takes a batch and a rate, changes the state, returns the loss. Raises: TrainingBroken if no rate lowers the loss.
    """
    before = copy.deepcopy((state.module.state_dict(), state.optimiser.state_dict()))
    tried: list[tuple[float, float]] = []
    mean = 0.0
    batches = itertools.chain.from_iterable(feed.epoch(epoch) for epoch in itertools.count())
    try:
        for number, batch in zip(range(STEPS), batches, strict=False):
            rate = LOW * (HIGH / LOW) ** (number / (STEPS - 1))
            loss = step(batch, rate)
            if not math.isfinite(loss):
                break
            mean = SMOOTHING * mean + (1 - SMOOTHING) * loss
            tried.append((rate, mean / (1 - SMOOTHING ** (number + 1))))
            if number > MIN_STEPS and tried[-1][1] > BLOWN * min(loss for _, loss in tried):
                break
    finally:
        state.module.load_state_dict(before[0])
        state.optimiser.load_state_dict(before[1])
        if not before[1]["state"]:
            state.optimiser.state.clear()
    if len(tried) < MIN_STEPS or tried.index(min(tried, key=lambda pair: pair[1])) < MIN_STEPS // 2:
        raise TrainingBroken(
            "no learning rate from 1e-6 to 1 lowers the loss of the first batches",
            "check the data with `patchword check`, or set a rate with --lr",
        )
    return FoundRate(lr=float(f"{SHARE * min(tried, key=lambda pair: pair[1])[0]:.2g}"), tried=tuple(tried))
