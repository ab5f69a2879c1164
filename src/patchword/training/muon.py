"""Muon for the matrices inside the blocks, AdamW for everything else.

The gradient of a matrix is dominated by a few directions, and so are Adam's steps. Muon replaces the averaged gradient by
the nearest matrix with equal singular values, so rare directions are learned as fast as common ones.

Sources: Jordan et al. 2024, "Muon: An optimizer for hidden layers in neural networks" (method, coefficients); Liu et al.
2025 (arXiv 2502.16982), section 2.2 (the factor that scales its steps to the size of AdamW's, so that learning rate and decay have the
same meaning for both).
"""

import math
from collections import defaultdict
from typing import Any

import torch
from torch import Tensor

from patchword.training.adamw import AdamW
from patchword.training.optimiser import cleaned

MOMENTUM = 0.95
ROUNDS = 5
# Coefficients of the polynomial a x + b x³ + c x⁵, which moves singular values from 0.01 and up to between 0.7 and 1.2 in five iterations.
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
# Root mean square of AdamW's steps, as a share of the learning rate.
ADAM_RMS = 0.2


class Muon(AdamW):
    """Use Muon for groups with `matrices` set, and AdamW for the others.

    One parameter holds queries, keys and values, which are three linear maps: `matrices` is the number of maps of
    equal height in each of the group's parameters.
    """

    def step_group(self, group: dict[str, Any], found_inf: Tensor | None) -> None:
        if not group.get("matrices"):
            super().step_group(group, found_inf)
            return
        moved, gradients = self._moved(group)
        gradients, finite = cleaned(gradients, found_inf)
        # Batch matrices of the same shape, because for small ones the call costs more than the arithmetic.
        alike: dict[tuple[int, ...], list[tuple[Tensor, Tensor]]] = defaultdict(list)
        for parameter, gradient in zip(moved, gradients, strict=True):
            directions = self._averaged(parameter, gradient, finite).chunk(group["matrices"])
            for weight, direction in zip(parameter.chunk(group["matrices"]), directions, strict=True):
                alike[tuple(weight.shape)].append((weight, direction))
        kept = 1 - group["lr"] * group["weight_decay"] * finite
        for shape, pairs in alike.items():
            steps = orthogonal(torch.stack([direction for _, direction in pairs]))
            steps *= group["lr"] * ADAM_RMS * math.sqrt(max(shape)) * finite
            for (weight, _), step in zip(pairs, steps, strict=True):
                weight.mul_(kept).sub_(step)

    def _averaged(self, parameter: Tensor, gradient: Tensor, finite: Tensor | float) -> Tensor:
        """Nesterov momentum on the running mean of gradients."""
        if parameter not in self.state:
            self.state[parameter] = {"momentum": torch.zeros_like(parameter)}
        mean = self.state[parameter]["momentum"].lerp_(gradient, (1 - MOMENTUM) * finite)
        return gradient.lerp(mean, MOMENTUM)


def orthogonal(matrices: Tensor) -> Tensor:
    """matrices [n, rows, columns] → the same shape, singular values between 0.7 and 1.2, same singular vectors.

    Uses the Newton-Schulz iteration; on a GPU in bfloat16, like its authors, because the spread of the
    singular values exceeds the rounding.
    """
    a, b, c = COEFFICIENTS
    x = matrices.bfloat16() if matrices.is_cuda else matrices
    tall = x.shape[-2] > x.shape[-1]
    x = x.mT if tall else x
    x = x / x.norm(dim=(-2, -1), keepdim=True).clamp(min=1e-7)
    for _ in range(ROUNDS):
        square = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(square, square, square, beta=b, alpha=c), x, beta=a)
    return (x.mT if tall else x).to(matrices.dtype)
