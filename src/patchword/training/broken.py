"""When a loss or gradient is no longer finite: what broke, where, on which images, and what to do."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from patchword.errors import TrainingBroken
from patchword.training.config import TrainSettings
from patchword.training.recipes.common import rate_for
from patchword.training.recipes.finetune import NARROW

# A rate that broke is cut by this much, and never above what the recipe would choose.
SAFER = 3


@dataclass(frozen=True, kw_only=True)
class Break:
    """The step that could not be taken. what: "loss", "gradient" or "evaluation"; lr: the rate of that step."""

    what: str
    epoch: int
    step: int
    lr: float

    def __str__(self) -> str:
        where = f"in epoch {self.epoch}, step {self.step}"
        if self.what == "evaluation":
            where = f"after epoch {self.epoch}"
        return f"the {self.what} is not finite {where}, at learning rate {self.lr:.2g}"

    def as_record(self, error: TrainingBroken, settings: TrainSettings) -> dict[str, Any]:
        """The line of metrics.jsonl. summary: what happened; fix: what to do."""
        where = {"kind": "broken", "epoch": self.epoch, "step": self.step, "lr": self.lr, "what": self.what}
        advised = shown_rate(advised_rate(settings))
        words = {"summary": str(self), "message": error.message, "fix": error.fix, "advised_lr": advised}
        return {**where, **words}


def advised_rate(settings: TrainSettings) -> float:
    """A rate to try next: a third of the one that failed, but at most what the recipe would choose."""
    usual = rate_for(settings.model.dim)
    if settings.run.recipe == "finetune" and settings.model.dim >= NARROW:
        usual /= 10
    return min(usual, settings.optim.lr / SAFER)


def first_broken_module(model: nn.Module, images: Tensor) -> str:
    """The first module, in running order, whose output is not finite; "" if all are."""
    found: list[str] = []

    def look(name: str) -> object:
        def hook(module: nn.Module, args: object, answer: object) -> None:
            if isinstance(answer, Tensor) and not found and not bool(torch.isfinite(answer).all()):
                found.append(name)

        return hook

    handles = [
        module.register_forward_hook(look(name))
        for name, module in model.named_modules()
        if name and not list(module.children())
    ]
    try:
        with torch.no_grad():
            model(images)
    finally:
        for handle in handles:
            handle.remove()
    return found[0] if found else ""


def broken(
    found: Break, settings: TrainSettings, *, kept: int, module: str = "", names: list[str] | None = None
) -> TrainingBroken:
    """The error for a break. kept: the epoch whose weights are kept, 0 for none; names: the images of the step."""
    where = f", first in {module}" if module else ""
    names = names or []
    shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
    images = f" (images: {shown})" if shown else ""
    weights = f"; the weights of epoch {kept} are kept" if kept else ""
    wider = ", or with -o run.precision=float32" if settings.run.precision == "bfloat16" else ""
    return TrainingBroken(
        f"training broke: {found}{where}{images}{weights}",
        f"start again with a lower rate, such as --lr {shown_rate(advised_rate(settings))}{wider}",
    )


def shown_rate(rate: float) -> str:
    """One significant digit, rounded down, so that the text never exceeds the rate."""
    size = 10.0 ** math.floor(math.log10(rate))
    return f"{math.floor(rate / size + 1e-9) * size:.1g}"
