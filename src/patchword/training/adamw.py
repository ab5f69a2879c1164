"""The AdamW optimizer: each weight gets a step of its own size."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim.adamw import adamw


class AdamW:
    """AdamW without `torch.optim.Optimizer`. Using that class imports the compiler, which takes longer than
    importing torch itself, and patchword never compiles training steps.

    The update is torch's own fused function: one pass over memory per tensor. `state_dict` has the
    format of torch's class. Source: Loshchilov and Hutter 2019 (arXiv 1711.05101).
    """

    def __init__(self, groups: Sequence[dict[str, Any]], *, lr: float, betas: tuple[float, float]) -> None:
        self.param_groups = [{"lr": lr, "betas": betas, "eps": 1e-8, **group} for group in groups]
        self.state: dict[Tensor, dict[str, Tensor]] = {}

    @torch.no_grad()
    def step(self, found_inf: Tensor | None = None) -> None:
        """found_inf: 1 if a gradient is not finite, then nothing changes."""
        for group in self.param_groups:
            self.step_group(group, found_inf)

    def step_group(self, group: dict[str, Any], found_inf: Tensor | None) -> None:
        moved = [p for p in group["params"] if p.grad is not None]
        states = [self._state_of(p) for p in moved]
        adamw(
            moved,
            [p.grad for p in moved if p.grad is not None],
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

    def zero_grad(self) -> None:
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.grad = None

    def state_dict(self) -> dict[str, Any]:
        numbers = {p: i for i, p in enumerate(self._parameters())}
        groups = [{**g, "params": [numbers[p] for p in g["params"]]} for g in self.param_groups]
        return {"state": {numbers[p]: s for p, s in self.state.items()}, "param_groups": groups}

    def load_state_dict(self, stored: dict[str, Any]) -> None:
        parameters = self._parameters()
        for group, kept in zip(self.param_groups, stored["param_groups"], strict=True):
            group.update({key: value for key, value in kept.items() if key in group and key != "params"})
        self.state = {
            parameters[number]: {name: value.to(parameters[number].device) for name, value in state.items()}
            for number, state in stored["state"].items()
        }

    def _parameters(self) -> list[Tensor]:
        return [p for group in self.param_groups for p in group["params"]]

    def _state_of(self, parameter: Tensor) -> dict[str, Tensor]:
        if parameter not in self.state:
            self.state[parameter] = {
                "step": torch.zeros((), dtype=torch.float32, device=parameter.device),
                "exp_avg": torch.zeros_like(parameter, memory_format=torch.preserve_format),
                "exp_avg_sq": torch.zeros_like(parameter, memory_format=torch.preserve_format),
            }
        return self.state[parameter]
