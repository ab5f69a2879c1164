"""Low-rank adapters on the linear maps of the blocks.

Source: Hu et al. 2022, "LoRA: Low-Rank Adaptation of Large Language Models" (arXiv 2106.09685), section 4.1.
"""

import math
from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from patchword.errors import SettingsError
from patchword.model.linear import Linear, linear

_QKV = ("q", "k", "v")
_LAYERS = {"proj": "attention.proj", "fc1": "mlp.fc1", "fc2": "mlp.fc2"}


class LoRALinear(Linear):
    """W x + b + (alpha / rank) B A dropout(x), where A and B learn; W and b are those of the given layer.

    One weight may hold several maps of equal height (queries, keys, values); each adapted one has its own A and B.

    Shapes: lora_a [adapted maps · rank, in], lora_b [adapted maps · height of a map, rank].

    Args:
        layer: the layer that is adapted; its parameters are shared, not copied.
        maps: the number of maps in the weight. adapted: their indices, ascending.
        generator: source of A, drawn as in the authors' code; B is zero, so the first answer is that of `layer`.

    Raises: SettingsError if the rank is larger than a side of the weight.
    """

    def __init__(
        self,
        layer: Linear,
        *,
        rank: int,
        alpha: float,
        dropout: float = 0.0,
        maps: int = 1,
        adapted: Sequence[int] = (0,),
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__(layer.in_features, layer.out_features, bias=layer.bias is not None, device="meta")
        height = layer.out_features // maps
        if rank > min(height, layer.in_features):
            raise SettingsError(
                f"LoRA's rank {rank} exceeds a weight of {height} x {layer.in_features}",
                f"use a rank up to {min(height, layer.in_features)}, such as --tune lora:8",
            )
        self.weight, self.bias = layer.weight, layer.bias
        self.rank, self.scale, self.maps, self.adapted = rank, alpha / rank, maps, tuple(adapted)
        count, weight = len(self.adapted), layer.weight
        start = torch.empty(count * rank, layer.in_features).uniform_(-1, 1, generator=generator)
        self.lora_a = nn.Parameter((start / math.sqrt(layer.in_features)).to(weight))
        self.lora_b = nn.Parameter(weight.new_zeros(count * height, rank))
        self.lora_dropout = nn.Dropout(dropout)
        self.train(layer.training)

    def outputs(self, x: Tensor, bias: Tensor | None, part: slice | None = None) -> Tensor:
        up = self._up() if part is None else self._up()[part]
        down = linear(self.lora_dropout(x), self.lora_a)
        return super().outputs(x, bias, part) + linear(down, up) * self.scale

    def merged_weight(self) -> Tensor:
        """W + (alpha / rank) B A, computed in float32: [out, in]."""
        change = self._up().float() @ self.lora_a.float() * self.scale
        return (self.weight.float() + change).to(self.weight.dtype)

    def _up(self) -> Tensor:
        """All B as one matrix [out, adapted maps · rank]: block-diagonal, with zero rows for the other maps."""
        count, height = len(self.adapted), self.out_features // self.maps
        rows = [self.lora_b.new_zeros(height, count * self.rank) for _ in range(self.maps)]
        for i, (index, b) in enumerate(zip(self.adapted, self.lora_b.chunk(count), strict=True)):
            rows[index] = F.pad(b, (i * self.rank, (count - 1 - i) * self.rank))
        return torch.cat(rows) if len(rows) > 1 else rows[0]


def add_lora(
    vit: nn.Module,
    *,
    rank: int,
    alpha: float,
    parts: Sequence[str],
    dropout: float = 0.0,
    generator: torch.Generator | None = None,
) -> int:
    """Replace the named linear maps of every block by `LoRALinear`, in place. Returns the number of adapters' parameters.

    vit: a module with `blocks`. parts: out of q, k, v, proj, fc1, fc2.

    Raises: SettingsError if the model lacks one of the layers, or the rank is too large; nothing is replaced then.
    """
    blocks = getattr(vit, "blocks", None)
    found: list[tuple[nn.Module, str, LoRALinear]] = []
    for index, block in enumerate(blocks if isinstance(blocks, nn.ModuleList) else []):
        for path, maps, adapted in _wanted(parts):
            parent = block.get_submodule(path.rpartition(".")[0]) if _has(block, path) else None
            layer = getattr(parent, path.rpartition(".")[2], None)
            if parent is None or not isinstance(layer, Linear) or isinstance(layer, LoRALinear):
                state = "already has an adapter" if isinstance(layer, LoRALinear) else "does not exist"
                raise SettingsError(
                    f"LoRA: the layer blocks.{index}.{path} {state}",
                    "tune another part of the model, such as --tune last:2 or --tune full",
                )
            adapter = LoRALinear(
                layer,
                rank=rank,
                alpha=alpha,
                dropout=dropout,
                maps=maps,
                adapted=adapted,
                generator=generator,
            )
            found.append((parent, path.rpartition(".")[2], adapter))
    if not found:
        raise SettingsError(
            "LoRA: the model has no blocks with linear layers",
            "tune the head or everything: --tune head, --tune full",
        )
    for parent, name, adapter in found:
        setattr(parent, name, adapter)
    return sum(adapter.lora_a.numel() + adapter.lora_b.numel() for _, _, adapter in found)


def adapters(module: nn.Module) -> Iterator[tuple[str, LoRALinear]]:
    """The name of each adapted layer, and the layer."""
    return ((name, part) for name, part in module.named_modules() if isinstance(part, LoRALinear))


@torch.no_grad()
def merged_state(module: nn.Module) -> dict[str, Tensor]:
    """The state dict of the same module without adapters: merged weights under the plain names. `module` is unchanged."""
    state: dict[str, Tensor] = dict(module.state_dict())
    for name, layer in adapters(module):
        prefix = f"{name}." if name else ""
        del state[f"{prefix}lora_a"], state[f"{prefix}lora_b"]
        state[f"{prefix}weight"] = layer.merged_weight()
    return state


@torch.no_grad()
def merge(module: nn.Module) -> None:
    """Replace every adapted layer by a plain one with merged weights, in place."""
    for name, layer in list(adapters(module)):
        plain = Linear(layer.in_features, layer.out_features, bias=layer.bias is not None, device="meta")
        plain.weight = nn.Parameter(layer.merged_weight(), requires_grad=layer.weight.requires_grad)
        plain.bias = layer.bias
        plain.train(layer.training)
        parent, _, last = name.rpartition(".")
        setattr(module.get_submodule(parent), last, plain)


def _wanted(parts: Sequence[str]) -> list[tuple[str, int, tuple[int, ...]]]:
    """The path of each layer in a block, the number of maps in it, and the indices of those that are adapted."""
    qkv = tuple(i for i, part in enumerate(_QKV) if part in parts)
    joined = [("attention.qkv", 3, qkv)] if qkv else []
    return joined + [(path, 1, (0,)) for part, path in _LAYERS.items() if part in parts]


def _has(block: nn.Module, path: str) -> bool:
    return any(name == path for name, _ in block.named_modules())
