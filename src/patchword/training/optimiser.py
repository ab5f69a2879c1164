"""What all optimisers share: parameter groups, state, and steps that a non-finite gradient leaves without effect.

None of them uses `torch.optim.Optimizer`: that class imports the compiler, which takes longer than importing torch itself.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


class Optimiser(ABC):
    """Parameter groups and their state; `state_dict` has the format of torch's classes.

    groups: dicts with `params` and `weight_decay`. `lr_scale` (1 if absent) is what `set_lr` multiplies the rate by.
    defaults: what every group has unless it says otherwise.
    """

    def __init__(self, groups: Sequence[dict[str, Any]], *, lr: float, defaults: dict[str, Any]) -> None:
        self.param_groups = [{**defaults, **group, "lr": lr * group.get("lr_scale", 1.0)} for group in groups]
        self.state: dict[Tensor, dict[str, Tensor]] = {}

    @torch.no_grad()
    def step(self, found_inf: Tensor | None = None) -> None:
        """Update the parameters in place.

        found_inf: a float32 scalar on the parameters' device, 1 if a gradient is not finite. Then neither parameters nor state
        change, and the host does not wait to learn it.
        """
        for group in self.param_groups:
            self.step_group(group, found_inf)

    @abstractmethod
    def step_group(self, group: dict[str, Any], found_inf: Tensor | None) -> None:
        """Update the parameters of one group, as `step` says."""

    def zero_grad(self) -> None:
        for parameter in self._parameters():
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

    def _moved(self, group: dict[str, Any]) -> tuple[list[Tensor], list[Tensor]]:
        """The parameters that have gradients, and the gradients."""
        moved = [p for p in group["params"] if p.grad is not None]
        return moved, [p.grad for p in moved]

    def _state_of(self, parameter: Tensor, *names: str) -> dict[str, Tensor]:
        """The state of a parameter; at first a step count and zeros of its shape under these names."""
        if parameter not in self.state:
            self.state[parameter] = {
                "step": torch.zeros((), dtype=torch.float32, device=parameter.device),
                **{name: torch.zeros_like(parameter, memory_format=torch.preserve_format) for name in names},
            }
        return self.state[parameter]


def set_lr(optimiser: Optimiser, lr: float) -> None:
    """Set the rate of each group to `lr` times its `lr_scale`."""
    for group in optimiser.param_groups:
        group["lr"] = lr * group.get("lr_scale", 1.0)


def cleaned(gradients: list[Tensor], found_inf: Tensor | None) -> tuple[list[Tensor], Tensor | float]:
    """The gradients and 1; or, if one is not finite, zeros and 0, on the device."""
    if found_inf is None:
        return gradients, 1.0
    finite = found_inf == 0
    zero = torch.zeros((), device=found_inf.device)
    return [torch.where(finite, g, zero.to(g.dtype)) for g in gradients], finite.to(torch.float32)
