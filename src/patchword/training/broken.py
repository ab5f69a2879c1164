"""Describe a loss or gradient that is not finite: where it occurred, on which images, and how to fix it."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from patchword.errors import TrainingBroken
from patchword.training.config import TrainSettings
from patchword.training.recipes.common import rate_for
from patchword.training.recipes.detr import RATE as DETR_RATE
from patchword.training.recipes.finetune import NARROW

# Divide a learning rate that diverged by this; the result is never above the recipe's rate.
SAFER = 3


@dataclass(frozen=True, kw_only=True)
class Break:
    """The step that diverged. what: "loss", "gradient", "evaluation" or "answer"; lr: the learning rate of that step.

    module: the first one whose output was not finite, "" if none was. names: the images of the step.
    """

    what: str
    epoch: int
    step: int
    lr: float
    module: str = ""
    names: tuple[str, ...] = ()

    def __str__(self) -> str:
        where = f"in epoch {self.epoch}, step {self.step}"
        if self.what == "answer":
            return f"every image was given the same answer after epoch {self.epoch}, at learning rate {self.lr:.2g}"
        if self.what == "evaluation":
            where = f"after epoch {self.epoch}"
        return f"the {self.what} is not finite {where}, at learning rate {self.lr:.2g}"

    @property
    def whole(self) -> str:
        """With the module and the images."""
        where = f", first in {self.module}" if self.module else ""
        more = f" and {len(self.names) - 3} more" if len(self.names) > 3 else ""
        images = f" (images: {', '.join(self.names[:3])}{more})" if self.names else ""
        return f"{self}{where}{images}"

    def as_record(self, error: TrainingBroken, settings: TrainSettings) -> dict[str, Any]:
        """The line of metrics.jsonl. summary: what happened; fix: what to do."""
        where = {"kind": "broken", "epoch": self.epoch, "step": self.step, "lr": self.lr, "what": self.what}
        advised = shown_rate(advised_rate(settings))
        words = {"summary": str(self), "message": error.message, "fix": error.fix, "advised_lr": advised}
        return {**where, **words}


def advised_rate(settings: TrainSettings) -> float:
    """The learning rate to try next: a third of the failed one, at most the recipe's."""
    if settings.model is None:
        return min(DETR_RATE, settings.optim.lr) / SAFER
    usual = rate_for(settings.vit.dim)
    if settings.run.recipe == "finetune" and settings.vit.dim >= NARROW:
        usual /= 10
    return min(usual, settings.optim.lr / SAFER)


def first_broken_module(model: nn.Module, *inputs: object) -> str:
    """The first module, in execution order, with a non-finite output; "" if there is none."""
    found: list[str] = []

    def check(name: str) -> object:
        def hook(module: nn.Module, args: object, output: object) -> None:
            if isinstance(output, Tensor) and not found and not bool(torch.isfinite(output).all()):
                found.append(name)

        return hook

    handles = [
        module.register_forward_hook(check(name))
        for name, module in model.named_modules()
        if name and not list(module.children())
    ]
    try:
        with torch.no_grad():
            model(*inputs)
    finally:
        for handle in handles:
            handle.remove()
    return found[0] if found else ""


def broken(found: Break, settings: TrainSettings, *, kept: int) -> TrainingBroken:
    """The error for a divergence. kept: the epoch whose weights are kept, 0 for none."""
    weights = f"; the weights of epoch {kept} are kept" if kept else ""
    wider = ", or with -o run.precision=float32" if settings.run.precision != "float32" else ""
    return TrainingBroken(
        f"training diverged: {found.whole}{weights}",
        f"start again with a lower learning rate, such as --lr {shown_rate(advised_rate(settings))}{wider}",
    )


def skipped(found: Break) -> str:
    """The warning for a step that changed nothing."""
    return f"{found.whole}; this batch was skipped and changed nothing"


def shown_rate(rate: float) -> str:
    """One significant digit, rounded down, so that the text never exceeds the rate."""
    size = 10.0 ** math.floor(math.log10(rate))
    return f"{math.floor(rate / size + 1e-9) * size:.1g}"
