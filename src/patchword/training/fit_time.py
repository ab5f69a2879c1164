"""Choose the epochs that fit into `run.max_minutes`, from trial steps: a schedule that is cut off never cools down."""

import time
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from patchword.errors import plural
from patchword.training.recipes.common import decay_over
from patchword.training.recipes.detect import evaluated_every, warmup_for
from patchword.training.runfolder import RunFolder
from patchword.training.trial import adopt

if TYPE_CHECKING:
    from patchword.training.loop import Loop

TRIALS = 3
# Part of the time to plan for: the rest is for saving, and for a machine that slows down.
PLANNED = 0.9
# A forward pass as a share of a training step.
FORWARD = 0.4


def fit_epochs(loop: "Loop", folder: RunFolder, evaluation_images: int) -> str:
    """Set the epochs, warm-up, averaging and evaluations to what fits; returns what was changed, "" if nothing can be measured.

    Weights and optimiser state are as before afterwards.
    """
    step_s = _seconds_per_step(loop)
    if step_s is None:
        return ""
    settings, steps = loop.settings, loop.feed.steps_per_epoch
    minutes = settings.run.max_minutes
    evaluation_s = evaluation_images * FORWARD * step_s / settings.run.batch_size
    every = settings.run.evaluate_every
    epochs = 1
    for _ in range(3):  # the evaluations depend on the epochs, and the other way round
        epochs = max(int(PLANNED * 60 * minutes / (steps * step_s + evaluation_s / every)), 1)
        every = evaluated_every(epochs)
    schedule = replace(settings.schedule, epochs=epochs, warmup_epochs=warmup_for(epochs))
    decay = decay_over(epochs * steps)
    changed = {
        "schedule.epochs": epochs,
        "schedule.warmup_epochs": schedule.warmup_epochs,
        "average.decay": decay,
        "run.evaluate_every": every,
    }
    settings = replace(
        settings,
        schedule=schedule,
        average=replace(settings.average, decay=decay),
        run=replace(settings.run, evaluate_every=every),
    )
    loop.state.average.decay = decay
    adopt(loop, folder, settings, changed, "measured by trial steps")
    return f"{plural(epochs, 'epoch')}, {plural(epochs * steps, 'step')}: what fits into {minutes:g} minutes at {step_s:.2f} s for each step"


def _seconds_per_step(loop: "Loop") -> float | None:
    """The shortest of some trial steps, after one that warms up; None without images."""
    seconds = []
    for count, fed in enumerate(loop.feed.epoch(0)):
        began = time.perf_counter()
        loop.try_step(fed)
        if loop.device.type == "cuda":
            torch.cuda.synchronize(loop.device)
        seconds.append(time.perf_counter() - began)
        if count == TRIALS:
            break
    loop.state.optimiser.zero_grad()
    return min(seconds[1:] or seconds, default=None)
