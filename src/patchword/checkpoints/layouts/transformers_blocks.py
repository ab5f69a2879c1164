"""Names of a block's parts in transformers' two spellings, and rules shared by all its towers."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from patchword.checkpoints.layout import Description, Ignored, Rule, rule
from patchword.checkpoints.layouts.blocks import both
from patchword.checkpoints.ops import Joined, Parted, Shape, WithZeros
from patchword.model.config import ViTConfig

MASK_REASON = "stands in for hidden patches in pre-training; it does not affect the output"


@dataclass(frozen=True, kw_only=True)
class Names:
    """Names of a block's parts. first: one name, or gate and value. layer: contains {} for the block's index.

    apart: block names lack the prefix that all other names have.
    """

    layer: str
    q: str
    k: str
    v: str
    out: str
    norm1: str
    norm2: str
    first: tuple[str, ...]
    second: str
    scales: tuple[str, str] | None = None
    apart: bool = False

    def block(self, prefix: str, index: int | str) -> str:
        return f"{'' if self.apart else prefix}{self.layer.format(index)}"


@dataclass(frozen=True)
class Zeros:
    """Tensors that a reader expects but that do not affect the output: written as zeros or ones.

    shapes: their shapes in the file.
    """

    shapes: tuple[Shape, ...]
    value: float = 0.0
    views: bool = field(default=True, init=False)

    def their_shapes(self, ours: Sequence[Shape]) -> list[Shape]:
        return list(self.shapes)

    def read(self, theirs: Sequence[Any], ours: Sequence[Shape]) -> list[Any]:
        return []

    def write(self, ours: Sequence[Any]) -> list[Any]:
        import torch

        return [torch.full(shape, self.value) for shape in self.shapes]


def block_rules(description: Description) -> Iterable[Rule]:
    """Rules for every block, in the description's spelling."""
    config, spelling = description.config, description.spelling
    names: Names = spelling["names"]
    for index in range(config.depth):
        theirs, ours = names.block(spelling["prefix"], index), f"blocks.{index}."
        yield from both(f"{theirs}{names.norm1}", f"{ours}norm1")
        yield from _attention(theirs, ours, names, config, spelling.get("biases", ""))
        yield from both(f"{theirs}{names.norm2}", f"{ours}norm2")
        yield from _mlp(theirs, ours, names, config)
        if config.block.layer_scale is not None and names.scales:
            yield rule(f"{theirs}{names.scales[0]}", f"{ours}scale1.weight")
            yield rule(f"{theirs}{names.scales[1]}", f"{ours}scale2.weight")


def _attention(theirs: str, ours: str, names: Names, config: ViTConfig, biases: str) -> Iterable[Rule]:
    """biases: which of "qkv" the file has, if the config cannot express it; "": those of the config."""

    def parts(part: str) -> tuple[str, ...]:
        return tuple(f"{theirs}{name}.{part}" for name in (names.q, names.k, names.v))

    yield rule(parts("weight"), f"{ours}attention.qkv.weight", Joined(3))
    if biases:
        whole = config.attention.bias
        mine = {"qkv": ("qkv.bias",), "qv": ("q_bias", "v_bias")}[whole]
        there = tuple(letter in biases for letter in whole)
        yield rule(
            tuple(name for letter, name in zip("qkv", parts("bias"), strict=True) if letter in biases),
            tuple(f"{ours}attention.{name}" for name in mine),
            WithZeros(there),
        )
    elif config.attention.bias == "qkv":
        yield rule(parts("bias"), f"{ours}attention.qkv.bias", Joined(3))
    elif config.attention.bias == "qv":
        yield rule(f"{theirs}{names.q}.bias", f"{ours}attention.q_bias")
        yield rule(f"{theirs}{names.v}.bias", f"{ours}attention.v_bias")
    yield from both(f"{theirs}{names.out}", f"{ours}attention.proj", config.attention.out_bias)


def _mlp(theirs: str, ours: str, names: Names, config: ViTConfig) -> Iterable[Rule]:
    for part in ("weight", "bias") if config.mlp.bias else ("weight",):
        first = tuple(f"{theirs}{name}.{part}" for name in names.first)
        yield rule(first, f"{ours}mlp.fc1.{part}", Joined(2) if len(first) == 2 else None)
    yield from both(f"{theirs}{names.second}", f"{ours}mlp.fc2", config.mlp.bias)


def position_rule(name: str, config: ViTConfig, *, batch: bool = True) -> Rule:
    """A table [1, rows, D], or [rows, D] of an Embedding: rows for prefix tokens, then for the grid."""
    prefix = config.num_prefix_positions
    rows = config.grid_size[0] * config.grid_size[1] + prefix
    ours = ("positions.prefix", "positions.grid") if prefix else ("positions.grid",)
    return rule(name, ours, Parted((1, rows, config.dim) if batch else (rows, config.dim)))


def mask_token(prefix: str) -> Ignored:
    return Ignored(rf"{prefix.replace('.', '[.]')}embeddings[.]mask_token", MASK_REASON)
