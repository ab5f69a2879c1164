"""Make the optimiser of the settings."""

from collections.abc import Sequence
from typing import Any, assert_never

from torch import nn

from patchword.training.adamw import AdamW
from patchword.training.groups import Group, parameter_groups
from patchword.training.lamb import LAMB
from patchword.training.lars import LARS
from patchword.training.muon import Muon
from patchword.training.optim_settings import OptimSettings
from patchword.training.optimiser import Optimiser
from patchword.training.sgd import SGD


def make_optimiser(
    model: nn.Module, settings: OptimSettings, groups: Sequence[Group] | None = None
) -> Optimiser:
    """Create the optimiser for the trainable groups of `model`; without groups, for what requires a gradient.

    Groups with the same rate and decay become one, because each costs a call. Muon's matrices come first, then what decays.
    """
    if groups is None:
        groups = parameter_groups(model, settings)
    joined: dict[tuple[int, float, float], list[nn.Parameter]] = {}
    for group in groups:
        if group.trainable:
            key = (group.matrices, group.weight_decay, group.lr_scale)
            joined.setdefault(key, []).extend(group.parameters)
    # Without decay last; Muon's first, by the number of maps.
    ordered = sorted(joined, key=lambda key: (key[0] == 0, key[0], -key[1], key[2]))
    found: list[dict[str, Any]] = []
    for matrices, decay, scale in ordered:
        group_dict = {"params": joined[matrices, decay, scale], "weight_decay": decay, "lr_scale": scale}
        found.append({**group_dict, "matrices": matrices} if matrices else group_dict)
    betas = (settings.beta1, settings.beta2)
    match settings.method:
        case "adamw":
            return AdamW(found, lr=settings.lr, betas=betas)
        case "muon":
            return Muon(found, lr=settings.lr, betas=betas)
        case "lamb":
            return LAMB(found, lr=settings.lr, betas=betas)
        case "lars":
            return LARS(found, lr=settings.lr, momentum=settings.momentum)
        case "sgd":
            return SGD(found, lr=settings.lr, momentum=settings.momentum, nesterov=settings.nesterov)
        case _:
            assert_never(settings.method)
