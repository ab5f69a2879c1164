"""Muon for the matrices inside the blocks, AdamW for everything else.

A gradient of a matrix is mostly a few directions, and Adam's steps inherit that. Muon replaces the matrix of averaged
gradients by the nearest one that stretches every direction alike, so rare directions are learned as fast as common ones.

Sources: Jordan et al. 2024, "Muon: An optimizer for hidden layers in neural networks" (method, coefficients); Liu et al.
2025 (arXiv 2502.16982), section 2.2 (the factor that gives its steps the size of AdamW's, so that rate and decay mean the
same for both).
"""

import math
from collections import defaultdict
from typing import Any

import torch
from torch import Tensor

from patchword.training.adamw import AdamW

MOMENTUM = 0.95
ROUNDS = 5
# Of the polynomial a x + b x³ + c x⁵, which drives singular values from 0.01 and up to between 0.7 and 1.2 in five rounds.
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
# The root mean square of AdamW's steps, as a share of the rate.
ADAM_RMS = 0.2


class Muon(AdamW):
    """The groups with `matrices` set take Muon's steps, the others AdamW's.

    Queries, keys and values stand in one parameter and are three maps: `matrices` says how many of equal height each of
    the group's parameters holds.
    """

    def step_group(self, group: dict[str, Any]) -> None:
        if not group.get("matrices"):
            super().step_group(group)
            return
        # Matrices of one shape go together: on small ones a call costs more than its arithmetic.
        alike: dict[tuple[int, ...], list[tuple[Tensor, Tensor]]] = defaultdict(list)
        for parameter in group["params"]:
            if parameter.grad is not None:
                directions = self._averaged(parameter).chunk(group["matrices"])
                for weight, direction in zip(parameter.chunk(group["matrices"]), directions, strict=True):
                    alike[tuple(weight.shape)].append((weight, direction))
        for shape, pairs in alike.items():
            steps = orthogonal(torch.stack([direction for _, direction in pairs]))
            size = group["lr"] * ADAM_RMS * math.sqrt(max(shape))
            for (weight, _), step in zip(pairs, steps, strict=True):
                weight.mul_(1 - group["lr"] * group["weight_decay"]).sub_(step, alpha=size)

    def _averaged(self, parameter: Tensor) -> Tensor:
        """Nesterov's look ahead along the running mean of gradients."""
        assert parameter.grad is not None
        if parameter not in self.state:
            self.state[parameter] = {"momentum": torch.zeros_like(parameter)}
        mean = self.state[parameter]["momentum"].lerp_(parameter.grad, 1 - MOMENTUM)
        return parameter.grad.lerp(mean, MOMENTUM)


def orthogonal(matrices: Tensor) -> Tensor:
    """matrices [n, rows, columns] → the same shape, singular values between 0.7 and 1.2, same singular vectors.

    By Newton and Schulz's iteration; on a GPU in bfloat16, as its authors do: the spread is wider than
    its rounding.
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
