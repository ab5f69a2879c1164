"""Optimiser settings. This module does not import torch, because settings are checked before torch is loaded."""

import math
from dataclasses import dataclass
from typing import Literal

from patchword.errors import SettingsError


@dataclass(frozen=True, kw_only=True)
class OptimSettings:
    """Optimiser settings.

    Args:
        method: "muon" uses Muon (muon.py) for the matrices of the blocks and AdamW for the rest.
        lr: the peak learning rate.
        clip_grad: the largest norm of all gradients together; 0 for no limit.
    """

    method: Literal["adamw", "muon"] = "adamw"
    lr: float = 1e-3
    weight_decay: float = 0.05
    beta1: float = 0.9
    beta2: float = 0.999
    clip_grad: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.lr < math.inf or self.weight_decay < 0 or self.clip_grad < 0:
            raise SettingsError(
                f"optim: lr {self.lr}, weight_decay {self.weight_decay}, clip_grad {self.clip_grad}",
                "use a finite lr above 0, and 0 or more for the others",
            )
