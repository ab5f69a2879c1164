"""When a loss or gradient is no number any more: what broke, where, and on which images."""

import torch
from torch import Tensor, nn

from patchword.errors import TrainingBroken


def first_broken_module(model: nn.Module, images: Tensor) -> str:
    """The first module, in running order, whose answer is not finite; "" when all are."""
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
    model: nn.Module, images: Tensor, names: list[str], *, what: str, when: str, lr: float, precision: str
) -> TrainingBroken:
    """The message for a step that must not be taken. when: epoch and step in words."""
    module = first_broken_module(model, images)
    where = f", first in {module}" if module else ""
    shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
    or_wider = ", or with -o run.precision=float32" if precision == "bfloat16" else ""
    return TrainingBroken(
        f"the {what} is not finite in {when}, at learning rate {lr:.2g}{where} (images: {shown})",
        f"start again with a smaller rate, as --lr {lr / 10:.1g}{or_wider}",
    )
