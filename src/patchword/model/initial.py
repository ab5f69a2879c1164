"""Random initial weights: which distribution each part of a ViT draws from is said in `ViT.init_weights`."""

import hashlib
import math

import torch
from torch import nn

HOW_TO_DRAW = "add a method reset(generator) to the module that owns them"


def draw_weights(model: nn.Module, blocks: nn.Module, generator: torch.Generator | None) -> None:
    """Fill every tensor of the model. Raises: RuntimeError if one is left over."""
    streams = _Streams(generator)
    stored = {n: t for n, t in model.state_dict(keep_vars=True).items() if t.is_floating_point()}
    for tensor in stored.values():
        tensor.fill_(math.nan)
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            std = module.weight[0].numel() ** -0.5 if isinstance(module, nn.Conv2d) else 0.02
            nn.init.trunc_normal_(module.weight, std=std, a=-2.0, b=2.0, generator=streams.of(name))
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.LayerNorm | nn.RMSNorm | nn.BatchNorm1d | nn.GroupNorm):
            module.reset_parameters()
        elif callable(reset := getattr(module, "reset", None)):
            reset(streams.of(name))
    for name, module in blocks.named_modules():
        if isinstance(module, nn.Linear):
            own = streams.of(f"blocks.{name}")
            for part in module.weight.detach().chunk(3 if name.endswith("qkv") else 1):
                nn.init.xavier_uniform_(part, generator=own)
    # The sum of a tensor is NaN if any element is NaN.
    undrawn = [name for name, tensor in stored.items() if not tensor.sum().isfinite()]
    if undrawn:
        raise RuntimeError(f"init_weights does not initialise {', '.join(undrawn)}: {HOW_TO_DRAW}")


class _Streams:
    """A generator for each name, seeded by the next number of `generator`; torch's global one if that is None."""

    def __init__(self, generator: torch.Generator | None) -> None:
        self._seed = None
        if generator is not None:
            drawn = torch.randint(2**62, (), generator=generator, device=generator.device)
            self._seed, self._device = int(drawn), generator.device

    def of(self, name: str) -> torch.Generator | None:
        if self._seed is None:
            return None
        digest = hashlib.blake2b(f"{self._seed} {name}".encode(), digest_size=8).digest()
        return torch.Generator(self._device).manual_seed(int.from_bytes(digest, "big") >> 1)
