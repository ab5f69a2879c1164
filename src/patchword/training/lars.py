"""LARS: momentum, with a step in proportion to the norm of each matrix. For very large batches."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from patchword.training.optimiser import Optimiser, cleaned

TRUST = 0.001


class LARS(Optimiser):
    """LARS as MAE's linear probe uses it. Vectors (biases, norms) take plain steps with momentum, and do not decay.

    Source: You et al. 2017 (arXiv 1708.03888), with the trust coefficient, the exception for vectors and the order of
    operations of facebookresearch/mae, util/lars.py: the ratio scales the gradient before momentum.
    """

    def __init__(self, groups: Sequence[dict[str, Any]], *, lr: float, momentum: float = 0.9) -> None:
        super().__init__(groups, lr=lr, defaults={"momentum": momentum})

    def step_group(self, group: dict[str, Any], found_inf: Tensor | None) -> None:
        moved, gradients = self._moved(group)
        if not moved:
            return
        gradients, finite = cleaned(gradients, found_inf)
        for parameter, gradient in zip(moved, gradients, strict=True):
            if parameter not in self.state:
                self.state[parameter] = {"momentum_buffer": torch.zeros_like(parameter)}
            buffer = self.state[parameter]["momentum_buffer"]
            if parameter.ndim > 1:
                gradient = gradient.add(parameter, alpha=group["weight_decay"])
                of_weight, of_gradient = parameter.norm(), gradient.norm()
                ratio = TRUST * of_weight / of_gradient
                gradient = gradient * torch.where((of_weight > 0) & (of_gradient > 0), ratio, 1.0)
            moved_on = buffer * group["momentum"] + gradient
            # A step that is not finite leaves the buffer as it is.
            buffer.add_((moved_on - buffer) * finite)
            parameter.sub_(buffer * (group["lr"] * finite))
