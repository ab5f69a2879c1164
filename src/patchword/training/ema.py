"""Averaged weights, which are evaluated and saved."""

import copy

import torch
from torch import Tensor, nn


class AveragedWeights:
    """An exponential moving average of a model's parameters; its buffers are copied.

    The decay rises as (1 + steps) / (10 + steps) up to `decay`, so that the initial weights do not
    dominate a short run. Source: Polyak and Juditsky 1992; the rise as in TensorFlow's ExponentialMovingAverage.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        self.decay = decay
        self._averaged: list[Tensor] = list(self.model.parameters())
        self._source: list[Tensor] = list(model.parameters())
        self._buffers = list(zip(self.model.buffers(), model.buffers(), strict=True))

    @torch.no_grad()
    def update(self, steps: int) -> None:
        """Update the average after optimiser step number `steps` (from 1)."""
        decay = min(self.decay, (1 + steps) / (10 + steps))
        torch._foreach_lerp_(self._averaged, self._source, 1 - decay)
        for averaged, buffer in self._buffers:
            averaged.copy_(buffer)
