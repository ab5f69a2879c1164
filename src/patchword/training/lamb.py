"""LAMB: Adam's direction, with a step in proportion to the norm of each tensor. For large batches."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from patchword.training.optimiser import Optimiser, cleaned


class LAMB(Optimiser):
    """LAMB as DeiT III uses it. Tensors without weight decay take Adam's steps.

    Source: You et al. 2020 (arXiv 1904.00962), algorithm 2; the exception for biases and norms, the eps and the bias correction
    as in NVIDIA's and timm's implementations, which DeiT III (arXiv 2204.07118) trains with.
    """

    def __init__(self, groups: Sequence[dict[str, Any]], *, lr: float, betas: tuple[float, float]) -> None:
        super().__init__(groups, lr=lr, defaults={"betas": betas, "eps": 1e-6})

    def step_group(self, group: dict[str, Any], found_inf: Tensor | None) -> None:
        moved, gradients = self._moved(group)
        if not moved:
            return
        states = [self._state_of(p, "exp_avg", "exp_avg_sq") for p in moved]
        gradients, finite = cleaned(gradients, found_inf)
        first, second = ([s[name] for s in states] for name in ("exp_avg", "exp_avg_sq"))
        counts = [s["step"] for s in states]
        for count in counts:
            count.add_(finite)
        _follow(first, gradients, (1 - group["betas"][0]) * finite)
        _follow(second, torch._foreach_mul(gradients, gradients), (1 - group["betas"][1]) * finite)
        # At least 1, as nothing was averaged yet if the first step was not finite.
        steps = torch.stack(counts).clamp(min=1)
        correction1, correction2 = (1 - beta**steps for beta in group["betas"])
        spread = torch._foreach_sqrt(second)
        torch._foreach_div_(spread, list(correction2.sqrt().unbind()))
        torch._foreach_add_(spread, group["eps"])
        update = torch._foreach_div(first, list(correction1.unbind()))
        torch._foreach_div_(update, spread)
        scale = torch.full_like(steps, -group["lr"]) * finite
        if group["weight_decay"]:
            torch._foreach_add_(update, moved, alpha=group["weight_decay"])
            of_weights, of_update = (torch.stack(torch._foreach_norm(x)) for x in (moved, update))
            scale = scale * torch.where((of_weights > 0) & (of_update > 0), of_weights / of_update, 1.0)
        torch._foreach_mul_(update, list(scale.unbind()))
        torch._foreach_add_(moved, update)


def _follow(means: list[Tensor], values: Sequence[Tensor], share: Tensor | float) -> None:
    """Move running means towards the values, in place; not at all if the share is 0."""
    difference = torch._foreach_sub(list(values), means)
    torch._foreach_mul_(difference, share)
    torch._foreach_add_(means, difference)
