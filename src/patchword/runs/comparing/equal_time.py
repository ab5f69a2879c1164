"""Where each setting was when the fastest one had finished: a slower setting needs more than as many steps to be worth it."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from patchword.metrics import percent

# Times that differ by less are equal, on a machine that does other things too.
SAME_TIME = 1.1
# (epoch, seconds of training, validation score)
Curve = Sequence[tuple[float, float, float]]


@dataclass(frozen=True, kw_only=True)
class EqualTime:
    """The last validation score that a setting had recorded until the fastest one had finished.

    seconds: that the fastest took; epoch: of the score, of `epochs` in all.
    """

    seconds: float
    epoch: float
    epochs: float
    score: float


def equal_times(seconds: Mapping[str, float], curves: Mapping[str, Curve]) -> dict[str, EqualTime | None]:
    """By setting; None without a score so early. Empty if all take as long. seconds: of whole trainings, NaN if unknown."""
    times = [value for value in seconds.values() if not math.isnan(value)]
    if len(times) < 2 or max(times) < SAME_TIME * min(times):
        return {}
    return {name: _until(curves[name], min(times)) for name in seconds}


def _until(curve: Curve, seconds: float) -> EqualTime | None:
    there = [point for point in curve if point[1] <= seconds * 1.001]
    if not there:
        return None
    epoch, _, score = there[-1]
    return EqualTime(seconds=seconds, epoch=epoch, epochs=curve[-1][0], score=score)


def words(found: Mapping[str, EqualTime | None], fastest: str, duration: str) -> str:
    """One sentence for people; "" if there is nothing to say. duration: of the fastest, in words."""
    parts = []
    for name, one in found.items():
        if one is None:
            parts.append(f"{name} not scored yet")
        else:
            after = "" if one.epoch >= one.epochs else f" after {one.epoch:g} of {one.epochs:g} epochs"
            parts.append(f"{name} {percent(one.score)}{after}")
    if not parts:
        return ""
    return (
        f"at equal time, {duration}, when {fastest} had finished: {', '.join(parts)} (validation scores; the learning rate of an "
        "unfinished run has not fallen yet)"
    )
