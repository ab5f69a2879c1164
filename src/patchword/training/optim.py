"""Group parameters by weight decay and optimiser."""

from typing import Any

from torch import nn

from patchword.model.attention import Attention
from patchword.model.mlp import MLP
from patchword.training.adamw import AdamW
from patchword.training.muon import Muon
from patchword.training.optim_settings import OptimSettings

# Biases and norms are recognised by their single axis; these have more but are not weights of a linear map.
NOT_DECAYED = ("prefix.", "positions.", "attention_positions.")


def decays(name: str, parameter: nn.Parameter) -> bool:
    """Matrices and the patch kernel decay; biases, norms, factors, tokens and positions do not."""
    return parameter.ndim >= 2 and not name.removeprefix("vit.").startswith(NOT_DECAYED)


def make_optimiser(model: nn.Module, settings: OptimSettings) -> AdamW:
    """Create AdamW with two groups, with and without decay; with Muon, groups for the blocks' matrices come first."""
    named = {n: p for n, p in model.named_parameters() if p.requires_grad}
    by_muon = _matrices_of_blocks(model) if settings.method == "muon" else {}
    groups: list[dict[str, Any]] = [
        {
            "params": [named[n] for n, maps in by_muon.items() if maps == count and n in named],
            "weight_decay": settings.weight_decay,
            "matrices": count,
        }
        for count in sorted(set(by_muon.values()))
    ]
    rest = {n: p for n, p in named.items() if n not in by_muon}
    groups += [
        {"params": [p for n, p in rest.items() if decays(n, p)], "weight_decay": settings.weight_decay},
        {"params": [p for n, p in rest.items() if not decays(n, p)], "weight_decay": 0.0},
    ]
    kind = Muon if settings.method == "muon" else AdamW
    return kind(groups, lr=settings.lr, betas=(settings.beta1, settings.beta2))


def _matrices_of_blocks(model: nn.Module) -> dict[str, int]:
    """Name of each linear layer's weight in a block → the number of maps of equal height in it."""
    maps = {}
    for name, module in model.named_modules():
        if name.removeprefix("vit.").startswith("blocks.") and isinstance(module, nn.Linear):
            part = model.get_submodule(name.rpartition(".")[0])
            three = isinstance(part, Attention) and module is part.qkv
            two = isinstance(part, MLP) and part.gated and module is part.fc1
            maps[f"{name}.weight"] = 3 if three else 2 if two else 1
    return maps
