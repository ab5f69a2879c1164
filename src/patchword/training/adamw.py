"""The AdamW optimiser: each weight gets a step of its own size."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor
from torch.optim.adamw import adamw

from patchword.training.optimiser import Optimiser


class AdamW(Optimiser):
    """AdamW with torch's own fused update: one pass over memory per tensor.

    Source: Loshchilov and Hutter 2019 (arXiv 1711.05101).
    """

    def __init__(self, groups: Sequence[dict[str, Any]], *, lr: float, betas: tuple[float, float]) -> None:
        super().__init__(groups, lr=lr, defaults={"betas": betas, "eps": 1e-8})

    def step_group(self, group: dict[str, Any], found_inf: Tensor | None) -> None:
        moved, gradients = self._moved(group)
        states = [self._state_of(p, "exp_avg", "exp_avg_sq") for p in moved]
        adamw(
            moved,
            gradients,
            [s["exp_avg"] for s in states],
            [s["exp_avg_sq"] for s in states],
            [],
            [s["step"] for s in states],
            fused=True,
            amsgrad=False,
            beta1=group["betas"][0],
            beta2=group["betas"][1],
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            maximize=False,
            found_inf=found_inf,
        )
