"""AdamW, and which parameters decay."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from patchword.errors import SettingsError

# Biases and norms have one axis; of the rest these are no matrices of a linear map.
NOT_DECAYED = ("prefix.", "positions.", "attention_positions.")


@dataclass(frozen=True, kw_only=True)
class OptimSettings:
    """lr: the peak. clip_grad: largest norm of all gradients together, 0 for no limit."""

    lr: float = 1e-3
    weight_decay: float = 0.05
    beta1: float = 0.9
    beta2: float = 0.999
    clip_grad: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.lr < math.inf or self.weight_decay < 0 or self.clip_grad < 0:
            raise SettingsError(
                f"optim: lr {self.lr}, weight_decay {self.weight_decay}, clip_grad {self.clip_grad}",
                "give a finite lr above 0, the others from 0",
            )


def decays(name: str, parameter: nn.Parameter) -> bool:
    """Matrices and the patch kernel decay; biases, norms, factors, tokens and positions do not."""
    return parameter.ndim >= 2 and not name.startswith(NOT_DECAYED)


def make_optimiser(model: nn.Module, settings: OptimSettings) -> torch.optim.AdamW:
    """Source: Loshchilov and Hutter 2019 (arXiv 1711.05101). Fused: one pass over memory for each tensor."""
    named = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    groups: list[dict[str, Any]] = [
        {"params": [p for n, p in named if decays(n, p)], "weight_decay": settings.weight_decay},
        {"params": [p for n, p in named if not decays(n, p)], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=settings.lr, betas=(settings.beta1, settings.beta2), fused=True)
