"""Optimiser settings. This module does not import torch, because settings are checked before torch is loaded."""

import math
from dataclasses import dataclass
from typing import Literal

from patchword.errors import SettingsError

Method = Literal["adamw", "sgd", "lamb", "lars", "muon"]
LR_BATCH = 256


@dataclass(frozen=True, kw_only=True)
class OptimSettings:
    """Optimiser settings.

    Args:
        method: "muon" uses Muon (muon.py) for the matrices of the blocks and AdamW for the rest.
        lr: the peak learning rate.
        lr_rule: "none" if `lr` holds for the batch as it is. Otherwise it holds for 256 images, and grows in proportion to
            the batch ("linear", Goyal et al. 2017, arXiv 1706.02677) or to its square root ("sqrt", Krizhevsky 2014,
            arXiv 1404.5997).
        beta1, beta2: of AdamW, LAMB, and AdamW's part of Muon.
        momentum: of SGD and LARS. nesterov: of SGD.
        clip_grad: the largest norm of all gradients together; 0 for no limit.
    """

    method: Method = "adamw"
    lr: float = 1e-3
    lr_rule: Literal["none", "linear", "sqrt"] = "none"
    weight_decay: float = 0.05
    beta1: float = 0.9
    beta2: float = 0.999
    momentum: float = 0.9
    nesterov: bool = False
    clip_grad: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.lr < math.inf or self.weight_decay < 0 or self.clip_grad < 0:
            raise SettingsError(
                f"optim: lr {self.lr}, weight_decay {self.weight_decay}, clip_grad {self.clip_grad}",
                "use a finite lr above 0, and 0 or more for the others",
            )
        if not all(0 <= value < 1 for value in (self.beta1, self.beta2, self.momentum)):
            raise SettingsError(
                f"optim: beta1 {self.beta1}, beta2 {self.beta2}, momentum {self.momentum}",
                "use values from 0 to below 1",
            )
        if self.nesterov and not self.momentum:
            raise SettingsError(
                "optim.nesterov is set, but optim.momentum is 0", "set optim.momentum, such as 0.9"
            )


def effective_lr(settings: OptimSettings, batch_size: int) -> tuple[float, str]:
    """The peak learning rate for a batch of this many images (over all micro-batches and processes), and a sentence that says why."""
    lr, share = settings.lr, batch_size / LR_BATCH
    if settings.lr_rule == "none":
        return lr, f"The peak learning rate is {lr:g}, whatever the batch size."
    factor = share if settings.lr_rule == "linear" else math.sqrt(share)
    formula = f"{batch_size} / {LR_BATCH}"
    formula = formula if settings.lr_rule == "linear" else f"sqrt({formula})"
    return (
        lr * factor,
        f"The peak learning rate is {lr * factor:.3g} = {lr:g} x {formula}, as {lr:g} holds for {LR_BATCH} images.",
    )
