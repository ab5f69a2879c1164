"""Before the first step: the micro-batch, the epochs and the learning rate that fit, by steps that change nothing else."""

from dataclasses import dataclass, replace

from patchword.training.choose import Chosen
from patchword.training.fit_time import fit_epochs
from patchword.training.loop import Loop
from patchword.training.progress import Progress
from patchword.training.runfolder import RunFolder
from patchword.training.setup import is_given
from patchword.training.trial import adopt, fit_micro_batch


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """What trial steps may change: the micro-batch, to the memory of a GPU, and the epochs, to `run.max_minutes`."""

    micro_batch: bool
    epochs: bool


def fits_time(chosen: Chosen) -> bool:
    """Whether the epochs of a detector follow from the time: with --max-time and without --epochs."""
    settings = chosen.settings
    limited = settings.task.kind == "detect" and settings.run.max_minutes > 0
    return limited and not is_given("schedule.epochs", chosen)


def measure_steps(loop: Loop, folder: RunFolder, evaluation_images: int, *, fit: Fitted) -> None:
    """Find the micro-batch and the epochs that fit, and the learning rate, with steps that change nothing else."""
    if fit.micro_batch and loop.device.type == "cuda" and loop.state.epoch < loop.settings.schedule.epochs:
        say(fit_micro_batch(loop, folder), loop.events.progress, folder)
    if fit.epochs:
        say(fit_epochs(loop, folder, evaluation_images), loop.events.progress, folder)
    if loop.settings.run.find_lr:
        _measure_rate(loop, folder)


def _measure_rate(loop: Loop, folder: RunFolder) -> None:
    """Measure the learning rate, and write it where the run's settings are."""
    found = loop.measure_rate()
    loop.events.progress.message(found.text)
    folder.log(found.text)
    optim = replace(loop.settings.optim, lr=found.lr, lr_rule="none")
    settings = replace(loop.settings, optim=optim, run=replace(loop.settings.run, find_lr=False))
    changed = {"optim.lr": found.lr, "optim.lr_rule": "none", "run.find_lr": False}
    adopt(loop, folder, settings, changed, "measured by --find-lr")


def say(text: str, progress: Progress, folder: RunFolder) -> None:
    if text:
        progress.message(text)
        folder.log(text)
