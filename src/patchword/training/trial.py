"""Take a trial step before training, and halve the micro-batch until it fits into the memory of the GPU.

The estimate of memory.py is a lower bound. A trial is a complete step on the first batch (views, forward and backward pass,
the optimiser with its state), so no later step needs more.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from patchword import settings as tree
from patchword.errors import is_out_of_memory
from patchword.training.extension import plateau_steps
from patchword.training.run_config import change_config
from patchword.training.runfolder import RunFolder

if TYPE_CHECKING:
    from patchword.training.config import TrainSettings
    from patchword.training.loop import Loop

# Mixing takes neighbours, so a part has at least two images.
LEAST = 2


def fit_micro_batch(loop: "Loop", folder: RunFolder) -> str:
    """Halve `run.micro_batch` of the loop until a step fits; returns what was changed, "" if nothing.

    Weights and optimiser state are as before afterwards. Raises: the error of the allocation, if even two images at once do not fit.
    """
    fed = next(iter(loop.feed.epoch(0)), None)
    if fed is None:
        return ""
    before, run = loop.settings, loop.settings.run

    def trial(size: int) -> None:
        torch.cuda.empty_cache()
        part = 0 if size >= run.batch_size else size
        loop.settings = replace(before, run=replace(run, micro_batch=part))
        loop.try_step(fed)

    try:
        largest_that_fits(run.micro_batch or run.batch_size, trial)
    finally:
        loop.state.optimiser.zero_grad()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(loop.device)
    found = loop.settings.run.micro_batch
    if found == run.micro_batch:
        return ""
    adopt(loop, folder, loop.settings, {"run.micro_batch": found}, "measured by a trial step")
    return (
        f"micro-batches of {found}: a trial step on a batch of {run.batch_size} images did not fit into the memory of "
        f"{loop.device}; the gradients are those of the complete batch"
    )


def largest_that_fits(size: int, trial: Callable[[int], None]) -> int:
    """`size`, or the first of its even halves for which `trial` does not run out of memory.

    Raises: the error of `trial` for two images or fewer, and any other.
    """
    while True:
        try:
            trial(size)
            return size
        except RuntimeError as error:
            if size <= LEAST or not is_out_of_memory(error):
                raise
        # After the exception is gone, which kept the tensors of the trial.
        size = size // 2 + size // 2 % 2


def adopt(
    loop: "Loop", folder: RunFolder, settings: "TrainSettings", changed: Mapping[str, Any], source: str
) -> None:
    """Go on with other settings before the first step, which a resume finds too. Raises: OutputError."""
    loop.settings = loop.keep.settings = loop.meter.settings = settings
    loop.plateau = plateau_steps(settings, loop.feed.steps_per_epoch)
    change_config(folder, changed, source)
    loop.state.settings = json.dumps(tree.to_plain(settings))
    loop.state.save(folder)
