"""Stochastic gradient descent with momentum, as the ViT paper fine-tunes."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim.sgd import sgd

from patchword.training.optimiser import Optimiser


class SGD(Optimiser):
    """SGD with torch's own fused update. Weight decay is added to the gradient, as in torch's class.

    Source: Sutskever et al. 2013, "On the importance of initialization and momentum in deep learning", section 2.
    """

    def __init__(
        self, groups: Sequence[dict[str, Any]], *, lr: float, momentum: float = 0.9, nesterov: bool = False
    ) -> None:
        super().__init__(groups, lr=lr, defaults={"momentum": momentum, "nesterov": nesterov})

    def step_group(self, group: dict[str, Any], found_inf: Tensor | None) -> None:
        moved, gradients = self._moved(group)
        buffers: list[Tensor | None] = []
        for parameter in moved if group["momentum"] else []:
            # Begins at zero, which gives the first step of torch's class also if a skipped step came before.
            if parameter not in self.state:
                self.state[parameter] = {"momentum_buffer": torch.zeros_like(parameter)}
            buffers.append(self.state[parameter]["momentum_buffer"])
        sgd(
            moved,
            gradients,
            buffers or [None] * len(moved),
            fused=True,
            found_inf=found_inf,
            weight_decay=group["weight_decay"],
            momentum=group["momentum"],
            lr=group["lr"],
            dampening=0.0,
            nesterov=group["nesterov"],
            maximize=False,
        )
