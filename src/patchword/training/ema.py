"""Averaged weights, which are evaluated and saved."""

import copy

import torch
from torch import Tensor, nn


class AveragedWeights:
    """An exponential moving average of a model's trainable parameters; its buffers are copied.

    What is frozen when the average is made is shared with the model instead of copied, so the average of a head is as small as
    the head. The decay rises as (1 + steps) / (10 + steps) up to `decay`, so that the initial weights do not
    dominate a short run. Source: Polyak and Juditsky 1992; the rise as in TensorFlow's ExponentialMovingAverage.

    Args:
        model: may be compiled; the average is of the model inside, and is not compiled itself.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        inner = getattr(model, "_orig_mod", model)
        frozen = {id(p): p for p in inner.parameters() if not p.requires_grad}
        # `deepcopy` takes what its memo already has.
        self.model = copy.deepcopy(inner, dict(frozen)).eval().requires_grad_(False)
        self.decay = decay
        pairs = zip(self.model.parameters(), inner.parameters(), strict=True)
        learned = [(averaged, source) for averaged, source in pairs if id(source) not in frozen]
        self._averaged: list[Tensor] = [averaged for averaged, _ in learned]
        self._source: list[Tensor] = [source for _, source in learned]
        self._buffers = list(zip(self.model.buffers(), inner.buffers(), strict=True))

    @torch.no_grad()
    def update(self, steps: int) -> None:
        """Update the average after optimiser step number `steps` (from 1)."""
        decay = min(self.decay, (1 + steps) / (10 + steps))
        if self._averaged:
            torch._foreach_lerp_(self._averaged, self._source, 1 - decay)
        for averaged, buffer in self._buffers:
            averaged.copy_(buffer)
